"""A tagger: from the states of a text's tokens to the spans of a task's fields.

Each token gets a score for each tag of the BIOES scheme: from its state and those of its
neighbours, by what the tokens are and look like, and by what was asked for. The tags with the
highest sum of these scores and of learned transitions, among those that make whole spans, are the
answer (Viterbi); a span's score is its probability under the conditional random field.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from sprat.crf import Lattice, Sequences
from sprat.errors import CorruptFile, EngineError
from sprat.kernels import viterbi
from sprat.tagging import OUTSIDE, constraints
from sprat.values import FloatArray, IntArray, TokenStates

NEIGHBOURS = (-1, 0, 1)
"""Tokens whose identity and look count, from a token on."""

SHAPES = 16
"""Ways a token can look; see `shapes`."""

_LEAST_DOUBT = 1e-12
"""A probability is taken to be no nearer to 0 or 1: its log-odds stay finite."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span that was found.

    Attributes
    ----------
    field : str
        What it is.
    start, end : int
        Characters of the text, from ``start`` to before ``end``.
    score : float
        Probability in [0, 1] by the model's own lights.
    """

    field: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tagger makes of a text.

    Attributes
    ----------
    spans : list of Span
        In the order of the text. Spans do not overlap.
    chance : float
        Probability in [0, 1] of all of its tags together, by the model's own lights: that these
        spans are there and nothing else is. 1 of a text without tokens.
    """

    spans: list[Span]
    chance: float


def tags_of(fields: Sequence[str]) -> tuple[str, ...]:
    """The tags for fields, in the order of a tagger's scores: ``O``, then four for each field."""
    return (OUTSIDE, *(f"{prefix}-{field}" for field in fields for prefix in "BIES"))


def shapes(token: str) -> list[int]:
    """What a token looks like, as numbers from 0 to `SHAPES` - 1.

    0: digits only; 1 to 4: so many of them, or more; 5: digits and others; 6: begins with a capital
    letter; 7: capital letters only, several; 8: neither letters nor digits; 9: letters only; 10 to
    15: one to six characters, or more.

    Examples
    --------
    >>> shapes("19"), shapes("McD")
    ([0, 2, 11], [6, 9, 12])
    """
    found = []
    if token.isdigit():
        found += [0, min(len(token), 4)]
    elif any(character.isdigit() for character in token):
        found.append(5)
    if token[:1].isupper():
        found.append(6)
    if len(token) > 1 and token.isupper():
        found.append(7)
    if not any(character.isalnum() for character in token):
        found.append(8)
    if token.isalpha():
        found.append(9)
    found.append(9 + min(max(len(token), 1), 6))
    return found


class Indicators:
    """Features of a token that are there or not, each with a row in a tagger's table.

    By the identity and the look of the token and its neighbours, whether the token is glued to
    them, which fields were requested, and how the token looks where a field was requested. Tokens
    that no training row has count by their look alone.

    Parameters
    ----------
    vocabulary : int32[V]
        Ids of known tokens, ascending.
    fields : sequence of str
        Fields that may be requested.
    """

    def __init__(self, vocabulary: IntArray, fields: Sequence[str]) -> None:
        self._rows = {token: row for row, token in enumerate(vocabulary.tolist())}
        self._fields = {field: index for index, field in enumerate(fields)}

    @property
    def count(self) -> int:
        """M: features in all."""
        per_neighbour = len(self._rows) + 1 + SHAPES + 1
        return len(NEIGHBOURS) * per_neighbour + 4 + (len(self._fields) + 1) * (1 + SHAPES)

    def of(
        self, text: str, tokens: TokenStates, requested: Collection[str]
    ) -> tuple[list[int], list[int]]:
        """The features of each token: indices of tokens, and of features, pair by pair."""
        spans = tokens.spans.tolist()
        seen = [shapes(text[start:end]) for start, end in spans]
        glued = [False, *(one[1] == other[0] for one, other in pairwise(spans)), False]
        asked = sorted(self._fields[field] for field in requested) or [len(self._fields)]
        rows, columns = [], []
        for place in range(len(spans)):
            found = list(self._by_neighbours(place, tokens.ids, seen))
            base = len(NEIGHBOURS) * (len(self._rows) + SHAPES + 2)
            found.append(base + 2 * glued[place] + glued[place + 1])
            base += 4
            for field in asked:
                first = base + field * (1 + SHAPES)
                found += [first, *(first + 1 + shape for shape in seen[place])]
            rows += [place] * len(found)
            columns += found
        return rows, columns

    def _by_neighbours(self, place: int, ids: IntArray, seen: list[list[int]]) -> list[int]:
        known = len(self._rows)
        found = []
        for number, offset in enumerate(NEIGHBOURS):
            base = number * (known + SHAPES + 2)
            other = place + offset
            if not 0 <= other < len(seen):
                found += [base + known, base + known + 1 + SHAPES]
                continue
            row = self._rows.get(int(ids[other]))
            if row is not None:
                found.append(base + row)
            found += [base + known + 1 + shape for shape in seen[other]]
        return found


def window(states_th: FloatArray, width: int) -> FloatArray:
    """The states of each token and its neighbours, side by side; zeros beyond the text.

    Parameters
    ----------
    states_th : float32[T, H]
    width : int
        W: tokens together, an odd number.

    Returns
    -------
    float32[T, W * H]
    """
    count, size = states_th.shape
    padded = np.zeros((count + width - 1, size), np.float32)
    padded[width // 2 : width // 2 + count] = states_th
    return np.concatenate([padded[at : at + count] for at in range(width)], axis=1)


@dataclass(frozen=True, eq=False)
class Tagger:
    """A fitted tagger. K is the number of tags, `tags_of` the fields.

    Attributes
    ----------
    fields : tuple of str
        What it finds.
    many : frozenset of str
        Fields that a text may have several of; of the others the most probable span counts.
    states : float32[W, H, K]
        Weights of the states of W tokens, an odd number, around each token.
    bias : float32[K]
    vocabulary : int32[V]
        Ids of the tokens that `indicators` knows, ascending; may be empty.
    indicators : float32[M, K]
        Weights of the features of `Indicators`; no rows where these are not used.
    transitions : float32[K, K]
        Score of a tag behind another; whatever makes no whole spans is impossible besides.
    start, end : float32[K]
        Score of a tag at the first and at the last token.
    temperature, shift : float
        Log-odds of a span's score are divided by the one, and the other is added: these are the
        log-odds of the confidence (Platt, 1999).
    """

    fields: tuple[str, ...]
    many: frozenset[str]
    states: FloatArray
    bias: FloatArray
    vocabulary: IntArray
    indicators: FloatArray
    transitions: FloatArray
    start: FloatArray
    end: FloatArray
    temperature: float = 1.0
    shift: float = 0.0

    @property
    def dimension(self) -> int:
        """H: elements of a state that it takes."""
        return int(self.states.shape[1])

    @cached_property
    def _features(self) -> Indicators:
        return Indicators(self.vocabulary, self.fields)

    @cached_property
    def _chain(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Transitions, start and end under the constraints of BIOES."""
        transitions, start, end = constraints(tags_of(self.fields))
        return transitions + self.transitions, start + self.start, end + self.end

    def emissions(self, text: str, tokens: TokenStates, requested: Collection[str]) -> FloatArray:
        """Scores of every tag at every token: float32[T, K]."""
        width, _, tags = self.states.shape
        scores: FloatArray = window(tokens.states, width) @ self.states.reshape(-1, tags)
        scores += self.bias
        if len(self.indicators):
            rows, columns = self._features.of(text, tokens, requested)
            np.add.at(scores, rows, self.indicators[columns])
        return scores

    def tag(
        self,
        texts: Sequence[str],
        tokens: Sequence[TokenStates],
        requested: Sequence[Collection[str]],
    ) -> list[list[Span]]:
        """The spans of texts: see `read`.

        Returns
        -------
        list of list of Span
            Per text.

        Raises
        ------
        EngineError
            The states of a text are not all finite.
        """
        return [each.spans for each in all_read(self.read(texts, tokens, requested))]

    def read(
        self,
        texts: Sequence[str],
        tokens: Sequence[TokenStates],
        requested: Sequence[Collection[str]],
    ) -> list[Reading | None]:
        """Find the spans of texts.

        Parameters
        ----------
        texts : sequence of str
        tokens : sequence of TokenStates
            Of each text, by the encoder that the tagger was fitted on.
        requested : sequence of collection of str
            Fields that each text was asked for; none where nothing is known.

        Returns
        -------
        list of Reading or None
            Per text; None where not all states are finite.
        """
        found: list[Reading | None] = [Reading([], 1.0) for _ in texts]
        full, scores = [], []
        for index, given in enumerate(tokens):
            if len(given.ids):
                found[index] = None
                emissions = self.emissions(texts[index], given, requested[index])
                if np.isfinite(emissions).all():
                    full.append(index)
                    scores.append(emissions)
        if not full:
            return found
        lengths = [len(each) for each in scores]
        padded = np.zeros((len(full), max(lengths), len(self.bias)), np.float32)
        for row, each in zip(padded, scores, strict=True):
            row[: len(each)] = each
        best, _ = viterbi(padded, np.array(lengths, np.int32), *self._chain)
        lattice = Lattice(np.concatenate(scores), Sequences(lengths), *self._chain)
        first = 0
        for index, path, length in zip(full, best.tolist(), lengths, strict=True):
            spans = [
                Span(
                    self.fields[(path[begin] - 1) // 4],
                    int(tokens[index].spans[begin, 0]),
                    with_marks(texts[index], int(tokens[index].spans[end - 1, 1])),
                    lattice.path(first + begin, path[begin:end]),
                )
                for begin, end in _whole_spans(path[:length])
            ]
            found[index] = Reading(self._choose(spans), lattice.path(first, path[:length]))
            first += length
        return found

    def _choose(self, spans: list[Span]) -> list[Span]:
        """Of fields that a text has once, the most probable span; the first of equal ones."""
        best: dict[str, Span] = {}
        for span in spans:
            if span.field not in best or span.score > best[span.field].score:
                best[span.field] = span
        return [span for span in spans if span.field in self.many or span is best[span.field]]

    def confidence(self, score: float) -> float:
        """The calibrated probability, in [0, 1], that a span with this score is right."""
        return 1 / (1 + math.exp(-log_odds(score) / self.temperature - self.shift))

    def save(self, path: Path) -> None:
        """Write the tensors as a safetensors file; the rest is the manifest's."""
        tensors = {name: getattr(self, name) for name in _SHAPES}
        path.write_bytes(safetensors.numpy.save(tensors))

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        fields: Sequence[str],
        many: Collection[str],
        temperature: float = 1.0,
        shift: float = 0.0,
    ) -> Tagger:
        """Read a tagger and check its tensors.

        Raises
        ------
        CorruptFile
            The file is not what `save` writes, or is for other fields.
        """
        try:
            tensors = dict(safetensors.deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
        except (OSError, safetensors.SafetensorError):
            raise CorruptFile(str(path), "not a safetensors file") from None
        if tensors.keys() != _SHAPES.keys():
            raise CorruptFile(
                str(path),
                f"expected tensors {', '.join(sorted(_SHAPES))}, found "
                f"{', '.join(sorted(tensors))}",
            )
        sizes: dict[str, int] = {"K": len(tags_of(fields))}
        arrays = {name: _tensor(path, name, tensors[name], sizes) for name in _SHAPES}
        _check_whole(path, arrays, fields)
        return cls(tuple(fields), frozenset(many), temperature=temperature, shift=shift, **arrays)


_SHAPES = {
    "states": "WHK",
    "bias": "K",
    "vocabulary": "V",
    "indicators": "MK",
    "transitions": "KK",
    "start": "K",
    "end": "K",
}
"""The tensors of a tagger's file; all but the vocabulary are of float32."""


def all_read(readings: Sequence[Reading | None]) -> list[Reading]:
    """The same, if there is one of every text.

    Raises
    ------
    EngineError
        The states of a text are not all finite.
    """
    found = [each for each in readings if each is not None]
    if len(found) < len(readings):
        raise EngineError("tagger: not all states are finite")
    return found


def log_odds(probability: float) -> float:
    """The logarithm of p / (1 - p), finite for 0 and 1 too."""
    inside = min(max(probability, _LEAST_DOUBT), 1 - _LEAST_DOUBT)
    return math.log(inside) - math.log1p(-inside)


def _whole_spans(path: Sequence[int]) -> list[tuple[int, int]]:
    """Tokens of each span of a well-formed path: from the first to before the one past its last."""
    found = []
    begin = 0
    for place, tag in enumerate(path):
        prefix = (tag - 1) % 4  # B, I, E, S
        if tag and prefix in (0, 3):
            begin = place
        if tag and prefix in (2, 3):
            found.append((begin, place + 1))
    return found


def with_marks(text: str, end: int) -> int:
    """The end of a span, moved behind the marks that belong to its last character.

    Tokenizers drop combining marks, so that no token has them.
    """
    while end < len(text) and unicodedata.category(text[end]) in ("Mn", "Me"):
        end += 1
    return end


def _tensor(
    path: Path, name: str, tensor: dict[str, Any], sizes: dict[str, int]
) -> npt.NDArray[Any]:
    letters, dtype, kind = _SHAPES[name], tensor["dtype"], "F32"
    if name == "vocabulary":
        kind = "I32"
    shape = tuple(tensor["shape"])
    expected = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
    fits = dtype == kind and len(shape) == len(letters)
    if not (
        fits
        and all(sizes.setdefault(*each) == each[1] for each in zip(letters, shape, strict=True))
    ):
        raise CorruptFile(
            str(path),
            f"{name}: expected {kind}[{expected}], found {dtype}[{', '.join(map(str, shape))}]",
        )
    array = np.frombuffer(tensor["data"], "<i4" if kind == "I32" else "<f4").reshape(shape)
    if not np.isfinite(array).all():
        raise CorruptFile(str(path), f"{name}: not all values are finite")
    return array


def _check_whole(path: Path, arrays: dict[str, npt.NDArray[Any]], fields: Sequence[str]) -> None:
    width, dimension, _ = arrays["states"].shape
    if width % 2 == 0 or dimension == 0:
        raise CorruptFile(str(path), f"states: a window of {width} tokens of {dimension} elements")
    if (np.diff(arrays["vocabulary"]) <= 0).any():
        raise CorruptFile(str(path), "vocabulary: ids do not ascend")
    rows = len(arrays["indicators"])
    wanted = Indicators(arrays["vocabulary"], fields).count
    if rows not in (0, wanted):
        raise CorruptFile(str(path), f"indicators: expected 0 or {wanted} rows, found {rows}")
