"""The window of the newest answers: what it counts, forgets, and says in the log."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from tuned import manifest, tuning

from sprat.bundle_manifest import BundleManifest
from sprat.decisions import Decision, TierRecord
from sprat.tasks import outcomes
from sprat.tasks.tier import Judged
from sprat.tasks.watch import STEP, STEP_KNOWN, WINDOW, Watch
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


def decision(
    *confidences: float,
    label: str = "refund",
    request: str = "r",
    feedback: str | None = None,
    shadow: str | None = None,
    degraded: str | None = None,
    time: float = 1_750_000_000.0,
) -> Decision:
    """As the decision log has it."""
    names = [name for name, _ in PARTS]
    last = len(confidences) - 1
    return Decision(
        id=1,
        request_id=request,
        item=0,
        time=time,
        task="tickets",
        task_version=TUNED.version,
        kind="classify",
        text_hash=b"",
        text=None,
        label=label,
        confidence=confidences[-1],
        abstained=not label,
        tier=last,
        escalated=last > 0,
        degraded=degraded,
        tiers=tuple(
            TierRecord(at, names[at], label or "refund", each)
            for at, each in enumerate(confidences)
        ),
        input_tokens=3,
        shadow=None if shadow is None else TierRecord(1, "head", shadow, 0.9),
        feedback=feedback,
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
        ("loss", ""),
    ]
    assert (drift.reference, drift.reference_rows) == ("tuning", 1000)
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
        (manifest(TEXT_LABELS, (0.8, 0.0)), PARTS, "were not tuned: run sprat tune"),
        (TUNED, [("static", 0.7), ("head", 0.0)], "thresholds that are served are not those"),
        (TUNED, [("head", 0.0)], "tier head comes from a version that kept no rows"),
        (
            manifest(TEXT_LABELS, (0.8, 0.0), tuned=tuning(None)),
            PARTS,
            "tuned by a version that kept no rows",
        ),
    ],
)
def test_watch_says_why_there_is_nothing_to_compare_with(
    made: BundleManifest, parts: list[tuple[str, float]], note: str
) -> None:
    watch = Watch("tickets", made, parts)
    watch.add([answer(0.3, 0.95)] * 1000)
    watch.recall([], [decision(0.9, feedback="refund")], {})
    watch.learn(decision(0.9, feedback="delivery"))
    assert (watch.drift.verdict, watch.drift.rows, watch.drift.figures) == ("unknown", 0, ())
    assert watch.drift.reference is None
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


# -- what became known later -----------------------------------------------------------------

PROMISED = manifest(TEXT_LABELS, (0.8, 0.0), tuned=tuning(TRAFFIC, rule="error", limit=0.05))


def remembering(made: BundleManifest = PROMISED) -> Watch:
    """A watch that knows all answers from before, which are none."""
    watch = Watch("tickets", made, PARTS)
    watch.recall([], [], {})
    return watch


def review(watch: Watch, right: int, wrong: int, **more: Any) -> None:
    for at in range(right + wrong):
        said = "refund" if at < right else "delivery"
        watch.learn(decision(0.9, request=f"r{at}", feedback=said, **more))


def test_watch_puts_a_promised_error_to_the_test(caplog: pytest.LogCaptureFixture) -> None:
    watch = remembering()
    watch.add(usual(1000, np.random.default_rng(0)))
    unknown = figure(watch.drift, "error")
    assert (unknown.rows, unknown.verdict, unknown.expected) == (0, "too_few", 0.05)
    review(watch, 96, 4)
    kept = figure(watch.drift, "error")
    assert (kept.rows, kept.share, kept.verdict) == (100, 0.04, "stable")
    assert kept.low is not None
    assert kept.high is not None
    assert 0.01 < kept.low < 0.04 < kept.high < 0.1
    assert watch.drift.verdict == "stable"
    with caplog.at_level(logging.WARNING):
        review(watch, 80, 20)
    broken = watch.drift
    assert (broken.verdict, figure(broken, "error").share) == ("drifted", 0.2)
    assert broken.note == "the guarantee no longer holds: tune again with newer rows"
    assert figure(broken, "confidence", "static").verdict == "stable"
    assert "error (20.0% of 100, 95 % interval 12.7% to 29.2%, at most 5.0%)" in caplog.text
    assert len(caplog.messages) == 1


def test_watch_says_that_a_guarantee_is_broken_where_traffic_had_drifted_already(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = remembering()
    with caplog.at_level(logging.WARNING):
        watch.add([answer(0.3, 0.95)] * WINDOW)
        review(watch, 20, 20)
    assert ["guarantee" in message for message in caplog.messages] == [False, True]


def test_watch_looks_at_the_guarantee_every_few_outcomes(caplog: pytest.LogCaptureFixture) -> None:
    watch = remembering()
    with caplog.at_level(logging.WARNING):
        review(watch, 1, STEP_KNOWN - 2)
        assert caplog.messages == []
        watch.learn(decision(0.9, request="last", feedback="delivery"))
    assert len(caplog.messages) == 1


def test_watch_takes_the_last_word_on_an_answer() -> None:
    watch = remembering()
    for said in ("delivery", "delivery", "refund"):
        watch.learn(decision(0.9, feedback=said))
    found = figure(watch.drift, "error")
    assert (found.rows, found.share) == (1, 0.0)
    watch.learn(decision(0.9, feedback="delivery"))
    watch.learn(decision(0.9, request="other", feedback="refund"))
    found = figure(watch.drift, "error")
    assert (found.rows, found.share) == (2, 0.5)


@pytest.mark.parametrize(
    "unfit",
    [
        decision(0.3, 0.2, label="", feedback="refund"),  # Withheld: above every threshold here.
        decision(0.3, degraded="overload", feedback="delivery"),
        decision(0.5, feedback="delivery"),  # A threshold of the request's own.
        decision(0.9),  # Nobody said anything.
    ],
)
def test_watch_leaves_out_feedback_that_says_nothing_of_the_task(unfit: Decision) -> None:
    watch = remembering()
    watch.learn(unfit)
    assert figure(watch.drift, "error").rows == 0


def test_watch_takes_silence_as_consent_where_nobody_confirms() -> None:
    """Of the answers since the hour of the first one that was corrected, on both sides of a start.

    A single confirmation makes a sample of what is reviewed.
    """
    watch = Watch("tickets", PROMISED, PARTS)
    hour = 1_750_000_000 // 3600
    watch.recall([], [], {hour - 1: 5000, hour: 300, hour + 5: 100})
    for at in range(8):
        watch.learn(decision(0.9, request=f"r{at}", feedback="delivery"))
    found = figure(watch.drift, "error")
    assert (found.rows, found.share, found.verdict) == (400, 8 / 400, "stable")
    watch.add([answer(0.9)] * 100 + [answer(0.3, 0.2, label="")])
    assert figure(watch.drift, "error").rows == 500
    watch.learn(decision(0.9, request="right", feedback="refund"))
    assert figure(watch.drift, "error").rows == 9


def test_watch_does_not_learn_of_answers_that_it_never_counted() -> None:
    """Without a log that could be read: the answers from before are not known."""
    watch = Watch("tickets", PROMISED, PARTS)
    watch.add([answer(0.9)] * 10)
    watch.learn(decision(0.9, feedback="delivery"))
    assert figure(watch.drift, "error").rows == 0


def test_watch_compares_shadows_with_the_agreement_of_the_tuning() -> None:
    known = TRAFFIC.model_copy(update={"early": 600, "agreed": 570})
    watch = remembering(manifest(TEXT_LABELS, (0.8, 0.0), tuned=tuning(known, limit=0.02)))
    for at in range(200):
        shadow = "refund" if at % 2 else "delivery"
        watch.learn(decision(0.9, request=f"r{at}", shadow=shadow))
    found = figure(watch.drift, "agreement")
    assert (found.rows, found.share, found.expected) == (200, 0.5, 0.95)
    assert found.verdict == "drifted"
    # Where feedback comes too, what is lost against the last tier is known.
    assert figure(watch.drift, "loss").rows == 0
    watch.add([answer(0.9)] * 100)
    for at in range(100):
        watch.learn(decision(0.9, request=f"r{at}", shadow="delivery", feedback="delivery"))
    drift = watch.drift
    assert (figure(drift, "loss").rows, figure(drift, "loss").verdict) == (100, "drifted")
    assert figure(drift, "agreement").rows == 200
    assert figure(drift, "agreement").share == 0.25


def test_watch_keeps_what_was_learned_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "KNOWN", 30)
    watch = remembering()
    for at in range(100):
        said = "delivery" if at < 70 else "refund"
        watch.learn(decision(0.9, request=f"r{at}", feedback=said))
    found = figure(watch.drift, "error")
    assert (found.rows, found.share) == (30, 0.0)
    assert len(watch._outcomes._reviews) == 30


def test_watch_forgets_what_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "HOURS", 10)
    watch = Watch("tickets", PROMISED, PARTS)
    hour = 1_750_000_000 // 3600
    watch.recall([], [], {hour + at: 100 for at in range(5)})
    review(watch, 40, 0)
    assert figure(watch.drift, "error").rows == 40
    for at in range(8):
        watch._outcomes.count_answers(100, hour + 20 + at)
    assert figure(watch.drift, "error").rows == 0
    watch.learn(decision(0.9, feedback="delivery"))
    assert figure(watch.drift, "error").rows == 0
    assert len(watch._outcomes._answered) == 10


def test_watch_remembers_what_the_log_has_from_before(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("tickets", PROMISED, PARTS)
    newest = [decision(0.3, 0.95)] * (WINDOW + 100)
    known = [decision(0.9, request=f"r{at}", feedback="delivery") for at in range(40)]
    known += [decision(0.9, request="confirmed", feedback="refund")]
    with caplog.at_level(logging.WARNING):
        watch.recall([*newest, decision(0.5)], known, {1_750_000_000 // 3600: 2000})
    drift = watch.drift
    assert (drift.rows, drift.verdict) == (WINDOW, "drifted")
    assert figure(drift, "passed_on", "static").share == 1.0
    assert figure(drift, "error").rows == 41
    assert [message.split(" on the last")[0] for message in caplog.messages] == [
        "task tickets: drifted"
    ]


# -- a task of one tier ----------------------------------------------------------------------

EVALUATED = Traffic(
    rows=400,
    tiers=(TierTraffic(name="head", edges=(0.5, 0.9), counts=(100, 200, 100), passed_on=None),),
    labels={"refund": 100, "delivery": 300},
)


def alone(accept_at: float = 0.0, traffic: Traffic | None = EVALUATED) -> BundleManifest:
    """A bundle whose last tier answers alone."""
    made = manifest(TEXT_LABELS, (0.0, accept_at))
    static, head = made.tiers
    return made.model_copy(update={"tiers": (static, head.model_copy(update={"traffic": traffic}))})


def judged(confidence: list[float | None], label: list[int]) -> Judged:
    count = len(confidence)
    return Judged(
        index=list(range(count)),
        failed={},
        confidence=confidence,
        cpu_ns=[0] * count,
        errors=(),
        tokenize_ns=0,
        queue_ns=0,
        infer_ns=0,
        ranked=[[at, 1 - at] for at in label],
        probabilities=[[0.9, 0.1]] * count,
        labels=TEXT_LABELS,
        input_tokens=[3] * count,
        dropped_tokens=[0] * count,
        cached_tokens=[0] * count,
        pruned=[0.0] * count,
    )


@pytest.mark.parametrize("accept_at", [0.0, 0.7])
def test_watch_compares_a_tier_alone_with_its_evaluation(accept_at: float) -> None:
    """Its labels are the most probable ones: its rows were all answered."""
    watch = Watch("tickets", alone(accept_at), [("head", accept_at)])
    watch.add_alone(judged([0.3, 0.6, 0.6, 0.95] * 100, [0, 1, 1, 1] * 100), accept_at)
    drift = watch.drift
    assert (drift.verdict, drift.rows, drift.reference) == ("stable", 400, "evaluation")
    assert [(each.what, each.tier) for each in drift.figures] == [
        ("confidence", "head"),
        ("labels", ""),
    ]
    assert drift.figures[0].psi == pytest.approx(0.0)
    assert drift.figures[1].psi == pytest.approx(0.0)
    watch.add_alone(judged([0.3] * WINDOW, [0] * WINDOW), accept_at)
    assert watch.drift.verdict == "drifted"
    assert watch.drift.note.endswith("train again with newer rows")


def test_watch_of_a_tier_alone_leaves_out_what_has_no_confidence() -> None:
    watch = Watch("tickets", alone(), [("head", 0.0)])
    watch.add_alone(judged([None, 0.9], [0, 1]), 0.0)
    assert watch.drift.rows == 1


def test_watch_of_a_tier_that_tuning_left_alone_counts_what_it_withholds() -> None:
    traffic = Traffic(
        rows=400,
        tiers=(TierTraffic(name="head", edges=(0.7,), counts=(200, 200), passed_on=200),),
        labels={"": 200, "delivery": 200},
    )
    made = alone(0.7)
    made = made.model_copy(
        update={"tiers": made.tiers[1:], "tuning": tuning(traffic, rule="error", limit=0.05)}
    )
    watch = Watch("tickets", made, [("head", 0.7)])
    watch.add_alone(judged([0.3, 0.9] * 200, [0, 1] * 200), 0.7)
    drift = watch.drift
    assert (drift.verdict, drift.reference) == ("stable", "tuning")
    assert figure(drift, "passed_on", "head").share == 0.5
    assert figure(drift, "labels").psi == pytest.approx(0.0)


def test_watch_remembers_a_tier_alone() -> None:
    """The log names its model, and what it withheld."""
    watch = Watch("tickets", alone(0.7), [("head", 0.7)])
    rows = [decision(0.3, label=""), decision(0.9), decision(0.3)]
    watch.recall(rows, [decision(0.9, feedback="delivery")], {})
    drift = watch.drift
    assert drift.rows == 2
    assert figure(drift, "labels").rows == 2
    assert not [each for each in drift.figures if each.what == "error"]
