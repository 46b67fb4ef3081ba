"""What is wrong with rows: refused or reported, by line, never by content."""

from __future__ import annotations

import pytest

from sprat.errors import DataError, InvalidInput
from sprat.train.checks import (
    Repeat,
    inspect,
    is_damaged,
    require_rows,
    resolve_conflicts,
)
from sprat.train.data import Dataset

SECRET = "xyzzy-secret"


def make(*rows: tuple[str, str], first: int = 1, path: str = "rows.csv") -> Dataset:
    texts, labels = zip(*rows, strict=True)
    return Dataset(texts, labels, tuple(range(first, first + len(rows))), path)


def plenty(label: str, count: int = 4) -> list[tuple[str, str]]:
    return [(f"{label} number {'abcdefgh'[i] * 9}", label) for i in range(count)]


# -- conflicts -------------------------------------------------------------------------------

CONFLICTS = make(
    (SECRET, "a"),
    ("fine", "a"),
    (f" {SECRET.upper()} ", "b"),
    (SECRET, "c"),
    ("other", "b"),
    ("Other", "a"),
)


def test_checks_conflicting_labels_are_refused_by_line() -> None:
    with pytest.raises(DataError) as caught:
        resolve_conflicts(CONFLICTS, "refuse")
    assert caught.value.line == 1
    assert caught.value.message == (
        "rows.csv:1: the same text with other labels in lines 3, 4\n"
        "  line 5: the same text with other labels in line 6\n"
        "  correct the labels, or drop or keep such rows explicitly (--conflicts)"
    )
    assert SECRET not in caught.value.message.lower()


def test_checks_conflicting_labels_are_dropped_or_kept() -> None:
    left, dropped = resolve_conflicts(CONFLICTS, "drop")
    assert (left.texts, left.lines, dropped) == (("fine",), (2,), (1, 3, 4, 5, 6))
    assert resolve_conflicts(CONFLICTS, "keep") == (CONFLICTS, ())


def test_checks_the_same_text_with_one_label_is_no_conflict() -> None:
    data = make(("same", "a"), ("Same", "a"), ("other", "b"))
    for policy in ("refuse", "drop", "keep"):
        assert resolve_conflicts(data, policy) == (data, ())


def test_checks_unknown_policy_is_refused() -> None:
    with pytest.raises(InvalidInput, match="refuse, drop, keep, got 'merge'"):
        resolve_conflicts(CONFLICTS, "merge")  # type: ignore[arg-type]


# -- enough rows -----------------------------------------------------------------------------


def test_checks_one_label_is_refused() -> None:
    with pytest.raises(
        DataError, match=r":1: expected 2 or more labels, found 1 in 4 rows: lines 1, 2, 3, 4"
    ):
        require_rows(make(*plenty("a")))


def test_checks_labels_with_too_few_texts_are_named_with_their_lines() -> None:
    rows = make(*plenty("a"), *plenty("b", 3), *[("again", "c"), ("Again ", "c")] * 6)
    with pytest.raises(DataError) as caught:
        require_rows(rows)
    assert caught.value.line == 5
    assert caught.value.message == (
        "rows.csv:5: expected 4 or more different texts of each label, found fewer of 2 labels:\n"
        "  'b': 3 in lines 5, 6, 7\n"
        "  'c': 1 in lines 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 and 2 more"
    )
    require_rows(rows, least=1)
    require_rows(make(*plenty("a"), *plenty("b")))


def test_checks_many_small_labels_are_counted() -> None:
    rows = make(*[(f"text {i}", f"label{i:02}") for i in range(25)])
    with pytest.raises(DataError, match=r"found fewer of 25 labels:(\n.*){10}\n  and 15 more$"):
        require_rows(rows)


# -- findings --------------------------------------------------------------------------------


def test_checks_clean_rows_give_no_message() -> None:
    report, is_leaked = inspect(make(*plenty("a"), *plenty("b")), make(("a new text", "a")))
    assert report.messages() == []
    assert is_leaked.tolist() == [False]
    assert report.rows_of_label == {"a": 4, "b": 4}


def test_checks_repeats_within_and_between_parts() -> None:
    train = make(
        ("where is the parcel that I ordered", "a"),
        ("Where is the parcel that I ordered", "b"),
        ("where is the parcel that I ordered?", "a"),
        ("refund", "b"),
    )
    test = make(
        ("REFUND", "a"),
        ("where is the parcels that I ordered", "a"),
        ("a question", "a"),
        ("a question", "a"),
        first=11,
        path="test.csv",
    )
    report, is_leaked = inspect(train, test, dropped_lines=(7, 9))
    assert is_leaked.tolist() == [True, True, False, False]
    assert report.duplicates.first == (Repeat(line=2, of=1, similarity=1, same_label=False),)
    (near,) = report.near_duplicates.first
    assert (near.line, near.of, near.same_label) == (3, 1, True)
    assert 0.8 <= near.similarity < 1
    assert report.leaked.first == (Repeat(line=11, of=4, similarity=1, same_label=False),)
    assert [(r.line, r.of) for r in report.nearly_leaked.first] == [(12, 1)]
    assert report.conflict_lines == (1, 2)
    assert report.messages() == [
        "2 rows left out, whose text also has other labels: lines 7, 9",
        "2 training rows kept, whose text also has other labels: lines 1, 2",
        "1 training rows repeat another: lines 2 (1)",
        "1 training rows nearly repeat another: lines 3 (1)",
        "1 of 4 test rows repeat a training row: lines 11 (4)",
        "1 of 4 test rows nearly repeat a training row: lines 12 (1)",
    ]


def test_checks_long_lists_are_cut_and_counted() -> None:
    train = make(*[(f"text {'qwertyuiopasdfghjklzxcvbnm'[i] * 9}", "a") for i in range(26)])
    test = make(*[(text.upper(), "a") for text in train.texts])
    report, is_leaked = inspect(train, test)
    assert is_leaked.all()
    assert (report.leaked.count, len(report.leaked.first)) == (26, 20)
    (message,) = report.messages()
    assert message.startswith("26 of 26 test rows repeat a training row: lines 1 (1), 2 (2),")
    assert message.endswith("10 (10) and 16 more")


@pytest.mark.parametrize(
    ("text", "damaged"),
    [
        ("café".encode().decode("cp1252"), True),
        ("it\N{RIGHT SINGLE QUOTATION MARK}s".encode().decode("cp1252"), True),
        ("caf\N{REPLACEMENT CHARACTER}", True),
        ("a naïve café on the côte d'azur", False),
        ("Größe über Maß", False),
        ("plain", False),
        ("日本語 и русский", False),
        ("“quoted” – dashed…", False),
    ],
)
def test_checks_text_that_was_decoded_wrongly_is_told(text: str, damaged: bool) -> None:
    assert is_damaged(text) == damaged
    report, _ = inspect(make(("good", "a"), (text, "b")), make((text, "a")))
    expected = (
        [
            "1 training rows were decoded with a wrong encoding once: line 2",
            "1 test rows were decoded with a wrong encoding once: line 1",
        ]
        if damaged
        else []
    )
    assert [m for m in report.messages() if "encoding" in m] == expected


def test_checks_labels_that_look_alike_are_named() -> None:
    report, _ = inspect(
        make(("q", "Card lost"), ("w", "card_lost"), ("e", "CARD-LOST"), ("r", "card"), ("t", "-")),
        make(("z", "card")),
    )
    assert report.similar_labels == (("CARD-LOST", "Card lost"), ("CARD-LOST", "card_lost"))
    assert "labels 'CARD-LOST' and 'Card lost' are nearly the same" in report.messages()
