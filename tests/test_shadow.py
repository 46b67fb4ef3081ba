"""Shadow escalation: a share of what earlier tiers answered, when there is time, at no cost."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from doubles import WAIT_S, eventually

from sprat import shadow
from sprat.decision_log import DecisionLog
from sprat.errors import DeadlineExceeded, EngineError
from sprat.shadow import Shadows
from sprat.values import (
    Classification,
    ClassifyResult,
    RouteResult,
    Routing,
    TierAnswer,
    Timings,
)


class Last:
    """The last tier of a cascade of three; can be held up, and can fail."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.most_at_once = self._at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def ask(self, text: str, deadline: float) -> TierAnswer | None:
        assert time.monotonic() < deadline < math.inf
        self.texts.append(text)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.gate.wait()
        finally:
            self._at_once -= 1
        if self.failure is not None:
            raise self.failure
        return None if text == "unreadable" else TierAnswer(2, f"label of {text}", 0.9)


class Kept:
    """Where shadows go."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int, str]] = []

    def put_shadow(self, task: str, request_id: str, item: int, said: TierAnswer) -> None:
        self.rows.append((task, request_id, item, said.label))


def answer(tier: int = 0, **changes: Any) -> Classification:
    return Classification("bug", 0.99, (), tier=tier, **changes)


def result(items: Sequence[Classification | None]) -> ClassifyResult:
    return ClassifyResult(tuple(items), (), "m", "v", "t", True, Timings())


def make(
    kept: Kept, *, share: float = 1.0, has_spare: Callable[[], bool] = lambda: True
) -> Shadows:
    return Shadows(share, has_spare, cast(DecisionLog, kept))


def offer(
    shadows: Shadows, last: Last, texts: Sequence[str], items: Sequence[Classification | None]
) -> None:
    shadows.offer("tickets", "r", texts, result(items), last=2, ask=last.ask)


async def test_shadow_asks_about_what_earlier_tiers_answered_themselves() -> None:
    kept, last = Kept(), Last()
    shadows = make(kept)
    items = [
        answer(0),
        answer(1),
        answer(2),
        answer(0, abstained=True),
        answer(0, degraded="overload"),
        None,
        answer(0),
    ]
    offer(shadows, last, [f"t{number}" for number in range(7)], items)
    assert last.texts == [], "the reply goes first"
    await eventually(lambda: len(kept.rows) == 3, "not all were asked about")
    assert kept.rows == [("tickets", "r", n, f"label of t{n}") for n in (0, 1, 6)]
    assert last.most_at_once == 1
    await shadows.close()


async def test_shadow_of_routes_is_of_their_classifications() -> None:
    kept, last = Kept(), Last()
    shadows = make(kept)
    routed = RouteResult((Routing("queue", answer(0)),), (), "m", "v", "t", True, Timings())
    shadows.offer("teams", "r", ["a"], routed, last=2, ask=last.ask)
    await eventually(lambda: kept.rows == [("teams", "r", 0, "label of a")], "not asked about")
    await shadows.close()


async def test_shadow_draws_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, last = Kept(), Last()
    shadows = make(kept, share=0.25)
    monkeypatch.setattr(shadow, "MOST_WAITING", 10_000)
    drawn = 0
    for _ in range(40):
        offer(shadows, last, ["a"] * 100, [answer()] * 100)
        drawn = len(shadows._waiting)
    # 4,000 texts, 1,000 of them on average: seven standard deviations to either side.
    assert 800 < drawn < 1200
    await shadows.close()


async def test_shadow_waits_for_time_and_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, last = Kept(), Last()
    has_spare = False
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        return has_spare

    shadows = make(kept, has_spare=look)
    offer(shadows, last, ["a"], [answer()])
    await eventually(lambda: looks > 3, "nobody looked")
    assert last.texts == []
    has_spare = True
    await eventually(lambda: kept.rows, "not asked about")
    has_spare = False
    monkeypatch.setattr(shadow, "PATIENCE_S", 0.02)
    offer(shadows, last, ["b"], [answer()])
    await eventually(lambda: not shadows._waiting, "it waits for ever")
    assert last.texts == ["a"]
    await shadows.close()


async def test_shadow_waits_with_few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, last = Kept(), Last()
    last.gate.clear()
    shadows = make(kept)
    for _ in range(100):
        offer(shadows, last, ["a"], [answer()])
    assert len(shadows._waiting) == shadow.MOST_WAITING
    last.gate.set()
    await eventually(lambda: len(kept.rows) == shadow.MOST_WAITING, "not all were asked about")
    monkeypatch.setattr(shadow, "MOST_CHARACTERS", 25)
    last.gate.clear()
    offer(shadows, last, ["c" * 10] * 5 + ["d" * 5], [answer()] * 6)
    assert [sample.text for sample in shadows._waiting] == ["c" * 10, "c" * 10, "d" * 5]
    last.gate.set()
    await eventually(lambda: not shadows._waiting, "not all were asked about")
    offer(shadows, last, ["e" * 25], [answer()])
    await eventually(lambda: last.texts[-1] == "e" * 25, "room that was given back is not used")
    await shadows.close()


@pytest.mark.parametrize(
    "failure", [EngineError("broken"), DeadlineExceeded("late"), RuntimeError("secret text")]
)
async def test_shadow_goes_on_after_a_failure(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    kept, last = Kept(), Last()
    shadows = make(kept)
    last.failure = failure
    with caplog.at_level(logging.DEBUG, "sprat"):
        offer(shadows, last, ["a"], [answer()])
        await eventually(lambda: not shadows._waiting, "not asked about")
        last.failure = None
        offer(shadows, last, ["unreadable", "b"], [answer()] * 2)
        await eventually(lambda: kept.rows, "it stopped")
    assert kept.rows == [("tickets", "r", 1, "label of b")]
    assert "secret" not in caplog.text
    await shadows.close()


async def test_shadow_close_gives_up_what_is_asked() -> None:
    kept, last = Kept(), Last()
    last.gate.clear()
    shadows = make(kept)
    offer(shadows, last, ["a", "b"], [answer()] * 2)
    await eventually(lambda: last.texts == ["a"], "not asked about")
    await asyncio.wait_for(shadows.close(), WAIT_S)
    assert kept.rows == []
    await make(kept).close()
