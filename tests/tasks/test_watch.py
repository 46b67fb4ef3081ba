"""The window of the newest answers: what it counts, forgets, and says in the log."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from tuned import manifest, tuning

from sprat.bundle_manifest import BundleManifest
from sprat.tasks.watch import STEP, WINDOW, Watch
from sprat.tuning_manifest import TierTraffic, Traffic
from sprat.values import (
    Classification,
    Degraded,
    Drift,
    DriftFigure,
    Moderation,
    TierAnswer,
)

PARTS = [("static", 0.8), ("head", 0.0)]
TEXT_LABELS = ("refund", "delivery")
TRAFFIC = Traffic(
    rows=1000,
    tiers=(
        TierTraffic(name="static", edges=(0.5, 0.8), counts=(200, 200, 600), passed_on=400),
        TierTraffic(name="head", edges=(0.9,), counts=(100, 300), passed_on=0),
    ),
    labels={"refund": 500, "delivery": 500},
)
TUNED = manifest(TEXT_LABELS, (0.8, 0.0), tuned=tuning(TRAFFIC))


def answer(
    *confidences: float | None, label: str = "refund", degraded: Degraded | None = None
) -> Classification:
    return Classification(
        label=label,
        confidence=confidences[-1],
        scores=(),
        abstained=not label,
        tier=len(confidences) - 1,
        escalated=len(confidences) > 1,
        input_tokens=3,
        dropped_tokens=0,
        degraded=degraded,
        tiers=tuple(TierAnswer(at, label, each) for at, each in enumerate(confidences)),
    )


def usual(count: int, rng: Any) -> list[Classification]:
    """Answers as those of the tuning."""
    made = []
    for at in rng.choice(3, count, p=(0.2, 0.2, 0.6)).tolist():
        label = TEXT_LABELS[int(rng.integers(2))]
        second = 0.8 if rng.random() < 0.25 else 0.95
        made.append(
            answer(0.9, label=label) if at == 2 else answer((0.3, 0.6)[at], second, label=label)
        )
    return made


def figure(drift: Drift, what: str, tier: str = "") -> DriftFigure:
    (found,) = (each for each in drift.figures if (each.what, each.tier) == (what, tier))
    return found


def test_watch_compares_the_newest_answers() -> None:
    watch = Watch("tickets", TUNED, PARTS)
    assert (watch.drift.verdict, watch.drift.rows) == ("too_few", 0)
    rng = np.random.default_rng(0)
    watch.add([*usual(1000, rng), None])
    drift = watch.drift
    assert (drift.verdict, drift.rows) == ("stable", 1000)
    assert [(each.what, each.tier) for each in drift.figures] == [
        ("confidence", "static"),
        ("passed_on", "static"),
        ("confidence", "head"),
        ("passed_on", "head"),
        ("labels", ""),
    ]
    assert figure(drift, "passed_on", "static").expected == 0.4
    for each in usual(5000, rng):
        watch.add([each])
    assert watch.drift.rows == WINDOW
    assert figure(watch.drift, "labels").rows == WINDOW
    assert watch.drift.verdict == "stable"
    watch.add([answer(0.3, 0.3, label="refund")] * WINDOW)
    assert watch.drift.verdict == "drifted"
    assert figure(watch.drift, "passed_on", "static").share == 1.0
    watch.add(usual(WINDOW, rng))
    assert watch.drift.verdict == "stable"


def test_watch_window_is_larger_for_many_labels() -> None:
    labels = [*TEXT_LABELS, *map(str, range(298))]
    watch = Watch("tickets", manifest(labels, (0.8, 0.0), tuned=tuning(TRAFFIC)), PARTS)
    watch.add([answer(0.9)] * 5000)
    assert watch.drift.rows == 3000


def test_watch_counts_abstentions_and_missed_tiers() -> None:
    watch = Watch("tickets", TUNED, PARTS)
    watch.add([answer(0.3, 0.2, label="")] * 100)  # As a threshold of the last tier would.
    watch.add([answer(0.3, degraded="overload")] * 50)
    watch.add([answer(0.3, None)] * 10)  # No confidence to compare.
    drift = watch.drift
    assert drift.rows == 150
    assert figure(drift, "confidence", "static").rows == 150
    assert figure(drift, "passed_on", "static").share == 1.0
    assert figure(drift, "passed_on", "head").share == 1.0
    assert figure(drift, "labels").rows == 100  # Those of missed tiers are not its own.


def test_watch_says_once_that_a_verdict_has_changed(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("tickets", TUNED, PARTS)
    rng = np.random.default_rng(1)
    with caplog.at_level(logging.WARNING):
        watch.add(usual(2 * STEP, rng))
        assert caplog.messages == []
        for _ in range(3 * STEP):
            watch.add([answer(0.3, 0.95)])
        watch.add([answer(0.3, 0.95)] * (2 * WINDOW))
    assert [message.split(" on the last")[0] for message in caplog.messages] == [
        "task tickets: drifted"
    ]
    assert "passed_on of static (PSI" in caplog.text
    assert "tune again with newer rows" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            watch.add(usual(WINDOW, rng))
    assert caplog.messages == ["task tickets: stable again"]
    assert not any(label in caplog.text for label in TEXT_LABELS)


@pytest.mark.parametrize(
    ("made", "parts", "note"),
    [
        (manifest(TEXT_LABELS, (0.8, 0.0)), PARTS, "was not tuned"),
        (TUNED, [("static", 0.7), ("head", 0.0)], "thresholds that are served are not those"),
        (TUNED, [("head", 0.0)], "thresholds that are served are not those"),
    ],
)
def test_watch_says_why_there_is_nothing_to_compare_with(
    made: BundleManifest, parts: list[tuple[str, float]], note: str
) -> None:
    watch = Watch("tickets", made, parts)
    watch.add([answer(0.3, 0.95)] * 1000)
    assert (watch.drift.verdict, watch.drift.rows, watch.drift.figures) == ("unknown", 0, ())
    assert note in watch.drift.note


def test_watch_takes_moderations() -> None:
    """Whatever the kind of answer: what its tiers said is in the same place."""
    watch = Watch("tickets", TUNED, PARTS)
    said = TierAnswer(0, "refund", 0.9)
    moderation = Moderation(
        action="flag", category="refund", categories=(), chunks=1, input_tokens=3, tiers=(said,)
    )
    watch.add([moderation] * 100)
    assert watch.drift.rows == 100
    assert figure(watch.drift, "confidence", "static").rows == 100
    assert figure(watch.drift, "passed_on", "static").share == 0.0
