"""Runs that stop at any byte go on, and outputs appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sprat.errors import DataError, StoreError
from sprat.train.journal import Journal

RUN = {"run": "label", "teacher": "t"}


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_journal_goes_on_where_a_run_stopped(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Journal(out, RUN) as journal:
        assert journal.rows == []
        journal.append({"line": 1})
        journal.append({"line": 2, "text": "é"})
    assert not out.exists()
    with Journal(out, RUN) as journal:
        assert journal.rows == [{"line": 1}, {"line": 2, "text": "é"}]
        journal.append({"line": 3})
    with Journal(out, RUN) as journal:
        assert [row["line"] for row in journal.rows] == [1, 2, 3]


def test_journal_survives_a_stop_at_every_byte(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Journal(out, RUN) as journal:
        journal.append({"line": 1})
        journal.append({"line": 2})
    whole = journal.path.read_bytes()
    ends = [at for at in range(len(whole) + 1) if whole[:at].endswith(b"\n")]
    for stop in range(len(whole) + 1):
        journal.path.write_bytes(whole[:stop])
        with Journal(out, RUN) as again:
            done = sum(end <= stop for end in ends)
            assert len(again.rows) == max(0, done - 1)
            again.append({"line": 9})
        assert read(journal.path)[-1] == {"line": 9}
        assert read(journal.path)[0] == RUN


def test_journal_refuses_the_work_of_another_run(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Journal(out, RUN) as journal:
        journal.append({"line": 1})
    with pytest.raises(DataError, match=r"different: teacher\).*--restart"):
        Journal(out, {**RUN, "teacher": "other"})
    with Journal(out, {**RUN, "teacher": "other"}, restart=True) as journal:
        assert journal.rows == []


@pytest.mark.parametrize("content", [b"no json\n", b"[1]\n", b"\xff\n"])
def test_journal_refuses_another_file(tmp_path: Path, content: bytes) -> None:
    part = tmp_path / "out.jsonl.part"
    part.write_bytes(content)
    with pytest.raises(DataError, match="no line of a journal"):
        Journal(tmp_path / "out.jsonl", RUN)
    assert part.read_bytes() == content


def test_journal_is_for_one_process_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Journal(out, RUN), pytest.raises(StoreError, match="another process"):
        Journal(out, RUN)
    with Journal(out, RUN):
        pass


def test_journal_writes_all_outputs_and_is_gone(tmp_path: Path) -> None:
    out, review = tmp_path / "out.jsonl", tmp_path / "review.jsonl"
    out.write_text("old\n")
    with Journal(out, RUN) as journal:
        journal.finish({out: [{"text": "é"}], review: []})
    assert out.read_text(encoding="utf-8") == '{"text": "é"}\n'
    assert review.read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "review.jsonl"]


def test_journal_leaves_the_old_output_and_itself_when_it_cannot_write(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    with Journal(out, RUN) as journal:
        journal.append({"line": 1})
        with pytest.raises(StoreError, match="cannot be written"):
            journal.finish({out: [{"new": 1}], tmp_path / "nowhere" / "review.jsonl": []})
    assert out.read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.part"]
    with Journal(out, RUN) as journal:
        assert journal.rows == [{"line": 1}]


def test_journal_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        Journal(tmp_path / "nowhere" / "out.jsonl", RUN)
