"""The worker threads of an encoder: what waits in its queue is batched and run here."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

from sprat.batching import TOKEN_BUDGET, Batch, EncodeQueue, EncodeWork
from sprat.budget import ComputePermits
from sprat.engine.base import EncoderEngine
from sprat.errors import Cancelled, DeadlineExceeded, EngineError, NotReady, QueueFull, SpratError
from sprat.scheduler.loop import as_sprat_error
from sprat.values import FloatArray


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
        made: FloatArray | Sequence[FloatArray] | None = None
        run = self._engine.states if batch[0][0].wants_states else self._engine.encode
        started = time.perf_counter_ns()
        try:
            made = run(rows, threads=threads)
        except Exception as caught:
            error = caught
        elapsed = time.perf_counter_ns() - started
        tokens = sum(map(len, rows))
        start = 0
        done = []
        with self._changed:
            self._running -= 1
            if error is None:
                self._learn_speed(tokens, elapsed, threads)
            for work, indices in batch:
                work.queue_ns = max(work.queue_ns, started - work.submitted_ns)
                work.infer_ns = max(work.infer_ns, elapsed)
                if made is not None:
                    token_ns = elapsed * threads / tokens
                    work.fill(indices, made[start : start + len(indices)], token_ns)
                elif work.error is None:
                    work.error = as_sprat_error(self.name, error)
                start += len(indices)
                work.unfinished -= len(indices)
                if (work.unfinished == 0 or work.error is not None) and self._end(work):
                    done.append(work)
        return done

    def _give_up(self, error: Exception, running: list[EncodeWork]) -> None:
        """A worker broke outside the engine: end what it ran and what waits, take on no more."""
        failure = as_sprat_error(self.name, error)
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
