"""The generate scheduler: answers side by side, failures kept apart, nobody left waiting."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from doubles import WAIT_S, Generator, no_leaked_threads, until

from sprat.budget import ComputePermits
from sprat.engine.base import Progress, Start
from sprat.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    NotReady,
    QueueFull,
    SpratError,
)
from sprat.scheduler import (
    SLICE_TOKENS,
    GenerateScheduler,
    GenerateWork,
)
from sprat.scheduler.slices import GAP_S
from sprat.values import PrefixUse, Sampling


class Answer:
    """One answer, as a model asks for it."""

    def __init__(
        self, prompt: str = "ab", *, max_tokens: int = 4, deadline_s: float = math.inf
    ) -> None:
        self.events: list[Progress | SpratError] = []
        self._done = threading.Event()
        self.work = GenerateWork(
            Start(
                -1, np.array([ord(c) for c in prompt], np.int32), Sampling(max_tokens=max_tokens)
            ),
            time.monotonic() + deadline_s,
            self._progress,
        )

    def _progress(self, event: Progress | SpratError) -> None:
        assert not self._done.is_set(), "an event came after the end"
        self.events.append(event)
        if isinstance(event, SpratError) or event.finish_reason:
            self._done.set()

    def wait(self) -> None:
        assert self._done.wait(WAIT_S), "the answer never ended"

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, Progress))

    def check(self, text: str) -> None:
        self.wait()
        assert self.text == text
        assert self.work.output_tokens == len(text)
        assert self.work.started_ns >= self.work.submitted_ns > 0

    def check_error(self, kind: type[SpratError]) -> SpratError:
        self.wait()
        error = self.events[-1]
        assert isinstance(error, kind)
        return error


MakeGenerator = Callable[..., GenerateScheduler]


@pytest.fixture
def generator() -> Generator:
    return Generator()


@pytest.fixture
def generate(generator: Generator) -> Iterator[MakeGenerator]:
    made: list[GenerateScheduler] = []

    def build(*, threads: int = 2, capacity: int = 10_000) -> GenerateScheduler:
        made.append(
            GenerateScheduler("g", lambda: generator, ComputePermits(threads), capacity=capacity)
        )
        return made[-1]

    with no_leaked_threads():
        yield build
        generator.gate.set()
        for scheduler in made:
            if not generator.closed:
                scheduler.close()


def hold(scheduler: GenerateScheduler, generator: Generator) -> Answer:
    """Keep the owner thread in a step until the gate opens."""
    generator.gate.clear()
    answer = Answer("z")
    scheduler.submit([answer.work])
    until(lambda: generator.live, "the engine never started")
    return answer


def test_scheduler_generate_streams_an_answer(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    answer = Answer("abc", max_tokens=5)
    scheduler.submit([answer.work])
    answer.check("abcab")
    last = answer.events[-1]
    assert isinstance(last, Progress)
    assert last.finish_reason == "length"
    assert set(generator.slices) == {(SLICE_TOKENS, 2)}


def test_scheduler_generate_counts_what_kept_prefixes_save(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    for number, cached in enumerate((0, 7, 5)):
        generator.odd[number] = Progress(number, "x", 1, "stop", cached=cached)
        answer = Answer()
        scheduler.submit([answer.work])
        answer.check("x")
    failed = Answer()
    generator.odd[3] = Progress(3, "", 0, error="no cells")
    scheduler.submit([failed.work])
    until(lambda: failed.events, "it never ended")
    assert scheduler.prefix_use == PrefixUse(requests=3, hits=2, saved_tokens=12)


def test_scheduler_generate_shares_the_cpu_time_of_steps_by_tokens(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    generator.gate.clear()
    one, three = Answer("ab", max_tokens=3), Answer("abcdef", max_tokens=3)
    generator.step_tokens = {0: 1, 1: 3, 9: 4}
    began = time.perf_counter_ns()
    scheduler.submit([one.work, three.work])
    generator.gate.set()
    one.check("aba")
    three.check("abc")
    spent_ns = time.perf_counter_ns() - began
    assert 0 < one.work.cpu_ns < three.work.cpu_ns
    assert three.work.cpu_ns == pytest.approx(3 * one.work.cpu_ns, abs=10)
    assert one.work.cpu_ns + three.work.cpu_ns <= spent_ns + 10, (
        "half of two threads' was another's"
    )


def test_scheduler_generate_slices_prompts_finer_while_an_answer_is_written(
    generate: MakeGenerator, generator: Generator
) -> None:
    """On a slow machine: nobody's next token waits for all of a neighbour's prompt."""
    generator.step_tokens = {0: SLICE_TOKENS}
    generator.on_step = lambda: time.sleep(2 * GAP_S)
    scheduler = generate()
    answer = Answer("abc", max_tokens=4)
    scheduler.submit([answer.work])
    answer.check("abca")
    sizes = [size for size, _ in generator.slices]
    assert sizes[0] == SLICE_TOKENS
    assert all(size <= SLICE_TOKENS / 2 for size in sizes[1:])


def test_scheduler_generate_runs_answers_side_by_side(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    answers = [Answer(letters, max_tokens=6) for letters in ("ab", "cd", "ef")]
    for answer in answers:
        scheduler.submit([answer.work])
    generator.gate.set()
    first.check("zzzz")
    for answer, text in zip(answers, ("ababab", "cdcdcd", "efefef"), strict=True):
        answer.check(text)
    assert len(generator.slices) < 4 + 3 * 6
    assert not generator.live


def test_scheduler_generate_starts_in_order_of_arrival(
    generate: MakeGenerator, generator: Generator
) -> None:
    """A small request does not overtake a large one that waits for room."""
    generator.cells = 40
    scheduler = generate()
    first = hold(scheduler, generator)
    large, small = Answer("l" * 30, max_tokens=10), Answer("s", max_tokens=1)
    order: list[str] = []
    generator.on_start = lambda start: order.append(chr(start.prompt[0]))
    scheduler.submit([large.work])
    scheduler.submit([small.work])
    generator.gate.set()
    first.check("zzzz")
    large.check("l" * 10)
    small.check("s")
    assert order == ["l", "s"]


def test_scheduler_generate_waits_for_room(generate: MakeGenerator, generator: Generator) -> None:
    generator.sequence_limit = 2
    scheduler = generate()
    most = 0

    def on_step() -> None:
        nonlocal most
        most = max(most, len(generator.live))

    generator.on_step = on_step
    answers = [Answer("ab", max_tokens=3) for _ in range(7)]
    for answer in answers:
        scheduler.submit([answer.work])
    for answer in answers:
        answer.check("aba")
    assert most == 2


def test_scheduler_generate_refuses_what_never_fits_instead_of_waiting(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.cells = 40
    scheduler = generate()
    impossible, fine = Answer("x" * 30, max_tokens=20), Answer()
    scheduler.submit([impossible.work])
    scheduler.submit([fine.work])
    assert "50 tokens do not fit" in impossible.check_error(EngineError).message
    fine.check("abab")


def test_scheduler_generate_start_failure_hits_only_its_answer(
    generate: MakeGenerator, generator: Generator, caplog: pytest.LogCaptureFixture
) -> None:
    def on_start(start: Start) -> None:
        if start.prompt[0] == ord("x"):
            raise ValueError("secret prompt")

    generator.on_start = on_start
    scheduler = generate()
    first = hold(scheduler, generator)
    bad, good = Answer("x"), Answer("ab")
    scheduler.submit([bad.work])
    scheduler.submit([good.work])
    generator.gate.set()
    first.check("zzzz")
    good.check("abab")
    assert "ValueError" in bad.check_error(EngineError).message
    assert "secret" not in caplog.text


def test_scheduler_generate_step_failure_ends_the_live_ones_and_it_goes_on(
    generate: MakeGenerator, generator: Generator, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("secret text")]

    def on_step() -> None:
        if len(generator.live) == 3 and failures:
            raise failures.pop()

    generator.on_step = on_step
    scheduler = generate()
    first = hold(scheduler, generator)
    others = [Answer("ab"), Answer("cd")]
    for answer in others:
        scheduler.submit([answer.work])
    generator.gate.set()
    for answer in [first, *others]:
        error = answer.check_error(EngineError)
        assert "RuntimeError" in error.message
        assert "secret" not in error.message
    assert "secret" not in caplog.text
    assert not generator.live
    after = Answer("ef")
    scheduler.submit([after.work])
    after.check("efef")


def test_scheduler_generate_sequence_failure_hits_only_its_answer(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    broken = Answer("ab")
    scheduler.submit([broken.work])
    generator.odd[1] = Progress(1, "", 0, error="no memory slot")
    generator.gate.set()
    first.check("zzzz")
    assert broken.check_error(EngineError).message == "model g: no memory slot"


def test_scheduler_generate_engine_that_breaks_between_steps_leaves_nobody_waiting(
    generate: MakeGenerator, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = generate()
    live = hold(scheduler, generator)
    waiting = Answer("ab")
    scheduler.submit([waiting.work])

    def broken(_: Generator, __: int) -> bool:
        raise RuntimeError("secret")

    monkeypatch.setattr(Generator, "has_room", broken)
    generator.gate.set()
    live.check_error(EngineError)
    waiting.check_error(EngineError)
    with pytest.raises(SpratError):
        scheduler.submit([Answer().work])
    until(lambda: generator.closed)


def test_scheduler_generate_ignores_progress_of_sequences_that_ended(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    answer = hold(scheduler, generator)
    generator.odd[0] = Progress(77, "ghost", 1)
    other = Answer("ab", max_tokens=2)
    scheduler.submit([other.work])
    scheduler.cancel(answer.work)
    generator.gate.set()
    other.check("ab")


def test_scheduler_generate_cancel_while_live_frees_the_engine(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    answer = hold(scheduler, generator)
    neighbour = Answer("ab", max_tokens=8)
    scheduler.submit([neighbour.work])
    scheduler.cancel(answer.work)
    generator.gate.set()
    answer.check_error(Cancelled)
    neighbour.check("abababab")
    assert generator.stopped == [0]
    assert len(answer.text) <= 1


def test_scheduler_generate_cancel_while_waiting_never_starts(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    dropped, kept = Answer("xy"), Answer("ab")
    scheduler.submit([dropped.work])
    scheduler.submit([kept.work])
    scheduler.cancel(dropped.work)
    generator.gate.set()
    dropped.check_error(Cancelled)
    for answer, text in ((first, "zzzz"), (kept, "abab")):
        answer.check(text)
    assert len(generator.started) == 2
    assert dropped.events == dropped.events[-1:]


def test_scheduler_generate_cancel_after_the_end_does_nothing(generate: MakeGenerator) -> None:
    scheduler = generate()
    answer = Answer()
    scheduler.submit([answer.work])
    answer.check("abab")
    scheduler.cancel(answer.work)
    scheduler.cancel(answer.work)
    after = Answer()
    scheduler.submit([after.work])
    after.check("abab")


def test_scheduler_generate_deadline_while_waiting(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    late = Answer("xy", deadline_s=0.01)
    scheduler.submit([late.work])
    time.sleep(0.012)
    generator.gate.set()
    first.check("zzzz")
    late.check_error(DeadlineExceeded)
    assert len(generator.started) == 1


def test_scheduler_generate_deadline_in_the_middle_of_an_answer(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.on_step = lambda: time.sleep(0.002)
    scheduler = generate(capacity=10**6)
    late = Answer("ab", max_tokens=10_000, deadline_s=0.03)
    generator.cells = 10**6
    neighbour = Answer("cd", max_tokens=30)
    scheduler.submit([late.work])
    scheduler.submit([neighbour.work])
    late.check_error(DeadlineExceeded)
    neighbour.check("cd" * 15)
    assert generator.stopped == [0]
    assert late.text


def test_scheduler_generate_refuses_when_full(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.sequence_limit = 1
    scheduler = generate(capacity=20)
    first = hold(scheduler, generator)
    waiting = Answer("a" * 8, max_tokens=8)
    scheduler.submit([waiting.work])
    with pytest.raises(QueueFull) as caught:
        scheduler.submit([Answer("ab", max_tokens=4).work])
    assert caught.value.metadata == {
        "waiting": "16",
        "capacity": "20",
        "retry_after_s": caught.value.metadata["retry_after_s"],
    }
    scheduler.submit([Answer("ab", max_tokens=2).work])
    generator.gate.set()
    first.check("zzzz")
    waiting.check("a" * 8)


def test_scheduler_generate_close_finishes_what_waits_and_runs(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.sequence_limit = 2
    scheduler = generate()
    first = hold(scheduler, generator)
    answers = [Answer("ab") for _ in range(6)]
    for answer in answers:
        scheduler.submit([answer.work])
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: scheduler._closed)
    with pytest.raises(NotReady):
        scheduler.submit([Answer().work])
    generator.gate.set()
    closing.join(WAIT_S)
    assert generator.closed
    first.check("zzzz")
    for answer in answers:
        answer.check("abab")


@pytest.mark.parametrize("error", [EngineError("cannot load"), OSError("no such file")])
def test_scheduler_generate_raises_what_making_the_engine_raised(error: Exception) -> None:
    def make_engine() -> Generator:
        raise error

    with no_leaked_threads(), pytest.raises(type(error)) as caught:
        GenerateScheduler("g", make_engine, ComputePermits(1), capacity=10)
    assert caught.value is error


def test_scheduler_generate_takes_one_permit_beside_other_owners(generator: Generator) -> None:
    permits = ComputePermits(2)
    scheduler = GenerateScheduler("g", lambda: generator, permits, capacity=100)
    with permits.hold("encoder"):
        answer = Answer()
        scheduler.submit([answer.work])
        answer.check("abab")
    scheduler.close()
    assert set(generator.slices) == {(SLICE_TOKENS, 1)}


def test_scheduler_generate_many_submitters(generate: MakeGenerator, generator: Generator) -> None:
    scheduler = generate(capacity=10**6)
    made: list[Answer] = []
    lock = threading.Lock()

    def submit(seed: int) -> None:
        coin = random.Random(seed)
        for _ in range(15):
            answer = Answer("".join(coin.choices("abcdef", k=3)), max_tokens=coin.randint(1, 9))
            with lock:
                made.append(answer)
            scheduler.submit([answer.work])
            if coin.random() < 0.2:
                scheduler.cancel(answer.work)

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    for answer in made:
        answer.wait()
        prompt = "".join(map(chr, answer.work.start.prompt.tolist()))
        if isinstance(answer.events[-1], Progress):
            answer.check((prompt * 3)[: answer.work.start.sampling.max_tokens])
        else:
            assert answer.work.cancelled
            answer.check_error(Cancelled)
    assert not generator.live
