"""Rows that a model writes: asked, cleaned, judged, and written in one piece."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Fault, user_text
from teachers import labeller, writer

from sprat import remote
from sprat.errors import DataError, InvalidInput, Retryable
from sprat.train.data import read
from sprat.train.synthesize import SeededLabel, Tally, synthesize
from sprat.values import Label

LABELS = [
    SeededLabel(Label("card lost", "a card is gone"), ("I lost my card on the bus",)),
    SeededLabel(Label("refund")),
]
WORDS = [
    "amber",
    "bison",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grape",
    "heron",
    "igloo",
    "jolly",
    "koala",
    "lemon",
    "mango",
    "noble",
]


class Author:
    """Answers of a model that writes on demand and labels by the words that it reads."""

    def __init__(self) -> None:
        self.count = 0
        self.lock = threading.Lock()
        self.is_unsure = False

    def __call__(self, body: dict[str, Any]) -> str | tuple[str, float]:
        text = user_text(body)
        if not text.startswith("Write"):
            if "unsure" in text:
                return "refund", -2.0
            return "refund" if "refund" in text else "card lost"
        kind = "refund" if "this kind:\n- refund" in text else "lost"
        with self.lock:
            self.count += 1
            number = self.count
        word = WORDS[number % len(WORDS)]
        if self.is_unsure:
            return f"unsure {word * 3} {WORDS[number // len(WORDS)] * 3}"
        return f'1. Hello, {word * 3} {number} {kind} please\n- "{kind} of {word * 4} {number}"'


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(Author()) as server:
        yield server


def run(chat: ChatServer, out: Path, per_label: int = 5, **options: Any) -> dict[str, Tally]:
    with ExitStack() as stack:
        author = stack.enter_context(writer(chat, attempts=1, concurrency=1))
        judge = stack.enter_context(labeller(chat, [each.label for each in LABELS], attempts=1))
        return synthesize(LABELS, author, judge, out, per_label=per_label, **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_synthesize_writes_marked_rows_that_train(chat: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    tallies = run(chat, out, per_label=10)
    rows = lines(out)
    assert [row["label"] for row in rows] == ["card lost"] * 10 + ["refund"] * 10
    assert all(tally.kept >= 10 for tally in tallies.values())
    name = f"big at {chat.url.removesuffix('/v1')}"
    assert rows[0]["origin"] == {"written_by": name, "judged_by": name}
    assert (rows[0]["confidence"], rows[0]["calibrated"]) == (0.951229, False)
    assert not any(re.match(r"[-\d\"]|.*\"$", row["text"]) for row in rows)
    assert len({row["text"] for row in rows}) == 20
    assert read(out).labels == tuple(row["label"] for row in rows)


def test_synthesize_asks_with_descriptions_examples_and_other_labels(
    chat: ChatServer, tmp_path: Path
) -> None:
    run(chat, tmp_path / "rows.jsonl", per_label=20, about="what customers write to a bank")
    asked = [user_text(body) for body in chat.bodies if user_text(body).startswith("Write")]
    first = next(text for text in asked if "this kind:\n- card lost: a card is gone" in text)
    assert "what customers write to a bank" in first
    assert "None of them may be of these kinds: refund." in first
    assert "- I lost my card on the bus" in first
    # Later rounds show what was written, and ask for other styles.
    assert any("- Hello, " in text for text in asked)
    assert len(set(asked)) > 4
    assert all(body["seed"] for body in chat.bodies if body["temperature"] == 0.9)


@pytest.mark.parametrize(
    ("written", "tally"),
    [
        ("I lost my card on the bus!", Tally(repeated=4)),
        ("the refund for my lost card", Tally(disagreed=1, repeated=3)),
        ("ok", Tally(malformed=4)),
        ("x" * 1001, Tally(malformed=4)),
        ("Card lost.", Tally(malformed=4)),
        ("", Tally()),
        ("\n\n - \n", Tally(malformed=4)),
    ],
)
def test_synthesize_drops_what_is_no_good(tmp_path: Path, written: str, tally: Tally) -> None:
    out = tmp_path / "rows.jsonl"
    author = Author()

    def answer(body: dict[str, Any]) -> str | tuple[str, float]:
        is_asked = user_text(body).startswith("Write")
        return (
            written if is_asked and "this kind:\n- card lost" in user_text(body) else author(body)
        )

    with ChatServer(answer) as chat:
        tallies = run(chat, out)
    # The label is given up after 8 rounds of 4 answers.
    found = tallies["card lost"]
    assert found.kept == 0
    if tally.disagreed:
        assert (found.disagreed, found.repeated) == (1, 4 * 8 - 1)
    else:
        assert found == Tally(malformed=tally.malformed * 8, repeated=tally.repeated * 8)
    assert tallies["refund"].kept >= 5
    assert {row["label"] for row in lines(out)} == {"refund"}


def test_synthesize_drops_what_the_judge_doubts(tmp_path: Path) -> None:
    author = Author()
    author.is_unsure = True
    out = tmp_path / "rows.jsonl"
    with ChatServer(author) as chat:
        with pytest.raises(DataError, match="none of 64 texts was kept, nothing is written"):
            run(chat, out)
        assert not out.exists()
        tallies = run(chat, out, agree_above=0.1, restart=True)
    # What it is unsure of it calls a refund.
    assert (tallies["refund"].kept, tallies["refund"].unsure) == (8, 0)
    assert (tallies["card lost"].kept, tallies["card lost"].disagreed) == (0, 32)


def test_synthesize_leaves_out_what_was_cut_off(tmp_path: Path) -> None:
    author = Author()
    body = {
        "choices": [
            {
                "message": {"content": "The lost amber card\nThe lost bison and then"},
                "finish_reason": "length",
            }
        ]
    }
    with ChatServer(author) as chat:
        chat.faults = [Fault(body=json.dumps(body).encode())]
        run(chat, tmp_path / "rows.jsonl", per_label=9)
    texts = [row["text"] for row in lines(tmp_path / "rows.jsonl")]
    assert "The lost amber card" in texts
    assert "The lost bison and then" not in texts


def test_synthesize_goes_on_after_a_failure(chat: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    chat.faults = [*[Fault()] * 14, Fault(500)]
    with pytest.raises(Retryable):
        run(chat, out, per_label=8)
    assert not out.exists()
    done = lines(tmp_path / "rows.jsonl.part")[1:]
    assert [row["label"] for row in done] == ["card lost"]
    run(chat, out, per_label=8)
    rows = lines(out)
    assert [row["text"] for row in rows[:8]] == [row["text"] for row in done[0]["rows"][:8]]
    assert len(rows) == 16


def test_synthesize_does_not_go_on_with_other_labels(chat: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    chat.faults = [Fault(500)]
    with pytest.raises(Retryable):
        run(chat, out)
    with pytest.raises(DataError, match="different: about"):
        run(chat, out, about="something else")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_label": 0}, "per_label"),
        ({"agree_above": 1.5}, "agree_above"),
        ({"temperature": 0.0}, "temperature"),
        ({"about": "\ud800"}, "about"),
    ],
)
def test_synthesize_bounds_its_numbers(
    chat: ChatServer, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(chat, tmp_path / "rows.jsonl", **options)
    assert list(tmp_path.iterdir()) == []
