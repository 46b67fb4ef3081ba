"""Figures of a moderator, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from sprat.train.evaluate_categories import evaluate_categories, mean_average_precision

NAMES = ("abuse", "spam", "none")


def rows(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    probability = rng.beta(0.5, 1.0, (n, 3)).round(2)  # with ties
    truth = rng.random((n, 3)) < probability
    truth[:, 2] = False
    return probability, truth


def test_evaluate_categories_figures_are_those_of_the_textbook() -> None:
    probability, truth = rows()
    flag_at = (0.5, 0.3, 0.9)
    report = evaluate_categories(probability, truth, names=NAMES, flag_at=flag_at)
    found = probability >= np.array(flag_at)
    for column, each in enumerate(report.categories[:2]):
        y, p = truth[:, column], found[:, column]
        assert each.precision.value == pytest.approx(metrics.precision_score(y, p))
        assert each.recall.value == pytest.approx(metrics.recall_score(y, p))
        assert each.f1.value == pytest.approx(metrics.f1_score(y, p))
        assert (each.support, each.flagged) == (y.sum(), p.sum())
        # Within a tie ours counts the others first: never better than the textbook's.
        textbook = metrics.average_precision_score(y, probability[:, column])
        assert textbook - 0.02 < each.average_precision.value <= textbook
        assert 0 <= each.ece.value < 0.1
    empty = report.categories[2]
    assert (empty.support, empty.recall.value, empty.average_precision.value) == (0, 0, 0)
    assert report.micro_f1.value == pytest.approx(metrics.f1_score(truth, found, average="micro"))
    assert report.macro_f1.value == pytest.approx(
        metrics.f1_score(truth, found, average="macro", zero_division=0)
    )
    assert report.exact.value == pytest.approx(metrics.accuracy_score(truth, found))
    assert report.clean == (~truth.any(axis=1)).sum()
    assert set(report.summary().metrics) >= {"micro_f1", "macro_f1", "ece"}


def test_evaluate_categories_intervals_hold_the_figures_and_repeat() -> None:
    probability, truth = rows()
    made = [
        evaluate_categories(probability, truth, names=NAMES, flag_at=(0.5,) * 3, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert made[0] == made[1] != made[2]
    for each in made[0].categories[:2]:
        for name in ("precision", "recall", "f1", "average_precision", "ece"):
            figure = getattr(each, name)
            assert figure.low <= figure.value <= figure.high
            assert figure.low < figure.high


def test_evaluate_categories_sees_overconfidence() -> None:
    probability, truth = rows()
    sure = np.where(probability > 0.5, 0.99, 0.01)
    honest, boasting = (
        evaluate_categories(p, truth, names=NAMES, flag_at=(0.5,) * 3).categories[0]
        for p in (probability, sure)
    )
    assert honest.ece.value < 3 * honest.ece_noise
    assert boasting.ece.value > 0.1


def test_evaluate_categories_of_one_row() -> None:
    report = evaluate_categories(
        np.array([[0.9]]), np.array([[True]]), names=("x",), flag_at=(0.5,)
    )
    assert report.micro_f1.value == report.categories[0].average_precision.value == 1


def test_evaluate_categories_reliability_is_what_the_ece_is_made_of() -> None:
    probability, truth = rows()
    report = evaluate_categories(probability, truth, names=NAMES, flag_at=(0.5,) * 3)
    for each in report.categories:
        bins = each.reliability
        assert sum(b.n for b in bins) == report.n
        gap = sum(abs(b.accuracy - b.confidence) * b.n for b in bins) / report.n
        assert gap == pytest.approx(each.ece.value)
        assert [b.lowest for b in bins] == sorted(b.lowest for b in bins)


def test_evaluate_categories_by_threshold_is_the_textbook_curve() -> None:
    probability, truth = rows()
    report = evaluate_categories(probability, truth, names=NAMES, flag_at=(0.5,) * 3)
    for column, each in enumerate(report.categories):
        y, p = truth[:, column], probability[:, column]
        points = each.by_threshold
        assert len(points) <= 100
        assert [point.at for point in points] == sorted({point.at for point in points})[::-1]
        assert (points[-1].at, points[-1].flagged) == (p.min(), len(p))
        for point in points:
            found = p >= point.at
            assert point.flagged == found.sum()
            assert point.precision == pytest.approx(y[found].mean())
            assert point.recall == pytest.approx(y[found].sum() / max(1, y.sum()))


def test_mean_average_precision_of_samples_is_that_of_the_report() -> None:
    probability, truth = rows()
    report = evaluate_categories(probability, truth, names=NAMES, flag_at=(0.5,) * 3)
    figure = mean_average_precision(np.log(probability + 1e-9), truth)
    picks = np.random.default_rng(0).permutation(len(truth))
    whole, first = figure(np.stack([picks, np.zeros_like(picks)]))
    assert whole == pytest.approx(report.mean_average_precision.value)
    assert first in (0, 1 / 3, 2 / 3)


def test_evaluate_categories_judges_the_confidence_in_whole_answers() -> None:
    probability, truth = rows()
    given = {"names": NAMES, "flag_at": (0.5,) * 3}
    exact = (truth == (probability >= 0.5)).all(axis=1)
    plain = evaluate_categories(probability, truth, **given)  # type: ignore[arg-type]
    assert plain.whole is None
    for confidence, gap in ((np.where(exact, 0.9, 0.1), 0.1), (np.where(exact, 0.2, 0.8), 0.8)):
        report = evaluate_categories(
            probability,
            truth,
            confidence_n=confidence,
            **given,  # type: ignore[arg-type]
        )
        assert report.whole is not None
        assert report.whole.ece.value == pytest.approx(gap, abs=0.05)
        assert report.summary().metrics["whole_ece"] == report.whole.ece
        assert report.model_copy(update={"whole": None}) == plain
