"""Which rows of a decision log are compared, as what, and what is said where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from logs import Logged, write_log
from tuned import manifest, tuning

from sprat.calibration import least_confidence
from sprat.decisions import read_decisions
from sprat.drift_log import Counted, count, reference, require_rows
from sprat.errors import DataError, InvalidInput
from sprat.tuning_manifest import TierTraffic, Traffic

TRAFFIC = Traffic(
    rows=200,
    tiers=(
        TierTraffic(name="static", edges=(0.8,), counts=(100, 100), passed_on=100),
        TierTraffic(name="head", edges=(0.6,), counts=(50, 50), passed_on=50),
    ),
    labels={"refund": 150, "": 50},
)


LABELS = ("refund", "delivery")
TUNED = manifest(LABELS, (0.8, 0.6), tuned=tuning(TRAFFIC))
UNTUNED = manifest(LABELS, (0.0, 0.0))
VERSION = TUNED.version


def row(*confidences: float | None, label: str = "refund", **more: Any) -> Logged:
    names = ("static", "head", "third")
    said = tuple((names[at], label or "refund", each) for at, each in enumerate(confidences))
    return Logged(said, label, more.pop("version", VERSION), **more)


def counted(tmp_path: Path, *rows: Logged) -> Counted:
    path = write_log(tmp_path / "log", rows)
    return count(read_decisions(path, task="tickets"), TUNED, TRAFFIC)


def test_drift_log_counts_what_tiers_made_of_rows(tmp_path: Path) -> None:
    found = counted(
        tmp_path,
        row(0.9, feedback="refund"),
        row(0.95, feedback="delivery", shadow="delivery"),
        row(0.95, shadow="refund"),
        row(0.85, feedback="refund", shadow="delivery"),
        row(0.3, 0.7, label="delivery", feedback="refund"),
        row(0.3, 0.5, label="", feedback="refund"),
        row(0.3, degraded="overload", feedback="delivery"),
    )
    counts = found.counts
    assert (counts.rows, found.other_ways, found.other_versions) == (7, 0, {})
    assert counts.bins == [[3, 4], [1, 1]]
    assert counts.passed_on == [3, 1]
    assert counts.labels == {"refund": 4, "delivery": 1, "": 1}
    assert (counts.reviewed, counts.wrong) == (4, 2)
    assert (counts.early, counts.agreed) == (3, 1)
    assert (counts.both_known, counts.gained, counts.lost) == (2, 1, 1)
    assert found.since is not None
    assert found.until is not None
    assert found.until - found.since == 6


def test_drift_log_leaves_out_what_went_another_way(tmp_path: Path) -> None:
    """Requests may bring a threshold or a last tier of their own; versions differ in more."""
    band = (0.8 + least_confidence(0.8, "ct2")) / 2
    found = counted(
        tmp_path,
        row(0.7),  # Accepted below the threshold.
        row(0.9, 0.9),  # Passed on above it.
        row(0.3, label=""),  # Abstained where there was a better tier.
        row(0.3, 0.7, label=""),  # Abstained above the threshold.
        row(0.3, None),
        row(0.3, 0.4, 0.9),
        row(0.9, version="other"),
        row(band),
        row(band, 0.9),  # In the band both are right: it depends on the engine.
    )
    assert found.counts.rows == 2
    assert found.other_ways == 6
    assert found.other_versions == {"other": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0.9, version="older")], r"of version \w{12} of the task, found those of older \(1\)"),
        ([row(0.7)], "found 1 with thresholds of the request's own"),
        ([], "found none in that time"),
    ],
)
def test_drift_log_refuses_a_log_without_rows_of_the_version(
    tmp_path: Path, rows: list[Logged], message: str
) -> None:
    path = write_log(tmp_path / "log", rows)
    found = count(read_decisions(path, task=None), TUNED, TRAFFIC)
    with pytest.raises(DataError, match=message):
        require_rows(found, TUNED, path)


# -- references ------------------------------------------------------------------------------


def test_drift_log_reference_is_that_of_the_tuning(tmp_path: Path) -> None:
    assert reference(TUNED, tmp_path) == (TRAFFIC, "tuning")


def evaluation(folder: Path, *bins: tuple[int, float, float]) -> None:
    reliability = [
        {"n": n, "confidence": low, "accuracy": low, "lowest": low, "highest": high}
        for n, low, high in bins
    ]
    labels = [{"label": "refund", "predicted": 70}, {"label": "delivery", "predicted": 30}]
    report = {"n": 100, "reliability": reliability, "labels": labels}
    document = {"tiers": {"static": {}, "head": {"evaluation": report}}}
    (folder / "report.json").write_text(json.dumps(document), "utf-8")


def test_drift_log_reference_of_an_untuned_bundle_is_its_evaluation(tmp_path: Path) -> None:
    """Of the last tier, which answers alone; no edge goes through equal confidences."""
    evaluation(tmp_path, (20, 0.1, 0.4), (30, 0.5, 0.9), (30, 0.9, 0.99), (20, 0.99, 0.99))
    traffic, source = reference(UNTUNED, tmp_path)
    assert source == "evaluation"
    (tier,) = traffic.tiers
    assert (tier.name, tier.edges, tier.counts, tier.passed_on) == ("head", (0.5,), (20, 80), 0)
    assert (traffic.rows, traffic.labels) == (100, {"refund": 70, "delivery": 30})


def test_drift_log_compares_a_task_of_one_tier(tmp_path: Path) -> None:
    """Its rows name the model where a cascade's name the tier."""
    evaluation(tmp_path, (50, 0.1, 0.4), (50, 0.5, 0.99))
    traffic, _ = reference(UNTUNED, tmp_path)
    rows = [Logged((("minilm", "refund", 0.2),), "refund", UNTUNED.version)] * 3
    path = write_log(tmp_path / "log", rows)
    found = count(read_decisions(path, task="tickets"), UNTUNED, traffic)
    assert found.counts.bins == [[3, 0]]
    assert found.counts.early == 0


@pytest.mark.parametrize("report", [None, "{}", "no JSON", '{"tiers": {"head": null}}'])
def test_drift_log_reference_says_what_is_missing(tmp_path: Path, report: str | None) -> None:
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    with pytest.raises(InvalidInput, match=r"not tuned, and its report\.json .* run `sprat tune`"):
        reference(UNTUNED, tmp_path)
    with pytest.raises(InvalidInput, match=r"come with no rows to compare with; run `sprat tune`"):
        reference(manifest(LABELS, (0.8, 0.6), tuned=tuning(None)), tmp_path)
    other = TRAFFIC.model_copy(update={"tiers": TRAFFIC.tiers[:1]})
    with pytest.raises(InvalidInput, match="come with no rows to compare with"):
        reference(manifest(LABELS, (0.8, 0.6), tuned=tuning(other)), tmp_path)
    made = manifest(LABELS, (0.8, 0.6))
    with pytest.raises(InvalidInput, match="come with no rows to compare with"):
        reference(made, tmp_path)


def test_drift_log_is_of_classify_and_route(tmp_path: Path) -> None:
    extractor = manifest(LABELS, (0.0, 0.0), kind="extract", extract={})
    with pytest.raises(InvalidInput, match="expected a classify or route task, not extract"):
        reference(extractor, tmp_path)
