"""Fit a tagger on frozen token states: a conditional random field, by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.crf import Lattice, Sequences
from sprat.errors import SetupError
from sprat.progress import Progress, Silent
from sprat.tagger import (
    Indicators,
    Reading,
    Span,
    Tagger,
    all_read,
    log_odds,
    tags_of,
    window,
    with_marks,
)
from sprat.tagging import constraints
from sprat.train.calibrate import MAX_TEMPERATURE, MIN_TEMPERATURE
from sprat.train.spans import GoldSpan
from sprat.values import IntArray, TokenStates

PENALTIES = (0.0625, 0.25, 1.0, 4.0, 16.0, 64.0)
"""Strengths of the L2 penalty to choose from: half of it times the sum of squared weights is added
to the negative log-likelihood of all rows."""

_START = PENALTIES.index(1.0)

WIDTH = 3
"""Tokens whose states count: the token and its neighbours."""

STATE_SCALE = 0.1
"""Standard deviation that each element of a state is brought to. An indicator is 0 or 1; on states
of this scale the same penalty suits both."""

TOLERANCE = 1e-4
"""Of the optimizer: it ends when a step lowers the loss by less than this share of it."""

MAX_STEPS = 150
"""Of the optimizer. A fit that is not done by then is judged by its scores like any other."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaggedRows:
    """Texts with their token states and the spans that they have.

    Attributes
    ----------
    texts : tuple of str
    tokens : tuple of TokenStates
        Of each text.
    spans : tuple of tuple of GoldSpan
    requested : tuple of tuple of str
    """

    texts: tuple[str, ...]
    tokens: tuple[TokenStates, ...]
    spans: tuple[tuple[GoldSpan, ...], ...]
    requested: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class TaggerCandidate:
    """A strength of the penalty and what it is worth on rows that its taggers have not seen.

    Attributes
    ----------
    penalty : float
        One of `PENALTIES`.
    nll : float
        Mean negative log-likelihood of a judged row's tags, in nats.
    """

    penalty: float
    nll: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedTagger:
    """A tagger and how it came about.

    Attributes
    ----------
    tagger : Tagger
        Fitted on all rows or those of fold -1; calibrated on spans of rows that it, or taggers of
        other folds, had not seen.
    chosen : TaggerCandidate
    candidates : tuple of TaggerCandidate
        All that were tried, weakest penalty first.
    calibration_spans : int
        Spans that the calibration was fitted on; without any there is none.
    chance_n : float64[N]
        Chance of the whole answer to each of N judged rows, see `sprat.tagger.Reading`.
    right_n : bool[N]
        Whether it has all spans of the row and no other.
    unreachable_spans : int
        Spans of the rows that begin or end inside of a token: none like them can be found.
    """

    tagger: Tagger
    chosen: TaggerCandidate
    candidates: tuple[TaggerCandidate, ...]
    calibration_spans: int
    chance_n: _Floats
    right_n: npt.NDArray[np.bool_]
    unreachable_spans: int


def fit_tagger(
    rows: TaggedRows,
    folds_n: IntArray,
    *,
    fields: Sequence[str],
    many: Collection[str],
    progress: Progress | None = None,
) -> FittedTagger:
    """Fit a linear-chain conditional random field, choose its penalty, calibrate its spans.

    Impossible tags and steps of BIOES have no probability already while it is fitted. Each penalty
    is judged by the likelihood of rows under taggers that were fitted on the other folds; from a
    middle one the search goes to both sides for as long as it gets better. The spans that such
    taggers find, right ones and wrong ones, give the calibration: see `fit_platt`. In the end the
    tagger itself is fitted on all rows.

    Rows of fold -1 are in no fold: every tagger is fitted on them, and none is judged by them. They
    are for an encoder that was tuned on these rows, and whose states say more of them than of new
    ones. Where there are any, the tagger is fitted on them alone in the end: what was judged and
    calibrated is what is kept.

    One thread computes, and nothing is random: the same input gives the same tagger.

    Parameters
    ----------
    rows : TaggedRows
        Some of them with tokens.
    folds_n : int32[N]
        Fold of each row, from 0; two or more, or one beside rows of fold -1. Some row of each
        has tokens.
    fields : sequence of str
        What to find.
    many : collection of str
        As in `sprat.tagger.Tagger`.
    progress : Progress, optional
        Told of each penalty that is tried.

    Raises
    ------
    SetupError
        When scikit-learn, which brings scipy, is not installed.
    """
    try:
        import scipy.optimize
        import scipy.sparse  # noqa: F401 - asked for here, before anything is computed
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise SetupError(
            "training needs scikit-learn; install it with: pip install 'sprat[train]'"
        ) from None
    progress = Silent() if progress is None else progress
    with threadpool_limits(1):
        design = _Design(rows, fields, many)
        fold_of = folds_n[design.kept]
        folds = int(fold_of.max()) + 1
        judged_on = f"{folds} folds" if folds > 1 else f"{np.sum(fold_of == 0)} rows"
        fitted_on = fold_of < 0 if (fold_of < 0).any() else fold_of >= 0
        tried: dict[int, TaggerCandidate] = {}
        found: dict[int, list[tuple[int, Reading]]] = {}

        def loss(index: int) -> float:
            if not 0 <= index < len(PENALTIES):
                return math.inf
            if index not in tried:
                progress.phase(f"try penalty {PENALTIES[index]:g} on {judged_on}")
                nll, found[index] = _judge(design, fold_of, PENALTIES[index])
                tried[index] = TaggerCandidate(PENALTIES[index], nll)
            return tried[index].nll

        best = _START
        for step in (-1, 1):
            while loss(best + step) < loss(best):
                best += step
        chosen = tried[best]
        progress.phase(f"fit the tagger on {fitted_on.sum()} rows")
        tagger = design.tagger(design.fit(fitted_on, chosen.penalty))
    judged = [
        (span.score, _gold(span) in rows.spans[row])
        for row, reading in found[best]
        for span in reading.spans
    ]
    if judged:
        temperature, shift = fit_platt(
            np.array([log_odds(score) for score, _ in judged]),
            np.array([is_right for _, is_right in judged]),
        )
        tagger = replace(tagger, temperature=temperature, shift=shift)
    return FittedTagger(
        tagger,
        chosen,
        tuple(tried[index] for index in sorted(tried)),
        len(judged),
        np.array([reading.chance for _, reading in found[best]]),
        np.array(
            [set(map(_gold, each.spans)) == set(rows.spans[row]) for row, each in found[best]]
        ),
        design.unreachable,
    )


def is_whole(found: Sequence[Span], gold: Sequence[GoldSpan]) -> bool:
    """Whether all spans of a text were found, and no other."""
    return set(map(_gold, found)) == set(gold)


def _gold(span: Span) -> GoldSpan:
    """What a span says, without its score."""
    return GoldSpan(span.start, span.end, span.field)


def fit_platt(log_odds_n: _Floats, right_n: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The temperature and shift that make the best confidences of spans (Platt, 1999).

    A temperature alone does not do: spans are judged because they were the best ones of their text,
    and so are right more often than their scores say. Platt's targets stand for right and wrong,
    (R + 1) / (R + 2) of R right ones and 1 / (W + 2) of W wrong ones: few spans make no confidence
    of 0 or 1.

    Parameters
    ----------
    log_odds_n : float64[N]
        Of the scores of spans, N from 1, by taggers that have not seen them.
    right_n : bool[N]

    Returns
    -------
    temperature : float
        In [0.02, 50].
    shift : float
        In [-20, 20].
    """
    from scipy.optimize import minimize

    right = int(right_n.sum())
    wrong = len(right_n) - right
    aim_n = np.where(right_n, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(given: _Floats) -> tuple[float, _Floats]:
        slope, shift = given
        logit_n = slope * log_odds_n + shift
        surplus_n = 0.5 * (1 + np.tanh(logit_n / 2)) - aim_n
        value = (np.logaddexp(0, logit_n) - aim_n * logit_n).mean()
        return float(value), np.array([(surplus_n * log_odds_n).mean(), surplus_n.mean()])

    bounds = [(1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE), (-20.0, 20.0)]
    slope, shift = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds).x
    return 1 / float(slope), float(shift)


def _judge(
    design: _Design, fold_of: IntArray, penalty: float
) -> tuple[float, list[tuple[int, Reading]]]:
    """Mean loss of rows out of fold, and what is found in each."""
    total = 0.0
    found: list[tuple[int, Reading]] = []
    for fold in range(int(fold_of.max()) + 1):
        out = fold_of == fold
        weights = design.fit(~out, penalty)
        total += design.nll(out, weights)
        tagger = design.tagger(weights)
        indices = design.kept[out].tolist()
        rows = design.rows
        readings = tagger.read(
            [rows.texts[i] for i in indices],
            [rows.tokens[i] for i in indices],
            [rows.requested[i] for i in indices],
        )
        found += zip(indices, all_read(readings), strict=True)
    return total / int((fold_of >= 0).sum()), found


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    states: _Floats
    indicators: _Floats
    transitions: _Floats
    start: _Floats
    end: _Floats

    @classmethod
    def split(cls, flat: _Floats, sizes: Sequence[tuple[int, ...]]) -> _Weights:
        cuts = np.cumsum([math.prod(size) for size in sizes])[:-1]
        parts = np.split(flat, cuts)
        return cls(*(part.reshape(size) for part, size in zip(parts, sizes, strict=True)))

    @property
    def flat(self) -> _Floats:
        parts = (self.states, self.indicators, self.transitions, self.start, self.end)
        return np.concatenate([part.ravel() for part in parts])


class _Design:
    """The features and tags of all rows that have tokens, once for all folds."""

    def __init__(self, rows: TaggedRows, fields: Sequence[str], many: Collection[str]) -> None:
        from scipy import sparse

        self.rows = rows
        self.kept = np.array([i for i, each in enumerate(rows.tokens) if len(each.ids)], np.intp)
        tokens = [rows.tokens[i] for i in self.kept]
        self._fields, self._many = tuple(fields), frozenset(many)
        self._lengths = np.array([len(each.ids) for each in tokens], np.intp)
        self._row_of = np.repeat(np.arange(len(tokens)), self._lengths)
        states = np.concatenate([window(each.states, WIDTH) for each in tokens])
        self._mean, deviation = states.mean(axis=0), states.std(axis=0)
        self._scale = np.where(deviation > 0, STATE_SCALE / np.maximum(deviation, 1e-12), 0.0)
        self._states = ((states - self._mean) * self._scale).astype(np.float32)
        self._vocabulary = np.unique(np.concatenate([each.ids for each in tokens])).astype(np.int32)
        features = Indicators(self._vocabulary, fields)
        pairs: list[tuple[list[int], list[int]]] = [
            features.of(rows.texts[i], each, rows.requested[i])
            for i, each in zip(self.kept.tolist(), tokens, strict=True)
        ]
        first = np.cumsum(self._lengths) - self._lengths
        at = np.concatenate([np.array(r) + f for (r, _), f in zip(pairs, first, strict=True)])
        columns = np.concatenate([np.array(c) for _, c in pairs])
        self._indicators: Any = sparse.csr_matrix(
            (np.ones(len(at)), (at, columns)), shape=(len(self._states), features.count)
        )
        aligned = [
            align(text, spans, each.spans, fields)
            for text, spans, each in zip(rows.texts, rows.spans, rows.tokens, strict=True)
        ]
        self._tags = np.concatenate([tags for tags, _ in aligned])
        self.unreachable = sum(missed for _, missed in aligned)
        self._constraints = constraints(tags_of(fields))
        tags = len(self._constraints[1])
        self._sizes = (
            (self._states.shape[1], tags),
            (features.count, tags),
            (tags, tags),
            (tags,),
            (tags,),
        )

    def fit(self, chosen: npt.NDArray[np.bool_], penalty: float) -> _Weights:
        """The weights that fit some of the rows best."""
        from scipy.optimize import minimize

        part = _Part(self, chosen)
        result = minimize(
            lambda flat: part.loss(_Weights.split(flat, self._sizes), penalty),
            np.zeros(sum(math.prod(size) for size in self._sizes)),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_STEPS, "ftol": TOLERANCE},
        )
        return _Weights.split(result.x, self._sizes)

    def nll(self, chosen: npt.NDArray[np.bool_], weights: _Weights) -> float:
        """Negative log-likelihood of the tags of some of the rows, in nats."""
        return _Part(self, chosen).loss(weights, 0.0)[0]

    def tagger(self, weights: _Weights) -> Tagger:
        """The tagger with these weights: states are taken as they are."""
        states = weights.states * self._scale[:, None]
        tags = len(weights.start)
        return Tagger(
            self._fields,
            self._many,
            states=states.reshape(WIDTH, -1, tags).astype(np.float32),
            bias=(-self._mean @ states).astype(np.float32),
            vocabulary=self._vocabulary,
            indicators=weights.indicators.astype(np.float32),
            transitions=weights.transitions.astype(np.float32),
            start=weights.start.astype(np.float32),
            end=weights.end.astype(np.float32),
        )


class _Part:
    """Some rows of a design, and the loss of weights on them."""

    def __init__(self, design: _Design, chosen: npt.NDArray[np.bool_]) -> None:
        tokens = np.flatnonzero(chosen[design._row_of])
        self._states = design._states[tokens]
        self._indicators = design._indicators[tokens]
        self._indicators_mn = self._indicators.T.tocsr()
        self._tags = design._tags[tokens]
        self._constraints = design._constraints
        self._sequences = Sequences(design._lengths[chosen].tolist())
        tags = len(self._constraints[1])
        first, last = self._sequences.steps[0], self._sequences.last
        self._starts = np.bincount(self._tags[first], minlength=tags)
        self._ends = np.bincount(self._tags[last], minlength=tags)
        self._pairs = np.zeros((tags, tags))
        for step, following in pairwise(self._sequences.steps):
            before = self._tags[step[: len(following)]]
            np.add.at(self._pairs, (before, self._tags[following]), 1)

    def loss(self, weights: _Weights, penalty: float) -> tuple[float, _Floats]:
        """Penalized negative log-likelihood, and its gradient."""
        scores = (self._states @ weights.states.astype(np.float32)).astype(np.float64)
        scores += self._indicators @ weights.indicators
        transitions, start, end = self._constraints
        lattice = Lattice(
            scores,
            self._sequences,
            weights.transitions + transitions,
            weights.start + start,
            weights.end + end,
        )
        every = np.arange(len(self._tags))
        right = scores[every, self._tags].sum() + (self._pairs * weights.transitions).sum()
        right += self._starts @ weights.start + self._ends @ weights.end
        surplus = lattice.tags.copy()
        surplus[every, self._tags] -= 1
        first, last = self._sequences.steps[0], self._sequences.last
        gradient = _Weights(
            (self._states.T @ surplus.astype(np.float32)).astype(np.float64),
            self._indicators_mn @ surplus,
            lattice.expected_steps() - self._pairs,
            lattice.tags[first].sum(axis=0) - self._starts,
            lattice.tags[last].sum(axis=0) - self._ends,
        ).flat
        flat = weights.flat
        return lattice.log_z - right + penalty / 2 * float(flat @ flat), gradient + penalty * flat


def align(
    text: str, spans: Sequence[GoldSpan], tokens_t2: IntArray, fields: Sequence[str]
) -> tuple[IntArray, int]:
    """The tag of each token, and how many spans no tags can say.

    A span takes the tokens that share a character with it. It cannot be said where there are none,
    where these begin or end elsewhere, or belong to another span already.

    Parameters
    ----------
    spans : sequence of GoldSpan
        In the order of the text.

    Returns
    -------
    tags : int32[T]
        As indices into `sprat.tagger.tags_of`.
    missed : int
    """
    tags = np.zeros(len(tokens_t2), np.int32)
    missed = 0
    starts, ends = tokens_t2[:, 0], tokens_t2[:, 1]
    for span in spans:
        inside = np.flatnonzero((starts < span.end) & (ends > span.start))
        if not len(inside) or tags[inside].any():
            missed += 1
            continue
        first = 1 + 4 * fields.index(span.field)
        tags[inside] = first + 1
        tags[inside[0]], tags[inside[-1]] = first, first + 2
        if len(inside) == 1:
            tags[inside] = first + 3
        end = with_marks(text, int(ends[inside[-1]]))
        missed += bool(starts[inside[0]] != span.start or end != span.end)
    return tags, missed
