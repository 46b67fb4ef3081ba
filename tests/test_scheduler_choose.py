"""Choices in the generate scheduler: order, room, who gives up, what breaks, and beside answers.

One file, because all of it stands on the chooser and the calls below.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from doubles import WAIT_S, Chooser, Generator, chances, no_leaked_threads, own, until

from sprat.budget import ComputePermits
from sprat.engine.base import Choice, Chosen, Progress, Start
from sprat.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    InvalidInput,
    NotReady,
    QueueFull,
    SpratError,
)
from sprat.scheduler import SLICE_TOKENS, ChoiceWork, GenerateScheduler, GenerateWork
from sprat.values import IntArray, Sampling


def ids(text: str) -> IntArray:
    return np.array([ord(c) for c in text], np.int32)


class Pick:
    """One choice, as a model asks for it."""

    def __init__(
        self, text: str = "a", *, shared: str = "which? ", deadline_s: float = math.inf
    ) -> None:
        self.outcomes: list[Chosen | SpratError] = []
        self._done = threading.Event()
        choice = Choice(ids(shared + text), len(shared), (ids("a"), ids("b")))
        self.work = ChoiceWork(choice, len(text), time.monotonic() + deadline_s, self._take)

    def _take(self, outcome: Chosen | SpratError) -> None:
        assert not self._done.is_set(), "an outcome came after the end"
        self.outcomes.append(outcome)
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def wait(self) -> Chosen | SpratError:
        assert self._done.wait(WAIT_S), "the choice never ended"
        return self.outcomes[0]

    def check(self) -> None:
        outcome = self.wait()
        assert isinstance(outcome, Chosen), outcome
        np.testing.assert_array_equal(outcome.probabilities, chances(self.work.choice))
        assert self.work.started_ns >= self.work.submitted_ns > 0

    def check_error(self, kind: type[SpratError]) -> SpratError:
        outcome = self.wait()
        assert isinstance(outcome, kind)
        return outcome


MakeScheduler = Callable[..., GenerateScheduler]


@pytest.fixture
def generator() -> Generator:
    return Generator()


@pytest.fixture
def chooser(generator: Generator) -> Chooser:
    return generator.choices


@pytest.fixture
def schedule(generator: Generator) -> Iterator[MakeScheduler]:
    made: list[GenerateScheduler] = []

    def build(*, threads: int = 2, capacity: int = 10_000) -> GenerateScheduler:
        made.append(
            GenerateScheduler("g", lambda: generator, ComputePermits(threads), capacity=capacity)
        )
        return made[-1]

    with no_leaked_threads():
        yield build
        generator.gate.set()
        generator.choices.gate.set()
        for scheduler in made:
            if not generator.closed:
                scheduler.close()


def submit(scheduler: GenerateScheduler, *picks: Pick) -> None:
    scheduler.submit_choices([pick.work for pick in picks])


def hold(scheduler: GenerateScheduler, chooser: Chooser) -> Pick:
    """Keep the owner thread in a step until the gate opens."""
    chooser.gate.clear()
    pick = Pick("held")
    submit(scheduler, pick)
    until(lambda: chooser.live, "the engine never started")
    return pick


def test_scheduler_choose_answers(schedule: MakeScheduler, chooser: Chooser) -> None:
    scheduler = schedule()
    picks = [Pick("aab"), Pick("b"), Pick("none")]
    submit(scheduler, *picks)
    for pick in picks:
        pick.check()
    assert set(chooser.slices) == {(SLICE_TOKENS, 2)}


def test_scheduler_choose_shares_the_cpu_time_of_steps_by_tokens(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    chooser.steps_each = 2
    scheduler = schedule(threads=2)
    first = hold(scheduler, chooser)
    picks = [Pick("aab"), Pick("aab" * 3)]
    submit(scheduler, *picks)
    began = time.perf_counter_ns()
    chooser.gate.set()
    for pick in (first, *picks):
        pick.check()
    spent_ns = time.perf_counter_ns() - began
    one, three = (pick.work.cpu_ns for pick in picks)
    assert 0 < one < three
    assert three == pytest.approx(3 * one, abs=10), "nine tokens beside three, in the same steps"
    assert one + three <= 2 * spent_ns, "no more than two threads could take"


def test_scheduler_choose_starts_in_order_of_arrival(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    chooser.places = 2
    scheduler = schedule()
    first = hold(scheduler, chooser)
    names = [f"number {number}" for number in range(7)]
    picks = [Pick(name) for name in names]
    for pick in picks:
        submit(scheduler, pick)
    chooser.gate.set()
    for pick in [first, *picks]:
        pick.check()
    assert chooser.started == ["held", *names]


def test_scheduler_choose_refuses_what_never_fits_instead_of_waiting(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    scheduler = schedule()
    first = hold(scheduler, chooser)
    impossible, fine = Pick("x" * 2000), Pick()
    submit(scheduler, impossible, fine)
    chooser.gate.set()
    first.check()
    assert "2007 tokens do not fit, even alone" in impossible.check_error(EngineError).message
    fine.check()


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (InvalidInput("labels[1]: alike", field="labels[1]"), InvalidInput, r"labels[1]: alike"),
        (ValueError("secret text"), EngineError, "ValueError"),
    ],
)
def test_scheduler_choose_start_failure_hits_only_its_choice(
    schedule: MakeScheduler,
    chooser: Chooser,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    kind: type[SpratError],
    message: str,
) -> None:
    def on_start(choice: Choice) -> None:
        if own(choice) == "bad":
            raise failure

    chooser.on_start = on_start
    scheduler = schedule()
    first = hold(scheduler, chooser)
    bad, good = Pick("bad"), Pick("b")
    submit(scheduler, bad, good)
    chooser.gate.set()
    first.check()
    good.check()
    assert message in bad.check_error(kind).message
    assert "secret" not in caplog.text


def test_scheduler_choose_step_failure_ends_the_live_ones_and_it_goes_on(
    schedule: MakeScheduler, chooser: Chooser, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("secret text")]

    def on_step() -> None:
        if len(chooser.live) == 3 and failures:
            raise failures.pop()

    chooser.on_step = on_step
    chooser.steps_each = 2
    scheduler = schedule()
    first = hold(scheduler, chooser)
    others = [Pick("a"), Pick("b")]
    submit(scheduler, *others)
    chooser.gate.set()
    for pick in [first, *others]:
        error = pick.check_error(EngineError)
        assert error.message == "model g failed on a batch (RuntimeError)"
    assert "secret" not in caplog.text
    assert len(chooser.stopped) == 3
    after = Pick()
    submit(scheduler, after)
    after.check()


def test_scheduler_choose_failure_of_one_hits_only_that(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    scheduler = schedule()
    first = hold(scheduler, chooser)
    chooser.odd[1] = Chosen(1, error="logits are not finite")
    broken, good = Pick(), Pick("b")
    submit(scheduler, broken, good)
    chooser.gate.set()
    first.check()
    good.check()
    assert broken.check_error(EngineError).message == "model g: logits are not finite"


def test_scheduler_choose_ignores_results_of_choices_that_ended(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    scheduler = schedule()
    first = hold(scheduler, chooser)
    chooser.odd[0] = Chosen(77)
    scheduler.cancel(first.work)
    other = Pick()
    submit(scheduler, other)
    chooser.gate.set()
    other.check()
    first.check_error(Cancelled)


def test_scheduler_choose_engine_that_breaks_between_steps_leaves_nobody_waiting(
    schedule: MakeScheduler,
    generator: Generator,
    chooser: Chooser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = schedule()
    live = hold(scheduler, chooser)
    waiting = Pick()
    submit(scheduler, waiting)
    scheduler.cancel(live.work)

    def broken(_: Chooser, __: int) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Chooser, "stop", broken)
    chooser.steps_each = 3
    chooser.live[0] = chooser.live[0][0], 3
    chooser.gate.set()
    live.check_error(EngineError)
    waiting.check_error(EngineError)
    with pytest.raises(EngineError, match="stopped after a failure"):
        submit(scheduler, Pick())
    until(lambda: generator.closed)


def test_scheduler_choose_cancel_one_of_eight(schedule: MakeScheduler, chooser: Chooser) -> None:
    """Live ones are dropped before the next step, the others finish."""
    chooser.steps_each = 3
    scheduler = schedule()
    picks = [hold(scheduler, chooser), *(Pick(f"{number}") for number in range(7))]
    submit(scheduler, *picks[1:])
    chooser.gate.set()
    until(lambda: len(chooser.started) == 8 or picks[0].is_done)
    scheduler.cancel(picks[4].work)
    outcome = picks[4].wait()
    for pick in picks[:4] + picks[5:]:
        pick.check()
    assert isinstance(outcome, Cancelled | Chosen)


def test_scheduler_choose_cancel_while_live_stops_the_engine(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    chooser.steps_each = 3
    scheduler = schedule()
    held = hold(scheduler, chooser)
    neighbours = [Pick(f"{number}") for number in range(7)]
    submit(scheduler, *neighbours)
    scheduler.cancel(held.work)
    chooser.gate.set()
    held.check_error(Cancelled)
    for pick in neighbours:
        pick.check()
    assert chooser.stopped == ["held"]


def test_scheduler_choose_cancel_while_waiting_never_starts(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    scheduler = schedule()
    first = hold(scheduler, chooser)
    dropped, kept = Pick("dropped"), Pick("kept")
    submit(scheduler, dropped, kept)
    scheduler.cancel(dropped.work)
    chooser.gate.set()
    dropped.check_error(Cancelled)
    first.check()
    kept.check()
    assert chooser.started == ["held", "kept"]


def test_scheduler_choose_cancel_after_the_end_does_nothing(schedule: MakeScheduler) -> None:
    scheduler = schedule()
    pick, after = Pick(), Pick()
    submit(scheduler, pick)
    pick.check()
    scheduler.cancel(pick.work)
    submit(scheduler, after)
    after.check()


def test_scheduler_choose_deadline(schedule: MakeScheduler, chooser: Chooser) -> None:
    chooser.steps_each = 2
    scheduler = schedule()
    chooser.gate.clear()
    live = Pick("live", deadline_s=0.05)
    submit(scheduler, live)
    until(lambda: chooser.live)
    late, patient = Pick("late", deadline_s=0.01), Pick("patient")
    submit(scheduler, late, patient)
    time.sleep(0.06)
    chooser.gate.set()
    for pick in (live, late):
        assert "the time ran out" in pick.check_error(DeadlineExceeded).message
    patient.check()
    assert chooser.stopped == ["live"]
    assert "late" not in chooser.started


def test_scheduler_choose_queue_full_counts_what_is_not_shared(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    scheduler = schedule(capacity=20)
    first = hold(scheduler, chooser)
    waiting = Pick("x" * 15)
    submit(scheduler, waiting)
    fits, too_much = Pick("x" * 5), Pick("x" * 6)
    with pytest.raises(QueueFull) as caught:
        submit(scheduler, too_much)
    assert caught.value.message == "model g: 15 tokens wait, 6 more do not fit into 20"
    submit(scheduler, fits)
    chooser.gate.set()
    for pick in (first, waiting, fits):
        pick.check()


def test_scheduler_choose_many_at_once_are_taken_whole_or_not_at_all(
    schedule: MakeScheduler, chooser: Chooser
) -> None:
    scheduler = schedule(capacity=20)
    first = hold(scheduler, chooser)
    # An empty queue takes what is larger than itself: it would never fit otherwise.
    many = [Pick("x" * 10) for _ in range(4)]
    submit(scheduler, *many)
    refused = [Pick("a"), Pick("b")]
    with pytest.raises(QueueFull):
        submit(scheduler, *refused)
    chooser.gate.set()
    for pick in [first, *many]:
        pick.check()
    assert not any(pick.is_done for pick in refused)
    assert len(chooser.started) == 5


def test_scheduler_choose_shares_the_queue_with_answers(
    schedule: MakeScheduler, generator: Generator, chooser: Chooser
) -> None:
    scheduler = schedule(capacity=20)
    first = hold(scheduler, chooser)
    pick = Pick("x" * 15)
    submit(scheduler, pick)
    work, events = answer("abc", max_tokens=3)
    with pytest.raises(QueueFull):
        scheduler.submit([work])
    chooser.gate.set()
    first.check()
    pick.check()
    assert not events


def test_scheduler_choose_without_a_chooser_fails_only_choices(
    schedule: MakeScheduler, generator: Generator
) -> None:
    """It is tried again: memory may be there later."""
    failures: list[Exception] = [EngineError("no memory"), MemoryError("secret")]

    def on_chooser() -> None:
        if failures:
            raise failures.pop(0)

    generator.on_chooser = on_chooser
    scheduler = schedule()
    generator.gate.clear()
    work, events = answer("ab", max_tokens=6)
    scheduler.submit([work])
    until(lambda: generator.live)
    first = Pick()
    submit(scheduler, first)
    generator.gate.set()
    assert first.check_error(EngineError).message == "no memory"
    second = Pick()
    submit(scheduler, second)
    assert "MemoryError" in second.check_error(EngineError).message
    third = Pick()
    submit(scheduler, third)
    third.check()
    until(lambda: events and events[-1].finish_reason)
    assert "".join(event.text for event in events) == "ababab"


def test_scheduler_choose_makes_no_chooser_without_choices(
    schedule: MakeScheduler, generator: Generator
) -> None:
    made: list[None] = []
    generator.on_chooser = lambda: made.append(None)
    scheduler = schedule()
    work, events = answer("ab", max_tokens=3)
    scheduler.submit([work])
    until(lambda: events and events[-1].finish_reason)
    scheduler.close()
    assert not made


def test_scheduler_choose_close_drains(schedule: MakeScheduler, chooser: Chooser) -> None:
    chooser.places = 1
    scheduler = schedule()
    picks = [hold(scheduler, chooser), *(Pick(f"{number}") for number in range(5))]
    submit(scheduler, *picks[1:])
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: scheduler._closed)
    with pytest.raises(NotReady, match="being unloaded"):
        submit(scheduler, Pick())
    chooser.gate.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    for pick in picks:
        pick.check()


def answer(prompt: str, *, max_tokens: int) -> tuple[GenerateWork, list[Progress]]:
    """An answer to generate, and the list that its progress goes to."""
    events: list[Progress] = []

    def on_progress(event: Progress | SpratError) -> None:
        assert isinstance(event, Progress), event
        events.append(event)

    start = Start(-1, ids(prompt), Sampling(max_tokens=max_tokens))
    return GenerateWork(start, math.inf, on_progress), events


def test_scheduler_choose_takes_turns_with_answers(
    schedule: MakeScheduler, generator: Generator, chooser: Chooser
) -> None:
    """A crowd of one kind does not hold up the other: one step each."""
    chooser.steps_each = 4
    chooser.places = 1
    scheduler = schedule()
    held = hold(scheduler, chooser)
    picks = [Pick(f"{number}") for number in range(5)]
    submit(scheduler, *picks)
    work, events = answer("ab", max_tokens=10)
    scheduler.submit([work])
    turns: list[str] = []
    generator.on_step = lambda: turns.append("answer")
    chooser.on_step = lambda: turns.append("choice")
    chooser.gate.set()
    for pick in [held, *picks]:
        pick.check()
    until(lambda: events and events[-1].finish_reason)
    assert "".join(event.text for event in events) == "ab" * 5
    first = turns.index("answer")
    assert turns[first : first + 20] == ["answer", "choice"] * 10


def test_scheduler_choose_loses_nothing_in_a_storm(
    schedule: MakeScheduler, generator: Generator, chooser: Chooser
) -> None:
    """Threads submit, cancel and run into deadlines; every choice and answer ends, once."""
    chooser.places = 3
    chooser.steps_each = 2
    scheduler = schedule(capacity=100_000)
    ended: list[Pick] = []
    answers: list[list[Progress]] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for number in range(40):
            pick = Pick(f"{seed}.{number}", deadline_s=rng.choice([math.inf, 0.001]))
            submit(scheduler, pick)
            if rng.random() < 0.3:
                scheduler.cancel(pick.work)
            ended.append(pick)
            if rng.random() < 0.2:
                generated, events = answer("ab", max_tokens=3)
                scheduler.submit([generated])
                answers.append(events)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    for pick in ended:
        outcome = pick.wait()
        assert isinstance(outcome, Chosen | Cancelled | DeadlineExceeded)
        assert len(pick.outcomes) == 1
    for events in answers:
        until(lambda events=events: events and events[-1].finish_reason)  # type: ignore[misc]
    scheduler.close()
    assert not chooser.live
    assert not scheduler._choices
