"""The decision log as its writer keeps it: private, sound, and within its bounds."""

from __future__ import annotations

import logging
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sprat import decision_file
from sprat.decision_file import (
    DAY_S,
    KEPT_LOSSES,
    KEY_BYTES,
    TRIMMED_PAGES,
    DecisionFile,
    is_damage,
)
from sprat.decisions import APPLICATION_ID, FORMAT
from sprat.errors import DataError

INSERT = (
    "INSERT INTO decisions (request_id, item, time, task, task_version, kind, text_hash, text, "
    "label, abstained, tier, escalated, tiers, input_tokens) "
    "VALUES (?, 0, ?, 'tickets', 'v1', 'classify', zeroblob(16), ?, 'bug', 0, 0, 0, '[]', 3)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "decisions.db"


@pytest.fixture
def files(path: Path) -> Iterator[list[DecisionFile]]:
    """What was opened, closed at the end."""
    opened: list[DecisionFile] = []
    yield opened
    for each in opened:
        each.close()


def opened(path: Path, files: list[DecisionFile], **bounds: Any) -> DecisionFile:
    made = DecisionFile(path, **{"max_rows": 10**6, "max_days": 30.0, "max_mb": 1000, **bounds})
    files.append(made)
    made.open()
    return made


def add(
    file: DecisionFile, *requests: str, at: float | None = None, text: str | None = None
) -> None:
    with file.transaction() as connection:
        rows = [(request, time.time() if at is None else at, text) for request in requests]
        connection.executemany(INSERT, rows)


def requests(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT request_id FROM decisions ORDER BY id").fetchall()
    return [request for (request,) in found]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def content(path: Path) -> bytes:
    """Everything that lies beside the file, and the file itself."""
    return b"".join(each.read_bytes() for each in sorted(path.parent.iterdir()))


def test_decision_file_and_all_beside_it_are_private(path: Path, files: list[DecisionFile]) -> None:
    add(opened(path, files), "a")
    assert mode(path.parent) == 0o700
    found = {each.name: mode(each) for each in path.parent.iterdir()}
    assert found == {f"decisions.db{suffix}": 0o600 for suffix in ("", "-wal", "-shm", ".key")}


def test_decision_file_that_others_could_read_is_made_private(
    path: Path, files: list[DecisionFile]
) -> None:
    add(opened(path, files), "a")
    files[0].close()
    key = path.with_name("decisions.db.key")
    for each in (path, key):
        each.chmod(0o644)
    opened(path, files)
    assert (mode(path), mode(key)) == (0o600, 0o600)


def test_decision_file_keeps_its_key_and_rows(path: Path, files: list[DecisionFile]) -> None:
    first = opened(path, files)
    add(first, "a")
    first.close()
    again = opened(path, files)
    add(again, "b")
    assert len(first.key) == KEY_BYTES
    assert again.key == first.key
    assert requests(path) == ["a", "b"]
    other = opened(path.with_name("other.db"), files)
    assert other.key != first.key


def test_decision_file_with_a_broken_key_is_refused(path: Path, files: list[DecisionFile]) -> None:
    path.parent.mkdir()
    path.with_name("decisions.db.key").write_bytes(b"short")
    with pytest.raises(DataError, match=r"expected a key of 32 bytes, found 5; .* remove it"):
        opened(path, files)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("CREATE TABLE t (x)", "another SQLite database"),
        ("PRAGMA application_id = 7", "another SQLite database"),
        (
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT + 1}",
            f"of format {FORMAT}, found format {FORMAT + 1}",
        ),
    ],
)
def test_decision_file_of_somebody_else_is_left_alone(
    statement: str, found: str, path: Path, files: list[DecisionFile]
) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)
    before = path.read_bytes()
    with pytest.raises(DataError, match=found):
        opened(path, files)
    assert path.read_bytes() == before


def test_decision_file_that_is_none_is_set_aside(
    path: Path, files: list[DecisionFile], caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, whatever it is" * 200)
    with caplog.at_level(logging.WARNING, "sprat"):
        add(opened(path, files), "a")
    (aside,) = path.parent.glob("decisions.db.corrupt-*")
    assert aside.read_bytes().startswith(b"this is no database")
    assert str(aside) in caplog.text
    assert requests(path) == ["a"]


def test_decision_file_damaged_in_the_middle_is_found_by_a_check(
    path: Path, files: list[DecisionFile]
) -> None:
    first = opened(path, files)
    add(first, *(f"r{number}" for number in range(2000)))
    first.close()
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"\xa5" * 20_000)
    again = opened(path, files)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        again.check()
    assert is_damage(caught.value)
    again.set_aside(caught.value)
    add(again, "a")
    again.check()
    assert requests(path) == ["a"]
    assert len(list(path.parent.glob("decisions.db.corrupt-*"))) == 1


def test_decision_file_empty_or_cut_off_begins_anew(path: Path, files: list[DecisionFile]) -> None:
    path.parent.mkdir()
    path.touch()
    add(opened(path, files), "a")
    files[0].close()
    path.write_bytes(path.read_bytes()[:5000])
    add(opened(path, files), "b")
    assert requests(path) == ["b"]


def test_decision_file_removed_is_made_anew(
    path: Path, files: list[DecisionFile], caplog: pytest.LogCaptureFixture
) -> None:
    file = opened(path, files)
    add(file, "a")
    path.unlink()
    with caplog.at_level(logging.WARNING, "sprat"):
        add(file, "b")
    assert requests(path) == ["b"]
    assert "was removed" in caplog.text


def test_decision_file_folder_removed_is_made_anew(path: Path, files: list[DecisionFile]) -> None:
    file = opened(path, files)
    add(file, "a")
    for each in path.parent.iterdir():
        each.unlink()
    path.parent.rmdir()
    add(file, "b")
    assert requests(path) == ["b"]
    assert mode(path.parent) == 0o700


def test_decision_file_is_in_wal_mode_whatever_was_done_to_it(
    path: Path, files: list[DecisionFile]
) -> None:
    first = opened(path, files)
    add(first, "a")
    first.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    add(opened(path, files), "b")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert requests(path) == ["a", "b"]


def test_decision_file_transaction_is_whole_or_nothing(
    path: Path, files: list[DecisionFile]
) -> None:
    file = opened(path, files)
    add(file, "a")
    with pytest.raises(sqlite3.IntegrityError):
        add(file, "b", "a")
    assert requests(path) == ["a"]
    add(file, "c")
    assert requests(path) == ["a", "c"]


def test_decision_file_keeps_the_newest_rows(path: Path, files: list[DecisionFile]) -> None:
    file = opened(path, files, max_rows=10)
    for start in range(0, 40, 4):
        add(file, *(f"r{number}" for number in range(start, start + 4)))
        file.trim()
        assert len(requests(path)) <= 10
    assert requests(path) == [f"r{number}" for number in range(30, 40)]


def test_decision_file_much_too_long_is_trimmed_in_steps(
    path: Path, files: list[DecisionFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_file, "TRIMMED_ROWS", 7)
    file = opened(path, files, max_rows=2)
    add(file, *(f"r{number}" for number in range(20)))
    lengths = []
    for _ in range(4):
        file.trim()
        lengths.append(len(requests(path)))
    assert lengths == [13, 6, 2, 2]
    assert requests(path) == ["r18", "r19"]


def test_decision_file_drops_what_is_too_old(path: Path, files: list[DecisionFile]) -> None:
    file = opened(path, files, max_days=2)
    now = time.time()
    # A clock that was wrong for a while: the row with a time to come keeps none behind it.
    add(file, "future", at=now + 9 * DAY_S)
    add(file, "old", at=now - 2.01 * DAY_S)
    add(file, "young", at=now - 1.99 * DAY_S)
    with file.transaction() as connection:
        connection.execute("INSERT INTO feedback VALUES ('old', 0, 'bug', ?)", (now,))
        connection.execute("INSERT INTO feedback VALUES ('young', 0, 'bug', ?)", (now,))
        connection.execute("INSERT INTO shadows VALUES (2, 1, 'head', 'bug', NULL, ?)", (now,))
    file.trim()
    assert requests(path) == ["future", "young"]
    with file.transaction() as connection:
        assert connection.execute("SELECT request_id FROM feedback").fetchall() == [("young",)]
        assert connection.execute("SELECT * FROM shadows").fetchall() == []


def test_decision_file_stays_below_its_size(
    path: Path, files: list[DecisionFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_file, "TRIMMED_PAGES", 16)
    file = opened(path, files, max_mb=1)
    sizes = []
    for number in range(60):
        add(file, *(f"r{number}-{i}" for i in range(10)), text="words " * 1500)
        file.trim()
        sizes.append(path.stat().st_size)
    # 60 times 90 kB came; free pages and a batch may lie above what is held.
    assert max(sizes) < 2e6
    assert len(requests(path)) > 50
    assert requests(path)[-1] == "r59-9"


def test_decision_file_gives_free_pages_back(path: Path, files: list[DecisionFile]) -> None:
    file = opened(path, files)
    add(file, *(f"r{i}" for i in range(3000)), at=1.0, text="words " * 500)
    before = path.stat().st_size
    for _ in range(5):
        file.trim()
    file.close()
    assert before > 9e6
    assert path.stat().st_size < TRIMMED_PAGES * 4096 + 100_000


def test_decision_file_overwrites_what_it_deletes(path: Path, files: list[DecisionFile]) -> None:
    file = opened(path, files, max_rows=1)
    add(file, "a", text="a very secret text")
    add(file, "b", text="another one")
    assert b"very secret" in content(path)
    file.trim()
    file.close()
    assert requests(path) == ["b"]
    assert b"very secret" not in content(path)
    assert b"another one" in content(path)


def test_decision_file_keeps_few_losses(path: Path, files: list[DecisionFile]) -> None:
    file = opened(path, files)
    with file.transaction() as connection:
        rows = [(time.time(), number, "full") for number in range(KEPT_LOSSES + 5)]
        connection.executemany("INSERT INTO losses VALUES (?, ?, ?)", rows)
    file.trim()
    with file.transaction() as connection:
        kept = connection.execute("SELECT min(rows), count(*) FROM losses").fetchone()
    assert kept == (5, KEPT_LOSSES)


def test_decision_file_is_shared_by_two_writers(path: Path, files: list[DecisionFile]) -> None:
    one, other = opened(path, files), opened(path, files)
    for number in range(20):
        add(one, f"a{number}")
        add(other, f"b{number}")
    assert len(requests(path)) == 40
    assert one.key == other.key
