"""The engine for static models: a text's vector is the mean of its tokens' rows in a table.

BERT's tokenizers run inside our own kernel, from text to vector in one call. All others go through
the ``tokenizers`` library first. Both read text as the model2vec library does: at most so many
characters and then so many tokens of it, and no unknown tokens. Unlike there, a literal ``[PAD]``
in a text is text: see `sprat.tokenizer.Tokenizer`.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sprat import static_table
from sprat.errors import CorruptFile
from sprat.kernels import (
    Embedded,
    StaticEmbedding,
    WordPiece,
    WordPieceSettings,
    embedding_bag,
)
from sprat.static_table import StaticTable
from sprat.tokenizer import Tokenizer, read_library


class StaticEncoder:
    """A static model from the folder that `sprat.static_table` describes.

    Any number of threads may use it at once.

    Parameters
    ----------
    folder : Path
        Holds model.safetensors, config.json and tokenizer.json.

    Attributes
    ----------
    tokenizer : Tokenizer
        Text to the ids that rows are looked up by; no special tokens.
    dimension : int
        Length of a vector.
    quantization : {"int8", "float16", "float32"}
        Type of the table.
    max_tokens : int
        Tokens that are read of a text, unknown ones included.
    max_characters : int
        Code points that are read of a text: ``max_tokens`` times the median length of a token, a
        limit that spares tokenizing the rest of long texts.

    Raises
    ------
    CorruptFile, UnsupportedModel
        A file is missing, malformed, or does not fit the others.
    """

    def __init__(self, folder: Path) -> None:
        table = static_table.read(folder)
        path = folder / static_table.TOKENIZER
        ids: Mapping[str, int]
        try:
            settings = WordPieceSettings.from_tokenizer_json(path)
        except (OSError, ValueError):
            backend = read_library(path)
            ids = backend.get_vocab()
            _check_ids(path, ids, table)
            self.tokenizer = Tokenizer(backend, add_special=False)
            self._run: _Fused | _Library = _Library(self.tokenizer, unknown_token(path), table)
        else:
            settings = replace(settings, before=(), after=())
            ids = settings.vocabulary
            _check_ids(path, ids, table)
            self.tokenizer = Tokenizer(WordPiece(settings))
            self._run = _Fused(settings, table)
        self.dimension = table.values.shape[1]
        self.quantization = table.quantization
        self.max_tokens = table.max_tokens
        self.max_characters = self.max_tokens * int(statistics.median(map(len, ids)))

    def encode(self, texts: Sequence[str]) -> Embedded:
        """Vectors of texts.

        Parameters
        ----------
        texts : sequence of str
            Texts that `sprat.tokenizer.check_text` accepts.

        Returns
        -------
        Embedded
            ``vectors`` float32[B, dimension]; the ``tokens`` that each is the mean of, none for a
            text without a known token, whose vector is zero; and how many were ``dropped`` as too
            many.
        """
        read = [text[: self.max_characters] for text in texts]
        embedded = self._run.encode(read, self.max_tokens)
        for index, text in enumerate(texts):
            if len(text) > self.max_characters:
                (kept,), _ = self.tokenizer.encode_within([read[index]], self.max_tokens)
                embedded.dropped[index] = max(0, self.count_tokens(text) - len(kept))
        return embedded

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, however many they are; in little memory where the kernel counts."""
        (row,), (dropped,) = self.tokenizer.encode_within([text], self.max_tokens)
        return len(row) + dropped


class _Fused:
    """All in one kernel, for a WordPiece tokenizer that the kernel knows."""

    def __init__(self, settings: WordPieceSettings, table: StaticTable) -> None:
        self._static = StaticEmbedding(
            settings, table.values, table.weights, table.normalize, table.rows
        )

    def encode(self, texts: Sequence[str], limit: int) -> Embedded:
        return self._static.encode_batch(texts, limit, count_dropped=True)


@dataclass(frozen=True, slots=True)
class _Library:
    """Any other tokenizer, then the embedding bag."""

    tokenizer: Tokenizer
    unknown: int | None
    table: StaticTable

    def encode(self, texts: Sequence[str], limit: int) -> Embedded:
        rows, dropped = self.tokenizer.encode_within(texts, limit)
        known = [row if self.unknown is None else row[row != self.unknown] for row in rows]
        lengths = [len(row) for row in known]
        vectors = embedding_bag(
            np.concatenate([np.empty(0, np.int32), *known]),
            np.array([0, *itertools.accumulate(lengths)], np.int64),
            self.table.values,
            self.table.weights,
            self.table.normalize,
            self.table.rows,
        )
        return Embedded(vectors, np.array(lengths, np.int64), np.array(dropped, np.int64))


def _check_ids(path: Path, ids: Mapping[str, int], table: StaticTable) -> None:
    size = table.vocabulary_size
    if len(ids) != size or not 0 <= min(ids.values()) <= max(ids.values()) < size:
        raise CorruptFile(
            str(path),
            f"expected {size} tokens, as many as the table is for, with ids in [0, {size}), "
            f"got {len(ids)} with ids in [{min(ids.values())}, {max(ids.values())}]",
        )


def unknown_token(path: Path) -> int | None:
    """The id of what a tokenizer.json puts for an unknown word; None where it has none.

    Raises
    ------
    CorruptFile
        The file is malformed.
    """
    try:
        model: dict[str, Any] = json.loads(path.read_bytes())["model"]
        unknown = model.get("unk_id")
        if unknown is None and model.get("unk_token") is not None:
            unknown = model["vocab"].get(model["unk_token"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(str(path), f"model is malformed ({type(error).__name__})") from None
    if unknown is not None and type(unknown) is not int:
        raise CorruptFile(str(path), f"unknown token: expected an id, got {unknown!r}")
    return unknown
