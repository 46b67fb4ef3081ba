"""Labelled rows from a decision log: which, with what label, and what is said without any."""

from __future__ import annotations

from pathlib import Path

import pytest
from logs import Logged, write_log
from tuned import manifest

from sprat.decisions import read_decisions
from sprat.errors import DataError, InvalidInput
from sprat.train.categories import CategoryData
from sprat.train.data import Dataset
from sprat.train.logged import labelled
from sprat.train.thresholds import Rule
from sprat.tuning_manifest import LoggedRows

MANIFEST = manifest(("a", "b"), (0.5, 0.5))


def row(
    text: str | None,
    label: str = "a",
    *,
    escalated: bool = False,
    feedback: str | None = None,
    shadow: str | None = None,
    version: str = MANIFEST.version,
    kind: str = "classify",
) -> Logged:
    tiers = (("static", "a", 0.9), ("head", label, 0.9))
    return Logged(
        tiers if escalated else tiers[:1],
        label,
        version,
        text,
        feedback=feedback,
        shadow=shadow,
        kind=kind,
    )


def rows(
    tmp_path: Path, *given: Logged, rule: Rule = "loss", seed: int = 0
) -> tuple[Dataset, LoggedRows]:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    decisions = read_decisions(write_log(path, given), task="tickets")
    data, logged = labelled(decisions, MANIFEST, rule, path, seed=seed)
    assert isinstance(data, Dataset)
    return data, logged


def test_logged_rows_have_the_feedback_as_their_label(tmp_path: Path) -> None:
    """Whichever version answered; rows without a text or a label are no rows."""
    data, logged = rows(
        tmp_path,
        row("one", feedback="a"),
        row("two"),
        row(None, feedback="b"),
        row("three", feedback="b", version="older"),
    )
    assert (data.texts, data.labels, data.lines) == (("one", "three"), ("a", "b"), (1, 4))
    assert (logged.with_feedback, logged.confirmed, logged.from_last_tier) == (2, 1, 0)
    assert logged.until - logged.since == 3
    again, _ = rows(tmp_path, row("one", feedback="a"), row("three", feedback="b"))
    assert again.sha256 == data.sha256
    other, _ = rows(tmp_path, row("one", feedback="b"), row("three", feedback="b"))
    assert other.sha256 != data.sha256


def test_logged_shadowed_rows_come_beside_them(tmp_path: Path) -> None:
    """And as large a share of those that the last tier answered itself."""
    early = [row(f"early {at}", shadow="b" if at % 4 == 0 else None) for at in range(400)]
    last = [row(f"last {at}", "b", escalated=True) for at in range(400)]
    old = [row("old", shadow="b", version="older"), row("right", shadow="b", feedback="a")]
    data, logged = rows(tmp_path, *early, *last, *old)
    found = dict(zip(data.texts, data.labels, strict=True))
    assert "old" not in found
    assert found["right"] == "a"
    assert sum(text.startswith("early") for text in found) == 100
    assert {label for text, label in found.items() if text != "right"} == {"b"}
    # A quarter of 400, give or take five standard errors.
    assert 57 <= sum(text.startswith("last") for text in found) <= 143
    assert logged.with_feedback == 1
    assert logged.from_last_tier == len(data) - 1
    assert rows(tmp_path, *early, *last, *old)[0].texts == data.texts
    assert rows(tmp_path, *early, *last, *old, seed=1)[0].texts != data.texts


def test_logged_shadowed_rows_do_not_bound_errors(tmp_path: Path) -> None:
    given = [row("one", shadow="b"), row("two", feedback="b"), row("three", escalated=True)]
    data, logged = rows(tmp_path, *given, rule="error")
    assert (data.texts, logged.from_last_tier) == (("two",), 0)
    with pytest.raises(DataError, match="expected rows with a right answer, found none among 1"):
        rows(tmp_path, row("one", shadow="b"), rule="error")


def test_logged_says_what_to_configure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with their texts, found none among 2: set log\.store_t"):
        rows(tmp_path, row(None, feedback="a"), row(None))
    with pytest.raises(DataError, match=r"none among 3 of which 2 have a text: give feedback"):
        rows(tmp_path, row("one"), row("two"), row(None, feedback="b"))
    with pytest.raises(DataError, match="expected a classify task, found one of kind moderate"):
        rows(tmp_path, row("one", feedback="a", kind="moderate"))
    with pytest.raises(DataError, match="expected decisions of task tickets, found no decisions"):
        rows(tmp_path)
    decisions = read_decisions(tmp_path / "log", task=None)
    with pytest.raises(DataError, match="expected rows of the task in that time, found none"):
        labelled(decisions, MANIFEST, "loss", tmp_path / "log", seed=0)


def test_logged_messages_hold_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        rows(tmp_path, row("secret"))
    assert "secret" not in str(caught.value)


# -- moderate --------------------------------------------------------------------------------

MODERATOR = MANIFEST.model_copy(update={"kind": "moderate"})


def moderated(
    text: str | None, label: str, *flagged: str, known: bool = True, feedback: str | None = None
) -> Logged:
    return Logged(
        (("static", label or "a", 0.9),),
        label,
        MODERATOR.version,
        text,
        feedback=feedback,
        shadow="b",
        kind="moderate",
        flagged=flagged if known else None,
    )


def test_logged_moderations_have_the_categories_that_feedback_tells(tmp_path: Path) -> None:
    given = [
        moderated("confirmed", "a", "a", "b", feedback="a"),
        moderated("right", "b", "a", "b", feedback="right"),
        moderated("right, clean", "allow", feedback="right"),
        moderated("clean", "a", "a", feedback="allow"),
        moderated("missed", "allow", feedback="b"),
        moderated("other", "a", "a", feedback="b"),
        moderated("withheld", "", "a", feedback="b"),
        moderated("withheld and clean", "", "a", feedback="allow"),
        # What was right instead is not known.
        moderated("wrong", "a", "a", feedback="wrong"),
        moderated("nothing was said", "", "a", feedback="right"),
        moderated("older", "a", known=False, feedback="a"),
        moderated("shadowed", "a", "a"),
        moderated(None, "a", "a", feedback="a"),
    ]
    path = tmp_path / "log"
    decisions = read_decisions(write_log(path, given), task="tickets")
    data, logged = labelled(decisions, MODERATOR, "loss", path, seed=0)
    assert isinstance(data, CategoryData)
    assert dict(zip(data.texts, data.categories, strict=True)) == {
        "confirmed": ("a", "b"),
        "right": ("a", "b"),
        "right, clean": (),
        "clean": (),
        "missed": ("b",),
        "other": ("b",),
        "withheld": ("b",),
        "withheld and clean": (),
    }
    assert data.truth(("a", "b")).sum() == 7
    assert (logged.with_feedback, logged.confirmed, logged.from_last_tier) == (8, 3, 0)
    assert len(data.sha256) == 64


def test_logged_moderations_without_a_right_answer_are_refused(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log", [moderated("wrong", "a", "a", feedback="wrong")])
    with pytest.raises(DataError, match="expected rows with a right answer, found none among 1"):
        labelled(read_decisions(path, task=None), MODERATOR, "loss", path, seed=0)


def test_logged_categories_may_be_called_right_or_wrong(tmp_path: Path) -> None:
    made = manifest(("right", "wrong"), (0.5, 0.5)).model_copy(update={"kind": "moderate"})
    path = write_log(tmp_path / "log", [moderated("one", "right", "right", feedback="wrong")])
    data, logged = labelled(read_decisions(path, task=None), made, "loss", path, seed=0)
    assert isinstance(data, CategoryData)
    assert (data.categories, logged.confirmed) == ((("wrong",),), 0)


def test_logged_rows_of_other_kinds_are_refused(tmp_path: Path) -> None:
    made = MANIFEST.model_copy(update={"kind": "extract"})
    with pytest.raises(InvalidInput, match="classify, route and moderate tasks only, not of extra"):
        labelled([], made, "loss", tmp_path, seed=0)
