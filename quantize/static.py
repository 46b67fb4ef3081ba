"""An encoder to a table of token embeddings: a static model, some hundred times as fast.

The method of Model2Vec: every token of the vocabulary goes through the encoder alone, between the
special tokens that the encoder puts around a text; the sentence vectors are reduced by a principal
component analysis; frequent tokens weigh less. Frequencies are not counted but follow from the
order of the vocabulary, which is that of frequency in the vocabularies of BERT's family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from sprat.errors import CorruptFile, InvalidInput, UnsupportedModel
from sprat.progress import Progress, Silent
from sprat.static_table import MAX_LENGTH, Quantization, StaticTable, Values
from sprat.values import FloatArray, IntArray

DIMENSION = 384
"""Most components that are kept by default: what MiniLM-L6 has. On BANKING77, a head on 256 of them
was right for 90.1 % of the test rows, on all 384 for 90.8 %."""

SIF = 1e-4
"""Where smooth inverse frequency begins to take weight away: a share of all tokens."""

BATCH = 64
"""Rows of a call to the encoder."""

_UNUSED = re.compile(r"\[unused\d+\]")

Embed = Callable[[Sequence[IntArray]], FloatArray]
"""Rows of token ids to their sentence vectors, float32[B, D]."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of an encoder, as far as a table needs them.

    Attributes
    ----------
    size : int
        Ids are below it.
    content : int32[N]
        Ids of the tokens that texts are made of, ascending: no special and no unused ones.
    before, after : tuple of int
        Ids of the special tokens around a text.
    """

    size: int
    content: IntArray
    before: tuple[int, ...]
    after: tuple[int, ...]


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the tokenizer.json of an encoder.

    Raises
    ------
    CorruptFile
        It is missing or malformed.
    UnsupportedModel
        Its ids have gaps, or its special tokens are not a frame around a text.
    """
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no class of its own
        raise CorruptFile(str(path), f"not a tokenizer ({error})") from None
    backend.no_padding()
    backend.no_truncation()
    ids = backend.get_vocab()
    if sorted(ids.values()) != list(range(len(ids))):
        raise UnsupportedModel(f"{path}: expected token ids from 0 on without gaps")
    special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    content = sorted(i for t, i in ids.items() if i not in special and not _UNUSED.fullmatch(t))
    if not content:
        raise UnsupportedModel(f"{path}: holds no tokens but special ones")
    framed = backend.encode("a")
    inner = [i for i, mask in enumerate(framed.special_tokens_mask) if not mask]
    if not inner:
        raise UnsupportedModel(f"{path}: a text of one letter becomes no token")
    return Vocabulary(
        size=len(ids),
        content=np.array(content, np.int32),
        before=tuple(framed.ids[: inner[0]]),
        after=tuple(framed.ids[inner[-1] + 1 :]),
    )


def distil(
    vocabulary: Vocabulary,
    embed: Embed,
    *,
    dimension: int | None = None,
    sif: float = SIF,
    progress: Progress | None = None,
) -> StaticTable:
    """Make a table of an encoder's vocabulary.

    Parameters
    ----------
    embed : callable
        The encoder.
    dimension : int, optional
        Components to keep, from 1 to the encoder's dimension, and fewer than tokens. Absent: as
        many as there are, at most `DIMENSION`.
    sif : float
        A token of frequency p weighs ``sif / (sif + p)``; above 0. Large values weigh all alike.
    progress : Progress, optional
        Told of every batch of tokens.

    Returns
    -------
    StaticTable
        In float32; see `quantize`. Rows of special and unused tokens, which no text has, are zero.

    Raises
    ------
    InvalidInput
        ``dimension`` or ``sif`` is out of range.

    References
    ----------
    Tulkens and van Dongen, "Model2Vec", 2024; Arora, Liang and Ma, "A simple but tough-to-beat
    baseline for sentence embeddings", ICLR 2017, for the weights.
    """
    progress = Silent() if progress is None else progress
    if not sif > 0:
        raise InvalidInput(f"sif: expected a number above 0, got {sif}", field="sif")
    vectors_nd = _embed_tokens(vocabulary, embed, progress)
    count, width = vectors_nd.shape
    most = min(width, count - 1)
    dimension = min(most, DIMENSION) if dimension is None else dimension
    if not 1 <= dimension <= most:
        raise InvalidInput(f"dimension: expected 1 to {most}, got {dimension}", field="dimension")
    progress.phase(f"reduce {width} to {dimension} dimensions")
    reduced_nh = principal_components(vectors_nd, dimension) * zipf_weights(count, sif)[:, None]
    values = np.zeros((vocabulary.size, dimension), np.float32)
    values[vocabulary.content] = reduced_nh
    return StaticTable(values, None, None, normalize=True, max_tokens=MAX_LENGTH)


def _embed_tokens(vocabulary: Vocabulary, embed: Embed, progress: Progress) -> FloatArray:
    before, after = list(vocabulary.before), list(vocabulary.after)
    count = len(vocabulary.content)
    progress.phase(f"embed {count} tokens", total=count)
    parts = []
    for start in range(0, count, BATCH):
        tokens = vocabulary.content[start : start + BATCH].tolist()
        parts.append(embed([np.array([*before, t, *after], np.int32) for t in tokens]))
        progress.advance(len(tokens))
    return np.concatenate(parts)


def principal_components(vectors_nd: FloatArray, dimension: int) -> npt.NDArray[np.float64]:
    """Project vectors, less their mean, on the directions of their largest variance.

    Parameters
    ----------
    vectors_nd : float32[N, D]
    dimension : int
        Directions to keep, from 1 to D.

    Returns
    -------
    float64[N, dimension]
        Largest variance first. The largest part of each direction is positive, so that the same
        vectors give the same signs.
    """
    centred_nd = vectors_nd.astype(np.float64) - vectors_nd.mean(axis=0, dtype=np.float64)
    _, directions_dd = np.linalg.eigh(centred_nd.T @ centred_nd)
    directions_dh = directions_dd[:, ::-1][:, :dimension]
    largest_h = np.abs(directions_dh).argmax(axis=0)
    directions_dh = directions_dh * np.sign(directions_dh[largest_h, np.arange(dimension)])
    projected: npt.NDArray[np.float64] = centred_nd @ directions_dh
    return projected


def zipf_weights(count: int, sif: float) -> npt.NDArray[np.float64]:
    """Weights of tokens in the order of their frequency.

    Parameters
    ----------
    count : int
        How many, from 1.
    sif : float
        Above 0.

    Returns
    -------
    float64[count]
        ``sif / (sif + p)``, where the frequency p of the token at place r, from 0, is 1 / (r + 2)
        over the sum of all (Zipf's law).
    """
    inverse_n = 1.0 / np.arange(2, count + 2)
    weights: npt.NDArray[np.float64] = sif / (sif + inverse_n / inverse_n.sum())
    return weights


def quantize(table: StaticTable, to: Quantization) -> StaticTable:
    """Store a table in another type.

    Int8 rows have a scale each, so that light tokens keep their direction; scales go into the
    weights, which the library multiplies by as well.

    Parameters
    ----------
    table : StaticTable
        In float32 or float16; one in int8 only stays what it is.

    Raises
    ------
    InvalidInput
        A table in int8 cannot become anything else; or a value does not fit float16.
    """
    if table.quantization == to:
        return table
    if table.quantization == "int8":
        raise InvalidInput(
            f"quantization: the table is int8 already, and cannot become {to}", field="quantization"
        )
    values = table.values.astype(np.float32)
    if to != "int8":
        with np.errstate(over="ignore"):
            stored: Values = values.astype(to)
        if not np.isfinite(stored).all():
            raise InvalidInput(
                f"quantization: the table holds values too large for {to}", field="quantization"
            )
        return replace(table, values=stored)
    scales = np.abs(values).max(axis=1) / np.float32(127)
    units = np.where(scales > 0, scales, np.float32(1))
    stored = np.rint(values / units[:, None]).astype(np.int8)
    of_tokens = scales if table.rows is None else scales[table.rows]
    weights = of_tokens if table.weights is None else of_tokens * table.weights
    return replace(table, values=stored, weights=weights.astype(np.float32))


def plain_tokenizer(path: Path) -> str:
    """The tokenizer.json of an encoder without what a static model has no use for.

    Special tokens around texts, padding and truncation go.

    Raises
    ------
    CorruptFile
        It cannot be read, or is no JSON object.
    """
    try:
        document: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise CorruptFile(str(path), f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise CorruptFile(str(path), "not JSON") from None
    if not isinstance(document, dict):
        raise CorruptFile(str(path), f"expected an object, found {type(document).__name__}")
    return json.dumps(
        {**document, "post_processor": None, "padding": None, "truncation": None},
        ensure_ascii=False,
    )
