"""Which rows of a decision log are compared, as what, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from logs import Logged, write_log
from tuned import manifest, tuning

from sprat.bundle_manifest import BundleManifest
from sprat.calibration import least_confidence
from sprat.decisions import read_decisions
from sprat.drift import Reference
from sprat.drift_log import Counted, count, reference_of, require_rows
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
    return count(read_decisions(path, task="tickets"), TUNED, reference_of(TUNED))


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
    found = count(read_decisions(path, task=None), TUNED, reference_of(TUNED))
    with pytest.raises(DataError, match=message):
        require_rows(found, TUNED, path)


# -- references ------------------------------------------------------------------------------

EVALUATED = Traffic(
    rows=100,
    tiers=(TierTraffic(name="head", edges=(0.5,), counts=(20, 80), passed_on=None),),
    labels={"refund": 70, "delivery": 30},
)


def untuned(accept_at: float = 0.0) -> BundleManifest:
    """A bundle whose last tier answers alone."""
    made = manifest(LABELS, (0.0, accept_at))
    static, head = made.tiers
    tiers = (static, head.model_copy(update={"traffic": EVALUATED}))
    return made.model_copy(update={"tiers": tiers})


def test_drift_log_reference_is_that_of_the_tuning() -> None:
    found = reference_of(TUNED)
    assert (found.traffic, found.tuning, found.source) == (TRAFFIC, TUNED.tuning, "tuning")


@pytest.mark.parametrize("accept_at", [0.0, 0.6])
def test_drift_log_reference_of_an_untuned_bundle_is_its_evaluation(accept_at: float) -> None:
    found = reference_of(untuned(accept_at))
    assert (found, found.source) == (Reference(EVALUATED), "evaluation")


def test_drift_log_compares_a_task_of_one_tier(tmp_path: Path) -> None:
    """Its rows name the model where a cascade's name the tier; labels are the most probable."""
    made = untuned(0.3)
    rows = [
        Logged((("minilm", "refund", 0.2),), "", made.version),
        Logged((("minilm", "refund", 0.4),), "refund", made.version, feedback="delivery"),
        Logged((("minilm", "delivery", 0.9),), "delivery", made.version),
        Logged((("minilm", "delivery", 0.9),), "", made.version),  # A threshold of its own.
        Logged((("minilm", "delivery", None),), "delivery", made.version),
    ]
    path = write_log(tmp_path / "log", rows)
    found = count(read_decisions(path, task="tickets"), made, reference_of(made))
    assert (found.counts.bins, found.other_ways) == ([[2, 1]], 2)
    assert found.counts.labels == {"refund": 2, "delivery": 1}
    assert (found.counts.answered, found.counts.early) == (2, 0)
    assert (found.counts.reviewed, found.counts.wrong) == (1, 1)


def test_drift_log_reference_says_what_is_missing() -> None:
    old = manifest(LABELS, (0.0, 0.0))
    with pytest.raises(InvalidInput, match=r"tier head comes from a version .* train the bundle"):
        reference_of(old)
    with pytest.raises(InvalidInput, match=r"the thresholds were not tuned: run sprat tune"):
        reference_of(manifest(LABELS, (0.8, 0.6)))
    other = TRAFFIC.model_copy(update={"tiers": TRAFFIC.tiers[:1]})
    for traffic in (None, other):
        with pytest.raises(InvalidInput, match=r"tuned by a version that kept no rows"):
            reference_of(manifest(LABELS, (0.8, 0.6), tuned=tuning(traffic)))


# -- answers that are more than a label ------------------------------------------------------

WHOLE = TRAFFIC.model_copy(update={"labels": {}})


def whole(kind: str, labels: tuple[str, ...] = LABELS) -> BundleManifest:
    """A tuned bundle of another kind, as far as counting goes."""
    made = manifest(labels, (0.8, 0.6), tuned=tuning(WHOLE, rule="error", limit=0.1))
    return made.model_copy(update={"kind": kind})


def of_kind(made: BundleManifest, *rows: Logged, tmp_path: Path) -> Counted:
    path = write_log(tmp_path / "log", rows)
    return count(read_decisions(path, task="tickets"), made, reference_of(made))


def test_drift_log_counts_moderations(tmp_path: Path) -> None:
    """Right is the category that an answer is due to, or all of it, in a word."""
    made = whole("moderate")

    def moderated(label: str, **more: Any) -> Logged:
        return row(0.9, label=label, version=made.version, kind="moderate", **more)

    found = of_kind(
        made,
        moderated("refund", feedback="refund"),
        moderated("refund", feedback="allow", shadow="allow"),
        moderated("allow", feedback="right", shadow="allow"),
        moderated("allow", feedback="right", shadow="refund"),
        moderated("allow", feedback="wrong", shadow="allow"),
        # What would have been right is not known, and so it is not whether the last tier was.
        moderated("allow", feedback="wrong", shadow="refund"),
        tmp_path=tmp_path,
    )
    counts = found.counts
    assert (counts.reviewed, counts.wrong) == (6, 3)
    assert (counts.early, counts.agreed) == (5, 2)
    assert (counts.both_known, counts.gained, counts.lost) == (4, 1, 1)


def test_drift_log_takes_a_category_by_its_name(tmp_path: Path) -> None:
    """Where one is called right or wrong, that is what is meant."""
    made = whole("moderate", ("right", "wrong"))
    found = of_kind(
        made,
        row(0.9, label="wrong", version=made.version, kind="moderate", feedback="wrong"),
        row(0.9, label="wrong", version=made.version, kind="moderate", feedback="right"),
        tmp_path=tmp_path,
    )
    assert (found.counts.reviewed, found.counts.wrong) == (2, 1)


def test_drift_log_counts_extractions(tmp_path: Path) -> None:
    """Their label is how many fields there are, which is nothing to agree on."""
    made = whole("extract")

    def extracted(feedback: str | None, **more: Any) -> Logged:
        said = (("static", "", 0.9),)
        return Logged(said, "2", made.version, kind="extract", feedback=feedback, **more)

    found = of_kind(
        made,
        *(extracted(each) for each in ("right", "right", "wrong", None)),
        extracted("wrong", shadow=""),
        tmp_path=tmp_path,
    )
    counts = found.counts
    assert (counts.rows, counts.reviewed, counts.wrong) == (5, 4, 2)
    assert (counts.early, counts.both_known) == (0, 0)
