"""The owner thread of a generative model: answers run side by side on its engine here."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sprat.budget import ComputePermits
from sprat.engine.base import ChoiceEngine, Chosen, GenerativeEngine, Progress, Start
from sprat.errors import Cancelled, DeadlineExceeded, EngineError, NotReady, QueueFull, SpratError
from sprat.scheduler.choose import Choices, ChoiceWork
from sprat.scheduler.loop import as_sprat_error
from sprat.scheduler.slices import SLICE_TOKENS, Slices
from sprat.scheduler.turns import next_of
from sprat.values import PrefixUse


@dataclass(eq=False, slots=True)
class GenerateWork:
    """One answer to generate.

    Attributes
    ----------
    start : Start
        What the engine gets; its number is given when its turn comes.
    deadline : float
        `time.monotonic` value after which nobody wants more; infinity without one.
    on_progress : callable
        Called on the scheduler thread with each `Progress` that says anything, or once with a
        `SpratError` instead.
    output_tokens, cached_tokens, forced_tokens, drafted_tokens, accepted_tokens : int
        Sums over the `Progress` so far.
    cpu_ns : int
        CPU time of its tokens so far, in nanoseconds: see `GenerateScheduler`.
    """

    start: Start
    deadline: float
    on_progress: Callable[[Progress | SpratError], None]
    submitted_ns: int = 0
    started_ns: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    forced_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    cpu_ns: int = 0
    cancelled: bool = False
    sequence: int = -1

    @property
    def tokens(self) -> int:
        """Most tokens that prompt and answer take together."""
        return len(self.start.prompt) + self.start.sampling.max_tokens

    @property
    def adapter(self) -> str:
        """What it runs under."""
        return self.start.adapter

    def count(self, progress: Progress) -> None:
        """Add to the sums."""
        self.output_tokens += progress.tokens
        self.cached_tokens += progress.cached
        self.forced_tokens += progress.forced
        self.drafted_tokens += progress.drafted
        self.accepted_tokens += progress.accepted


class GenerateScheduler:
    """Runs the answers of one generative model side by side on the engine's owner thread.

    The CPU time of a step is its wall time by its threads, shared by the tokens of the answers.

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

    Attributes
    ----------
    prefix_use : PrefixUse
        Of everything that was finished; replaced as a whole, so that any thread may read it.
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
        self._choices = Choices(name)
        self._slices = Slices()
        self.prefix_use = PrefixUse()
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

    def submit(self, works: Sequence[GenerateWork]) -> None:
        """Queue answers: all, or none where it raises.

        Raises
        ------
        QueueFull, NotReady
            As in `EncodeScheduler.submit`.
        EngineError
            When the engine broke and was given up.
        """
        for work in works:
            work.submitted_ns = time.perf_counter_ns()
        with self._changed:
            self._check_room(sum(work.tokens for work in works))
            self._waiting.extend(works)
            self._changed.notify()

    def submit_choices(self, works: Sequence[ChoiceWork]) -> None:
        """Queue choices: all, or none where it raises as `submit` does."""
        for work in works:
            work.submitted_ns = time.perf_counter_ns()
        with self._changed:
            self._check_room(sum(work.tokens for work in works))
            self._choices.add(works)
            self._changed.notify()

    def _check_room(self, tokens: int) -> None:
        if self._failure is not None:
            raise EngineError(f"model {self.name} stopped after a failure; see the log")
        if self._closed:
            raise NotReady(f"model {self.name} is being unloaded")
        waiting = sum(w.tokens for w in self._waiting) + self._choices.waiting_tokens
        if waiting and waiting + tokens > self._capacity:
            raise QueueFull(
                f"model {self.name}: {waiting} tokens wait, {tokens} more do not fit "
                f"into {self._capacity}",
                metadata={"waiting": str(waiting), "capacity": str(self._capacity)},
            )

    def cancel(self, work: GenerateWork | ChoiceWork) -> None:
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
                if engine.busy():
                    self._step(engine)
                if self._choices.is_live:
                    self._step_choices(engine.chooser())
        except Exception as error:
            self._give_up(error)
        finally:
            engine.close()

    def _give_up(self, error: Exception) -> None:
        """The engine broke outside a step: end what waits and runs, take on no more."""
        failure = as_sprat_error(self.name, error)
        with self._changed:
            self._failure = failure
            ended = [*self._live.values(), *self._waiting]
            self._live.clear()
            self._waiting.clear()
            choices = self._choices.fail(failure)
        for work in ended:
            work.on_progress(failure)
        for choice, outcome in choices:
            choice.on_done(outcome)

    def _prepare(self, engine: GenerativeEngine) -> bool:
        """Drop the dead, start what fits; wait for work. False when closed and drained."""
        while True:
            chooser = self._chooser(engine) if self._choices else None
            with self._changed:
                while not (self._waiting or self._live or self._choices or self._closed):
                    self._changed.wait()
                if self._closed and not (self._waiting or self._live or self._choices):
                    return False
                dropped = self._drop_dead(engine)
                failed = self._start_waiting(engine)
                choices = []
                if chooser is not None:
                    choices = self._choices.drop_dead(chooser)
                    choices += self._choices.start_waiting(chooser)
            for work, error in dropped + failed:
                work.on_progress(error)
            for choice, outcome in choices:
                choice.on_done(outcome)
            if engine.busy() or self._choices.is_live:
                return True

    def _chooser(self, engine: GenerativeEngine) -> ChoiceEngine | None:
        """The engine for choices, made at the first one; where it fails, what waits for it does."""
        try:
            return engine.chooser()
        except Exception as error:
            with self._changed:
                failed = self._choices.fail(as_sprat_error(self.name, error))
            for work, outcome in failed:
                work.on_done(outcome)
            return None

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
            in_use = next((work.adapter for work in self._live.values()), None)
            work = next_of(
                self._waiting, in_use, lambda each: engine.has_room(each.tokens, each.adapter)
            )
            if work is None and self._live:
                break
            if work is None:
                work = self._waiting.popleft()
                message = f"model {self.name}: {work.tokens} tokens do not fit, even alone"
                failed.append((work, EngineError(message)))
                continue
            self._waiting.remove(work)
            work.sequence = self._next_sequence
            self._next_sequence += 1
            work.started_ns = time.perf_counter_ns()
            try:
                engine.start(replace(work.start, sequence=work.sequence))
            except Exception as error:
                failed.append((work, as_sprat_error(self.name, error)))
            else:
                self._live[work.sequence] = work
        return failed

    def _step(self, engine: GenerativeEngine) -> None:
        is_writing = any(work.output_tokens for work in self._live.values())
        try:
            with self._permits.hold(self.name, self._permits.permits) as threads:
                started = time.perf_counter_ns()
                progress = engine.step(
                    max_tokens=self._slices.size(is_writing=is_writing), threads=threads
                )
                spent_ns = time.perf_counter_ns() - started
        except Exception as error:
            failure = as_sprat_error(self.name, error)
            for sequence, work in list(self._live.items()):
                engine.stop(sequence)
                work.on_progress(failure)
            self._live.clear()
            return
        self._charge(engine.step_tokens, spent_ns * threads)
        self._slices.note(sum(engine.step_tokens.values()), spent_ns / 1e9)
        for item in progress:
            live = self._live.get(item.sequence)
            if live is None:
                continue
            live.count(item)
            if item.error is not None:
                live.on_progress(EngineError(f"model {self.name}: {item.error}"))
            elif item.text or item.finish_reason or item.logprobs:
                live.on_progress(item)
            if item.finish_reason:
                self.prefix_use = self.prefix_use.count(live.cached_tokens)
            if item.error is not None or item.finish_reason:
                del self._live[item.sequence]

    def _charge(self, tokens: Mapping[int, int], cpu_ns: int) -> None:
        """Share the CPU time of a step out over the answers by the tokens it decoded for them."""
        total = sum(tokens.values())
        for sequence, count in tokens.items():
            if (work := self._live.get(sequence)) is not None:
                work.cpu_ns += cpu_ns * count // total

    def _step_choices(self, chooser: ChoiceEngine) -> None:
        try:
            with self._permits.hold(self.name, self._permits.permits) as threads:
                started = time.perf_counter_ns()
                chosen = chooser.step(max_tokens=SLICE_TOKENS, threads=threads)
                cpu_ns = (time.perf_counter_ns() - started) * threads
        except Exception as error:
            with self._changed:
                ended = self._choices.abandon(chooser, as_sprat_error(self.name, error))
        else:
            with self._changed:
                self._choices.charge(chooser.step_tokens, cpu_ns)
                ended = self._choices.finish(chosen)
        for work, outcome in ended:
            if isinstance(outcome, Chosen):
                self.prefix_use = self.prefix_use.count(outcome.cached_tokens)
            work.on_done(outcome)

    def close(self) -> None:
        """Finish what waits and runs, then end the thread and release the engine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
