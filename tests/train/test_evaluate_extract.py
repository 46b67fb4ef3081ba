"""Figures of extraction, against those counted by hand."""

from __future__ import annotations

import pytest

from sprat.train.evaluate_extract import evaluate_extract
from sprat.values import Extraction, Field


def found(json: str, *fields: tuple[str, bool], complete: bool = True, **more: bool) -> Extraction:
    return Extraction(
        value={} if json else None,
        json=json,
        fields=tuple(
            Field(path, 1.0, 0 if is_there else None, 1 if is_there else None, is_there)
            for path, is_there in fields
        ),
        complete=complete,
        **more,
    )


WANTED = ['{"who":"me","n":2}', "{}", '{"who":"us"}', '{"tags":["a","b"]}']


def test_evaluate_extract_counts_fields() -> None:
    report = evaluate_extract(
        [
            found('{"who":"me","n":3}', ("/who", True), ("/n", False)),
            found("{}"),
            found('{"who":"they"}', ("/who", False)),
            found(
                '{"tags":["b","c","a"]}', ("/tags/0", True), ("/tags/1", True), ("/tags/2", True)
            ),
        ],
        WANTED,
        lines=[1, 3, 5, 7],
    )
    # Of six that were found, who, a and b are right; five were there.
    assert report.metrics["precision"].value == 3 / 6
    assert report.metrics["recall"].value == 3 / 5
    assert report.metrics["micro_f1"].value == pytest.approx(6 / 11)
    assert report.metrics["exact_match"].value == 1 / 4
    for each in report.metrics.values():
        assert 0 <= each.low <= each.value <= each.high <= 1
    assert [(f.field, f.support, f.predicted) for f in report.fields] == [
        ("/n", 1, 1),
        ("/tags/-", 2, 3),
        ("/who", 2, 2),
    ]
    assert [f.f1 for f in report.fields] == pytest.approx([0, 0.8, 0.5])
    # The number is no string, whether it stands in the text or not.
    assert (report.strings, report.grounded) == (5, 4)
    assert report.wrong_lines == (1, 5, 7)
    assert (report.n, report.incomplete, report.abstained) == (4, 0, 0)


def test_evaluate_extract_takes_no_answer_for_nothing_found() -> None:
    report = evaluate_extract(
        [None, found("", complete=False), found("", ("/who", False), abstained=True), None],
        WANTED,
        lines=[1, 2, 3, 4],
    )
    assert (report.incomplete, report.abstained) == (3, 1)
    assert report.metrics["recall"].value == 0
    assert report.metrics["precision"].value == 0
    # Nothing was there, and nothing was found.
    assert report.metrics["exact_match"].value == 1 / 4
    assert (report.strings, report.grounded) == (0, 0)


def test_evaluate_extract_tells_values_of_other_types_apart() -> None:
    report = evaluate_extract([found('{"n":"2"}', ("/n", True))], ['{"n":2}'], lines=[1])
    assert report.metrics["micro_f1"].value == 0


def test_evaluate_extract_is_the_same_for_the_same_seed() -> None:
    answers = [found(each) if "{}" in each else None for each in WANTED]
    one, other = (evaluate_extract(answers, WANTED, lines=[1, 2, 3, 4], seed=3) for _ in range(2))
    assert one == other
