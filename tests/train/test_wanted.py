"""Rows of rewriting: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sprat.errors import DataError
from sprat.manifest import sha256_file
from sprat.train.wanted import read_wanted


def test_read_wanted_reads_targets_and_inputs(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "a", "target": "b", "tone": "kind", "id": 1}\n\n'
        '{"text": "c", "target": "d", "tone": "cold"}\n'
    )
    rows = read_wanted(path, ["tone"])
    assert (rows.texts, rows.targets, rows.lines) == (("a", "c"), ("b", "d"), (1, 3))
    assert rows.inputs == ({"tone": "kind"}, {"tone": "cold"})
    assert read_wanted(path).inputs == ({}, {})
    assert rows.sha256 == sha256_file(path)
    second = rows.take([1])
    assert (len(second), second.texts, second.lines) == (1, ("c",), (3,))
    assert (second.inputs, second.sha256) == (({"tone": "cold"},), rows.sha256)


def test_read_wanted_names_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,target\na,b\nc,\n")
    with pytest.raises(DataError, match=r"rows.csv:3: target: empty"):
        read_wanted(path)
    with pytest.raises(DataError, match="expected one column tone"):
        read_wanted(path, ["tone"])
