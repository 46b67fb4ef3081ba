"""Who gives up frees places, cells and sequences within one step of the engine, for every verb."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import WAIT_S, eventually, no_leaked_threads

from sprat.config import Config, ModelConfig
from sprat.errors import DeadlineExceeded
from sprat.pull import pull
from sprat.service import Service
from sprat.store import Store
from sprat.values import (
    Chunk,
    ExtractSpec,
    Label,
    LabelSet,
    Question,
    QuestionSet,
    Sampling,
    TransformSpec,
)

TEXTS = ["Where is my parcel?", "It is late.", "I want my money back."]
LABELS = tuple(map(Label, ("parcel", "refund", "refund late")))
QUESTIONS = (Question("kind", "What?", "choice", LABELS), Question("angry", "Is it?", "yes_no"))
SCHEMA = '{"type": "object", "properties": {"a": {"type": "string", "minLength": 90}}}'
LONG = Sampling(max_tokens=300)


class Gate:
    """Steps of an engine wait here, each to be let through.

    Attributes
    ----------
    entered : int
        Steps that were begun.
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        self._step = step
        self._allowed = threading.Semaphore(0)
        self.entered = 0

    def __call__(self, **how: Any) -> Any:
        self.entered += 1
        assert self._allowed.acquire(timeout=WAIT_S), "the gate stayed shut"
        return self._step(**how)

    async def passes(self, steps: int) -> None:
        """Let steps through; the next one stands at the gate afterwards."""
        for _ in range(steps):
            await self.stands()
            before = self.entered
            self._allowed.release()
            await eventually(lambda before=before: self.entered > before, "the work is over")

    async def stands(self) -> None:
        """Wait for the first step."""
        await eventually(lambda: self.entered, "no step was begun")

    def open_once(self) -> None:
        """Let the step through that stands at the gate."""
        self._allowed.release()


class Front:
    """A service over the tiny model, its engines' steps behind a gate."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.scheduler: Any = service.registry.models["tiny"]._scheduler  # type: ignore[union-attr]
        self.engine: Any = self.scheduler.engine
        self.engine.step = self.gate = Gate(self.engine.step)

    def watch_choices(self) -> None:
        chooser = self.engine.chooser()
        chooser.step = self.gate = Gate(chooser.step)

    async def is_free(self) -> None:
        scheduler = self.scheduler
        await eventually(
            lambda: not (scheduler._live or scheduler._waiting or scheduler._choices),
            "still at work",
        )
        assert not self.engine.busy()
        for lane in self.engine._lanes:
            assert not lane._occupants
            assert not self.engine._prefixes[lane]._makers
            spare = set(self.engine._prefixes[lane]._kept.values())
            for place in set(range(lane.places + len(lane.spare))) - spare:
                assert lane._lib.llama_memory_seq_pos_max(lane._memory, place) == -1
        if self.engine._chooser is not None:
            chooser = self.engine._chooser
            held = {p.sequence for p in chooser._prefixes._kept.taken.values()}
            held |= {p.sequence for p in chooser._prefixes._texts.taken.values()}
            for sequence in set(range(96)) - held:
                assert chooser._lib.llama_memory_seq_pos_max(chooser._memory, sequence) == -1
            assert not any(p.users for p in chooser._prefixes._kept.taken.values())


@pytest.fixture(scope="module")
def store(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    pull(str(tiny), made)
    return made


@pytest.fixture
async def front(store: Store) -> AsyncIterator[Front]:
    settings = ModelConfig(context_length=1024, sequences=4)
    with no_leaked_threads():
        service = await Service.open(Config(models={"tiny": settings}), store)
        yield Front(service)
        await service.close()


async def drained(chunks: AsyncGenerator[Chunk, None]) -> None:
    async for _ in chunks:
        pass


Ask = Callable[[Service, float], Any]
CHOICES: dict[str, Ask] = {
    "choose": lambda service, end: service.choose(LabelSet("tiny", LABELS), TEXTS, deadline=end),
    "decide": lambda service, end: service.decide(
        QuestionSet("tiny", QUESTIONS), TEXTS, deadline=end
    ),
}
ANSWERS: dict[str, Ask] = {
    "extract": lambda service, end: service.extract(
        ExtractSpec("tiny", SCHEMA), TEXTS, deadline=end
    ),
    "transform": lambda service, end: drained(
        service.transform(
            TransformSpec("tiny", "Rewrite: {text}", sampling=LONG), TEXTS[0], deadline=end
        )
    ),
    "generate": lambda service, end: drained(
        service.generate("tiny", TEXTS[0], LONG, sequences=3, deadline=end)
    ),
}
FOREVER = float("inf")


def prepared(front: Front, verb: str) -> Ask:
    if verb in CHOICES:
        front.watch_choices()
    return {**CHOICES, **ANSWERS}[verb]


@pytest.mark.parametrize("verb", [*CHOICES, *ANSWERS])
@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_giving_up_frees_everything_within_one_step(
    front: Front, verb: str, steps: int
) -> None:
    task = asyncio.ensure_future(prepared(front, verb)(front.service, FOREVER))
    await front.gate.passes(steps)
    await front.gate.stands()
    begun = front.gate.entered
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    front.gate.open_once()
    await front.is_free()
    assert front.gate.entered == begun


@pytest.mark.parametrize("verb", [*CHOICES, *ANSWERS])
async def test_deadline_frees_everything_within_one_step(front: Front, verb: str) -> None:
    end = time.monotonic() + 0.2
    task = asyncio.ensure_future(prepared(front, verb)(front.service, end))
    await front.gate.passes(1)
    begun = front.gate.entered
    await asyncio.sleep(max(0.0, end - time.monotonic()) + 0.01)
    front.gate.open_once()
    with pytest.raises(DeadlineExceeded):
        await task
    await front.is_free()
    assert front.gate.entered == begun


@pytest.mark.parametrize("verb", ["transform", "generate"])
async def test_closed_iterator_frees_everything_within_one_step(front: Front, verb: str) -> None:
    asked: dict[str, AsyncGenerator[Chunk, None]] = {
        "transform": front.service.transform(
            TransformSpec("tiny", "Rewrite: {text}", sampling=LONG), TEXTS[0]
        ),
        "generate": front.service.generate("tiny", TEXTS[0], LONG),
    }
    first = asyncio.ensure_future(anext(asked[verb]))
    while not first.done():
        await front.gate.passes(1)
        await asyncio.sleep(0.01)
    begun = front.gate.entered
    for chunks in asked.values():
        await chunks.aclose()
    front.gate.open_once()
    await front.is_free()
    assert front.gate.entered == begun
