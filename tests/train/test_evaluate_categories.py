"""Figures of a moderator, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from sprat.train.evaluate_categories import evaluate_categories

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
