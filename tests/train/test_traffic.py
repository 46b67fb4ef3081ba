"""What a tuning keeps of its rows, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tuned import manifest

from sprat.bundle_manifest import Calibration
from sprat.train.thresholds import TierScores, cascade
from sprat.train.traffic import (
    BINS,
    answer_names,
    traffic_of,
    traffic_of_classifier,
    traffic_of_tier,
)

LABELS = ("a", "b", "c")


def scores(name: str, confidence: list[float], answer: list[int]) -> TierScores:
    is_right_n = np.ones(len(confidence), np.bool_)
    answer_n = np.array(answer, np.int32)
    return TierScores(name, np.array(confidence), answer_n, is_right_n, 1.0, "static")


def test_traffic_counts_what_a_cascade_makes_of_rows() -> None:
    tiers = [
        scores("static", [0.9, 0.9, 0.2, 0.3, 0.95], [0, 1, 2, 2, 0]),
        scores("left out", [1.0] * 5, [2] * 5),
        scores("head", [0.5, 0.5, 0.8, 0.4, 0.5], [0, 2, 1, 1, 0]),
    ]
    thresholds = (0.9, None, 0.5)
    traffic = traffic_of(tiers, thresholds, cascade(tiers, thresholds), LABELS)
    assert traffic.rows == 5
    assert [tier.name for tier in traffic.tiers] == ["static", "head"]
    assert [tier.rows for tier in traffic.tiers] == [5, 2]
    assert [tier.passed_on for tier in traffic.tiers] == [2, 1]
    assert traffic.labels == {"a": 2, "b": 2, "": 1}
    assert (traffic.early, traffic.agreed) == (3, 2)


def test_traffic_bins_have_about_as_many_rows_each() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(1003)
    tiers = [scores("head", confidence.tolist(), [0] * 1003)]
    (tier,) = traffic_of(tiers, (0.0,), cascade(tiers, (0.0,)), LABELS).tiers
    assert len(tier.counts) == BINS
    assert max(tier.counts) - min(tier.counts) <= 2
    # As the server bins them.
    bins = np.searchsorted(tier.edges, confidence, side="right")
    assert np.bincount(bins).tolist() == list(tier.counts)


def test_traffic_bins_keep_equal_confidences_together() -> None:
    """A ceiling makes many confidences the same."""
    confidence = [0.3] * 10 + [0.5] * 5 + [0.999] * 85
    tiers = [scores("head", confidence, [0] * 100)]
    (tier,) = traffic_of(tiers, (0.0,), cascade(tiers, (0.0,)), LABELS).tiers
    assert tier.edges == (0.5, 0.999)
    assert tier.counts == (10, 5, 85)
    same = [scores("head", [0.7] * 20, [0] * 20)]
    (only,) = traffic_of(same, (0.0,), cascade(same, (0.0,)), LABELS).tiers
    assert (only.edges, only.counts) == ((), (20,))


def test_traffic_of_a_tier_that_nothing_reaches() -> None:
    confidence = [0.95] * 3
    tiers = [scores("static", confidence, [0] * 3), scores("head", confidence, [0] * 3)]
    traffic = traffic_of(tiers, (0.9, 0.0), cascade(tiers, (0.9, 0.0)), LABELS)
    assert (traffic.tiers[1].counts, traffic.tiers[1].passed_on) == ((0,), 0)
    assert (traffic.early, traffic.agreed) == (3, 3)


def test_traffic_of_answers_that_are_no_labels() -> None:
    """Moderations and extractions: how sure the tiers are, and nothing of what they say."""
    tiers = [
        replace(scores(name, [0.95, 0.3], [0, 0]), answer_n=None) for name in ("static", "head")
    ]
    traffic = traffic_of(tiers, (0.9, 0.5), cascade(tiers, (0.9, 0.5)), LABELS)
    assert [(tier.rows, tier.passed_on) for tier in traffic.tiers] == [(2, 1), (1, 1)]
    assert (traffic.labels, traffic.early, traffic.agreed) == ({}, 0, 0)


def test_traffic_of_a_tier_alone_has_no_threshold() -> None:
    traffic = traffic_of_tier("head", np.array([0.9, 0.2, 0.9]), ("a", "b", "a"))
    (tier,) = traffic.tiers
    assert (tier.name, tier.edges, tier.counts) == ("head", (0.9,), (1, 2))
    assert tier.passed_on is None
    assert (traffic.rows, traffic.labels, traffic.early) == (3, {"a": 2, "b": 1}, 0)
    assert traffic_of_tier("head", np.array([0.5])).labels == {}


def test_traffic_of_a_classifier_has_its_best_labels_and_their_confidences() -> None:
    calibration = Calibration(temperature=2.0, ceiling=0.9)
    logits = np.array([[4.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]], np.float32)
    traffic = traffic_of_classifier("head", logits, calibration, LABELS)
    assert traffic.labels == {"a": 1, "b": 1, "c": 1}
    (tier,) = traffic.tiers
    assert tier.counts == (1, 2)
    assert tier.edges == (0.9,)


def test_traffic_of_moderators_counts_the_categories_that_answers_are_due_to() -> None:
    made = manifest(LABELS, (0.9, 0.0)).model_copy(update={"kind": "moderate"})
    names = answer_names(made)
    assert names == (*LABELS, "allow")
    assert answer_names(manifest(LABELS, (0.9, 0.0))) == LABELS
    tiers = [scores("static", [0.95, 0.3, 0.95], [3, 3, 0]), scores("head", [0.9] * 3, [3, 1, 3])]
    thresholds = (0.9, 0.0)
    traffic = traffic_of(tiers, thresholds, cascade(tiers, thresholds), names)
    assert traffic.labels == {"allow": 1, "a": 1, "b": 1}
    assert (traffic.early, traffic.agreed) == (2, 1)
