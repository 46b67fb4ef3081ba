"""Text to token ids for encoders, and the rules for texts that nothing can be said of.

BERT's tokenizers run on our own kernel, all others on the ``tokenizers`` library. Its own threads
are switched off unless ``TOKENIZERS_PARALLELISM`` is set already: they would run beside the CPU
budget.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sprat.errors import CorruptFile, InvalidInput
from sprat.kernels import WordPiece
from sprat.values import IntArray

if TYPE_CHECKING:
    import tokenizers

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

    Parameters
    ----------
    backend : WordPiece or tokenizers.Tokenizer
        What does the work. One of the library is changed: it pads and cuts nothing.
    add_special : bool, default True
        Whether the library's puts special tokens around a text. Of `WordPiece`, its settings say.

    Attributes
    ----------
    name : str
        For people, whose it is and of what kind: ``sprat (WordPiece)``, ``tokenizers (Unigram)``.
    """

    def __init__(
        self, backend: WordPiece | tokenizers.Tokenizer, *, add_special: bool = True
    ) -> None:
        self._backend = backend
        self._add_special = add_special
        if isinstance(backend, WordPiece):
            self.name = "sprat (WordPiece)"
        else:
            self.name = f"tokenizers ({type(backend.model).__name__})"
            backend.no_padding()
            backend.no_truncation()
            backend.encode_special_tokens = True

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
        with contextlib.suppress(OSError, ValueError):
            return cls(WordPiece.from_tokenizer_json(path))
        # The library knows more kinds; and it says what is wrong.
        return cls(read_library(path))

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
        return self._encode(texts, None)[0]

    def encode_within(self, texts: Sequence[str], limit: int) -> tuple[list[IntArray], list[int]]:
        """Token ids of each text, cut to a limit.

        Our own kernel keeps no more than the limit in memory, however long a text is; the rest is
        read only to be counted.

        Parameters
        ----------
        texts : sequence of str
            Texts that `check_text` accepts.
        limit : int
            Most tokens of a row, at least 2.

        Returns
        -------
        ids : list of int32[min(T_i, limit)]
            New arrays. A row that was cut keeps its beginning, and the special token at its end
            where there is one.
        dropped : list of int
            Tokens that were cut out of each row.
        """
        return self._encode(texts, limit)

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[IntArray, IntArray]]:
        """Token ids of each text, and where in the text each token stands.

        Parameters
        ----------
        texts : sequence of str
            Texts that `check_text` accepts.

        Returns
        -------
        list of (int32[T_i], int32[T_i, 2])
            Ids as `encode_batch` gives them, special tokens included. Start and end of each token
            in code points of the text as it was given; 0 and 0 for special tokens.
        """
        if isinstance(self._backend, WordPiece):
            rows = self._backend.encode_batch(texts)
            edges = itertools.pairwise(rows.offsets.tolist())
            return [(rows.ids[start:end], rows.spans[start:end]) for start, end in edges]
        return [
            (np.array(each.ids, np.int32), np.array(each.offsets, np.int32).reshape(-1, 2))
            for each in self._backend.encode_batch(texts)
        ]

    def tokens(self, ids: IntArray) -> tuple[str, ...]:
        """The vocabulary's entry for each id, for people; empty where there is none."""
        if isinstance(self._backend, WordPiece):
            return self._backend.tokens(ids)
        return tuple(self._backend.id_to_token(token) or "" for token in ids.tolist())

    def _encode(self, texts: Sequence[str], limit: int | None) -> tuple[list[IntArray], list[int]]:
        if isinstance(self._backend, WordPiece):
            rows = self._backend.encode_batch(texts, limit, count_dropped=True)
            edges = itertools.pairwise(rows.offsets.tolist())
            return [rows.ids[start:end] for start, end in edges], rows.dropped.tolist()
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=self._add_special)
        whole = [np.array(encoding.ids, np.int32) for encoding in encodings]
        if limit is None:
            return whole, [0] * len(whole)
        keep_end = self._add_special
        return [_cut(ids, limit, keep_end) for ids in whole], [
            max(0, len(ids) - limit) for ids in whole
        ]


def read_library(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer.json with the ``tokenizers`` library.

    Raises
    ------
    CorruptFile
        The file is missing, cut or malformed.
    """
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no class of its own
        raise CorruptFile(str(path), f"not a tokenizer ({error})") from None


def _cut(ids: IntArray, limit: int, keep_end: bool) -> IntArray:
    if len(ids) <= limit:
        return ids
    return np.concatenate((ids[: limit - 1], ids[-1:])) if keep_end else ids[:limit]


def is_visible(text: str) -> bool:
    """Whether a text has more than white space, control and invisible format characters."""
    return _VISIBLE.search(text) is not None


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
    if not is_visible(text):
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
