"""The file of a decision log: what readers get, and what they are told of other files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sprat.decisions import (
    FORMAT,
    PAGE_ROWS,
    SCHEMA,
    Decision,
    Loss,
    TierRecord,
    read_decision,
    read_decisions,
    recall,
    summarize,
)
from sprat.errors import CorruptFile, DataError

TIERS = '[{"tier": 0, "name": "static", "label": "refund", "confidence": 0.75}]'
INSERT = (
    "INSERT INTO decisions (request_id, item, time, task, task_version, kind, text_hash, label, "
    "confidence, abstained, tier, escalated, tiers, input_tokens) "
    "VALUES (?, ?, ?, ?, 'v1', 'classify', zeroblob(16), 'refund', 0.75, 0, 0, 0, ?, 5)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.db"


@pytest.fixture
def file(path: Path) -> Iterator[sqlite3.Connection]:
    """A log that somebody else has open for writing."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        yield connection


def add(file: sqlite3.Connection, request: str, *, time: float, task: str = "tickets") -> None:
    file.execute(INSERT, (request, 0, time, task, TIERS))
    file.commit()


def test_decisions_read_back_what_was_written(file: sqlite3.Connection, path: Path) -> None:
    add(file, "a", time=10.5)
    add(file, "b", time=11.0)
    file.execute("INSERT INTO shadows VALUES (2, 1, 'head', 'bug', 0.9, 12.0)")
    file.execute("INSERT INTO feedback VALUES ('b', 0, 'praise', 13.0)")
    file.commit()
    first, second = read_decisions(path, task="tickets")
    assert first == Decision(
        id=1,
        request_id="a",
        item=0,
        time=10.5,
        task="tickets",
        task_version="v1",
        kind="classify",
        text_hash=bytes(16),
        text=None,
        label="refund",
        confidence=0.75,
        abstained=False,
        tier=0,
        escalated=False,
        degraded=None,
        tiers=(TierRecord(0, "static", "refund", 0.75),),
        input_tokens=5,
    )
    assert second.shadow == TierRecord(1, "head", "bug", 0.9)
    assert second.feedback == "praise"


def test_decisions_come_by_task_and_time(file: sqlite3.Connection, path: Path) -> None:
    # A clock that went back: the order is that of time, not of writing.
    for request, time, task in (("a", 3, "x"), ("b", 1, "y"), ("c", 2, "x"), ("d", 3, "x")):
        add(file, request, time=time, task=task)
    assert [d.request_id for d in read_decisions(path, task="x")] == ["c", "a", "d"]
    assert [d.request_id for d in read_decisions(path, task=None)] == ["b", "c", "a", "d"]
    assert [d.request_id for d in read_decisions(path, task="x", since=3)] == ["a", "d"]
    assert list(read_decisions(path, task="x", since=4)) == []


def test_decisions_are_read_page_by_page_beside_a_writer(
    file: sqlite3.Connection, path: Path
) -> None:
    rows = 2 * PAGE_ROWS + 1
    file.executemany(INSERT, [(f"r{i}", 0, i // 7, "tickets", TIERS) for i in range(rows)])
    file.commit()
    reader = read_decisions(path, task="tickets")
    seen = [next(reader).request_id for _ in range(PAGE_ROWS)]
    # Between two pages the reader holds nothing: the write-ahead log can be emptied.
    add(file, "late", time=rows)
    assert file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    seen += [decision.request_id for decision in reader]
    assert seen == [*(f"r{i}" for i in range(rows)), "late"]


def test_decisions_summary_counts_each_task(file: sqlite3.Connection, path: Path) -> None:
    for request, task in (("a", "x"), ("b", "x"), ("c", "y")):
        add(file, request, time=ord(request), task=task)
    file.execute("UPDATE decisions SET abstained = 1, degraded = 'no_time' WHERE request_id = 'a'")
    file.execute("INSERT INTO feedback VALUES ('b', 0, 'bug', 1.0)")
    file.execute("INSERT INTO losses VALUES (5.0, 12, 'disk full')")
    file.commit()
    (x, y), losses = summarize(path)
    assert (x.task, x.kind, x.rows, x.abstained, x.degraded) == ("x", "classify", 2, 1, 1)
    assert (x.feedback, x.shadows, x.escalated, x.first, x.last) == (1, 0, 0, 97.0, 98.0)
    assert (y.task, y.rows, y.feedback) == ("y", 1, 0)
    assert losses == [Loss(5.0, 12, "disk full")]


def test_decisions_one_with_all_that_is_known_of_it(file: sqlite3.Connection, path: Path) -> None:
    add(file, "a", time=10.5)
    add(file, "b", time=11.0)
    file.execute("INSERT INTO shadows VALUES (2, 1, 'head', 'bug', 0.9, 12.0)")
    file.execute("INSERT INTO feedback VALUES ('b', 0, 'praise', 13.0)")
    file.commit()
    assert [read_decision(file, name, 0) for name in "ab"] == list(read_decisions(path, task=None))
    assert read_decision(file, "b", 1) is None
    assert read_decision(file, "c", 0) is None
    for odd in ("{private", "[1]", '[{"tier": 0}]', "7"):
        file.execute("UPDATE decisions SET tiers = ? WHERE request_id = 'a'", (odd,))
        assert read_decision(file, "a", 0) is None


def test_decisions_recall_the_newest_and_what_was_learned_last(
    file: sqlite3.Connection, path: Path
) -> None:
    for at in range(10):
        add(file, f"r{at}", time=7200.0 * at, task="x" if at % 2 else "y")
    file.execute("UPDATE decisions SET abstained = 1 WHERE request_id = 'r9'")
    file.execute("UPDATE decisions SET degraded = 'overload' WHERE request_id = 'r8'")
    for at, when in ((1, 9.0), (2, 8.0), (3, 7.0), (7, 6.0)):
        file.execute("INSERT INTO feedback VALUES (?, 0, 'bug', ?)", (f"r{at}", when))
    for at, when in ((1, 8.5), (5, 1.0), (6, 2.0), (7, 3.0)):
        file.execute("INSERT INTO shadows VALUES (?, 1, 'head', 'bug', 0.9, ?)", (at + 1, when))
    file.commit()
    found = recall(path, most=3)
    assert [each.request_id for each in found.newest] == ["r7", "r8", "r9"]
    assert (found.newest[0].feedback, found.newest[1].feedback) == ("bug", None)
    assert [each.request_id for each in found.known] == ["r6", "r7", "r3", "r2", "r1", "r1"]
    assert all(each.feedback or each.shadow for each in found.known)
    assert found.answered == {
        ("x", "v1"): {2 * at: 1 for at in (1, 3, 5, 7)},
        ("y", "v1"): {2 * at: 1 for at in (0, 2, 4, 6)},
    }


def test_decisions_recall_refuses_what_is_no_log(path: Path) -> None:
    with pytest.raises(DataError, match="found no file"):
        recall(path, most=3)
    path.write_bytes(b"no database at all, but long enough to have a header" * 100)
    with pytest.raises(CorruptFile, match="found damage"):
        recall(path, most=3)


def test_decisions_without_the_task_are_refused(file: sqlite3.Connection, path: Path) -> None:
    with pytest.raises(DataError, match=r"decisions of task tickets, found no decisions at all"):
        read_decisions(path, task="tickets")
    for name in ("b", "a"):
        add(file, name, time=1, task=name)
    with pytest.raises(DataError, match=r"decisions of task tickets, found only a, b$"):
        read_decisions(path, task="tickets")


def test_decisions_of_another_format_are_refused(file: sqlite3.Connection, path: Path) -> None:
    file.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(DataError, match=rf"of format {FORMAT}, found format {FORMAT + 1}"):
        read_decisions(path, task=None)


def test_decisions_refuse_what_is_no_log(path: Path) -> None:
    with pytest.raises(DataError, match="found no file"):
        read_decisions(path, task=None)
    path.touch()
    with pytest.raises(DataError, match="found an empty database"):
        read_decisions(path, task=None)
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE decisions (id)")
    with pytest.raises(DataError, match="found another SQLite database"):
        read_decisions(path, task=None)
    path.write_bytes(b"no database at all, but long enough to have a header" * 100)
    with pytest.raises(CorruptFile, match="found damage: file is not a database"):
        read_decisions(path, task=None)


def test_decisions_damaged_in_the_middle_are_reported(file: sqlite3.Connection, path: Path) -> None:
    file.executemany(INSERT, [(f"r{i}", 0, i, "tickets", TIERS) for i in range(2000)])
    file.commit()
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.close()
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(8192)
        stream.write(b"\xff" * (size - 8192))
    with pytest.raises(CorruptFile, match="found damage"):
        list(read_decisions(path, task=None))
