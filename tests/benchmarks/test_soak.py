"""The checks of the soak: every kind of reply that must not be is seen, and no other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sprat.benchmarks.process import EmptyServerProcess
from sprat.benchmarks.soak import (
    CHANNELS,
    Call,
    Opinion,
    Subject,
    Tally,
    check,
    check_error,
    plan,
    soak,
)
from sprat.calibration import least_confidence
from sprat.errors import DeadlineExceeded, EngineError, InvalidInput, QueueFull, SpratError
from sprat.values import (
    Classification,
    ClassifyResult,
    Degraded,
    ItemError,
    LabelScore,
    TierAnswer,
    Timings,
)

ACCEPT_AT = (0.8, 0.7, 0.0)
SAID = (
    # What each tier says of each text: label, confidence.
    (("a", 0.9), ("a", 0.95), ("a", None)),
    (("b", 0.5), ("c", 0.9), ("c", None)),
    (("a", 0.5), ("b", 0.5), ("d", None)),
)
SUBJECT = Subject(
    tasks={"abstains": "abstain", "answers": "answer", "fails": "error"},
    accept_at=ACCEPT_AT,
    engines=("static", "ct2", "remote"),
    texts=("one", "two", "three"),
    opinions=[
        [
            Opinion({label: 0.9, "z": 0.1}, confidence, None if tier == 2 else 10 * text + tier)
            for tier, (label, confidence) in enumerate(said)
        ]
        for text, said in enumerate(SAID)
    ],
)
EVERY = (0, 1, 2)


def item(
    text: int, tier: int, *, degraded: Degraded | None = None, abstained: bool = False
) -> Classification:
    label, confidence = SAID[text][tier]
    return Classification(
        label="" if abstained else label,
        confidence=confidence,
        scores=(LabelScore(label, 0.9),),
        abstained=abstained,
        tier=tier,
        escalated=tier > 0,
        input_tokens=10 * text + tier,
        degraded=degraded,
        tiers=tuple(TierAnswer(at, *SAID[text][at]) for at in range(tier + 1)),
    )


GOOD = (item(0, 0), item(1, 1), item(2, 2))


def checked(
    items: Sequence[Classification | None],
    *,
    task: str = "abstains",
    which: Sequence[int] = EVERY,
    errors: Sequence[ItemError] = (),
) -> Tally:
    tally = Tally()
    result = ClassifyResult(tuple(items), tuple(errors), "m", "v", "t", True, Timings())
    check(SUBJECT, Call(task, tuple(which), True, None), result, tally)
    return tally


def faults(tally: Tally) -> tuple[int, int, int]:
    assert bool(tally.faults) == bool(tally.lost or tally.wrong or tally.broken)
    return tally.lost, tally.wrong, tally.broken


@pytest.mark.parametrize("task", SUBJECT.tasks)
def test_soak_takes_answers_as_they_should_be(task: str) -> None:
    tally = checked(GOOD, task=task)
    assert faults(tally) == (0, 0, 0)
    assert (tally.answered, tally.by_tier) == (3, {0: 1, 1: 1, 2: 1})
    turned = checked(GOOD[::-1], task=task, which=EVERY[::-1])
    assert faults(turned) == (0, 0, 0)


def test_soak_takes_what_the_policy_says_of_missed_tiers() -> None:
    shed = (item(0, 0), item(1, 0, degraded="overload"), item(2, 1, degraded="failure"))
    assert faults(checked(shed, task="answers")) == (0, 0, 0)
    abstained = (shed[0], *(replace(each, label="", abstained=True) for each in shed[1:]))
    tally = checked(abstained, task="abstains")
    assert faults(tally) == (0, 0, 0)
    assert tally.degraded == {"overload": 1, "failure": 1}
    errors = [ItemError(1, "DEADLINE", ""), ItemError(2, "ENGINE", "")]
    failed = checked((GOOD[0], None, None), task="fails", errors=errors)
    assert (faults(failed), failed.failed) == ((0, 0, 0), 2)


@pytest.mark.parametrize(
    ("items", "task", "expected"),
    [
        # Not its own.
        ((GOOD[1], GOOD[0], GOOD[2]), "abstains", (0, 2, 0)),
        (GOOD[:2], "abstains", (0, 1, 0)),
        ((*GOOD, GOOD[0]), "abstains", (0, 1, 0)),
        ((None, *GOOD[1:]), "abstains", (0, 1, 0)),
        ((replace(GOOD[0], input_tokens=3), *GOOD[1:]), "abstains", (0, 1, 0)),
        ((replace(GOOD[0], tiers=()), *GOOD[1:]), "abstains", (0, 1, 0)),
        ((replace(GOOD[0], scores=(LabelScore("z", 1.0),)), *GOOD[1:]), "abstains", (0, 1, 0)),
        ((GOOD[0], replace(GOOD[1], tiers=GOOD[1].tiers[1:]), GOOD[2]), "abstains", (0, 1, 0)),
        # Not as threshold and policy say.
        ((item(0, 1), *GOOD[1:]), "abstains", (0, 0, 1)),
        ((GOOD[0], item(1, 0), GOOD[2]), "abstains", (0, 0, 1)),
        ((GOOD[0], item(1, 2), GOOD[2]), "abstains", (0, 0, 1)),
        ((replace(GOOD[0], label="b"), *GOOD[1:]), "abstains", (0, 0, 1)),
        ((item(0, 0, abstained=True), *GOOD[1:]), "abstains", (0, 0, 1)),
        ((*GOOD[:2], item(2, 2, abstained=True)), "abstains", (0, 0, 1)),
        ((replace(GOOD[0], escalated=True), *GOOD[1:]), "abstains", (0, 0, 1)),
        ((item(0, 0, degraded="no_time"), *GOOD[1:]), "answers", (0, 0, 1)),
        ((*GOOD[:2], item(2, 2, degraded="failure")), "answers", (0, 0, 1)),
        ((*GOOD[:2], item(2, 1, degraded="failure")), "abstains", (0, 0, 1)),
        ((*GOOD[:2], item(2, 1, degraded="failure", abstained=True)), "answers", (0, 0, 1)),
        ((*GOOD[:2], item(2, 1, degraded="failure")), "fails", (0, 0, 1)),
    ],
)
def test_soak_sees_what_must_not_be(
    items: Sequence[Classification | None], task: str, expected: tuple[int, int, int]
) -> None:
    assert faults(checked(items, task=task)) == expected


@pytest.mark.parametrize(
    ("task", "at", "reason"),
    [("abstains", 1, "ENGINE"), ("fails", 0, "ENGINE"), ("fails", 1, "INVALID_INPUT")],
)
def test_soak_sees_errors_that_must_not_be(task: str, at: int, reason: str) -> None:
    items: list[Any] = [*GOOD]
    items[at] = None
    assert faults(checked(items, task=task, errors=[ItemError(at, reason, "")])) == (0, 0, 1)


def test_soak_sees_errors_of_other_items() -> None:
    errors = [ItemError(1, "ENGINE", ""), ItemError(1, "ENGINE", "")]
    items = (GOOD[0], None, GOOD[2])
    assert faults(checked(items, task="fails", errors=errors)) == (0, 1, 0)
    assert faults(checked(items, task="fails", errors=[replace(errors[0], index=2)])) == (0, 1, 0)


@pytest.mark.parametrize(
    ("task", "which", "partial", "error", "expected"),
    [
        ("fails", EVERY, False, EngineError("x"), (0, 0, 0)),
        ("fails", EVERY, False, QueueFull("x"), (0, 0, 0)),
        ("fails", EVERY, False, DeadlineExceeded("x"), (0, 0, 0)),
        ("fails", EVERY, True, EngineError("x"), (0, 0, 1)),
        ("fails", (0,), False, EngineError("x"), (0, 0, 1)),
        ("answers", EVERY, False, EngineError("x"), (0, 0, 1)),
        ("fails", EVERY, False, InvalidInput("x", field="texts"), (1, 0, 0)),
    ],
)
def test_soak_errors_of_calls(
    task: str,
    which: tuple[int, ...],
    partial: bool,
    error: SpratError,
    expected: tuple[int, int, int],
) -> None:
    tally = Tally()
    check_error(SUBJECT, Call(task, which, partial, None), error, tally)
    assert faults(tally) == expected
    assert tally.failed == (len(which) if expected == (0, 0, 0) else 0)


def test_soak_forgives_what_a_batch_moves() -> None:
    opinion = Opinion({"a": 0.50, "b": 0.45, "c": 0.05}, 0.5)
    assert opinion.allows("b", 0.45)
    assert not opinion.allows("c", 0.5)
    assert not opinion.allows("a", 0.9)
    assert not opinion.allows("a", None)
    assert not opinion.allows("d", 0.5)
    least = least_confidence(0.7, "ct2")
    assert SUBJECT.is_sure(1, least, 0)
    assert not SUBJECT.is_sure(1, 0.7, 0)


def test_soak_plan_is_the_same_again_and_has_every_kind_of_call() -> None:
    calls = plan(SUBJECT, 200, seed=1)
    assert calls == plan(SUBJECT, 200, seed=1) != plan(SUBJECT, 200, seed=2)
    assert {(each.task, each.partial) for each in calls} == {
        (task, partial) for task in SUBJECT.tasks for partial in (True, False)
    }
    assert {len(each.which) for each in calls} == {1, 2, 3}
    assert {each.budget_ms is None for each in calls} == {True, False}
    assert all(len(set(each.which)) == len(each.which) for each in calls)


async def test_soak_sends_every_call_and_sees_that_nothing_is_right() -> None:
    """The empty server always has the same answer."""
    calls = plan(SUBJECT, 4 * CHANNELS, seed=1)
    with EmptyServerProcess() as server:
        tally = await soak(server.address, SUBJECT, calls, rate=1000)
    assert (tally.calls, tally.lost) == (len(calls), 0)
    assert tally.texts == sum(len(each.which) for each in calls)
    assert len(tally.latencies_ms) == len(calls)
    assert tally.wrong >= len(calls)
