"""Choose the thresholds of a cascade together, from what its tiers make of labelled rows.

Candidates are chosen on one half of the rows and verified on the other, which had no part in the
choice. A bound on errors is verified by fixed sequence testing, as in Learn then Test (Angelopoulos
et al., 2021): the candidates stand in an order that the first half fixes, from the safest on, and
are tested one after the other until the first one fails. So all tests together are wrong with
probability delta at most, however many candidates there are. The safest ones are those of which
the first half is the surest: few answers are no proof, even if all of them are right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from sprat.calibration import least_confidence
from sprat.errors import DataError, SetupError
from sprat.values import IntArray

Rule = Literal["loss", "error", "cost"]

MOST_CANDIDATES = 4096
"""Combinations of thresholds that are tried."""

ABSTAINED = -1

UNANSWERED_COST = 10.0
"""What a row that nobody answers costs, in whole cascades: somebody has to look at it."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TierScores:
    """What one tier makes of N rows.

    Attributes
    ----------
    name : str
    confidence_n : float64[N]
        Calibrated, in [0, 1].
    answer_n : int32[N] or None
        Its answers: labels of the bundle, by their places; of a moderator the category that each is
        due to, and behind them all ``allow``. None of kinds that answer otherwise.
    is_right_n : bool[N]
        Whether its answer is the gold label.
    cost_ms : float
        CPU time of a row, above 0.
    engine : str
        Of its model: see `sprat.calibration.least_confidence`.
    """

    name: str
    confidence_n: _Floats
    answer_n: IntArray | None
    is_right_n: npt.NDArray[np.bool_]
    cost_ms: float
    engine: str

    def take(self, rows: IntArray) -> TierScores:
        """Those of some rows."""
        return replace(
            self,
            confidence_n=self.confidence_n[rows],
            answer_n=None if self.answer_n is None else self.answer_n[rows],
            is_right_n=self.is_right_n[rows],
        )


@dataclass(frozen=True, slots=True)
class Aim:
    """What thresholds are for.

    Attributes
    ----------
    rule : {"loss", "error", "cost"}
        ``loss``: least cost, at most ``limit`` (a share, such as 0.005) less accurate than the best
        tier alone. ``error``: most answers for the least cost, while at most a share ``limit`` of
        the answers is wrong, with probability 1 - ``delta``. ``cost``: most accurate at ``limit``
        CPU milliseconds a row.
    limit : float
        Above 0; below 1 for ``loss`` and ``error``.
    delta : float
        Of the rule ``error``, in (0, 1).
    """

    rule: Rule
    limit: float
    delta: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a cascade does with N rows.

    Attributes
    ----------
    tier_n : int32[N]
        Which tier answers, `ABSTAINED` where none does.
    is_right_n : bool[N]
        False where none does.
    cost_n : float64[N]
        CPU milliseconds of all tiers that saw the row.
    """

    tier_n: IntArray
    is_right_n: npt.NDArray[np.bool_]
    cost_n: _Floats

    @property
    def answered(self) -> int:
        """Rows with an answer."""
        return int((self.tier_n != ABSTAINED).sum())

    @property
    def wrong(self) -> int:
        """Rows with a wrong answer."""
        return self.answered - int(self.is_right_n.sum())


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What thresholds cost and give, on the rows that they were verified on.

    Attributes
    ----------
    thresholds : tuple of float or None
        As in `Chosen`.
    cost_ms : float
        Mean over the rows.
    accuracy : float
        Share of the rows that are answered rightly, in [0, 1].
    """

    thresholds: tuple[float | None, ...]
    cost_ms: float
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Thresholds, and what they do on the rows that they were verified on.

    Attributes
    ----------
    thresholds : tuple of float or None
        Least confidence of an answer of each tier. None: the tier does not pay and is left out.
        0 of the last one: it always answers.
    chosen_on, verified_on : int
        Rows of the two halves.
    verified : int32[M]
        The rows of the second half.
    answers : Answers
        On these.
    """

    thresholds: tuple[float | None, ...]
    chosen_on: int
    verified: IntArray
    answers: Answers

    @property
    def verified_on(self) -> int:
        """M."""
        return len(self.verified)


def cascade(tiers: Sequence[TierScores], thresholds: Sequence[float | None]) -> Answers:
    """What tiers with these thresholds do, the cheapest first; see `Chosen`.

    By the rule of the server, `sprat.calibration.least_confidence`: what is just above a threshold
    is passed on, too, if somebody is there to pass it on to.
    """
    last = max((at for at, each in enumerate(thresholds) if each is not None), default=0)
    count = len(tiers[0].confidence_n)
    tier_n = np.full(count, ABSTAINED, np.int32)
    is_right_n = np.zeros(count, np.bool_)
    cost_n = np.zeros(count)
    is_open_n = np.ones(count, np.bool_)
    for index, (tier, accept_at) in enumerate(zip(tiers, thresholds, strict=True)):
        if accept_at is None:
            continue
        cost_n[is_open_n] += tier.cost_ms
        least = accept_at if index == last else least_confidence(accept_at, tier.engine)
        accepted_n = is_open_n & (tier.confidence_n >= least)
        tier_n[accepted_n] = index
        is_right_n[accepted_n] = tier.is_right_n[accepted_n]
        is_open_n &= ~accepted_n
    return Answers(tier_n, is_right_n, cost_n)


def best_tier(tiers: Sequence[TierScores]) -> int:
    """The most accurate tier alone; of equally good ones the cheapest."""
    return max(range(len(tiers)), key=lambda i: (tiers[i].is_right_n.mean(), -tiers[i].cost_ms))


def choose(
    tiers: Sequence[TierScores], aim: Aim, *, groups: IntArray, seed: int, path: str
) -> Chosen:
    """Choose all thresholds together.

    Parameters
    ----------
    tiers : sequence of TierScores
        Two or more, the cheapest first, of the same rows.
    aim : Aim
    groups : int32[N]
        Rows of the same group, which have the same text, stay in the same half.
    seed : int
        Of the halves, at least 0.
    path : str
        The file of the rows, for messages.

    Raises
    ------
    DataError
        There are too few rows, or what is aimed at cannot be had: it says what can.
    SetupError
        When scipy is not installed.
    """
    first, second = _halves(groups, seed=seed)
    _require_rows(aim, len(second), path)
    parts = [tier.take(first) for tier in tiers], [tier.take(second) for tier in tiers]
    candidates = _candidates(parts[0], aim)
    rated = [(each, cascade(parts[0], each)) for each in candidates]
    if aim.rule == "error":
        thresholds = _bound_error(rated, parts, aim, path)
    elif aim.rule == "loss":
        thresholds = _bound_loss(rated, parts, aim, path)
    else:
        thresholds = _bound_cost(rated, parts, aim, path)
    return Chosen(thresholds, len(first), second, cascade(parts[1], thresholds))


def cost_curve(tiers: Sequence[TierScores], verified: IntArray) -> list[CurvePoint]:
    """What other thresholds would do: those that are the most accurate for their cost.

    Which ones these are is decided on the other rows, so that the curve does not flatter; the last
    tier always answers.

    Parameters
    ----------
    verified : int32[M]
        As in `Chosen`.

    Returns
    -------
    list of CurvePoint
        The cheapest first.
    """
    others = np.setdiff1d(np.arange(len(tiers[0].confidence_n)), verified).astype(np.int32)
    first, second = [each.take(others) for each in tiers], [each.take(verified) for each in tiers]
    rated = sorted(
        (float(answers.cost_n.mean()), -float(answers.is_right_n.mean()), index, each)
        for index, each in enumerate(_candidates(first, Aim("loss", 0.5)))
        for answers in [cascade(first, each)]
    )
    points = []
    best = -1.0
    for _, minus_accuracy, _, each in rated:
        if -minus_accuracy > best:
            best = -minus_accuracy
            answers = cascade(second, each)
            points.append(
                CurvePoint(each, float(answers.cost_n.mean()), float(answers.is_right_n.mean()))
            )
    return sorted(points, key=lambda point: point.cost_ms)


_Thresholds = tuple[float | None, ...]
_Rated = list[tuple[_Thresholds, Answers]]
_Parts = tuple[list[TierScores], list[TierScores]]


def _halves(groups: IntArray, *, seed: int) -> tuple[IntArray, IntArray]:
    count = int(groups.max()) + 1
    is_second = np.zeros(count, np.bool_)
    is_second[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    second_n = is_second[groups]
    return (
        np.flatnonzero(~second_n).astype(np.int32),
        np.flatnonzero(second_n).astype(np.int32),
    )


def _require_rows(aim: Aim, count: int, path: str) -> None:
    """Rows of a half below which nothing could be shown even if all answers were right."""
    if aim.rule == "cost":
        least = 50
    elif aim.rule == "loss":
        # One row more or less is no more than the limit.
        least = max(50, math.ceil(1 / aim.limit))
    else:
        least = math.ceil(math.log(aim.delta) / math.log(1 - aim.limit))
    if count < least:
        raise DataError(
            path,
            0,
            f"expected {2 * least} or more different texts to show that the {aim.rule} is "
            f"at most {aim.limit:g}, found some {2 * count}",
        )


def _candidates(tiers: Sequence[TierScores], aim: Aim) -> list[_Thresholds]:
    """Thresholds at evenly spaced ranks of each tier's confidences, or the tier left out."""
    free = len(tiers) if aim.rule == "error" else len(tiers) - 1
    steps = max(2, int(MOST_CANDIDATES ** (1 / free)) - 1)
    grids: list[list[float | None]] = []
    for tier in tiers[:free]:
        ranks = np.quantile(tier.confidence_n, np.linspace(0, 1, steps), method="lower")
        grids.append([None, *(each for each in np.unique(ranks).tolist() if each > 0)])
    if aim.rule != "error":
        grids.append([0.0])
    return [each for each in itertools.product(*grids) if any(a is not None for a in each)]


def _bound_error(rated: _Rated, parts: _Parts, aim: Aim, path: str) -> _Thresholds:
    try:
        from scipy.stats import binom
    except ImportError:
        raise SetupError(
            "tuning needs scikit-learn, which brings scipy; install it with: "
            "pip install 'sprat[train]'"
        ) from None
    whole = sum(tier.cost_ms for tier in parts[0])

    def doubt(answers: Answers) -> float:
        """How probable so few wrong answers would be if the limit did not hold."""
        return float(binom.cdf(answers.wrong, answers.answered, aim.limit))

    def price(answers: Answers) -> float:
        unanswered = 1 - answers.answered / len(answers.tier_n)
        return float(answers.cost_n.mean()) + UNANSWERED_COST * whole * unanswered

    order = sorted(
        ((doubt(answers), price(answers), each) for each, answers in rated if answers.answered),
        key=lambda item: item[:2],
    )
    best: _Thresholds | None = None
    cheapest = math.inf
    for _, cost, each in order:
        if cost >= cheapest:
            continue
        cheapest = cost
        answers = cascade(parts[1], each)
        if not answers.answered or doubt(answers) > aim.delta:
            break
        best = each
    if best is None:
        safest = cascade(parts[1], order[0][2])
        raise DataError(
            path,
            0,
            f"no thresholds keep wrong answers at or below {aim.limit:.2%} with probability "
            f"{1 - aim.delta:g}: the safest ones answer {safest.answered} of "
            f"{len(safest.tier_n)} rows, {safest.wrong} wrongly",
        )
    return best


def _bound_loss(rated: _Rated, parts: _Parts, aim: Aim, path: str) -> _Thresholds:
    def loss(part: list[TierScores], answers: Answers, best: int) -> float:
        return float(part[best].is_right_n.mean() - answers.is_right_n.mean())

    best = best_tier(parts[0])
    alone = tuple(0.0 if index == best else None for index in range(len(parts[0])))
    fitting = [
        (float(answers.cost_n.mean()), each)
        for each, answers in ((alone, cascade(parts[0], alone)), *rated)
        if loss(parts[0], answers, best) <= aim.limit
    ]
    # The cheapest one that holds on the other half too; the best tier alone does in any case,
    # unless another one is better there.
    for _, each in sorted(fitting, key=lambda item: item[0]):
        if loss(parts[1], cascade(parts[1], each), best_tier(parts[1])) <= aim.limit:
            return each
    other = parts[1][best_tier(parts[1])].name
    raise DataError(
        path,
        0,
        f"no thresholds lose at most {100 * aim.limit:g} points on both halves: tier "
        f"{parts[0][best].name} is the best one on the first, {other} on the second; bring more "
        "rows, or allow more",
    )


def _bound_cost(rated: _Rated, parts: _Parts, aim: Aim, path: str) -> _Thresholds:
    fitting = [
        (-float(answers.is_right_n.mean()), float(answers.cost_n.mean()), each)
        for each, answers in rated
        if answers.cost_n.mean() <= aim.limit
    ]
    for _, _, each in sorted(fitting, key=lambda item: item[:2]):
        if cascade(parts[1], each).cost_n.mean() <= aim.limit:
            return each
    least = min(answers.cost_n.mean() for _, answers in rated)
    raise DataError(
        path,
        0,
        f"no thresholds cost at most {aim.limit:g} ms a row: the cheapest cost {least:.3g} ms",
    )
