"""Texts to token ids for encoders, with the model's own ``tokenizer.json``.

What a user writes is never a special token: a literal ``[SEP]`` is tokenized like any other text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# One text is too little to share out, and batches run on the CPU budget, not beside it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tokenizers

from sprat.errors import CorruptFile, InputTooLong, InvalidInput
from sprat.values import IntArray, Truncation


class Tokenizer:
    """A tokenizer of the `tokenizers` library. Safe to share between threads.

    Parameters
    ----------
    inner : tokenizers.Tokenizer
        Its padding and truncation are turned off.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True
        self._inner = inner

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Raises
        ------
        CorruptFile
            When it is missing or the library cannot read it.
        """
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # The library raises bare Exception.
            raise CorruptFile(str(path), f"no tokenizer.json: {error}") from None

    @property
    def name(self) -> str:
        """What tokenizes, for people: ``tokenizers (WordPiece)``."""
        return f"tokenizers ({type(self._inner.model).__name__})"

    def encode_batch(self, texts: Sequence[str]) -> list[IntArray]:
        """Token ids of each text, special tokens included: int32[T_i], of any length.

        Releases the GIL while it works.
        """
        encodings = self._inner.encode_batch_fast(list(texts))
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def tokens(self, ids: IntArray) -> tuple[str, ...]:
        """Each token as text, for people."""
        return tuple(self._inner.id_to_token(i) or "" for i in ids.tolist())


def check_text(text: object, *, field: str) -> None:
    """Check that something is a text that can be tokenized.

    Raises
    ------
    InvalidInput
        For what is no str, empty, only white space, or has a lone surrogate (named by position).
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{field}: expected str, got {type(text).__name__}", field=field)
    if not text or text.isspace():
        raise InvalidInput(f"{field}: expected a text, got an empty one", field=field)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{field}: lone surrogate at character {error.start}", field=field
            ) from None


def fit(
    ids: IntArray, *, limit: int, truncation: Truncation, field: str
) -> tuple[IntArray, int]:
    """Ids that fit the model, and how many were dropped.

    Truncation drops tokens at the end of the text and keeps the final special token.

    Parameters
    ----------
    ids : int32[T]
        Token ids, special tokens included.
    limit : int
        Most tokens that are accepted.
    truncation : {"refuse", "truncate"}
        What happens beyond it.

    Raises
    ------
    InputTooLong
        When there are more and ``truncation`` is ``refuse``.
    """
    excess = len(ids) - limit
    if excess <= 0:
        return ids, 0
    if truncation == "refuse":
        raise InputTooLong(
            field=field, tokens=len(ids), limit=limit, hint="shorten it or allow truncation"
        )
    return np.concatenate([ids[: limit - 1], ids[-1:]]), excess
