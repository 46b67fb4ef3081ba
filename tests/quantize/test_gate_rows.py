from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sprat.errors import DataError
from sprat.quantize.gate_rows import read


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_gate_rows_read_plain_texts(tmp_path: Path) -> None:
    content = "\ufeffa parcel\r\n\n  \nlate, again\n".encode()
    rows = read(write(tmp_path, "texts.TXT", content))
    assert rows.texts == ("a parcel", "late, again")
    assert rows.rows is None
    assert rows.targets(["x", "y"]) is None
    assert rows.sha256 == hashlib.sha256(content).hexdigest()


def test_gate_rows_read_labels(tmp_path: Path) -> None:
    content = b'{"text": "a", "label": "y"}\n{"text": "b", "label": "x"}\n'
    rows = read(write(tmp_path, "rows.jsonl", content))
    assert rows.texts == ("a", "b")
    targets = rows.targets(["x", "y"])
    assert targets is not None
    assert targets.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: label: unknown"):
        rows.targets(["x"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "a.txt: no rows"),
        ("a.txt", b"\n \n", "a.txt: no rows"),
        ("a.txt", b"fine\n\xff\n", "a.txt:2: not UTF-8 at byte 5"),
        ("a.txt", b"fine\n\x01\x02\n", "a.txt:2: text: holds no visible character"),
        ("a.jsonl", b"", "a.jsonl: no rows"),
        ("a.jsonl", b'{"text": "a"}\n', "a.jsonl:1: label: missing"),
        ("a.csv", b"text,label\n", "a.csv: no rows"),
        ("a.gguf", b"GGUF", "expected .jsonl or .csv, found .gguf"),
    ],
)
def test_gate_rows_name_what_is_wrong(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, name, content))
    assert said in str(caught.value)


def test_gate_rows_missing_file(tmp_path: Path) -> None:
    for name in ("no.txt", "no.jsonl"):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path / name)
