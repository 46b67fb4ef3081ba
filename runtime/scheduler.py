"""The threads of sprat: what waits in a queue is batched and run here.

One `EncodeScheduler` or `GenerateScheduler` per model; all hold permits of one
`sprat.budget.ComputePermits` while they compute. Results go back to the event loop through a
`Mailbox`. Nothing outside this module and `sprat.budget` starts a thread.

Over 500 lines, because every thread and every rule of who wakes whom can so be read in one
place.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sprat.batching import TOKEN_BUDGET, Batch, EncodeQueue, EncodeWork
from sprat.budget import ComputePermits
from sprat.engine.base import EncoderEngine, GenerativeEngine, Progress, Start
from sprat.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    NotReady,
    QueueFull,
    SpratError,
    describe,
)
from sprat.values import IntArray, Sampling

log = logging.getLogger(__name__)

SLICE_TOKENS = 64
"""Most tokens of one llama.cpp batch: bounds how long permits are held at a stretch."""

T = TypeVar("T")


class Mailbox:
    """Carries calls from scheduler threads to one event loop; many calls share one wake-up.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Where the calls run, in the order of `post`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_scheduled = False

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have ``call(*arguments)`` run on the loop. Any thread may post; never blocks."""
        # Append before looking at the flag, clear it before draining: no call is left behind.
        self._calls.append((call, arguments))
        if not self._is_scheduled:
            self._is_scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                log.debug("the event loop is closed; a result is dropped")

    def _deliver(self) -> None:
        self._is_scheduled = False
        try:
            while self._calls:
                call, arguments = self._calls.popleft()
                call(*arguments)
        finally:
            # One that raised does not hold back those behind it.
            if self._calls:
                self._loop.call_soon(self._deliver)


class LoopThread:
    """An event loop on a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="sprat-loop", daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises
        ------
        NotReady
            When the loop is closed.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise NotReady("this was closed before")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread."""
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ComputePool:
    """Runs short blocking work, such as tokenizing long texts, off the event loop under permits."""

    def __init__(self, permits: ComputePermits) -> None:
        self._permits = permits
        self._threads = ThreadPoolExecutor(permits.permits, thread_name_prefix="sprat-pool")

    async def run(self, owner: str, call: Callable[[], T]) -> T:
        """Run ``call`` on a pool thread holding one permit of ``owner``.

        Raises
        ------
        NotReady
            When the pool is closed.
        """
        try:
            future = self._threads.submit(self._hold_and_call, owner, call)
        except RuntimeError:
            raise NotReady("models are being unloaded") from None
        return await asyncio.wrap_future(future)

    def _hold_and_call(self, owner: str, call: Callable[[], T]) -> T:
        with self._permits.hold(owner):
            return call()

    def close(self) -> None:
        """Finish what waits and runs, then end the threads."""
        self._threads.shutdown(wait=True)


class EncodeScheduler:
    """Batches the requests for one encoder and runs them on worker threads.

    Parameters
    ----------
    name : str
        Of the model: owner of the permits, name of the threads.
    engine : EncoderEngine
        What runs a batch.
    permits : ComputePermits
        The process's budget; there are as many workers as permits.
    capacity : int
        Most tokens that may wait.
    """

    def __init__(
        self, name: str, engine: EncoderEngine, permits: ComputePermits, *, capacity: int
    ) -> None:
        self.name = name
        self._engine = engine
        self._permits = permits
        self._queue = EncodeQueue(capacity, permits.permits)
        self._reserved = 0
        self._running = 0
        self._closed = False
        self._failure: SpratError | None = None
        # Unknown until a batch of some size was measured; until then no estimate refuses work.
        self._tokens_per_s = math.inf
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"sprat-{name}-{i}", daemon=True)
            for i in range(permits.permits)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def reservation(self, tokens: int) -> Any:
        """A permit to tokenize: room for an estimate of ``tokens`` until the block ends.

        Raises
        ------
        QueueFull
            Before anything was computed.
        """
        with self._changed:
            self._check_room(tokens)
            self._reserved += tokens
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= tokens

    def submit(self, work: EncodeWork) -> None:
        """Queue work; ``work.on_done`` is called on a worker thread.

        Raises
        ------
        QueueFull
            When more tokens wait than the capacity allows.
        DeadlineExceeded
            When the queue ahead takes longer than the caller waits.
        NotReady
            When the scheduler is closed.
        EngineError
            When a worker broke.
        """
        work.submitted_ns = time.perf_counter_ns()
        with self._changed:
            self._check_room(work.tokens_left)
            wait_s = (self._queue.tokens + work.tokens_left) / self._tokens_per_s
            if time.monotonic() + wait_s > work.deadline:
                raise DeadlineExceeded(
                    f"model {self.name}: the answer takes about {wait_s * 1e3:.0f} ms, "
                    "which is more than the time left",
                    metadata={"estimate_ms": f"{wait_s * 1e3:.0f}"},
                )
            self._queue.add(work)
            self._changed.notify()

    def _check_room(self, tokens: int) -> None:
        if self._failure is not None:
            raise EngineError(f"model {self.name} stopped after a failure; see the log")
        if self._closed:
            raise NotReady(f"model {self.name} is being unloaded")
        if not self._queue.has_room(tokens, reserved=self._reserved):
            waiting = self._queue.tokens + self._reserved
            raise QueueFull(
                f"model {self.name}: {waiting} tokens wait, {tokens} more do not fit into "
                f"{self._queue.capacity}",
                retry_after_s=max(0.05, waiting / self._tokens_per_s / 2),
                metadata={"waiting": str(waiting), "capacity": str(self._queue.capacity)},
            )

    def _work(self) -> None:
        batch: Batch = []
        try:
            while (want := self._wait_for_work()) > 0:
                # The permit first: what arrives while others compute joins the batch.
                with self._permits.hold(self.name, want) as threads:
                    ended, batch = self._next_batch()
                    if batch:
                        ended += self._run(batch, threads)
                for work in ended:
                    work.on_done(work)
        except Exception as error:
            self._give_up(error, [work for work, _ in batch])

    def _wait_for_work(self) -> int:
        """Threads of use for what waits, once something does; 0 when closed and drained."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            # One text cannot be shared out: alone on the machine it may use the other cores.
            is_alone = self._queue.holds_one_row and self._running == 0
            return 0 if not self._queue else self._engine.alone_threads if is_alone else 1

    def _next_batch(self) -> tuple[list[EncodeWork], Batch]:
        """Work that is dead, and a batch of the rest; both may be empty."""
        with self._changed:
            dead = [w for w in self._queue.drop_dead(time.monotonic()) if self._end(w)]
            batch = self._queue.pop()
            self._running += bool(batch)
            if self._queue:
                self._changed.notify()
        return dead, batch

    def _run(self, batch: Batch, threads: int) -> list[EncodeWork]:
        """Run a batch; the work that it ends."""
        rows = [work.rows[i] for work, indices in batch for i in indices]
        error: Exception | None = None
        vectors = None
        started = time.perf_counter_ns()
        try:
            vectors = self._engine.encode(rows, threads=threads)
        except Exception as caught:
            error = caught
        elapsed = time.perf_counter_ns() - started
        start = 0
        done = []
        with self._changed:
            self._running -= 1
            if error is None:
                self._learn_speed(sum(map(len, rows)), elapsed, threads)
            for work, indices in batch:
                work.queue_ns = max(work.queue_ns, started - work.submitted_ns)
                work.infer_ns = max(work.infer_ns, elapsed)
                if vectors is not None:
                    work.vectors[indices] = vectors[start : start + len(indices)]
                elif work.error is None:
                    work.error = _as_sprat_error(self.name, error)
                start += len(indices)
                work.unfinished -= len(indices)
                if (work.unfinished == 0 or work.error is not None) and self._end(work):
                    done.append(work)
        return done

    def _give_up(self, error: Exception, running: list[EncodeWork]) -> None:
        """A worker broke outside the engine: end what it ran and what waits, take on no more."""
        failure = _as_sprat_error(self.name, error)
        with self._changed:
            self._failure = failure
            self._closed = True
            lost = running + self._queue.clear()
            for work in lost:
                work.error = work.error or failure
            ended = [work for work in lost if self._end(work)]
            self._changed.notify_all()
        for work in ended:
            work.on_done(work)

    def _learn_speed(self, tokens: int, elapsed_ns: int, threads: int) -> None:
        """Average the speed of the whole model: of one worker, times the workers beside it."""
        if tokens < TOKEN_BUDGET // 2:
            return  # Small batches are slow by the token and say nothing of a full queue.
        rate = tokens / elapsed_ns * 1e9 * (self._permits.permits // threads)
        if self._tokens_per_s == math.inf:
            self._tokens_per_s = rate
        else:
            self._tokens_per_s += 0.05 * (rate - self._tokens_per_s)

    def _end(self, work: EncodeWork) -> bool:
        """Mark work as ended; False when it was. Holds the lock."""
        if work.ended:
            return False
        work.ended = True
        if work.unfinished and work.error is None:
            work.error = (
                Cancelled("the caller gave up")
                if work.cancelled
                else DeadlineExceeded(f"model {self.name}: the time ran out in the queue")
            )
        return True

    def close(self) -> None:
        """Finish what waits, then end the threads and release the engine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._engine.close()


def _as_sprat_error(name: str, error: BaseException | None) -> SpratError:
    if isinstance(error, SpratError):
        return error
    assert error is not None
    log.error("model %s failed on a batch: %s", name, describe(error))
    return EngineError(f"model {name} failed on a batch ({type(error).__name__})")


@dataclass(eq=False, slots=True)
class GenerateWork:
    """One answer to generate.

    Attributes
    ----------
    prompt : int32[T]
        Prompt tokens.
    deadline : float
        `time.monotonic` value after which nobody wants more; infinity without one.
    on_progress : callable
        Called on the scheduler thread with each `Progress` that has text or ends the answer, or
        once with a `SpratError` instead.
    """

    prompt: IntArray
    sampling: Sampling
    deadline: float
    on_progress: Callable[[Progress | SpratError], None]
    submitted_ns: int = 0
    started_ns: int = 0
    output_tokens: int = 0
    cancelled: bool = False
    sequence: int = -1

    @property
    def tokens(self) -> int:
        """Most tokens that prompt and answer take together."""
        return len(self.prompt) + self.sampling.max_tokens


class GenerateScheduler:
    """Runs the answers of one generative model side by side on the engine's owner thread.

    Parameters
    ----------
    name : str
        Of the model: owner of the permits, name of the thread.
    make_engine : callable
        Makes the engine. Called on the owner thread; its error is raised here.
    permits : ComputePermits
        The process's budget.
    capacity : int
        Most tokens (prompts and the answers they may grow) that may wait for a place.
    """

    def __init__(
        self,
        name: str,
        make_engine: Callable[[], GenerativeEngine],
        permits: ComputePermits,
        *,
        capacity: int,
    ) -> None:
        self.name = name
        self._permits = permits
        self._capacity = capacity
        self._waiting: deque[GenerateWork] = deque()
        self._live: dict[int, GenerateWork] = {}
        self._next_sequence = 0
        self._closed = False
        self._changed = threading.Condition()
        self._engine: GenerativeEngine | None = None
        self._failure: BaseException | None = None
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._own, args=(make_engine, ready), name=f"sprat-{name}", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def engine(self) -> GenerativeEngine:
        """The engine; other threads may only call what its interface allows them."""
        assert self._engine is not None
        return self._engine

    def submit(self, work: GenerateWork) -> None:
        """Queue an answer.

        Raises
        ------
        QueueFull, NotReady
            As in `EncodeScheduler.submit`.
        EngineError
            When the engine broke and was given up.
        """
        work.submitted_ns = time.perf_counter_ns()
        with self._changed:
            if self._failure is not None:
                raise EngineError(f"model {self.name} stopped after a failure; see the log")
            if self._closed:
                raise NotReady(f"model {self.name} is being unloaded")
            waiting = sum(w.tokens for w in self._waiting)
            if self._waiting and waiting + work.tokens > self._capacity:
                raise QueueFull(
                    f"model {self.name}: {waiting} tokens wait, {work.tokens} more do not fit "
                    f"into {self._capacity}",
                    metadata={"waiting": str(waiting), "capacity": str(self._capacity)},
                )
            self._waiting.append(work)
            self._changed.notify()

    def cancel(self, work: GenerateWork) -> None:
        """Drop an answer: at once when it waits, else before the next step."""
        with self._changed:
            work.cancelled = True
            self._changed.notify()

    def _own(self, make_engine: Callable[[], GenerativeEngine], ready: threading.Event) -> None:
        try:
            engine = self._engine = make_engine()
        except BaseException as error:
            self._failure = error
            return
        finally:
            ready.set()
        try:
            while self._prepare(engine):
                self._step(engine)
        except Exception as error:
            self._give_up(error)
        finally:
            engine.close()

    def _give_up(self, error: Exception) -> None:
        """The engine broke outside a step: end what waits and runs, take on no more."""
        failure = _as_sprat_error(self.name, error)
        with self._changed:
            self._failure = failure
            ended = [*self._live.values(), *self._waiting]
            self._live.clear()
            self._waiting.clear()
        for work in ended:
            work.on_progress(failure)

    def _prepare(self, engine: GenerativeEngine) -> bool:
        """Drop the dead, start what fits; wait for work. False when closed and drained."""
        while True:
            with self._changed:
                while not (self._waiting or self._live or self._closed):
                    self._changed.wait()
                if self._closed and not (self._waiting or self._live):
                    return False
                dropped = self._drop_dead(engine)
                failed = self._start_waiting(engine)
            for work, error in dropped + failed:
                work.on_progress(error)
            if engine.busy():
                return True

    def _drop_dead(self, engine: GenerativeEngine) -> list[tuple[GenerateWork, SpratError]]:
        now = time.monotonic()
        dead: list[tuple[GenerateWork, SpratError]] = []
        for work in [*self._waiting, *self._live.values()]:
            if work.cancelled:
                dead.append((work, Cancelled("the caller gave up")))
            elif work.deadline <= now:
                dead.append((work, DeadlineExceeded(f"model {self.name}: the time ran out")))
        for work, _ in dead:
            if work.sequence in self._live:
                engine.stop(work.sequence)
                del self._live[work.sequence]
            else:
                self._waiting.remove(work)
        return dead

    def _start_waiting(self, engine: GenerativeEngine) -> list[tuple[GenerateWork, SpratError]]:
        failed: list[tuple[GenerateWork, SpratError]] = []
        while self._waiting:
            work = self._waiting[0]
            has_room = engine.has_room(work.tokens)
            if not has_room and self._live:
                break
            self._waiting.popleft()
            if not has_room:
                message = f"model {self.name}: {work.tokens} tokens do not fit, even alone"
                failed.append((work, EngineError(message)))
                continue
            work.sequence = self._next_sequence
            self._next_sequence += 1
            work.started_ns = time.perf_counter_ns()
            try:
                engine.start(Start(work.sequence, work.prompt, work.sampling))
            except Exception as error:
                failed.append((work, _as_sprat_error(self.name, error)))
            else:
                self._live[work.sequence] = work
        return failed

    def _step(self, engine: GenerativeEngine) -> None:
        try:
            with self._permits.hold(self.name, self._permits.permits) as threads:
                progress = engine.step(max_tokens=SLICE_TOKENS, threads=threads)
        except Exception as error:
            failure = _as_sprat_error(self.name, error)
            for sequence, work in list(self._live.items()):
                engine.stop(sequence)
                work.on_progress(failure)
            self._live.clear()
            return
        for item in progress:
            live = self._live.get(item.sequence)
            if live is None:
                continue
            live.output_tokens += item.tokens
            if item.error is not None:
                live.on_progress(EngineError(f"model {self.name}: {item.error}"))
            elif item.text or item.finish_reason:
                live.on_progress(item)
            if item.error is not None or item.finish_reason:
                del self._live[item.sequence]

    def close(self) -> None:
        """Finish what waits and runs, then end the thread and release the engine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
