"""The vocabulary of a GGUF model: text to token ids, and ids to bytes."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import numpy as np

from sprat.errors import EngineError, InvalidInput
from sprat.values import IntArray

_TOO_MANY = -(2**31)  # INT32_MIN
_CONTROL_OR_UNKNOWN = 0x1 | 0x8  # LLAMA_TOKEN_ATTR_UNKNOWN, LLAMA_TOKEN_ATTR_CONTROL


class Vocabulary:
    """Thread-safe, as llama.cpp's tokenizer is.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    model : pointer
        A loaded model, which outlives this object.

    Attributes
    ----------
    size : int
        Tokens in the vocabulary.
    bos, eos : str
        Texts of the tokens that begin and end a text; empty where the model has none.
    end_id : int
        The token of ``eos``, which ends an answer; -1 where there is none.
    end_ids : list of int
        Every token that ends an answer, that of ``eos`` first.
    control_ids : int32[C]
        Tokens that structure a prompt, such as ``<|im_end|>``. Their text is special only to who
        asks for it (``parse_special``).
    is_control : bool[V]
        Whether a token is one of these.
    controls : re.Pattern
        Matches each character of a text with which one of their texts begins.
    """

    def __init__(self, lib: Any, model: Any) -> None:
        self._lib = lib
        self._vocab = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self._pieces: list[bytes | None] = [None] * self.size
        bos, eos = lib.llama_vocab_bos(self._vocab), lib.llama_vocab_eos(self._vocab)
        self.end_id = int(eos)
        self.bos = "" if bos < 0 else self.text(bos)
        self.eos = "" if eos < 0 else self.text(eos)
        adds_bos = bos >= 0 and lib.llama_vocab_get_add_bos(self._vocab)
        self._prefix = np.array([bos] if adds_bos else [], np.int32)
        attributes = lib.llama_vocab_get_attr
        special = [i for i in range(self.size) if attributes(self._vocab, i) & _CONTROL_OR_UNKNOWN]
        self.control_ids = np.array(special, np.int32)
        self.is_control = np.zeros(self.size, bool)
        self.is_control[special] = True
        ends = [token for token in special if self.is_end(token) and token != self.end_id]
        self.end_ids = [self.end_id, *ends] if eos >= 0 else ends
        texts = {
            lib.llama_vocab_get_text(self._vocab, i).decode("utf-8", "replace") for i in special
        }
        alternatives = "|".join(re.escape(text) for text in sorted(texts - {""}))
        self.controls = re.compile(f"(?={alternatives})." if alternatives else "(?!)", re.DOTALL)
        # Some vocabularies put a space in front of a text.
        alone = self.tokenize("x", parse_special=False).tolist()
        self._mark = "" if b"".join(map(self.piece, alone)) == b"x" else "\x02"
        self._mark_length = len(self.tokenize(self._mark, parse_special=False))

    def tokenize(self, text: str, *, parse_special: bool) -> IntArray:
        """Tokens of a text, and nothing before or after them: int32[T].

        Raises
        ------
        InvalidInput
            The text has a lone surrogate.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"expected Unicode text, got a lone surrogate at character {error.start}",
                field="text",
            ) from None
        # Mostly a token has at least one byte. A space may become a sign of three, though, and each
        # of those a token where the vocabulary lacks the sign.
        count = -(len(data) + 8)
        while count < 0:
            ids = np.empty(-count, np.int32)
            count = self._lib.llama_tokenize(
                self._vocab,
                data,
                len(data),
                ids.ctypes.data_as(self._lib.llama_token_p),
                len(ids),
                False,
                parse_special,
            )
            if count == _TOO_MANY:
                raise EngineError(f"llama.cpp cannot tokenize {len(data)} bytes")
        return ids[:count].copy()

    def continuation(self, text: str) -> IntArray:
        """Tokens of a text that goes on behind others: int32[T]. None of them is special.

        Raises
        ------
        InvalidInput
            As in `tokenize`.
        """
        return self.tokenize(self._mark + text, parse_special=False)[self._mark_length :]

    def with_bos(self, ids: IntArray) -> IntArray:
        """The tokens, after the one that begins a text where the model wants it."""
        if np.array_equal(ids[: len(self._prefix)], self._prefix):
            return ids
        return np.concatenate([self._prefix, ids])

    def piece(self, token: int) -> bytes:
        """What a token adds to an answer: its bytes; none for a control token."""
        piece = self._pieces[token]
        if piece is None:
            piece = self._pieces[token] = self._bytes(token, special=False)
        return piece

    def raw(self, token: int) -> bytes:
        """The bytes of a token, also of a control token."""
        return self._bytes(token, special=True)

    def text(self, token: int) -> str:
        """A token as text, for people. Invalid UTF-8 becomes U+FFFD."""
        return self.raw(token).decode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        """Whether the model ends its answer with this token."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def _bytes(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length
