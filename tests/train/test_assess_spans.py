"""Two taggers on the same texts."""

from __future__ import annotations

import functools

import pytest
from tagged import make_bookings, read_words

from sprat.bundle import Bundle
from sprat.manifest import ModelRef
from sprat.train.assess_spans import SpanAssessment, assess_tagger, compare_tiers
from sprat.train.prepare_spans import prepare_spans
from sprat.train.tagger import train_tagger, train_tagger_tier

TEST = make_bookings(60, seed=1, path="test.jsonl")


@pytest.fixture(scope="module")
def assessed(tmp_path_factory: pytest.TempPathFactory) -> list[SpanAssessment]:
    """Taggers that learned from many and from few rows, on the same test rows."""
    made = []
    for rows in (80, 25):
        folder = tmp_path_factory.mktemp("bundle")
        prepared = prepare_spans(make_bookings(rows), test=TEST)
        base = ModelRef(name="words", digest="a" * 64)
        tier = functools.partial(train_tagger_tier, name="head", base=base, states=read_words)
        train_tagger(prepared, [tier], name="bookings", out=folder)
        made.append(assess_tagger(Bundle.load(folder), TEST, states=read_words))
    return made


def test_compare_tiers_agrees_with_both_reports(assessed: list[SpanAssessment]) -> None:
    first, second = (each.report for each in assessed)
    result = compare_tiers(TEST, *assessed)
    assert result.micro_f1.first == pytest.approx(first.micro_f1)
    assert result.micro_f1.second == pytest.approx(second.micro_f1)
    assert result.rows.n == 60
    right = result.rows.both_right + result.rows.only_first
    assert right / 60 == pytest.approx(first.whole_rows)
    assert [each.name for each in result.parts] == [each.label for each in first.fields]
    assert [each.first for each in result.parts] == pytest.approx([f.f1 for f in first.fields])
    for each in result.rows.disagreements:
        # Fields and places, no words of the texts.
        assert "table" not in each.label + each.first + each.second
    assert compare_tiers(TEST, *assessed) == result


def test_compare_tiers_with_itself_is_no_difference(assessed: list[SpanAssessment]) -> None:
    result = compare_tiers(TEST, assessed[0], assessed[0])
    assert result.rows.p_value == 1
    assert result.rows.disagreements == ()
    assert (result.micro_f1.difference.low, result.micro_f1.difference.high) == (0, 0)
