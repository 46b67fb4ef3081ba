"""``sprat train`` of every kind on rows that cannot be: which line, what is wrong, nothing left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tagged import write_encoder

from sprat.cli.train import train
from sprat.errors import DataError
from sprat.pull import pull
from sprat.store import Store

NAMES = ("Ada", "Bea", "Cleo", "Dora", "Elsa", "Fritz", "Gerd", "Hugo", "Ines", "Jana")
SECRET = "secret"

Row = dict[str, Any]


@pytest.fixture(scope="module")
def store(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("bad")
    store = Store(folder / "home")
    pull(str(write_encoder(folder / "encoder")), store)
    pull(str(tiny), store, name="generator")
    return store


@pytest.fixture(params=["classify", "route", "moderate", "extract", "labels", "values", "texts"])
def kind(request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is trained; the last three are adapters."""
    monkeypatch.setenv("SPRAT_HOME", str(store.root))
    if request.param in ("labels", "values", "texts"):
        pytest.importorskip(
            "torch", reason="needs torch: pip install 'sprat[finetune]'", exc_type=ImportError
        )
    return str(request.param)


def field(kind: str) -> str:
    """What a row says of its text."""
    fields = {"moderate": "labels", "extract": "spans", "values": "value", "texts": "target"}
    return fields.get(kind, "label")


def row(kind: str, number: int, text: str = "") -> Row:
    """A good row; two of the same text and different numbers contradict each other."""
    name = NAMES[number % len(NAMES)]
    text = text or f"a table for {number} at {name}"
    label = "ab"[number % 2]
    said = {
        "label": label,
        "labels": ["a"] if label == "a" else [],
        "spans": [{"field": "who", "start": number % 2, "end": 5}],
        "value": {"who": name},
        "target": name,
    }
    return {"text": text, field(kind): said[field(kind)]}


def rows(kind: str) -> list[Row]:
    return [row(kind, number) for number in range(12)]


def as_lines(given: list[Row]) -> bytes:
    return "".join(f"{json.dumps(each)}\n" for each in given).encode()


def refused(
    folder: Path, store: Store, kind: str, given: list[Row] | bytes, test: list[Row] | None = None
) -> str:
    """What is said of a file, or of the test rows beside good ones."""
    data, schema = folder / "rows.jsonl", folder / "schema.json"
    data.write_bytes(given if isinstance(given, bytes) else as_lines(given))
    bad, more = data, {}
    if test is not None:
        bad = folder / "test.jsonl"
        bad.write_bytes(as_lines(test))
        more = {"test": bad}
    schema.write_text('{"type":"object","properties":{"who":{"type":"string"}}}')
    options: dict[str, dict[str, Any]] = {
        "labels": {"kind": "classify"},
        "values": {"kind": "extract", "schema": schema},
        "texts": {"kind": "transform", "prompt": "Who? {text}"},
    }
    base = "generator" if kind in options else "encoder"
    with pytest.raises(DataError) as caught:
        train(data, "made", base=base, **options.get(kind, {"kind": kind}), **more)
    message = str(caught.value)
    assert message.startswith(f"{bad}:{caught.value.line}: ")
    assert SECRET not in message
    assert store.bundles() == store.adapters() == []
    assert list((store.root / "tmp").glob("*")) == []
    return message.removeprefix(str(bad))


def test_train_names_rows_that_say_nothing_of_their_text(
    kind: str, store: Store, tmp_path: Path
) -> None:
    given = rows(kind)
    given.insert(3, {"text": SECRET})
    missing = {"labels": "expected either label or labels, found neither"}
    missing["value"] = "expected either value or spans, found neither"
    said = missing.get(field(kind), f"{field(kind)}: missing")
    assert refused(tmp_path, store, kind, given) == f":4: {said}"


def test_train_names_rows_that_contradict_each_other(
    kind: str, store: Store, tmp_path: Path
) -> None:
    twice = [row(kind, 0, f"{SECRET} text"), row(kind, 1, f"{SECRET.upper()}  text")]
    said = refused(tmp_path, store, kind, [*rows(kind), *twice])
    what = {"spans": "spans", "value": "answers", "target": "answers"}.get(field(kind), "labels")
    assert said.startswith(f":13: the same text with other {what} in line 14\n")
    assert said.endswith("(--conflicts)")


def test_train_names_rows_that_are_too_long(kind: str, store: Store, tmp_path: Path) -> None:
    given = [*rows(kind), row(kind, 12, SECRET * 1_700_000)]
    said = refused(tmp_path, store, kind, given)
    assert said == ":13: text: 10200000 bytes, at most 4194304 are accepted"


def test_train_names_lines_of_another_encoding(kind: str, store: Store, tmp_path: Path) -> None:
    good = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows(kind)).encode()
    said = refused(
        tmp_path,
        store,
        kind,
        good + '{"text":"Zoé"}\n'.encode() + '{"text":"Zoé"}\n'.encode("latin-1"),
    )
    assert said.startswith(":14: not UTF-8: invalid byte at column 12\n  encodings are mixed: 1 ")


def test_train_names_what_there_is_too_little_of(kind: str, store: Store, tmp_path: Path) -> None:
    few: dict[str, list[Row]] = {
        "label": [{"text": "one", "label": "c"}, {"text": "two", "label": "c"}],
        "labels": [{"text": "one", "labels": ["c"]}],
        "spans": [{"text": "8 pm", "spans": [{"field": "time", "start": 0, "end": 4}]}],
    }
    if field(kind) not in few:
        given = rows(kind)[:3]
        said = ":1: expected 4 or more different texts, found 3, in lines 1, 2, 3"
        assert refused(tmp_path, store, kind, given) == said
        return
    said = refused(tmp_path, store, kind, [*rows(kind), *few[field(kind)]])
    assert said.startswith(":13: expected 4 or more different ")
    assert "line 13" in said or "lines 13, 14" in said


def test_train_names_files_with_one_class(kind: str, store: Store, tmp_path: Path) -> None:
    given = [{**each, field(kind): rows(kind)[0][field(kind)]} for each in rows(kind)]
    if field(kind) == "label":
        said = refused(tmp_path, store, kind, given)
        assert said.startswith(":1: expected 2 or more labels, found 1 in 12 rows: lines 1, 2, 3")
    elif field(kind) == "labels":
        said = refused(tmp_path, store, kind, given)
        assert "without category 'a', found 0; rows of clean texts have no labels" in said
    elif field(kind) == "spans":
        said = refused(tmp_path, store, kind, [{**each, "spans": []} for each in given])
        assert said.startswith(":1: no row has a span: lines 1, 2, 3")


@pytest.mark.parametrize("kind", ["extract", "values"], indirect=True)
def test_train_names_spans_that_miss_their_text_or_overlap(
    kind: str, store: Store, tmp_path: Path
) -> None:
    def spans(*given: Row) -> Row:
        return {"text": SECRET, "spans": [{"field": "who", **each} for each in given]}

    missed = [spans({"start": 3, "end": 80}), spans({"start": 0, "end": 3, "text": "zzz"})]
    said = refused(tmp_path, store, kind, [*rows(kind), *missed])
    assert said.startswith(":13: spans[0]: expected 0 <= start < end <= 6, ")
    assert "\n  line 14: spans[0].text: not what stands " in said
    twice = spans({"start": 0, "end": 4}, {"start": 2, "end": 6})
    said = refused(tmp_path, store, kind, [*rows(kind), twice])
    expected = {"extract": "spans overlap: 'who' at", "values": "spans[1].field: twice, but the"}
    assert said.startswith(f":13: {expected[kind]}")


def test_train_names_test_rows_of_another_task(kind: str, store: Store, tmp_path: Path) -> None:
    other: Row = {
        "label": "c",
        "labels": ["c"],
        "spans": [{"field": "time", "start": 0, "end": 3}],
        "value": {"time": "8"},
    }
    if field(kind) not in other:
        return
    test = [row(kind, 20), {"text": SECRET, field(kind): other[field(kind)]}]
    said = refused(tmp_path, store, kind, rows(kind), test)
    expected = {
        "label": ":2: label: unknown\n  known labels: 'a', 'b'",
        "labels": ":2: labels: unknown\n  known categories: 'a'",
        "spans": ":2: spans[0].field: unknown\n  known fields: 'who'",
        "value": ":2: answer: the grammar does not allow it",
    }
    assert said == expected[field(kind)]
