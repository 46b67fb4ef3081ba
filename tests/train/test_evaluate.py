"""Figures: as defined, with intervals that hold what they promise, and no text anywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from sprat.bundle_manifest import Calibration
from sprat.train import metrics as module
from sprat.train.calibrate import log_softmax
from sprat.train.evaluate import evaluate
from sprat.train.report import METRICS, SCOPE_METRICS, Report
from sprat.values import FloatArray, IntArray


def honest_rows(n: int, k: int, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Logits and labels that are drawn from exactly their softmax."""
    logits = rng.normal(0, 2, (n, k)).astype(np.float32)
    p = np.exp(log_softmax(logits, 1))
    targets = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, np.minimum(targets, k - 1).astype(np.int32)


def report_of(
    logits: FloatArray, targets: IntArray, temperature: float = 1.0, **options: Any
) -> Report:
    return evaluate(
        logits,
        targets,
        labels=[f"label {i}" for i in range(logits.shape[1])],
        lines=range(1, len(targets) + 1),
        calibration=Calibration(temperature=temperature, isotonic=options.pop("isotonic", ())),
        **options,
    )


def sure(answers: list[int], confidence: float, k: int) -> FloatArray:
    """Logits of answers that all have one confidence."""
    p = np.full((len(answers), k), (1 - confidence) / (k - 1))
    p[np.arange(len(answers)), answers] = confidence
    return np.log(p).astype(np.float32)


# -- the figures -----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(2, 7), st.floats(0.1, 10), st.integers(0, 10_000))
def test_evaluate_agrees_with_scikit_learn(n: int, k: int, temperature: float, seed: int) -> None:
    logits, targets = honest_rows(n, k, np.random.default_rng(seed))
    report = report_of(logits, targets, temperature)
    p = np.exp(log_softmax(logits, temperature))
    answers = p.argmax(axis=1)
    assert report.n == n
    assert report.accuracy == pytest.approx(metrics.accuracy_score(targets, answers))
    assert report.macro_f1 == pytest.approx(
        metrics.f1_score(targets, answers, average="macro", zero_division=0)
    )
    # Not scikit-learn's log_loss, which clips what rounds to 0.
    assert report.nll == pytest.approx(-log_softmax(logits, temperature)[range(n), targets].mean())
    assert report.brier == pytest.approx(np.square(p - np.eye(k)[targets]).sum(axis=1).mean())
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        targets, answers, labels=range(k), zero_division=0
    )
    for i, label in enumerate(report.labels):
        assert label.label == f"label {i}"
        assert label.precision == pytest.approx(precision[i])
        assert label.recall == pytest.approx(recall[i])
        assert label.f1 == pytest.approx(f1[i])
        assert (label.support, label.predicted) == (support[i], (answers == i).sum())


def test_evaluate_calibration_error_by_hand() -> None:
    # 15 bins of two rows each. In the bins of 0.6 one of two is right, in those of 0.8 both are.
    targets = np.array([0, 1] * 7 + [0, 0] * 8, np.int32)
    logits = np.concatenate([sure([0] * 14, 0.6, 2), sure([0] * 16, 0.8, 2)])
    report = report_of(logits, targets)
    # Which rows share a bin is random among equals, so the bins of 0.6 vary; their mean does not.
    gaps = [abs(b.accuracy - b.confidence) * b.n for b in report.reliability]
    assert report.ece == pytest.approx(sum(gaps) / 30)
    low = [b for b in report.reliability if b.highest < 0.7]
    high = [b for b in report.reliability if b.lowest > 0.7]
    assert (len(low), len(high)) == (7, 8)
    assert sum(b.accuracy for b in low) / 7 == pytest.approx(0.5)
    assert all(b.accuracy == 1 and b.confidence == pytest.approx(0.8) for b in high)


@pytest.mark.parametrize("k", [2, 5])
def test_evaluate_calibrated_answers_have_no_calibration_error(k: int) -> None:
    logits, targets = honest_rows(8000, k, np.random.default_rng(k))
    assert report_of(logits, targets).ece < 0.02
    logits, targets = logits[:1000], targets[:1000]
    assert report_of(logits, targets, temperature=0.3).ece > 0.08
    assert report_of(logits, targets, temperature=3.0).ece > 0.08


@pytest.mark.parametrize("n", [30, 300])
def test_evaluate_ece_noise_is_what_perfect_confidences_show(n: int) -> None:
    rng = np.random.default_rng(n)
    reports = [report_of(*honest_rows(n, 3, rng)) for _ in range(40)]
    shown = np.mean([report.ece for report in reports])
    assert np.mean([report.ece_noise for report in reports]) == pytest.approx(shown, rel=0.15)


def test_evaluate_order_of_rows_with_one_confidence_does_not_matter() -> None:
    # Sorted by label, as files often are: bins in file order would be all right or all wrong.
    targets = np.repeat([0, 1], [800, 200]).astype(np.int32)
    report = report_of(sure([0] * 1000, 0.8, 2), targets)
    assert report.ece < 0.08
    assert {b.n for b in report.reliability} == {66, 67}


def test_evaluate_temperature_changes_confidence_and_nothing_else() -> None:
    logits, targets = honest_rows(500, 4, np.random.default_rng(1))
    cold, hot = report_of(logits, targets, 0.5), report_of(logits, targets, 2.0)
    assert cold.accuracy == hot.accuracy
    assert cold.intervals["accuracy"] != cold.intervals["ece"]
    assert cold.macro_f1 == hot.macro_f1
    assert [r.f1 for r in cold.labels] == [r.f1 for r in hot.labels]
    assert cold.confusions == hot.confusions
    assert cold.above > hot.above


def test_evaluate_lists_confused_pairs_most_frequent_first() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2, 2], np.int32)
    report = report_of(sure([0, 1, 1, 2, 1, 2, 2], 0.7, 3), targets)
    assert [(c.label, c.predicted, c.count) for c in report.confusions] == [
        ("label 0", "label 1", 2),
        ("label 1", "label 2", 1),
    ]


def test_evaluate_lists_confident_wrong_answers_with_their_lines() -> None:
    logits = np.concatenate([sure([0, 0, 0], 0.95, 2), sure([1], 0.99, 2), sure([1], 0.85, 2)])
    report = report_of(logits, np.array([0, 1, 0, 0, 0], np.int32))
    assert (report.above, report.wrong_above) == (4 / 5, 2 / 5)
    assert [(w.line, w.label, w.predicted, round(w.confidence, 2)) for w in report.worst] == [
        (4, "label 0", "label 1", 0.99),
        (2, "label 1", "label 0", 0.95),
    ]


def test_evaluate_lists_the_worst_and_counts_all() -> None:
    n = 900
    targets = (np.arange(n) % 30).astype(np.int32)
    answers = ((targets + 1 + np.arange(n) // 30 % 29) % 30).tolist()
    report = report_of(sure(answers, 0.95, 30), targets)
    assert report.wrong_above == 1
    assert len(report.worst) == 20
    assert sum(c.count for c in report.confusions) == n


# -- selective answers -----------------------------------------------------------------------


def test_evaluate_risk_and_coverage_by_hand() -> None:
    # By confidence: right at 0.9, wrong at 0.8, right at 0.7, wrong at 0.6.
    logits = np.concatenate([sure([0], c, 2) for c in (0.6, 0.9, 0.7, 0.8)])
    report = report_of(logits, np.array([1, 0, 0, 1], np.int32), threshold=0.75)
    assert report.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    # The best order of two right ones and two wrong ones.
    assert report.e_aurc == pytest.approx(report.aurc - (0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert report.coverage_at_risk_1 == report.coverage_at_risk_5 == 0.25
    assert (report.above, report.wrong_above) == (0.5, 0.25)
    shown = [(round(p.accept_at, 3), p.coverage, p.risk) for p in report.risk_coverage]
    assert shown == [
        (0.9, 0.25, 0.0),
        (0.8, 0.5, 0.5),
        (0.7, 0.75, pytest.approx(1 / 3)),
        (0.6, 1.0, 0.5),
    ]
    assert [p.coverage for p in report.risk_points] == [0.25, 0.25]


def test_evaluate_coverage_never_cuts_through_rows_of_one_confidence() -> None:
    # 10 of 100 equally confident rows are wrong: no threshold answers only the other 90.
    targets = np.repeat([0, 1], [90, 10]).astype(np.int32)
    report = report_of(sure([0] * 100, 0.9, 2), targets)
    assert report.coverage_at_risk_5 == 0
    assert report.risk_points == ()
    assert len(report.risk_coverage) == 1
    assert report_of(sure([0] * 100, 0.9, 2), targets * 0).coverage_at_risk_1 == 1


@settings(max_examples=15)
@given(st.integers(1, 120), st.integers(0, 10_000))
def test_evaluate_excess_risk_is_never_negative(n: int, seed: int) -> None:
    report = report_of(*honest_rows(n, 3, np.random.default_rng(seed)))
    assert report.e_aurc >= -1e-12
    assert report.coverage_at_risk_1 <= report.coverage_at_risk_5
    assert report.risk_coverage[-1].risk == pytest.approx(1 - report.accuracy)
    for point in report.risk_coverage:
        assert 0 < point.coverage <= 1


def test_evaluate_thins_the_curve_and_keeps_its_ends() -> None:
    report = report_of(*honest_rows(1000, 3, np.random.default_rng(0)))
    assert len(report.risk_coverage) == 100
    assert report.risk_coverage[0].coverage == 1 / 1000
    assert report.risk_coverage[-1].coverage == 1


def test_evaluate_confidence_follows_the_isotonic_curve() -> None:
    logits, targets = sure([0, 0, 0, 0], 0.9, 2), np.array([0, 0, 0, 1], np.int32)
    report = report_of(logits, targets, isotonic=((0.0, 0.0), (1.0, 0.5)), threshold=0.6)
    assert all(b.confidence == pytest.approx(0.45) for b in report.reliability)
    assert report.above == 0
    assert report.nll == report_of(logits, targets).nll


# -- out of scope ----------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10_000))
def test_evaluate_out_of_scope_agrees_with_scikit_learn(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = honest_rows(n, 3, rng)
    # Few different values: ties within and between both kinds of rows.
    logits, outside = logits.round(), (rng.normal(0, 1, (m, 3)).round()).astype(np.float32)
    report = report_of(logits, targets, out_of_scope=outside)
    inside, others = (np.exp(log_softmax(z, 1.0)).max(axis=1) for z in (logits, outside))
    truth = np.repeat([1, 0], [n, m])
    scores = np.concatenate([inside, others])
    assert report.out_of_scope_auroc == pytest.approx(metrics.roc_auc_score(truth, scores))
    fpr, tpr, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert report.out_of_scope_fpr95 == pytest.approx(fpr[tpr >= 0.95 - 1e-9][0])
    assert report.out_of_scope_above == pytest.approx((others >= 0.9).mean())
    assert report.out_of_scope_rows == m
    for name in SCOPE_METRICS:
        low, high = report.intervals[name]
        assert 0 <= low <= high <= 1


def test_evaluate_rows_out_of_scope_change_no_other_figure() -> None:
    logits, targets = honest_rows(200, 3, np.random.default_rng(5))
    alone = report_of(logits, targets)
    beside = report_of(logits, targets, out_of_scope=np.zeros((40, 3), np.float32))
    assert alone.out_of_scope_auroc is None
    assert list(alone.intervals) == list(METRICS)
    assert beside.out_of_scope_auroc == 1
    for name in METRICS:
        assert getattr(beside, name) == getattr(alone, name)
        assert beside.intervals[name] == alone.intervals[name]


# -- intervals -------------------------------------------------------------------------------


def test_evaluate_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    logits, targets = honest_rows(10_000, 3, rng)
    truth = report_of(logits, targets)
    covered = dict.fromkeys(METRICS, 0)
    for _ in range(120):
        rows = rng.integers(0, len(targets), 200)
        report = report_of(logits[rows], targets[rows])
        for metric in METRICS:
            low, high = report.intervals[metric]
            covered[metric] += low <= getattr(truth, metric) <= high
    for metric in ("accuracy", "macro_f1", "nll", "brier", "aurc", "above", "wrong_above"):
        # 95 % of 120 is 114; four standard deviations are 9.5.
        assert covered[metric] >= 104, metric


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_evaluate_interval_of_the_calibration_error_holds_the_figure(temperature: float) -> None:
    logits, targets = honest_rows(1000, 4, np.random.default_rng(4))
    report = report_of(logits, targets, temperature)
    low, high = report.intervals["ece"]
    assert 0 <= low < report.ece < high < report.ece + 0.05


def test_evaluate_interval_is_that_of_a_binomial() -> None:
    targets = np.repeat([0, 1], [850, 150]).astype(np.int32)
    report = report_of(sure([0] * 1000, 0.85, 2), targets)
    low, high = report.intervals["accuracy"]
    half = 1.96 * math.sqrt(0.85 * 0.15 / 1000)
    assert low == pytest.approx(0.85 - half, abs=0.003)
    assert high == pytest.approx(0.85 + half, abs=0.003)


def test_evaluate_resamples_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = honest_rows(100, 3, np.random.default_rng(2))
    whole = report_of(logits, targets)
    # 7 does not divide 1,000: the last piece is shorter.
    monkeypatch.setattr(module, "_CHUNK", 700)
    assert report_of(logits, targets) == whole


def test_evaluate_the_seed_decides_the_intervals_alone() -> None:
    logits, targets = honest_rows(100, 3, np.random.default_rng(2))
    first = report_of(logits, targets, seed=1)
    assert report_of(logits, targets, seed=1) == first
    other = report_of(logits, targets, seed=2)
    assert other.intervals != first.intervals
    sampled = {name: getattr(first, name) for name in ("intervals", "ece_noise", "labels")}
    assert other.model_copy(update=sampled) == first
    for ours, theirs in zip(first.labels, other.labels, strict=True):
        assert ours == theirs.model_copy(update={"f1_interval": ours.f1_interval})


# -- the report ------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [0, 1])
def test_evaluate_takes_a_single_row(answer: int) -> None:
    report = report_of(sure([answer], 0.75, 2), np.array([0], np.int32))
    right = 1.0 - answer
    assert (report.n, report.accuracy, report.macro_f1) == (1, right, right)
    assert report.ece == pytest.approx(abs(right - 0.75))
    assert report.intervals["accuracy"] == (right, right)
    assert len(report.reliability) == 1


def test_evaluate_report_survives_json() -> None:
    report = report_of(*honest_rows(50, 4, np.random.default_rng(3)))
    assert Report.model_validate_json(report.model_dump_json()) == report
    document = report.model_dump(mode="json")
    assert all(isinstance(document[m], float) for m in METRICS)
    assert document["n"] == 50


def test_evaluate_summary_holds_the_headline_figures() -> None:
    report = report_of(*honest_rows(50, 4, np.random.default_rng(3)))
    summary = report.summary()
    assert summary.n == 50
    assert list(summary.metrics) == list(METRICS)
    assert summary.metrics["accuracy"].value == report.accuracy
    macro_f1 = summary.metrics["macro_f1"]
    assert (macro_f1.low, macro_f1.high) == report.intervals["macro_f1"]
    assert summary.metrics["ece"].value == report.ece
