"""Text to token ids for encoders, and the rules for texts that nothing can be said of.

Today this stands on the ``tokenizers`` library. Its own threads are switched off unless
``TOKENIZERS_PARALLELISM`` is set already: they would run beside the CPU budget.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from sprat.errors import CorruptFile, InputTooLong, InvalidInput
from sprat.values import IntArray, Truncation

# Read by the library when it first meets a batch.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Anything but white space, control characters (Cc) and invisible format characters (Cf).
_VISIBLE = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0001\U000e0020-\U000e007f]"
)


class Tokenizer:
    """The tokenizer of one encoder. Any number of threads may use it at once.

    Text is never read as markup: a literal ``[SEP]`` in a text is a bracket, letters and a
    bracket. A NUL or another control character is whatever the model's own normalizer makes of it
    (BERT's drops it).

    Attributes
    ----------
    name : str
        For people, such as ``tokenizers (WordPiece)``.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.name = f"tokenizers ({type(backend.model).__name__})"
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        self._backend = backend

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a tokenizer.json; padding and truncation that it asks for are switched off.

        Parameters
        ----------
        path : Path
            The file.

        Raises
        ------
        CorruptFile
            The file is missing, cut or malformed.
        """
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no class of its own
            raise CorruptFile(str(path), f"not a tokenizer ({error})") from None
        return cls(backend)

    def encode_batch(self, texts: Sequence[str]) -> list[IntArray]:
        """Token ids of each text, special tokens included, however many they are.

        Parameters
        ----------
        texts : sequence of str
            Texts that `check_text` accepts.

        Returns
        -------
        list of int32[T_i]
            New arrays, in the order of ``texts``. A text of which the normalizer leaves nothing
            gives the special tokens alone.
        """
        encodings = self._backend.encode_batch_fast(texts)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def tokens(self, ids: IntArray) -> tuple[str, ...]:
        """The vocabulary's entry for each id, for people; empty where there is none."""
        return tuple(self._backend.id_to_token(token) or "" for token in ids.tolist())


def check_text(text: str, field: str) -> None:
    """Refuse what no answer can be given for.

    Parameters
    ----------
    text : str
        A text of a request. NUL and other control characters are accepted beside visible ones.
    field : str
        Where it stands in the request, such as ``texts[3]``.

    Raises
    ------
    InvalidInput
        It is not a str; is empty or holds nothing but white space, control characters and
        invisible format characters; or holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{field}: expected text, got {type(text).__name__}", field=field)
    if _VISIBLE.search(text) is None:
        kind = "holds no visible character" if text else "is empty"
        raise InvalidInput(f"{field}: {kind}", field=field)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{field}: half a surrogate pair at index {error.start}, which is not text",
                field=field,
                metadata={"index": str(error.start)},
            ) from None


def fit(ids: IntArray, *, limit: int, truncation: Truncation, field: str) -> tuple[IntArray, int]:
    """Hold a row to the limit.

    Parameters
    ----------
    ids : int32[T]
        Token ids of a text, the last one the special token that ends it.
    limit : int
        Most tokens, at least 2.
    truncation : {"refuse", "truncate"}
        What happens to a longer row.
    field : str
        Where the text stands in the request, such as ``texts[3]``.

    Returns
    -------
    ids : int32[min(T, limit)]
        The row; a truncated one keeps its beginning and its last token.
    dropped : int
        Tokens that were cut out.

    Raises
    ------
    InputTooLong
        More tokens than the limit, under "refuse".
    """
    dropped = len(ids) - limit
    if dropped <= 0:
        return ids, 0
    if truncation == "refuse":
        raise InputTooLong(
            field=field,
            tokens=len(ids),
            limit=limit,
            hint="send a shorter text, or ask for truncation",
        )
    return np.concatenate((ids[: limit - 1], ids[-1:])), dropped
