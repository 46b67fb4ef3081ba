"""What a day may cost: the sums, their caps, and the file that keeps them."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from pathlib import Path

import pytest
from filelock import FileLock

from sprat.endpoints import spending
from sprat.endpoints.spending import NOTHING, Caps, Prices, Spending, Usage
from sprat.errors import CorruptFile, EngineError, QueueFull

PRICES = Prices(input=1.0, output=2.0)
MOST = Usage(100, 50)
"""0.2 by these prices."""


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 23, 0, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now


def made(path: Path | None, clock: Clock | None = None, **caps: float) -> Spending:
    return Spending(
        "big",
        path,
        caps=Caps(**caps),  # type: ignore[arg-type]
        prices=PRICES,
        now=Clock() if clock is None else clock,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "endpoints" / "big.json"


def test_spending_counts_the_most_until_it_knows_better(path: Path) -> None:
    one = made(path)
    day = one.book(MOST)
    assert (one.spent.requests, one.spent.input_tokens, one.spent.output_tokens) == (1, 100, 50)
    assert one.spent.money == pytest.approx(0.2)
    one.settle(day, MOST, Usage(30, 2))
    assert (one.spent.requests, one.spent.input_tokens, one.spent.output_tokens) == (1, 30, 2)
    assert one.spent.money == pytest.approx(0.034)


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ({"requests": 2}, "daily_requests of 2"),
        ({"tokens": 300}, "daily_tokens of 300"),
        ({"money": 0.41}, "daily_spend of 0.41"),
    ],
)
def test_spending_stops_at_each_cap(path: Path, caps: dict[str, float], said: str) -> None:
    one = made(path, **caps)
    one.book(MOST)
    one.book(MOST)
    with pytest.raises(QueueFull, match=f"endpoint big: {said} is used up until midnight") as full:
        one.book(MOST)
    assert full.value.retry_after_s == 3600
    assert one.spent.requests == 2


def test_spending_goes_on_where_less_was_used(path: Path) -> None:
    one = made(path, tokens=200)
    one.settle(one.book(MOST), MOST, NOTHING)
    one.book(MOST)
    with pytest.raises(QueueFull):
        one.book(MOST)


def test_spending_survives_a_restart(path: Path) -> None:
    made(path, requests=2).book(MOST)
    again = made(path, requests=2)
    assert again.spent.requests == 1
    again.book(MOST)
    with pytest.raises(QueueFull):
        made(path, requests=2).book(MOST)


def test_spending_of_several_processes_has_one_cap(path: Path) -> None:
    one, other = made(path, requests=3), made(path, requests=3)
    one.book(MOST)
    other.book(MOST)
    one.book(MOST)
    with pytest.raises(QueueFull):
        other.book(MOST)
    assert other.spent.requests == 3


def test_spending_begins_anew_at_midnight_utc(path: Path) -> None:
    clock = Clock()
    one = made(path, clock, requests=1)
    late = one.book(MOST)
    clock.now = datetime(2026, 3, 2, 0, 0, tzinfo=timezone.utc)
    assert one.spent.requests == 0
    one.book(MOST)
    # What is known late of yesterday is nothing of today.
    one.settle(late, MOST, NOTHING)
    assert (one.spent.requests, one.spent.input_tokens) == (1, 100)


def test_spending_without_a_file_counts_for_itself() -> None:
    one = made(None, requests=1)
    one.book(MOST)
    with pytest.raises(QueueFull):
        one.book(MOST)
    assert made(None).spent.requests == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"day": "2026-03-01", "money": -1}'])
def test_spending_refuses_a_file_of_something_else(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CorruptFile, match="remove it to begin the day at nothing"):
        made(path)


def test_spending_is_not_begun_where_it_cannot_be_counted(path: Path) -> None:
    one = made(path)
    path.parent.touch()
    with pytest.raises(EngineError, match=r"big\.json cannot be changed: File exists"):
        one.book(MOST)
    assert one.spent.requests == 0


def test_spending_is_not_begun_while_somebody_holds_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "LOCK_S", 0.01)
    path.parent.mkdir()
    with FileLock(path.with_suffix(".lock")), pytest.raises(EngineError, match="Timeout"):
        made(path).book(MOST)


def test_spending_keeps_the_most_where_it_cannot_be_corrected(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = made(path)
    day = one.book(MOST)
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        one.settle(day, MOST, NOTHING)
    assert "the request counts with the most that it could cost" in caplog.text
    assert one.spent.input_tokens == 100


def test_spending_writes_sums_only(path: Path) -> None:
    made(path).book(MOST)
    assert json.loads(path.read_bytes()) == {
        "day": "2026-03-01",
        "requests": 1,
        "input_tokens": 100,
        "output_tokens": 50,
        "money": 0.2,
    }
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(each.name for each in path.parent.iterdir()) == ["big.json", "big.lock"]
