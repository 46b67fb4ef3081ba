"""Answers of named tasks: judged in parts, and beside those of another."""

from __future__ import annotations

import numpy as np
import pytest

from sprat.errors import DataError
from sprat.train.adapter_rows import Rows
from sprat.train.compare import (
    RIGHT,
    Comparison,
    FindingsComparison,
    RewritingComparison,
    mcnemar,
)
from sprat.train.evaluate_extract import ExtractReport
from sprat.train.evaluate_task import TaskAnswers
from sprat.train.evaluate_transform import Rewritten, TransformReport, check_targets
from sprat.train.report import Report
from sprat.train.wanted import Wanted
from sprat.values import Extraction, ExtractSpec, Grammar, Label, LabelSet, TransformSpec

LABELS = LabelSet("base", (Label("a"), Label("b")))
SCHEMA = '{"type":"object","properties":{"who":{"type":"string"},"n":{"type":"integer"}}}'


def rows(*answers: str) -> Rows:
    count = len(answers)
    texts = tuple(f"secret {n}" for n in range(count))
    return Rows(texts, answers, ({},) * count, tuple(range(10, 10 + count)), "rows.jsonl")


def labels(given: str, wanted: str) -> TaskAnswers:
    logs = (
        np.log(np.array([0.9, 0.1] if each == "a" else [0.2, 0.8], np.float32)) for each in given
    )
    return TaskAnswers(LABELS, rows(*wanted), tuple(logs))


def value(json: str) -> Extraction | None:
    return Extraction({}, json, ()) if json else None


def values(*pairs: tuple[str, str]) -> TaskAnswers:
    spec = ExtractSpec("base", SCHEMA)
    wanted = rows(*(each for _, each in pairs))
    return TaskAnswers(spec, wanted, tuple(value(each) for each, _ in pairs))


def texts(*given: str, wanted: str = "abcd", schema: str | None = None) -> TaskAnswers:
    grammar = None if schema is None else Grammar("json_schema", schema)
    spec = TransformSpec("base", "{text}", grammar)
    return TaskAnswers(spec, rows(*[wanted] * len(given)), tuple(map(Rewritten, given)))


def test_task_answers_are_judged_in_parts() -> None:
    answers = labels("abab", "abba")
    report = answers.judge(threshold=0.85)
    assert isinstance(report, Report)
    assert (report.n, report.accuracy, report.above) == (4, 0.5, 0.5)
    part = answers.take([2, 3]).judge()
    assert isinstance(part, Report)
    assert (part.n, part.accuracy) == (2, 0.0)
    assert isinstance(values(("{}", "{}")).judge(), ExtractReport)
    assert isinstance(texts("abcd").judge(), TransformReport)


def test_task_answers_of_labels_are_compared_row_by_row() -> None:
    wanted = "a" * 12
    comparison = labels("a" * 12, wanted).compare(labels("a" * 4 + "b" * 8, wanted))
    assert isinstance(comparison, Comparison)
    assert (comparison.only_first, comparison.only_second) == (8, 0)
    assert comparison.p_value == mcnemar(8, 0) < 0.05
    assert "first one is significantly more accurate" in comparison.message()
    assert [each.line for each in comparison.disagreements] == list(range(14, 22))


def test_task_answers_of_fields_are_compared_by_field_and_show_no_text() -> None:
    wanted = '{"who":"Zoé","n":2}'
    good, bad = '{"who":"Zoé","n":2}', '{"who":"Ada","n":2}'
    first = values(*[(good, wanted)] * 9, (bad, wanted))
    second = values(*[(bad, wanted)] * 9, ("", wanted))
    comparison = first.compare(second)
    assert isinstance(comparison, FindingsComparison)
    assert (comparison.rows.only_first, comparison.rows.both_wrong) == (9, 1)
    assert [(each.name, each.first, each.second) for each in comparison.parts] == [
        ("/n", 1.0, pytest.approx(2 * 9 / 19)),
        ("/who", pytest.approx(0.9), 0.0),
    ]
    assert "first one has the significantly higher micro-F1" in comparison.message()
    shown = {(each.label, each.first, each.second) for each in comparison.rows.disagreements}
    assert shown == {
        (RIGHT, RIGHT, "wrong: /who"),
        (RIGHT, "wrong: /who", "wrong: /n, /who"),
    }
    document = comparison.model_dump_json()
    assert "Zo" not in document
    assert "Ada" not in document
    same = first.compare(first)
    assert isinstance(same, FindingsComparison)
    assert same.rows.p_value == 1
    assert "No significant difference" in same.message()


def test_task_answers_in_text_are_compared_by_likeness_and_show_no_text() -> None:
    first = texts(*["abcd"] * 8, "abxx")
    second = texts(*["abcx"] * 8, "abcd")
    comparison = first.compare(second)
    assert isinstance(comparison, RewritingComparison)
    assert (comparison.rows.only_first, comparison.rows.only_second) == (8, 1)
    (similar,) = comparison.parts
    assert similar.name == "edit_similarity"
    assert similar.first == pytest.approx(8.5 / 9)
    assert similar.second == pytest.approx((8 * 0.75 + 1) / 9)
    assert similar.difference.value == pytest.approx(similar.first - similar.second)
    assert similar.difference.low < similar.difference.value < similar.difference.high
    assert comparison.message() == comparison.rows.message()
    assert "abc" not in comparison.model_dump_json()


def test_task_answers_in_text_with_a_schema_are_valid_or_not() -> None:
    schema = '{"type":"object"}'
    first, second = (texts(each, wanted="{}", schema=schema) for each in ("{ }", "no"))
    comparison = first.compare(second)
    assert isinstance(comparison, RewritingComparison)
    assert [each.name for each in comparison.parts] == ["edit_similarity", "schema_valid"]
    assert [(each.first, each.second) for each in comparison.parts][1] == (1.0, 0.0)
    without = first.compare(texts("no", wanted="{}"))
    assert isinstance(without, RewritingComparison)
    assert [each.name for each in without.parts] == ["edit_similarity"]


def test_targets_that_do_not_fit_their_schema_are_named_together() -> None:
    given = rows("{}", "3", "secret")
    wanted = Wanted(given.texts, given.answers, given.inputs, given.lines, given.path)
    with pytest.raises(DataError) as caught:
        check_targets(wanted, '{"type":"object"}')
    assert str(caught.value) == (
        "rows.jsonl:11: target: does not fit the schema\n  line 12: target: does not fit the schema"
    )
