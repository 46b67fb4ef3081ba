"""Metrics of rewriting, against plain definitions."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import DataError, InvalidInput
from sprat.train.evaluate_transform import (
    Rewritten,
    TransformReport,
    edit_distance,
    edit_similarity,
    evaluate_transform,
)
from sprat.train.wanted import Wanted

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
        "required": ["n"],
        "additionalProperties": False,
    }
)


def wanted(*targets: str) -> Wanted:
    lines = tuple(range(1, len(targets) + 1))
    return Wanted(targets, targets, ({},) * len(targets), lines, "rows.jsonl")


def judge(
    answers: Sequence[str], targets: Sequence[str], schema: str | None = None
) -> TransformReport:
    return evaluate_transform([Rewritten(a) for a in answers], wanted(*targets), schema=schema)


def table_distance(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


@given(st.text("abcé", max_size=80), st.text("abcé", max_size=80))
def test_edit_distance_is_that_of_the_table(one: str, other: str) -> None:
    assert edit_distance(one, other) == table_distance(one, other)


@pytest.mark.parametrize("size", [1, 29, 30, 31, 63, 64, 65, 200])
def test_edit_distance_across_word_sizes(size: int) -> None:
    assert edit_distance("a" * size, "a" * size) == 0
    assert edit_distance("a" * size, "b" * size) == size
    assert edit_distance("a" * size, "a" * size + "b") == 1
    assert edit_distance("ab" * size, "ba" * size) == 2


def test_edit_similarity_is_between_0_and_1() -> None:
    assert edit_similarity("", "") == 1
    assert edit_similarity("", "abc") == 0
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)


def test_evaluate_transform_counts_exact_matches() -> None:
    report = judge(
        ["Hello.", " Hello. ", "cafe\u0301", "hello."], ["Hello."] * 2 + ["café", "Hello."]
    )
    exact, similar = report.metrics["exact_match"], report.metrics["edit_similarity"]
    assert (report.n, exact.value) == (4, 0.75)
    assert exact.low < 0.75 < exact.high
    assert similar.value == pytest.approx((3 + 5 / 6) / 4)
    assert report.wrong_lines == (4,)
    assert "schema_valid" not in report.metrics


def test_evaluate_transform_interval_of_certain_figures_is_a_point() -> None:
    exact = judge(["x"] * 5, ["x"] * 5).metrics["exact_match"]
    assert (exact.low, exact.value, exact.high) == (1, 1, 1)


def test_evaluate_transform_repeats_itself() -> None:
    answers, targets = ["a", "b", "c"], ["a", "b", "x"]
    assert judge(answers, targets) == judge(answers, targets)


def test_evaluate_transform_compares_values_under_a_schema() -> None:
    target = '{"n": 1, "s": "x"}'
    answers = ['{"s":"x","n":1}', '{"n": 2, "s": "x"}', '{"n": "1"}', "{", '{"n": NaN}']
    report = judge(answers, [target] * 5, SCHEMA)
    assert report.metrics["exact_match"].value == pytest.approx(1 / 5)
    assert report.metrics["schema_valid"].value == pytest.approx(2 / 5)


def test_evaluate_transform_tells_true_from_1() -> None:
    schema = '{"type": "object"}'
    report = judge(['{"n": true}', '{"n": 1.0}'], ['{"n": 1}'] * 2, schema)
    assert report.metrics["exact_match"].value == 0
    assert report.metrics["schema_valid"].value == 1


def test_evaluate_transform_survives_an_answer_nested_too_deep() -> None:
    report = judge(["[" * 100_000], ['{"n": 1}'], SCHEMA)
    assert report.metrics["schema_valid"].value == 0


def test_evaluate_transform_lists_the_farthest_first_and_not_all() -> None:
    targets = ["abcdefghij"] * 30
    answers = ["abcdefghij"[:cut] for cut in [*range(1, 10), *[9] * 21]]
    report = judge(answers, targets)
    assert report.wrong_lines[:3] == (1, 2, 3)
    assert len(report.wrong_lines) == 20


def test_evaluate_transform_counts_what_did_not_end() -> None:
    report = evaluate_transform([Rewritten("a", complete=False), Rewritten("a")], wanted("a", "a"))
    assert report.incomplete == 1


def test_evaluate_transform_refuses_targets_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2: target: does not fit"):
        judge(["{}", "{}"], ['{"n": 1}', '{"n": "x"}'], SCHEMA)


@pytest.mark.parametrize("schema", ["{", '{"type": 7}', "[" * 100_000])
def test_evaluate_transform_refuses_what_is_no_schema(schema: str) -> None:
    with pytest.raises(InvalidInput, match="schema"):
        judge(["x"], ["x"], schema)
