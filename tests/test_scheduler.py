"""Schedulers: right answers in every order of events, and nobody left waiting."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import numpy as np
import pytest
from doubles import WAIT_S, Encoder, Generator, no_leaked_threads, until, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.batching import EncodeWork
from sprat.budget import ComputePermits
from sprat.engine.base import Progress, Start
from sprat.errors import (
    Cancelled,
    CorruptFile,
    DeadlineExceeded,
    EngineError,
    NotReady,
    QueueFull,
    SpratError,
)
from sprat.scheduler import (
    SLICE_TOKENS,
    ComputePool,
    EncodeScheduler,
    GenerateScheduler,
    GenerateWork,
    LoopThread,
    Mailbox,
)
from sprat.values import Sampling

# -- mailbox ---------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_mailbox_delivers_every_call_in_the_order_of_each_poster(counts: list[int]) -> None:
    async def main() -> list[tuple[int, int]]:
        mailbox = Mailbox(asyncio.get_running_loop())
        got: list[tuple[int, int]] = []
        everything = asyncio.Event()

        def receive(poster: int, number: int) -> None:
            got.append((poster, number))
            if len(got) == sum(counts):
                everything.set()

        def post(poster: int, count: int) -> None:
            for number in range(count):
                mailbox.post(receive, poster, number)
                if number % 7 == poster % 7:
                    time.sleep(0)

        threads = [threading.Thread(target=post, args=each) for each in enumerate(counts)]
        for thread in threads:
            thread.start()
        if sum(counts):
            await asyncio.wait_for(everything.wait(), WAIT_S)
        for thread in threads:
            thread.join()
        return got

    got = asyncio.run(main())
    for poster, count in enumerate(counts):
        assert [number for p, number in got if p == poster] == list(range(count))


async def test_mailbox_wakes_a_sleeping_loop_for_each_lone_call() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    for _ in range(100):
        arrived = asyncio.Event()
        thread = threading.Thread(target=mailbox.post, args=(arrived.set,))
        thread.start()
        await asyncio.wait_for(arrived.wait(), WAIT_S)
        thread.join()


async def test_mailbox_shares_wake_ups() -> None:
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    got: list[int] = []
    for number in range(100):
        mailbox.post(got.append, number)
    assert got == [], "calls run on the loop, not inside post"
    await asyncio.sleep(0)
    assert got == list(range(100))


async def test_mailbox_call_that_posts_is_served_too() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    arrived = asyncio.Event()
    mailbox.post(mailbox.post, arrived.set)
    await asyncio.wait_for(arrived.wait(), WAIT_S)


async def test_mailbox_call_that_raises_holds_nobody_back() -> None:
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    noticed: list[object] = []
    loop.set_exception_handler(lambda _, context: noticed.append(context["exception"]))
    arrived = asyncio.Event()

    def broken() -> None:
        raise KeyError

    mailbox.post(broken)
    mailbox.post(arrived.set)
    await asyncio.wait_for(arrived.wait(), WAIT_S)
    assert len(noticed) == 1


def test_mailbox_of_a_closed_loop_drops_quietly() -> None:
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    loop.close()
    mailbox.post(pytest.fail, "must not run")


# -- loop thread and pool --------------------------------------------------------------------


def test_loop_thread_runs_coroutines_and_raises_their_errors() -> None:
    async def give(value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def fail() -> None:
        raise QueueFull("full")

    with no_leaked_threads():
        loop = LoopThread()
        assert [loop.run(give(i)) for i in range(3)] == [0, 1, 2]
        with pytest.raises(QueueFull):
            loop.run(fail())
        assert loop.run(give(7)) == 7
        loop.close()


def test_loop_thread_serves_many_threads() -> None:
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value

    loop = LoopThread()
    got: dict[int, int] = {}

    def call(value: int) -> None:
        got[value] = loop.run(double(value))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    loop.close()
    assert got == {i: 2 * i for i in range(20)}


def test_loop_thread_close_ends_its_helper_threads() -> None:
    before = set(threading.enumerate())
    loop = LoopThread()
    loop.run(asyncio.to_thread(lambda: None))
    loop.close()
    until(lambda: set(threading.enumerate()) <= before, "a thread is left behind")


def test_loop_thread_close_closes_open_generators() -> None:
    ended = threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.set()

    stream = numbers()

    async def first() -> int:
        return await anext(stream)

    loop = LoopThread()
    assert loop.run(first()) == 1
    loop.close()
    assert ended.is_set()


async def test_compute_pool_runs_under_a_permit() -> None:
    permits = ComputePermits(1)
    pool = ComputePool(permits)
    with permits.hold("other"):
        call = asyncio.ensure_future(pool.run("m", lambda: 42))
        await asyncio.sleep(0.02)
        assert not call.done()
    assert await asyncio.wait_for(call, WAIT_S) == 42
    pool.close()


async def test_compute_pool_passes_errors_on_and_survives() -> None:
    pool = ComputePool(ComputePermits(1))

    def fail() -> None:
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        await pool.run("m", fail)
    assert await pool.run("m", lambda: 1) == 1
    with no_leaked_threads():
        pool.close()


# -- encoder scheduler -----------------------------------------------------------------------

Rows = list[list[int]]


class Call:
    """One request for vectors, as a model makes it."""

    def __init__(self, *rows: list[int], deadline_s: float = math.inf) -> None:
        self.rows = list(rows)
        self.vectors = np.full((len(rows), 4), np.nan, np.float32)
        self.ends = 0
        self.thread = ""
        self._done = threading.Event()
        self.work = EncodeWork(
            [np.array(row, np.int32) for row in rows],
            self.vectors,
            time.monotonic() + deadline_s,
            self._end,
        )

    def _end(self, work: EncodeWork) -> None:
        assert work is self.work
        self.ends += 1
        self.thread = threading.current_thread().name
        self._done.set()

    def wait(self) -> None:
        assert self._done.wait(WAIT_S), "the work never ended"

    def check(self) -> None:
        """Every vector is the one of its row, and the end was told once."""
        self.wait()
        assert self.work.error is None
        np.testing.assert_array_equal(self.vectors, [vector(row) for row in self.rows])
        assert self.ends == 1

    def check_error(self, kind: type[SpratError]) -> SpratError:
        self.wait()
        assert isinstance(self.work.error, kind)
        assert self.ends == 1
        return self.work.error


Make = Callable[..., EncodeScheduler]


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def make(encoder: Encoder) -> Iterator[Make]:
    made: list[EncodeScheduler] = []

    def build(*, threads: int = 2, capacity: int = 10_000) -> EncodeScheduler:
        made.append(EncodeScheduler("m", encoder, ComputePermits(threads), capacity=capacity))
        return made[-1]

    with no_leaked_threads():
        yield build
        encoder.gate.set()
        if not encoder.closed:
            for scheduler in made:
                scheduler.close()


def has_more_calls(encoder: Encoder, count: int) -> bool:
    return len(encoder.calls) > count


def occupy(scheduler: EncodeScheduler, encoder: Encoder, workers: int) -> list[Call]:
    """Keep every worker in a forward pass until the gate opens."""
    encoder.gate.clear()
    calls = []
    for number in range(workers):
        before = len(encoder.calls)
        # Two rows: a lone one would take every thread.
        call = Call([900, number], [901, number])
        scheduler.submit(call.work)
        calls.append(call)
        until(partial(has_more_calls, encoder, before), "a worker never started")
    return calls


def test_encode_scheduler_answers_with_the_vectors_of_the_rows(make: Make) -> None:
    scheduler = make()
    call = Call([1], [2, 3], [4, 5, 6])
    scheduler.submit(call.work)
    call.check()
    assert call.work.queue_ns > 0
    assert call.work.infer_ns > 0
    assert call.thread.startswith("sprat-m-")


def test_encode_scheduler_cancel_one_of_eight(make: Make, encoder: Encoder) -> None:
    scheduler = make()
    first = occupy(scheduler, encoder, 2)
    calls = [Call([n, n + 1, n + 2]) for n in range(8)]
    for call in calls:
        scheduler.submit(call.work)
    calls[3].work.cancelled = True
    encoder.gate.set()
    for call in [*first, *calls[:3], *calls[4:]]:
        call.check()
    calls[3].check_error(Cancelled)
    assert np.isnan(calls[3].vectors).all()
    assert [3, 4, 5] not in encoder.rows
    served = [row for row in encoder.rows if row[0] < 900]
    assert served == [row for n, call in enumerate(calls) for row in call.rows if n != 3]


def test_encode_scheduler_cancel_in_the_middle_of_a_pass(make: Make, encoder: Encoder) -> None:
    scheduler = make()
    running, _ = occupy(scheduler, encoder, 2)
    other = Call([1])
    scheduler.submit(other.work)
    running.work.cancelled = True
    encoder.gate.set()
    running.wait()
    other.check()
    assert running.ends == 1


def test_encode_scheduler_cancel_drops_the_rest_of_a_large_request(
    make: Make, encoder: Encoder
) -> None:
    scheduler = make(threads=1)
    encoder.gate.clear()
    large = Call(*([n] * 400 for n in range(10)))
    scheduler.submit(large.work)
    until(lambda: encoder.calls)
    large.work.cancelled = True
    encoder.gate.set()
    large.check_error(Cancelled)
    assert len(encoder.rows) == 1


def test_encode_scheduler_drops_expired_work_without_running_it(
    make: Make, encoder: Encoder
) -> None:
    scheduler = make()
    first = occupy(scheduler, encoder, 2)
    late, fine = Call([1, 2], deadline_s=0.02), Call([3, 4], deadline_s=WAIT_S)
    scheduler.submit(late.work)
    scheduler.submit(fine.work)
    time.sleep(0.025)
    encoder.gate.set()
    for call in [*first, fine]:
        call.check()
    late.check_error(DeadlineExceeded)
    assert [1, 2] not in encoder.rows


def test_encode_scheduler_refuses_what_cannot_be_in_time(make: Make, encoder: Encoder) -> None:
    scheduler = make(threads=1, capacity=10**9)
    encoder.failure = lambda _: time.sleep(0.01)
    measured = Call([1] * 512)
    scheduler.submit(measured.work)
    measured.check()
    occupy(scheduler, encoder, 1)
    ahead = Call(*([1] * 500 for _ in range(200)))
    scheduler.submit(ahead.work)
    with pytest.raises(DeadlineExceeded) as caught:
        scheduler.submit(Call([2], deadline_s=0.5).work)
    ahead.work.cancelled = True
    assert float(caught.value.metadata["estimate_ms"]) > 500
    assert [2] not in encoder.rows


def test_encode_scheduler_takes_a_large_first_request_in_reasonable_time(make: Make) -> None:
    """Nothing is known of the model's speed yet: that is no reason to refuse."""
    scheduler = make(capacity=10**9)
    call = Call(*([n] * 256 for n in range(64)), deadline_s=2.0)
    scheduler.submit(call.work)
    call.check()


def test_encode_scheduler_refuses_when_full(make: Make, encoder: Encoder) -> None:
    scheduler = make(capacity=10)
    occupy(scheduler, encoder, 2)
    fits = Call([1] * 8)
    scheduler.submit(fits.work)
    with pytest.raises(QueueFull) as caught:
        scheduler.submit(Call([2] * 8).work)
    assert caught.value.metadata["waiting"] == "8"
    assert caught.value.metadata["capacity"] == "10"
    assert 0 < caught.value.retry_after_s < 60
    scheduler.submit(Call([3] * 2).work)
    encoder.gate.set()
    fits.check()
    until(lambda: len(encoder.rows) == 6)
    scheduler.submit(Call([4] * 8).work)


def test_encode_scheduler_an_idle_model_takes_more_than_its_capacity(make: Make) -> None:
    scheduler = make(capacity=10)
    call = Call(*([n] * 5 for n in range(20)))
    with scheduler.reservation(1000):
        pass
    scheduler.submit(call.work)
    call.check()


def test_encode_scheduler_reservation_holds_room(make: Make, encoder: Encoder) -> None:
    scheduler = make(capacity=10)
    occupy(scheduler, encoder, 2)
    scheduler.submit(Call([1]).work)
    with scheduler.reservation(6):
        with pytest.raises(QueueFull), scheduler.reservation(4):
            pass
        with scheduler.reservation(3):
            pass
        with pytest.raises(QueueFull):
            scheduler.submit(Call([2] * 4).work)
    with scheduler.reservation(9):
        pass


def test_encode_scheduler_reservation_holds_room_while_nothing_waits(make: Make) -> None:
    """Else any number of requests would be tokenized at once, to be refused afterwards."""
    scheduler = make(capacity=10)
    with (
        scheduler.reservation(1000),
        pytest.raises(QueueFull) as caught,
        scheduler.reservation(1),
    ):
        pass
    assert caught.value.metadata["waiting"] == "1000"
    with scheduler.reservation(1000):
        pass


def test_encode_scheduler_engine_failure_hits_only_its_batch(
    make: Make, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make()
    encoder.failure = lambda rows: ValueError("secret input") if [13] in rows else None
    first = occupy(scheduler, encoder, 2)
    unlucky = [Call([13]), Call([1])]
    for call in unlucky:
        scheduler.submit(call.work)
    encoder.gate.set()
    for call in first:
        call.check()
    for call in unlucky:
        error = call.check_error(EngineError)
        assert "ValueError" in error.message
        assert "secret" not in error.message
    assert "secret" not in caplog.text
    assert "ValueError" in caplog.text
    for n in range(4):
        after = Call([n])
        scheduler.submit(after.work)
        after.check()


def test_encode_scheduler_engine_failure_ends_a_large_request_once(
    make: Make, encoder: Encoder
) -> None:
    scheduler = make()
    encoder.failure = lambda rows: MemoryError() if rows[0][0] == 3 else None
    large = Call(*([n] * 400 for n in range(12)))
    scheduler.submit(large.work)
    large.check_error(EngineError)
    after = Call([99])
    scheduler.submit(after.work)
    after.check()
    until(lambda: not scheduler._queue)
    assert scheduler._queue.tokens == 0
    assert large.ends == 1


def test_encode_scheduler_passes_on_what_the_engine_raises_on_purpose(
    make: Make, encoder: Encoder
) -> None:
    scheduler = make()
    encoder.failure = lambda _: CorruptFile("model.bin", "cut")
    call = Call([1])
    scheduler.submit(call.work)
    assert call.check_error(CorruptFile).message == "model.bin: cut"


def test_encode_scheduler_gives_a_lone_text_every_thread(make: Make, encoder: Encoder) -> None:
    scheduler = make(threads=4)
    for n in range(5):
        call = Call([n])
        scheduler.submit(call.work)
        call.check()
        until(lambda: scheduler._running == 0)
    pair = Call([7], [8])
    scheduler.submit(pair.work)
    pair.check()
    assert [threads for threads, _ in encoder.calls] == [4, 4, 4, 4, 4, 1]


def test_encode_scheduler_gives_a_text_in_company_one_thread(make: Make, encoder: Encoder) -> None:
    scheduler = make()
    first = occupy(scheduler, encoder, 1)
    call = Call([1])
    scheduler.submit(call.work)
    until(lambda: len(encoder.calls) == 2)
    encoder.gate.set()
    for each in [*first, call]:
        each.check()
    assert [threads for threads, _ in encoder.calls] == [1, 1]


def test_encode_scheduler_close_finishes_what_waits(make: Make, encoder: Encoder) -> None:
    scheduler = make()
    calls = occupy(scheduler, encoder, 2)
    calls += [Call([n], [n, n]) for n in range(20)]
    for call in calls[2:]:
        scheduler.submit(call.work)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: scheduler._closed)
    with pytest.raises(NotReady):
        scheduler.submit(Call([1]).work)
    with pytest.raises(NotReady), scheduler.reservation(1):
        pass
    encoder.gate.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert encoder.closed
    for call in calls:
        call.check()
    with pytest.raises(NotReady):
        scheduler.submit(Call([1]).work)


def test_encode_scheduler_close_of_an_idle_one(make: Make, encoder: Encoder) -> None:
    make().close()
    assert encoder.closed
    assert encoder.calls == []


def test_encode_scheduler_many_submitters(make: Make, encoder: Encoder) -> None:
    scheduler = make(threads=3, capacity=10**6)
    made: list[Call] = []
    lock = threading.Lock()

    def submit(seed: int) -> None:
        coin = random.Random(seed)
        for _ in range(40):
            rows = [
                [coin.randrange(100) for _ in range(coin.randint(1, 30))]
                for _ in range(coin.randint(1, 12))
            ]
            call = Call(*rows, deadline_s=coin.choice([math.inf, WAIT_S]))
            scheduler.submit(call.work)
            if coin.random() < 0.2:
                call.work.cancelled = True
            with lock:
                made.append(call)

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    for call in made:
        call.wait()
        if call.work.error is None:
            call.check()
        else:
            assert call.work.cancelled
            call.check_error(Cancelled)
    assert len(made) == 320
    assert encoder.most_threads <= 3
    assert scheduler._queue.tokens == 0


# -- generation scheduler --------------------------------------------------------------------


class Answer:
    """One answer, as a model asks for it."""

    def __init__(
        self, prompt: str = "ab", *, max_tokens: int = 4, deadline_s: float = math.inf
    ) -> None:
        self.events: list[Progress | SpratError] = []
        self._done = threading.Event()
        self.work = GenerateWork(
            np.array([ord(c) for c in prompt], np.int32),
            Sampling(max_tokens=max_tokens),
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
    scheduler.submit(answer.work)
    until(lambda: generator.live, "the engine never started")
    return answer


def test_generate_scheduler_streams_an_answer(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    answer = Answer("abc", max_tokens=5)
    scheduler.submit(answer.work)
    answer.check("abcab")
    last = answer.events[-1]
    assert isinstance(last, Progress)
    assert last.finish_reason == "length"
    assert set(generator.slices) == {(SLICE_TOKENS, 2)}


def test_generate_scheduler_runs_answers_side_by_side(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    answers = [Answer(letters, max_tokens=6) for letters in ("ab", "cd", "ef")]
    for answer in answers:
        scheduler.submit(answer.work)
    generator.gate.set()
    first.check("zzzz")
    for answer, text in zip(answers, ("ababab", "cdcdcd", "efefef"), strict=True):
        answer.check(text)
    assert len(generator.slices) < 4 + 3 * 6
    assert not generator.live


def test_generate_scheduler_starts_in_order_of_arrival(
    generate: MakeGenerator, generator: Generator
) -> None:
    """A small request does not overtake a large one that waits for room."""
    generator.cells = 40
    scheduler = generate()
    first = hold(scheduler, generator)
    large, small = Answer("l" * 30, max_tokens=10), Answer("s", max_tokens=1)
    order: list[str] = []
    generator.on_start = lambda start: order.append(chr(start.prompt[0]))
    scheduler.submit(large.work)
    scheduler.submit(small.work)
    generator.gate.set()
    first.check("zzzz")
    large.check("l" * 10)
    small.check("s")
    assert order == ["l", "s"]


def test_generate_scheduler_waits_for_room(generate: MakeGenerator, generator: Generator) -> None:
    generator.sequence_limit = 2
    scheduler = generate()
    most = 0

    def on_step() -> None:
        nonlocal most
        most = max(most, len(generator.live))

    generator.on_step = on_step
    answers = [Answer("ab", max_tokens=3) for _ in range(7)]
    for answer in answers:
        scheduler.submit(answer.work)
    for answer in answers:
        answer.check("aba")
    assert most == 2


def test_generate_scheduler_refuses_what_never_fits_instead_of_waiting(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.cells = 40
    scheduler = generate()
    impossible, fine = Answer("x" * 30, max_tokens=20), Answer()
    scheduler.submit(impossible.work)
    scheduler.submit(fine.work)
    assert "50 tokens do not fit" in impossible.check_error(EngineError).message
    fine.check("abab")


def test_generate_scheduler_start_failure_hits_only_its_answer(
    generate: MakeGenerator, generator: Generator, caplog: pytest.LogCaptureFixture
) -> None:
    def on_start(start: Start) -> None:
        if start.prompt[0] == ord("x"):
            raise ValueError("secret prompt")

    generator.on_start = on_start
    scheduler = generate()
    first = hold(scheduler, generator)
    bad, good = Answer("x"), Answer("ab")
    scheduler.submit(bad.work)
    scheduler.submit(good.work)
    generator.gate.set()
    first.check("zzzz")
    good.check("abab")
    assert "ValueError" in bad.check_error(EngineError).message
    assert "secret" not in caplog.text


def test_generate_scheduler_step_failure_ends_the_live_ones_and_it_goes_on(
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
        scheduler.submit(answer.work)
    generator.gate.set()
    for answer in [first, *others]:
        error = answer.check_error(EngineError)
        assert "RuntimeError" in error.message
        assert "secret" not in error.message
    assert "secret" not in caplog.text
    assert not generator.live
    after = Answer("ef")
    scheduler.submit(after.work)
    after.check("efef")


def test_generate_scheduler_sequence_failure_hits_only_its_answer(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    broken = Answer("ab")
    scheduler.submit(broken.work)
    generator.odd[1] = Progress(1, "", 0, error="no memory slot")
    generator.gate.set()
    first.check("zzzz")
    assert broken.check_error(EngineError).message == "model g: no memory slot"


def test_generate_scheduler_engine_that_breaks_between_steps_leaves_nobody_waiting(
    generate: MakeGenerator, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = generate()
    live = hold(scheduler, generator)
    waiting = Answer("ab")
    scheduler.submit(waiting.work)

    def broken(_: Generator, __: int) -> bool:
        raise RuntimeError("secret")

    monkeypatch.setattr(Generator, "has_room", broken)
    generator.gate.set()
    live.check_error(EngineError)
    waiting.check_error(EngineError)
    with pytest.raises(SpratError):
        scheduler.submit(Answer().work)
    until(lambda: generator.closed)


def test_generate_scheduler_ignores_progress_of_sequences_that_ended(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    answer = hold(scheduler, generator)
    generator.odd[0] = Progress(77, "ghost", 1)
    other = Answer("ab", max_tokens=2)
    scheduler.submit(other.work)
    scheduler.cancel(answer.work)
    generator.gate.set()
    other.check("ab")


def test_generate_scheduler_cancel_while_live_frees_the_engine(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    answer = hold(scheduler, generator)
    neighbour = Answer("ab", max_tokens=8)
    scheduler.submit(neighbour.work)
    scheduler.cancel(answer.work)
    generator.gate.set()
    answer.check_error(Cancelled)
    neighbour.check("abababab")
    assert generator.stopped == [0]
    assert len(answer.text) <= 1


def test_generate_scheduler_cancel_while_waiting_never_starts(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    dropped, kept = Answer("xy"), Answer("ab")
    scheduler.submit(dropped.work)
    scheduler.submit(kept.work)
    scheduler.cancel(dropped.work)
    generator.gate.set()
    dropped.check_error(Cancelled)
    for answer, text in ((first, "zzzz"), (kept, "abab")):
        answer.check(text)
    assert len(generator.started) == 2
    assert dropped.events == dropped.events[-1:]


def test_generate_scheduler_cancel_after_the_end_does_nothing(generate: MakeGenerator) -> None:
    scheduler = generate()
    answer = Answer()
    scheduler.submit(answer.work)
    answer.check("abab")
    scheduler.cancel(answer.work)
    scheduler.cancel(answer.work)
    after = Answer()
    scheduler.submit(after.work)
    after.check("abab")


def test_generate_scheduler_deadline_while_waiting(
    generate: MakeGenerator, generator: Generator
) -> None:
    scheduler = generate()
    first = hold(scheduler, generator)
    late = Answer("xy", deadline_s=0.01)
    scheduler.submit(late.work)
    time.sleep(0.012)
    generator.gate.set()
    first.check("zzzz")
    late.check_error(DeadlineExceeded)
    assert len(generator.started) == 1


def test_generate_scheduler_deadline_in_the_middle_of_an_answer(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.on_step = lambda: time.sleep(0.002)
    scheduler = generate(capacity=10**6)
    late = Answer("ab", max_tokens=10_000, deadline_s=0.03)
    generator.cells = 10**6
    neighbour = Answer("cd", max_tokens=30)
    scheduler.submit(late.work)
    scheduler.submit(neighbour.work)
    late.check_error(DeadlineExceeded)
    neighbour.check("cd" * 15)
    assert generator.stopped == [0]
    assert late.text


def test_generate_scheduler_refuses_when_full(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.sequence_limit = 1
    scheduler = generate(capacity=20)
    first = hold(scheduler, generator)
    waiting = Answer("a" * 8, max_tokens=8)
    scheduler.submit(waiting.work)
    with pytest.raises(QueueFull) as caught:
        scheduler.submit(Answer("ab", max_tokens=4).work)
    assert caught.value.metadata == {
        "waiting": "16",
        "capacity": "20",
        "retry_after_s": caught.value.metadata["retry_after_s"],
    }
    scheduler.submit(Answer("ab", max_tokens=2).work)
    generator.gate.set()
    first.check("zzzz")
    waiting.check("a" * 8)


def test_generate_scheduler_close_finishes_what_waits_and_runs(
    generate: MakeGenerator, generator: Generator
) -> None:
    generator.sequence_limit = 2
    scheduler = generate()
    first = hold(scheduler, generator)
    answers = [Answer("ab") for _ in range(6)]
    for answer in answers:
        scheduler.submit(answer.work)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: scheduler._closed)
    with pytest.raises(NotReady):
        scheduler.submit(Answer().work)
    generator.gate.set()
    closing.join(WAIT_S)
    assert generator.closed
    first.check("zzzz")
    for answer in answers:
        answer.check("abab")


@pytest.mark.parametrize("error", [EngineError("cannot load"), OSError("no such file")])
def test_generate_scheduler_raises_what_making_the_engine_raised(error: Exception) -> None:
    def make_engine() -> Generator:
        raise error

    with no_leaked_threads(), pytest.raises(type(error)) as caught:
        GenerateScheduler("g", make_engine, ComputePermits(1), capacity=10)
    assert caught.value is error


def test_generate_scheduler_takes_one_permit_beside_other_owners(generator: Generator) -> None:
    permits = ComputePermits(2)
    scheduler = GenerateScheduler("g", lambda: generator, permits, capacity=100)
    with permits.hold("encoder"):
        answer = Answer()
        scheduler.submit(answer.work)
        answer.check("abab")
    scheduler.close()
    assert set(generator.slices) == {(SLICE_TOKENS, 1)}


def test_generate_scheduler_many_submitters(generate: MakeGenerator, generator: Generator) -> None:
    scheduler = generate(capacity=10**6)
    made: list[Answer] = []
    lock = threading.Lock()

    def submit(seed: int) -> None:
        coin = random.Random(seed)
        for _ in range(15):
            answer = Answer("".join(coin.choices("abcdef", k=3)), max_tokens=coin.randint(1, 9))
            with lock:
                made.append(answer)
            scheduler.submit(answer.work)
            if coin.random() < 0.2:
                scheduler.cancel(answer.work)

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    for answer in made:
        answer.wait()
        prompt = "".join(map(chr, answer.work.prompt.tolist()))
        if isinstance(answer.events[-1], Progress):
            answer.check((prompt * 3)[: answer.work.sampling.max_tokens])
        else:
            assert answer.work.cancelled
            answer.check_error(Cancelled)
    assert not generator.live
