"""Thresholds of a cascade, chosen together."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from sprat.calibration import least_confidence
from sprat.errors import DataError
from sprat.train.thresholds import (
    ABSTAINED,
    Aim,
    TierScores,
    best_tier,
    cascade,
    choose,
    cost_curve,
)
from sprat.values import IntArray


def tier(
    name: str, confidence_n: Any, is_right_n: Any, cost_ms: float, engine: str = "static"
) -> TierScores:
    """Of rows whose gold label is 1."""
    is_right_n = np.array(is_right_n, np.bool_)
    answer_n = is_right_n.astype(np.int32)
    return TierScores(name, np.array(confidence_n), answer_n, is_right_n, cost_ms, engine)


def traffic(n: int, seed: int, *, better: float = 0.97) -> list[TierScores]:
    """A cheap tier that knows when it is right, and a dear one that is right more often."""
    rng = np.random.default_rng(seed)
    confidence_n = rng.beta(4, 0.6, n)
    second_n = np.maximum(rng.beta(20, 0.6, n), confidence_n)
    second_n = np.minimum(second_n, better + 0.02)
    return [
        tier("static", confidence_n, rng.random(n) < confidence_n, 0.01),
        tier("head", second_n, rng.random(n) < second_n, 1.0),
    ]


def alone(n: int) -> IntArray:
    """Every row has a text of its own."""
    return np.arange(n, dtype=np.int32)


def test_cascade_passes_on_what_a_tier_is_not_sure_of() -> None:
    tiers = [
        tier("a", [0.9, 0.5, 0.2, 0.9], [1, 1, 0, 0], 1.0),
        tier("b", [0.1, 0.8, 0.7, 0.9], [0, 0, 1, 1], 10.0),
        tier("c", [0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], 100.0),
    ]
    answers = cascade(tiers, (0.9, 0.8, 0.0))
    assert answers.tier_n.tolist() == [0, 1, 2, 0]
    assert answers.is_right_n.tolist() == [True, False, True, False]
    assert answers.cost_n.tolist() == [1.0, 11.0, 111.0, 1.0]
    assert (answers.answered, answers.wrong) == (4, 2)


def test_cascade_leaves_a_tier_out_and_leaves_rows_unanswered() -> None:
    tiers = [tier("a", [0.9, 0.5], [1, 1], 1.0), tier("b", [0.9, 0.4], [1, 1], 10.0)]
    answers = cascade(tiers, (None, 0.5))
    assert answers.tier_n.tolist() == [1, ABSTAINED]
    assert answers.is_right_n.tolist() == [True, False]
    assert answers.cost_n.tolist() == [10.0, 10.0]
    assert (answers.answered, answers.wrong) == (1, 0)


def test_cascade_passes_on_what_the_server_passes_on() -> None:
    """What is just above a threshold, but of the last tier that takes part."""
    for engine, expected in (("ct2", [1, 1, 0]), ("llama", [1, 1, 0]), ("static", [0, 0, 0])):
        least = least_confidence(0.8, engine)
        confidence = [0.8, max(0.8, least - 1e-9), least]
        first = tier("a", confidence, [1, 1, 1], 1.0, engine)
        second = tier("b", [0.9] * 3, [1, 1, 1], 10.0, engine)
        third = tier("c", [0.9] * 3, [1, 1, 1], 100.0, engine)
        assert cascade([first, second], (0.8, 0.0)).tier_n.tolist() == expected
        assert cascade([first, second, third], (0.8, 0.5, None)).tier_n.tolist() == expected
        assert cascade([first, second], (0.8, None)).tier_n.tolist() == [0, 0, 0]


def test_best_tier_is_the_cheaper_one_of_equals() -> None:
    assert best_tier([tier("a", [1, 1], [1, 0], 1.0), tier("b", [1, 1], [0, 1], 2.0)]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_choose_loses_no_more_than_it_may_and_saves(seed: int) -> None:
    tiers = traffic(3000, seed)
    chosen = choose(tiers, Aim("loss", 0.005), groups=alone(3000), seed=seed, path="rows")
    verified = [each.take(chosen.verified) for each in tiers]
    best = max(float(each.is_right_n.mean()) for each in verified)
    assert best - chosen.answers.is_right_n.mean() <= 0.005
    assert chosen.answers.answered == chosen.verified_on == 1500
    assert chosen.answers.cost_n.mean() < 0.9
    assert chosen.thresholds[-1] == 0.0
    assert 0 < (chosen.thresholds[0] or 0) <= 1


def test_choose_is_the_cheapest_of_all_that_hold() -> None:
    """Against every pair of halves' thresholds, tried one by one."""
    tiers = traffic(400, 3)
    chosen = choose(tiers, Aim("loss", 0.02), groups=alone(400), seed=0, path="rows")
    first = np.setdiff1d(np.arange(400), chosen.verified).astype(np.int32)
    fits = []
    parts = [[each.take(rows) for each in tiers] for rows in (first, chosen.verified)]
    for accept_at in np.unique(tiers[0].confidence_n).tolist():
        losses = [
            max(float(each.is_right_n.mean()) for each in part)
            - float(cascade(part, (accept_at, 0.0)).is_right_n.mean())
            for part in parts
        ]
        if max(losses) <= 0.02:
            fits.append(float(cascade(parts[0], (accept_at, 0.0)).cost_n.mean()))
    own = float(cascade(parts[0], chosen.thresholds).cost_n.mean())
    assert own == pytest.approx(min(fits), abs=0.01)


def test_choose_leaves_out_a_tier_that_does_not_pay() -> None:
    useful, best = traffic(2000, 1)
    rng = np.random.default_rng(5)
    useless = tier("noise", rng.random(2000), rng.random(2000) < 0.5, 0.5)
    chosen = choose(
        [useful, useless, best], Aim("loss", 0.005), groups=alone(2000), seed=0, path="rows"
    )
    assert chosen.thresholds[1] is None
    assert chosen.thresholds[0] is not None


def test_choose_ends_with_a_cheaper_tier_that_is_the_best() -> None:
    worse, better = traffic(1000, 2)
    swapped = [
        tier("static", better.confidence_n, better.is_right_n, 0.01),
        tier("head", worse.confidence_n, worse.is_right_n, 1.0),
    ]
    chosen = choose(swapped, Aim("loss", 0.005), groups=alone(1000), seed=0, path="rows")
    assert chosen.thresholds == (0.0, None)


def test_choose_keeps_errors_below_alpha_as_often_as_it_says() -> None:
    """The share of wrong answers on rows that had no part in it, over many draws."""
    alpha, delta, draws = 0.05, 0.1, 60
    exceeded, refused, covered = 0, 0, 0.0
    for seed in range(draws):
        tiers = traffic(4000, seed, better=0.9)
        own = [each.take(np.arange(1000, dtype=np.int32)) for each in tiers]
        fresh = [each.take(np.arange(1000, 4000, dtype=np.int32)) for each in tiers]
        aim = Aim("error", alpha, delta)
        try:
            chosen = choose(own, aim, groups=alone(1000), seed=seed, path="rows")
        except DataError:
            refused += 1
            continue
        answers = cascade(fresh, chosen.thresholds)
        covered += answers.answered / 3000
        exceeded += answers.wrong / answers.answered > alpha
    # 10 % of 60 are 6; 14 or more would come once in a thousand times.
    assert exceeded <= 13
    assert refused <= draws / 4
    assert covered / (draws - refused) > 0.2


def test_choose_spends_no_more_than_it_may() -> None:
    tiers = traffic(2000, 4)
    chosen = choose(tiers, Aim("cost", 0.3), groups=alone(2000), seed=0, path="rows")
    assert chosen.answers.cost_n.mean() <= 0.3
    cheap = choose(tiers, Aim("cost", 0.1), groups=alone(2000), seed=0, path="rows")
    assert cheap.answers.is_right_n.mean() <= chosen.answers.is_right_n.mean()


def test_choose_keeps_the_same_texts_together() -> None:
    tiers = traffic(1000, 0)
    groups = np.arange(1000, dtype=np.int32) // 4
    chosen = choose(tiers, Aim("loss", 0.02), groups=groups, seed=0, path="rows")
    assert chosen.verified_on == 500
    assert np.bincount(groups[chosen.verified], minlength=250).max() == 4
    assert set(np.bincount(groups[chosen.verified], minlength=250).tolist()) == {0, 4}


@pytest.mark.parametrize(
    ("aim", "rows"),
    [
        (Aim("error", 0.05, 0.1), 80),
        (Aim("error", 0.01, 0.1), 400),
        (Aim("loss", 0.005), 300),
        (Aim("cost", 1.0), 60),
    ],
)
def test_choose_refuses_too_few_rows(aim: Aim, rows: int) -> None:
    with pytest.raises(DataError, match=r"expected \d+ or more different texts"):
        choose(traffic(rows, 0), aim, groups=alone(rows), seed=0, path="rows")


def test_choose_says_what_can_be_had_where_the_aim_cannot() -> None:
    rng = np.random.default_rng(0)
    guessing = [
        tier(name, rng.random(1000), rng.random(1000) < 0.5, cost)
        for name, cost in (("a", 1.0), ("b", 2.0))
    ]
    with pytest.raises(DataError, match=r"no thresholds keep wrong answers at or below 1\.00%"):
        choose(guessing, Aim("error", 0.01), groups=alone(1000), seed=0, path="rows")
    with pytest.raises(DataError, match=r"no thresholds cost at most 0\.5 ms a row"):
        choose(guessing, Aim("cost", 0.5), groups=alone(1000), seed=0, path="rows")


def test_choose_knows_how_few_rows_could_be_enough() -> None:
    """With as few rows as it takes, and no wrong answer at all, the bound is met."""
    least = 2 * math.ceil(math.log(0.1) / math.log(0.95))
    sure = [tier(name, [0.9] * least, [1] * least, cost) for name, cost in (("a", 1.0), ("b", 2.0))]
    chosen = choose(sure, Aim("error", 0.05), groups=alone(least), seed=0, path="rows")
    assert chosen.answers.answered == least // 2
    assert chosen.answers.wrong == 0
    assert list(itertools.compress("ab", (t is not None for t in chosen.thresholds))) == ["a"]


def test_cost_curve_rises_from_the_cheapest_to_the_best() -> None:
    tiers = traffic(4000, 6)
    chosen = choose(tiers, Aim("loss", 0.005), groups=alone(4000), seed=0, path="rows")
    curve = cost_curve(tiers, chosen.verified)
    costs = [point.cost_ms for point in curve]
    assert costs == sorted(costs)
    assert costs[0] < 0.1
    assert len(curve) > 5
    assert curve[-1].accuracy > curve[0].accuracy + 0.05
    for point in curve:
        answers = cascade([each.take(chosen.verified) for each in tiers], point.thresholds)
        assert point.accuracy == pytest.approx(answers.is_right_n.mean())
