"""Labelling rows: what is kept, what people get, and stops at any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Fault, by_words, user_text
from teachers import labeller

from sprat import remote
from sprat.errors import DataError, InvalidInput, NotReady, Retryable
from sprat.train.data import read
from sprat.train.label import Labelling, label, read_unlabelled
from sprat.train.teacher import Opinion

LABELS = ("card", "money")
ROWS = [
    {"text": "my card", "id": 7},
    {"text": "my money"},
    {"text": "a riddle"},
    {"text": "perhaps a card", "label": "money", "note": "é"},
    {"text": "my card", "label": "card"},
]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    rules = {"perhaps": ("card", -1.0), "card": "card", "money": "money", "riddle": ("?", -0.1)}
    with ChatServer(by_words(rules)) as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(source: Path, chat: ChatServer, out: Path, **options: Any) -> Labelling:
    with labeller(chat, LABELS, concurrency=1, attempts=1) as teacher:
        return label(
            read_unlabelled(source), teacher, out, asked={"labels": list(LABELS)}, **options
        )


def test_label_keeps_what_is_sure_and_reviews_the_rest(
    source: Path, chat: ChatServer, tmp_path: Path
) -> None:
    out, review = tmp_path / "out.jsonl", tmp_path / "review.jsonl"
    result = run(source, chat, out, review=review)
    origin = {"labelled_by": f"big at {chat.url.removesuffix('/v1')}"}
    assert lines(out) == [
        {"text": "my card", "id": 7, "label": "card", "confidence": 0.951229, "calibrated": False}
        | {"origin": origin},
        {"text": "my money", "label": "money", "confidence": 0.951229, "calibrated": False}
        | {"origin": origin},
        {"text": "my card", "label": "card", "confidence": 0.951229, "calibrated": False}
        | {"origin": origin},
    ]
    assert lines(review) == [
        {"text": "a riddle", "suggestion": "", "confidence": 0.0, "line": 3},
        {
            "text": "perhaps a card",
            "note": "é",
            "suggestion": "card",
            "confidence": 0.367879,
            "line": 4,
        },
    ]
    assert result == Labelling(
        rows=5,
        kept=3,
        unsure=2,
        failed=0,
        calibrated=False,
        by_label={"card": 2, "money": 1},
        gold=2,
        agreement=0.5,
        kept_agreement=1.0,
    )
    assert not list(tmp_path.glob("*.part"))


def test_label_output_trains_and_review_does_not(
    source: Path, chat: ChatServer, tmp_path: Path
) -> None:
    out, review = tmp_path / "out.jsonl", tmp_path / "review.jsonl"
    run(source, chat, out, review=review)
    assert read(out).labels == ("card", "money", "card")
    with pytest.raises(DataError, match="label: missing"):
        read(review)


def test_label_asks_about_the_same_text_once_and_sends_no_labels_of_rows(
    source: Path, chat: ChatServer, tmp_path: Path
) -> None:
    run(source, chat, tmp_path / "out.jsonl")
    assert sorted(map(user_text, chat.bodies)) == sorted({str(row["text"]) for row in ROWS})
    assert "é" not in json.dumps(chat.bodies, ensure_ascii=False)


@pytest.mark.parametrize("stop", range(4))
def test_label_goes_on_after_a_failure_without_asking_again(
    source: Path, chat: ChatServer, tmp_path: Path, stop: int
) -> None:
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    run(source, chat, whole)
    chat.bodies.clear()
    chat.faults = [*[Fault()] * stop, Fault(500)]
    with pytest.raises(Retryable):
        run(source, chat, out)
    assert not out.exists()
    chat.faults = []
    run(source, chat, out)
    assert out.read_bytes() == whole.read_bytes()
    # The one that failed is the only one that was sent twice.
    assert len(chat.bodies) == 4 + 1


def test_label_may_go_on_with_another_threshold(
    source: Path, chat: ChatServer, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    chat.faults = [Fault(), Fault(500)]
    with pytest.raises(Retryable):
        run(source, chat, out)
    assert run(source, chat, out, keep_above=0.3).kept == 4


def test_label_does_not_go_on_with_other_rows(
    source: Path, chat: ChatServer, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    chat.faults = [Fault(500)]
    with pytest.raises(Retryable):
        run(source, chat, out)
    write(source, [*ROWS, {"text": "one more card"}])
    with pytest.raises(DataError, match="another run"):
        run(source, chat, out)
    assert run(source, chat, out, restart=True).rows == 6


def test_label_counts_rows_that_fail_alone(source: Path, chat: ChatServer, tmp_path: Path) -> None:
    review = tmp_path / "review.jsonl"
    chat.faults = [Fault(400)]
    result = run(source, chat, tmp_path / "out.jsonl", review=review)
    # The first text stands in two rows.
    assert (result.failed, result.kept, result.unsure) == (2, 1, 2)
    assert "status 400" in next(row["error"] for row in lines(review) if row["line"] == 1)


class Calibrated:
    """A teacher with calibrated confidences, that may have nothing to say."""

    name = "tickets@1"

    def __init__(self, error: str = "") -> None:
        self._error = error

    def label(self, texts: Sequence[str]) -> Iterator[tuple[int, Opinion]]:
        for index in reversed(range(len(texts))):
            if self._error:
                yield index, Opinion("", 0.0, error=self._error)
            else:
                yield index, Opinion(texts[index][-1], 0.8, calibrated=True)


def test_label_keeps_the_order_of_rows_and_rows_at_the_threshold(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [{"text": f"row {n}"} for n in range(600)])
    out = tmp_path / "out.jsonl"
    result = label(read_unlabelled(source), Calibrated(), out, asked={}, keep_above=0.8)
    assert (result.kept, result.calibrated, result.agreement) == (600, True, None)
    assert [row["text"] for row in lines(out)] == [f"row {n}" for n in range(600)]


def test_label_writes_nothing_when_every_row_fails(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match="no row could be labelled: too long"):
        label(read_unlabelled(source), Calibrated("too long"), out, asked={})
    assert not out.exists()


def test_label_may_keep_nothing(source: Path, chat: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert run(source, chat, out, keep_above=0.99).kept == 0
    assert out.read_bytes() == b""


@pytest.mark.parametrize("keep_above", [-0.1, 1.1, float("nan")])
def test_label_bounds_the_threshold(
    source: Path, chat: ChatServer, tmp_path: Path, keep_above: float
) -> None:
    with pytest.raises(InvalidInput, match="keep_above"):
        run(source, chat, tmp_path / "out.jsonl", keep_above=keep_above)
    assert chat.bodies == []


def test_label_needs_two_files(source: Path, chat: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(InvalidInput, match="review"):
        run(source, chat, out, review=out)


def test_label_refuses_bad_rows_before_anything_is_sent(tmp_path: Path, chat: ChatServer) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "a card"}\n{"text": ""}\n{"label": "x"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2: text: empty\n  line 3: text: missing"):
        run(source, chat, tmp_path / "out.jsonl")
    assert chat.bodies == []


def test_label_takes_csv(tmp_path: Path, chat: ChatServer) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("id,text\n7,my card\n")
    out = tmp_path / "out.jsonl"
    run(source, chat, out)
    assert lines(out)[0]["id"] == "7"


def test_label_stops_with_its_loop(source: Path, chat: ChatServer, tmp_path: Path) -> None:
    with labeller(chat, LABELS) as teacher:
        pass
    with pytest.raises(NotReady):
        label(read_unlabelled(source), teacher, tmp_path / "out.jsonl", asked={})
