"""Where values stand in a text: offsets in characters, whatever case folding does to lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.text.grounding import Grounder


def place(text: str, value: str) -> str | None:
    """The part of the text where a string is found."""
    span = Grounder(text).string(value)
    return None if span is None else text[slice(*span)]


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("a table for Anna", "Anna", "Anna"),
        ("a table for ANNA", "Anna", "ANNA"),
        ("for Anna  \n\t Maria, please", "anna maria", "Anna  \n\t Maria"),
        ("Anna\u00a0Maria", "Anna Maria", "Anna\u00a0Maria"),
        ("for Anna", "  Anna ", "Anna"),
        ("for Anna", "Hanna", None),
        ("AnnaMaria", "Anna Maria", None),
        ("", "Anna", None),
        ("for Anna", "", None),
        ("for Anna", " \n", None),
        # folding makes two or three characters of one
        ("in der Große Straße 5", "GROSSE STRASSE", "Große Straße"),
        ("in der GROSSE STRASSE 5", "große straße", "GROSSE STRASSE"),
        ("ßßß then Anna", "ANNA", "Anna"),
        ("the o\ufb03ce today", "OFFICE", "o\ufb03ce"),
        # half of a folded character is no place
        ("Maß", "s", None),
        ("Maß", "mas", None),
        ("Maß", "MASS", "Maß"),
        # the dotted capital I folds to i and a combining dot
        ("İzmir and İstanbul", "i̇stanbul", "İstanbul"),
        ("İİİ and Ankara", "ankara", "Ankara"),
        ("İzmir", "izmir", None),
        # combining marks belong to the text as it is
        ("at the cafe\u0301 Zoe\u0308", "CAFE\u0301", "cafe\u0301"),
        ("at the cafe\u0301 Zoe\u0308", "zoe\u0308", "Zoe\u0308"),
        # beyond the basic plane: one character each
        ("\U0001f600\U0001f468\u200d\U0001f469 for Anna", "anna", "Anna"),
        ("so \U0001f600 happy", "\U0001f600", "\U0001f600"),
        ("ΟΔΥΣΣΕΥΣ said", "Οδυσσευς", "ΟΔΥΣΣΕΥΣ"),
        ("我在北京的家", "北京", "北京"),
    ],
)
def test_grounding_finds_up_to_case_and_white_space(
    text: str, value: str, found: str | None
) -> None:
    assert place(text, value) == found


def test_grounding_takes_whole_words_first() -> None:
    assert Grounder("the party has art").string("art") == (14, 17)
    assert Grounder("the party has Art").string("art") == (14, 17)
    assert Grounder("the party").string("art") == (5, 8)


def test_grounding_takes_what_is_written_alike_first() -> None:
    assert Grounder("may I come in May").string("May") == (14, 17)


def test_grounding_of_values_that_come_again_goes_on_in_the_text() -> None:
    grounder = Grounder("Anna, anna and Anna-Lena; Tom")
    found = [grounder.string(value) for value in ("Anna", "Anna", "Tom", "anna", "Anna")]
    assert found == [(0, 4), (15, 19), (26, 29), (6, 10), (15, 19)]


def test_grounding_of_other_values_may_overlap() -> None:
    grounder = Grounder("Anna Schulz")
    assert grounder.string("Anna Schulz") == (0, 11)
    assert grounder.string("Anna") == (0, 4)


@pytest.mark.parametrize(
    ("text", "literal", "span"),
    [
        ("for 2 at 12", "2", (4, 5)),
        ("at 12:30", "30", (6, 8)),
        ("at 7pm", "7", (3, 4)),
        ("12", "2", None),
        ("12", "1", None),
        ("1.25", "25", None),
        ("1,250", "250", None),
        ("1.25", "1", None),
        ("costs 1.25.", "1.25", (6, 10)),
        ("it is 5.", "5", (6, 7)),
        ("at -5 degrees", "-5", (3, 5)),
        ("from 3-5", "-5", None),
        ("1e5", "1e5", (0, 3)),
        ("none", "0", None),
    ],
)
def test_grounding_of_numbers_is_literal(
    text: str, literal: str, span: tuple[int, int] | None
) -> None:
    assert Grounder(text).number(literal) == span


def test_grounding_of_numbers_that_come_again_goes_on_in_the_text() -> None:
    grounder = Grounder("2 tables for 2")
    assert [grounder.number("2") for _ in range(3)] == [(0, 1), (13, 14), (13, 14)]


@given(st.text(), st.integers(0, 20), st.integers(1, 8))
def test_grounding_finds_every_part_of_a_text(text: str, start: int, length: int) -> None:
    value = text[start : start + length]
    span = Grounder(text).string(value)
    if not value.strip():
        assert span is None
        return
    assert span is not None
    stands = " ".join(text[slice(*span)].split()).casefold()
    assert stands == " ".join(value.split()).casefold()


@given(st.text(alphabet="aAßİ \nsS"), st.text(alphabet="aAßİ sS", min_size=1, max_size=3))
def test_grounding_places_fold_to_the_value(text: str, value: str) -> None:
    span = Grounder(text).string(value)
    if span is not None:
        assert " ".join(text[slice(*span)].split()).casefold() == " ".join(value.split()).casefold()
