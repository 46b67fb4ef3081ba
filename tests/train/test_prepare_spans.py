"""Rows with spans before anything is trained: contradictions, damage, what is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tagged import make_bookings

from sprat.errors import DataError
from sprat.train.prepare_spans import prepare_spans
from sprat.train.spans import GoldSpan, SpanDataset

DATA = make_bookings(80)
TEST = make_bookings(40, seed=1, path="test.jsonl")


def with_row(text: str, *spans: GoldSpan, requested: tuple[str, ...] = ()) -> SpanDataset:
    """The rows and one more, in line 81."""
    return SpanDataset(
        (*DATA.texts, text),
        (*DATA.spans, spans),
        (*DATA.requested, requested),
        (*DATA.lines, 81),
        DATA.path,
    )


def test_prepare_spans_refuses_a_text_with_other_spans() -> None:
    text = DATA.texts[0].upper().replace(" ", "  ")
    data = with_row(text, GoldSpan(0, 5, "name"))
    with pytest.raises(DataError) as caught:
        prepare_spans(data, test=TEST)
    assert str(caught.value) == (
        "bookings.jsonl:1: the same text with other spans in line 81\n  correct the spans, or drop "
        "or keep such rows explicitly (--conflicts)"
    )
    dropped = prepare_spans(data, test=TEST, conflicts="drop")
    assert dropped.report.dropped_lines == (1, 81)
    assert not {1, 81} & set(dropped.train.lines)
    kept = prepare_spans(data, test=TEST, conflicts="keep")
    assert kept.report.conflict_lines == (1, 81)
    assert "2 training rows kept, whose text also has other spans: lines 1, 81" in kept.notes


def test_prepare_spans_takes_a_text_that_was_asked_otherwise_for_another() -> None:
    number = DATA.texts[2]
    assert DATA.requested[2] == ("people",)
    data = with_row(number, GoldSpan(0, len(number), "time"), requested=("time",))
    prepared = prepare_spans(data, test=TEST)
    assert prepared.report.conflict_lines == ()
    # White space and case make no other spans either.
    same = with_row(f" {number} ", GoldSpan(1, 1 + len(number), "people"), requested=("people",))
    assert prepare_spans(same, test=TEST).report.conflict_lines == ()


def test_prepare_spans_names_rows_whose_spans_overlap() -> None:
    data = with_row("at 7 pm sharp", GoldSpan(3, 7, "time"), GoldSpan(3, 13, "name"))
    with pytest.raises(DataError, match=r"jsonl:81: spans overlap: 'time' at characters 3"):
        prepare_spans(data, test=TEST)
    for conflicts, what in (("drop", "left out"), ("keep", "trained on the longest")):
        prepared = prepare_spans(data, test=TEST, conflicts=conflicts)  # type: ignore[arg-type]
        assert prepared.overlapping_lines == (81,)
        assert f"1 rows have spans that overlap, {what}: line 81" in prepared.notes


def test_prepare_spans_finds_test_rows_that_were_trained_on_and_damage() -> None:
    test = replace(
        TEST.take([0, 1]), texts=(DATA.texts[0].upper(), "CafÃ© at eight"), spans=((), ())
    )
    prepared = prepare_spans(DATA, test=test)
    assert prepared.is_leaked_m.tolist() == [True, False]
    (found,) = prepared.report.leaked.first
    assert (found.line, found.of, found.same_label) == (1, 1, False)
    assert prepared.report.damaged_test_lines == (2,)
    assert "1 test rows were decoded with a wrong encoding once: line 2" in prepared.notes
    assert prepared.report.rows_of_label == {"name": 16, "people": 32, "time": 48}


def test_prepare_spans_holds_out_some_of_each_field() -> None:
    for seed in range(10):
        prepared = prepare_spans(DATA.take(range(40)), seed=seed)
        assert len(prepared.test) in range(6, 11)
        for part in (prepared.train, prepared.test):
            assert part.fields == ("name", "people", "time")
        texts = [
            {text.casefold() for text in part.texts} for part in (prepared.train, prepared.test)
        ]
        assert not texts[0] & texts[1]
        assert np.array_equal(
            prepared.folds_n, prepare_spans(DATA.take(range(40)), seed=seed).folds_n
        )
