"""The encode scheduler: right vectors in every order of events, and nobody left waiting."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from doubles import WAIT_S, Encoder, no_leaked_threads, until, vector

from sprat.batching import EncodeWork
from sprat.budget import ComputePermits
from sprat.errors import (
    Cancelled,
    CorruptFile,
    DeadlineExceeded,
    EngineError,
    NotReady,
    QueueFull,
    SpratError,
)
from sprat.scheduler import EncodeScheduler
from sprat.values import FloatArray, IntArray

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


def test_scheduler_encode_answers_with_the_vectors_of_the_rows(make: Make) -> None:
    scheduler = make()
    call = Call([1], [2, 3], [4, 5, 6])
    scheduler.submit(call.work)
    call.check()
    assert call.work.queue_ns > 0
    assert call.work.infer_ns > 0
    assert call.thread.startswith("sprat-m-")


def test_scheduler_encode_shares_the_cpu_time_of_a_batch_by_tokens(
    make: Make, encoder: Encoder
) -> None:
    scheduler = make(threads=1)
    occupied = occupy(scheduler, encoder, 1)
    calls = Call([1], [2, 3, 4]), Call([5, 6])
    for call in calls:
        scheduler.submit(call.work)
    encoder.gate.set()
    for call in (*occupied, *calls):
        call.check()
    assert len(encoder.calls) == 2, "one batch of both"
    (one, three), (two,) = (call.work.cpu_ns for call in calls)
    assert 0 < one < two < three
    assert one + two + three == pytest.approx(calls[0].work.infer_ns, abs=3)


def test_scheduler_encode_cancel_one_of_eight(make: Make, encoder: Encoder) -> None:
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


def test_scheduler_encode_cancel_in_the_middle_of_a_pass(make: Make, encoder: Encoder) -> None:
    scheduler = make()
    running, _ = occupy(scheduler, encoder, 2)
    other = Call([1])
    scheduler.submit(other.work)
    running.work.cancelled = True
    encoder.gate.set()
    running.wait()
    other.check()
    assert running.ends == 1


def test_scheduler_encode_cancel_drops_the_rest_of_a_large_request(
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


def test_scheduler_encode_drops_expired_work_without_running_it(
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


def test_scheduler_encode_refuses_what_cannot_be_in_time(make: Make, encoder: Encoder) -> None:
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


def test_scheduler_encode_takes_a_large_first_request_in_reasonable_time(make: Make) -> None:
    """Nothing is known of the model's speed yet: that is no reason to refuse."""
    scheduler = make(capacity=10**9)
    call = Call(*([n] * 256 for n in range(64)), deadline_s=2.0)
    scheduler.submit(call.work)
    call.check()


def test_scheduler_encode_refuses_when_full(make: Make, encoder: Encoder) -> None:
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


def test_scheduler_encode_an_idle_model_takes_more_than_its_capacity(make: Make) -> None:
    scheduler = make(capacity=10)
    call = Call(*([n] * 5 for n in range(20)))
    with scheduler.reservation(1000):
        pass
    scheduler.submit(call.work)
    call.check()


def test_scheduler_encode_reservation_holds_room(make: Make, encoder: Encoder) -> None:
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


def test_scheduler_encode_reservation_holds_room_while_nothing_waits(make: Make) -> None:
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


def test_scheduler_encode_engine_failure_hits_only_its_batch(
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


def test_scheduler_encode_engine_failure_ends_a_large_request_once(
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


def test_scheduler_encode_passes_on_what_the_engine_raises_on_purpose(
    make: Make, encoder: Encoder
) -> None:
    scheduler = make()
    encoder.failure = lambda _: CorruptFile("model.bin", "cut")
    call = Call([1])
    scheduler.submit(call.work)
    assert call.check_error(CorruptFile).message == "model.bin: cut"


def test_scheduler_encode_gives_a_lone_text_every_thread(make: Make, encoder: Encoder) -> None:
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


def test_scheduler_encode_gives_a_text_in_company_one_thread(make: Make, encoder: Encoder) -> None:
    scheduler = make()
    first = occupy(scheduler, encoder, 1)
    call = Call([1])
    scheduler.submit(call.work)
    until(lambda: len(encoder.calls) == 2)
    encoder.gate.set()
    for each in [*first, call]:
        each.check()
    assert [threads for threads, _ in encoder.calls] == [1, 1]


def test_scheduler_encode_close_finishes_what_waits(make: Make, encoder: Encoder) -> None:
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


def test_scheduler_encode_close_of_an_idle_one(make: Make, encoder: Encoder) -> None:
    make().close()
    assert encoder.closed
    assert encoder.calls == []


def test_scheduler_encode_many_submitters(make: Make, encoder: Encoder) -> None:
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


def test_scheduler_encode_what_arrives_before_the_permit_joins_the_batch(
    encoder: Encoder,
) -> None:
    permits = ComputePermits(1)
    scheduler = EncodeScheduler("m", encoder, permits, capacity=10_000)
    with permits.hold("another model"):
        calls = [Call([number, number]) for number in range(4)]
        for call in calls:
            scheduler.submit(call.work)
        time.sleep(0.05)
        assert encoder.calls == []
    for call in calls:
        call.check()
    assert len(encoder.calls) == 1
    scheduler.close()


class Broken(Encoder):
    """Answers with vectors of another width than it says."""

    def encode(self, rows: Sequence[IntArray], *, threads: int) -> FloatArray:
        return super().encode(rows, threads=threads)[:, :-1]


def test_scheduler_encode_leaves_nobody_waiting_when_a_worker_breaks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Broken()
    scheduler = EncodeScheduler("m", broken, ComputePermits(1), capacity=10_000)
    first = occupy(scheduler, broken, 1)
    waiting = Call([1], [2])
    scheduler.submit(waiting.work)
    broken.gate.set()
    for call in (*first, waiting):
        call.check_error(EngineError)
    with pytest.raises(EngineError, match="model m stopped after a failure; see the log"):
        scheduler.submit(Call([3]).work)
    with pytest.raises(EngineError), scheduler.reservation(1):
        pass
    assert "model m failed" in caplog.text
    scheduler.close()


# -- states of tokens ------------------------------------------------------------------------


class StatesCall(Call):
    """One request for the states of tokens."""

    def __init__(self, *rows: list[int]) -> None:
        super().__init__(*rows)
        self.states: list[FloatArray] = [np.empty((0, 4), np.float32)] * len(rows)
        self.work.vectors = self.states

    def check(self) -> None:
        self.wait()
        assert self.work.error is None
        for row, states in zip(self.rows, self.states, strict=True):
            np.testing.assert_array_equal(states, [vector([token]) for token in row])
        assert self.ends == 1


def test_scheduler_encode_answers_with_the_states_of_the_tokens(make: Make) -> None:
    scheduler = make()
    call = StatesCall([1], [2, 3], [4, 5, 6])
    scheduler.submit(call.work)
    call.check()


def test_scheduler_encode_keeps_vectors_and_states_in_batches_of_their_own(
    make: Make, encoder: Encoder
) -> None:
    scheduler = make(threads=1)
    first = occupy(scheduler, encoder, 1)
    calls = [(StatesCall if n % 3 else Call)([n, n + 1], [n + 2]) for n in range(12)]
    for call in calls:
        scheduler.submit(call.work)
    encoder.gate.set()
    for call in (*first, *calls):
        call.check()
    for _, rows in encoder.calls[1:]:
        kinds = {isinstance(call, StatesCall) for call in calls for row in call.rows if row in rows}
        assert len(kinds) == 1
    # Neighbours of one kind still share a batch.
    assert len(encoder.calls) < 1 + len(calls)


def test_scheduler_encode_states_of_a_failed_batch_are_an_error(
    make: Make, encoder: Encoder
) -> None:
    encoder.failure = lambda rows: EngineError("broken")
    scheduler = make()
    call = StatesCall([1, 2], [3])
    scheduler.submit(call.work)
    assert call.check_error(EngineError).message == "broken"
