"""Rows of adapters: what is refused and where, what is held out, which test rows are leaked."""

from __future__ import annotations

import pytest

from sprat.errors import DataError
from sprat.train.adapter_rows import Rows
from sprat.train.prepare_rows import prepare_rows


def rows(pairs: list[tuple[str, str]], *, path: str = "rows.jsonl", first: int = 1) -> Rows:
    texts, answers = zip(*pairs, strict=True)
    lines = tuple(range(first, first + len(pairs)))
    return Rows(texts, answers, ({},) * len(pairs), lines, path)


def labelled(count: int) -> list[tuple[str, str]]:
    return [(f"text number {n} of {label}", label) for n in range(count) for label in "ab"]


def test_prepare_rows_splits_without_a_text_in_common() -> None:
    prepared = prepare_rows(rows(labelled(20)), kind="classify", seed=1)
    parts = (prepared.train, prepared.validation, prepared.test)
    assert [len(part) for part in parts] == [28, 4, 8]
    assert len({line for part in parts for line in part.lines}) == 40
    assert prepared.report.rows_of_label == {"a": 16, "b": 16}
    assert prepared.report.leaked.count == 0


@pytest.mark.parametrize("kind", ["classify", "extract", "transform"])
def test_prepare_rows_refuses_a_text_with_several_answers(kind: str) -> None:
    data = rows([*labelled(6), ("Text  number 0 of A", "b")])
    what = "labels" if kind == "classify" else "answers"
    with pytest.raises(
        DataError, match=f"rows.jsonl:1: the same text with other {what} in line 13"
    ):
        prepare_rows(data, kind=kind)
    dropped = prepare_rows(data, kind=kind, conflicts="drop")
    assert dropped.report.dropped_lines == (1, 13)
    kept = prepare_rows(data, kind=kind, conflicts="keep", test=rows(labelled(1)))
    assert kept.report.conflict_lines == (1, 13)


def test_prepare_rows_takes_texts_with_other_inputs_for_others() -> None:
    pairs = labelled(4)
    twice = rows([*pairs, *((text, "c") for text, _ in pairs)])
    inputs = tuple({"tone": "calm" if n < len(pairs) else "angry"} for n in range(len(twice)))
    data = Rows(twice.texts, twice.answers, inputs, twice.lines, twice.path)
    assert prepare_rows(data, kind="transform").report.conflict_lines == ()
    with pytest.raises(DataError, match="other answers in line 9"):
        prepare_rows(twice, kind="transform")


@pytest.mark.parametrize("kind", ["extract", "transform"])
def test_prepare_rows_needs_different_texts(kind: str) -> None:
    data = rows([("one", "a"), ("two", "a"), ("three", "a"), (" THREE", "a")])
    with pytest.raises(DataError) as caught:
        prepare_rows(data, kind=kind)
    assert str(caught.value) == (
        "rows.jsonl:1: expected 4 or more different texts, found 3, in lines 1, 2, 3, 4"
    )
    prepared = prepare_rows(rows([(n, "a") for n in "1234"]), kind=kind)
    parts = (prepared.train, prepared.validation, prepared.test)
    assert [len(part) for part in parts] == [2, 1, 1]


def test_prepare_rows_needs_labels() -> None:
    with pytest.raises(DataError, match="expected 2 or more labels, found 1 in 8 rows"):
        prepare_rows(rows([(f"text {n}", "a") for n in range(8)]), kind="classify")
    few = [*labelled(5), ("x", "c"), ("y", "c")]
    with pytest.raises(
        DataError, match=r"rows.jsonl:11: .* of 1 labels:\n  'c': 2 in lines 11, 12"
    ):
        prepare_rows(rows(few), kind="classify")


@pytest.mark.parametrize("kind", ["classify", "extract", "transform"])
def test_prepare_rows_finds_test_rows_that_were_trained_on(kind: str) -> None:
    answer = "a" if kind == "classify" else '{"who":"a secret name"}'
    data = rows([(text, label if kind == "classify" else answer) for text, label in labelled(8)])
    test = rows([("TEXT number 3 of a", answer), ("quite another", answer)], path="test.jsonl")
    prepared = prepare_rows(data, kind=kind, test=test)
    assert prepared.is_leaked_m.tolist() == [True, False]
    (found,) = prepared.report.leaked.first
    assert (found.line, found.of) == (1, 7)
    assert found.same_label
    assert "1 of 2 test rows repeat a training row: lines 1 (7)" in prepared.report.messages()
    # Answers are texts, and have no place in a report.
    assert "secret" not in prepared.report.model_dump_json()
    assert (kind == "classify") == bool(prepared.report.rows_of_label)
