"""The choices that wait for a generative model's owner thread, and those that it works on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sprat.engine.base import Choice, ChoiceEngine, Chosen
from sprat.errors import Cancelled, DeadlineExceeded, EngineError, SpratError
from sprat.scheduler.loop import as_sprat_error
from sprat.scheduler.turns import next_of


@dataclass(eq=False, slots=True)
class ChoiceWork:
    """One choice to make.

    Attributes
    ----------
    tokens : int
        Prompt tokens of its own: those that it shares are decoded once.
    deadline : float
        `time.monotonic` value after which nobody wants the answer; infinity without one.
    on_done : callable
        Called once on the scheduler thread, with the result or the error.
    cpu_ns : int
        CPU time of its tokens so far, in nanoseconds: see `Choices.charge`.
    """

    choice: Choice
    tokens: int
    deadline: float
    on_done: Callable[[Chosen | SpratError], None]
    submitted_ns: int = 0
    started_ns: int = 0
    cpu_ns: int = 0
    cancelled: bool = False

    @property
    def adapter(self) -> str:
        """What it runs under."""
        return self.choice.adapter


Ended = list[tuple[ChoiceWork, Chosen | SpratError]]


class Choices:
    """Waiting and live choices of one model. `GenerateScheduler` locks and drives it.

    Parameters
    ----------
    name : str
        Of the model, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[ChoiceWork] = deque()
        self._live: dict[int, ChoiceWork] = {}
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._live)

    @property
    def is_live(self) -> bool:
        """Whether the engine works on any."""
        return bool(self._live)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait."""
        return sum(work.tokens for work in self._waiting)

    def add(self, works: Sequence[ChoiceWork]) -> None:
        """Append to what waits."""
        self._waiting.extend(works)

    def drop_dead(self, engine: ChoiceEngine) -> Ended:
        """Remove what nobody waits for any more."""
        now = time.monotonic()
        ended: Ended = []
        for work in self._waiting:
            if (error := self._why_dead(work, now)) is not None:
                ended.append((work, error))
        for work, _ in ended:
            self._waiting.remove(work)
        for number, work in list(self._live.items()):
            if (error := self._why_dead(work, now)) is not None:
                engine.stop(number)
                del self._live[number]
                ended.append((work, error))
        return ended

    def _why_dead(self, work: ChoiceWork, now: float) -> SpratError | None:
        if work.cancelled:
            return Cancelled("the caller gave up")
        if work.deadline <= now:
            return DeadlineExceeded(f"model {self._name}: the time ran out")
        return None

    def start_waiting(self, engine: ChoiceEngine) -> Ended:
        """Hand over what the engine has room for, in order; what it refuses ends here."""
        ended: Ended = []
        while self._waiting:
            work = self._waiting[0]
            try:
                in_use = next((live.adapter for live in self._live.values()), None)
                found = next_of(self._waiting, in_use, lambda each: engine.has_room(each.choice))
                if found is None and self._live:
                    break
                if found is None:
                    tokens = len(work.choice.prompt)
                    raise EngineError(f"model {self._name}: {tokens} tokens do not fit, even alone")
                work = found
                work.started_ns = time.perf_counter_ns()
                engine.start(self._next_number, work.choice)
            except Exception as error:
                ended.append((work, as_sprat_error(self._name, error)))
            else:
                self._live[self._next_number] = work
                self._next_number += 1
            self._waiting.remove(work)
        return ended

    def charge(self, tokens: Mapping[int, int], cpu_ns: int) -> None:
        """Share the CPU time of a step out over the live choices by the tokens it decoded for them.

        Parameters
        ----------
        tokens : mapping of int to int
            `ChoiceEngine.step_tokens`.
        cpu_ns : int
            Wall time of the step in nanoseconds, times its threads.
        """
        total = sum(tokens.values())
        for number, count in tokens.items():
            self._live[number].cpu_ns += cpu_ns * count // total

    def finish(self, chosen: list[Chosen]) -> Ended:
        """The work behind results, which is live no more."""
        ended: Ended = []
        for result in chosen:
            work = self._live.pop(result.number, None)
            if work is None:
                continue
            failed = result.error is not None
            outcome = EngineError(f"model {self._name}: {result.error}") if failed else result
            ended.append((work, outcome))
        return ended

    def abandon(self, engine: ChoiceEngine, error: SpratError) -> Ended:
        """Have the engine drop everything that is live."""
        ended: Ended = []
        for number, work in self._live.items():
            engine.stop(number)
            ended.append((work, error))
        self._live.clear()
        return ended

    def fail(self, error: SpratError) -> Ended:
        """End everything."""
        ended: Ended = [(work, error) for work in (*self._live.values(), *self._waiting)]
        self._live.clear()
        self._waiting.clear()
        return ended
