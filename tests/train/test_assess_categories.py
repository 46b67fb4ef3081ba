"""Moderators on labelled rows, and two of them beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from doubles import ENCODER, moderator
from doubles import manifest as manifest_of

from sprat.errors import DataError
from sprat.train.assess_categories import Moderate, assess_moderator, compare_moderators
from sprat.train.categories import CategoryData
from sprat.values import Action, CategoryScore, Moderation

TEXTS = ("z", "zq", "clean", "q", "z!")
TRUTH = (("zed",), ("quirk", "zed"), (), ("quirk",), ("zed",))
ROWS = CategoryData(TEXTS, TRUTH, (3, 4, 5, 6, 7), "rows.jsonl")
MANIFEST = moderator(
    manifest_of(ENCODER), thresholds=[{"flag_at": 0.5, "block_at": 0.9}] * 2
).manifest


def action(probability: float) -> Action:
    return "block" if probability >= 0.9 else "flag" if probability >= 0.5 else "allow"


def answers(
    probabilities: Sequence[tuple[float, float]], confidence: float | None = None
) -> Moderate:
    """Moderates any texts with these probabilities of zed and quirk."""

    def moderate(texts: Sequence[str]) -> list[Moderation]:
        assert tuple(texts) == TEXTS
        return [
            Moderation(
                action(max(row)),
                "",
                tuple(
                    CategoryScore(name, p, action(p), 0, 1)
                    for name, p in zip(MANIFEST.labels, row, strict=True)
                ),
                confidence=confidence,
            )
            for row in probabilities
        ]

    return moderate


GOOD = answers([(0.95, 0.1), (0.7, 0.8), (0.2, 0.1), (0.1, 0.6), (0.8, 0.0)])
WORSE = answers([(0.8, 0.1), (0.7, 0.3), (0.6, 0.1), (0.1, 0.6), (0.8, 0.0)])


def test_assess_moderator_counts_what_it_flagged() -> None:
    assessed = assess_moderator(MANIFEST, ROWS, moderate=GOOD)
    assert (assessed.report.n, assessed.report.clean) == (5, 1)
    assert assessed.report.exact.value == assessed.report.micro_f1.value == 1
    assert assessed.actions == ("block", "flag", "allow", "flag", "flag")
    assert assessed.findings.shown == ("zed", "quirk + zed", "(clean)", "quirk", "zed")


def test_assess_moderator_judges_confidences_where_there_are_some() -> None:
    assert assess_moderator(MANIFEST, ROWS, moderate=GOOD).report.whole is None
    sure = answers([(0.95, 0.1)] * 5, confidence=0.5)
    whole = assess_moderator(MANIFEST, ROWS, moderate=sure).report.whole
    assert whole is not None
    assert {each.confidence for each in whole.reliability} == {0.5}


def test_compare_moderators_row_by_row() -> None:
    first, second = (assess_moderator(MANIFEST, ROWS, moderate=each) for each in (GOOD, WORSE))
    result = compare_moderators(ROWS, first, second)
    assert (result.rows.both_right, result.rows.only_first, result.rows.only_second) == (3, 2, 0)
    shown = [(each.line, each.label, each.second) for each in result.rows.disagreements]
    assert shown == [(4, "quirk + zed", "zed"), (5, "(clean)", "zed")]
    assert result.micro_f1.first == first.report.micro_f1.value
    assert result.micro_f1.second == pytest.approx(second.report.micro_f1.value)
    assert [each.name for each in result.parts] == ["zed", "quirk"]
    # The first row is blocked by the one and flagged by the other, the clean one allowed by one.
    assert result.same_action == 3 / 5
    pairs = {(each.first, each.second): each.rows for each in result.actions}
    assert pairs == {("flag", "flag"): 3, ("block", "flag"): 1, ("allow", "flag"): 1}


def test_assess_moderator_refuses_other_categories() -> None:
    rows = CategoryData(("a",), (("spam",),), (9,), "rows.jsonl")
    with pytest.raises(DataError, match=r"rows\.jsonl:9: labels: unknown"):
        assess_moderator(MANIFEST, rows, moderate=GOOD)
