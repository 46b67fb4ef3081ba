from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from itertools import chain, pairwise

import pytest

Row = dict[str, str]

LABELS = {"account", "billing", "other", "returns", "shipping", "technical"}
SPLITS = {"train": 80, "test": 10}
# No two tickets share so many words in a row: what a template would leave behind.
SHARED_RUN = 5


def read(split: str) -> list[Row]:
    text = (files("sprat.demo") / f"tickets.{split}.jsonl").read_text(encoding="utf-8")
    # Not splitlines(), which also splits at separators that JSON allows inside a string.
    *lines, rest = text.split("\n")
    assert rest == "", f"{split}: the last line does not end"
    return [json.loads(line) for line in lines]


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def runs(text: str) -> set[str]:
    tokens = words(text)
    count = len(tokens) - SHARED_RUN + 1
    return {" ".join(tokens[start : start + SHARED_RUN]) for start in range(count)}


@pytest.mark.parametrize("split", SPLITS)
def test_tickets_are_well_formed(split: str) -> None:
    for number, row in enumerate(read(split), 1):
        where = f"{split}, line {number}"
        assert set(row) == {"text", "label"}, where
        assert isinstance(row["text"], str), where
        assert row["text"] == row["text"].strip() != "", where
        assert row["text"].replace("\n", "").isprintable(), where


@pytest.mark.parametrize(("split", "rows"), SPLITS.items())
def test_tickets_are_balanced(split: str, rows: int) -> None:
    assert Counter(row["label"] for row in read(split)) == dict.fromkeys(LABELS, rows)


@pytest.mark.parametrize("split", SPLITS)
def test_tickets_are_not_sorted_by_label(split: str) -> None:
    labels = [row["label"] for row in read(split)]
    changes = sum(a != b for a, b in pairwise(labels))
    assert changes > len(labels) / 2


def test_tickets_do_not_repeat_within_or_between_splits() -> None:
    seen = Counter(" ".join(words(row["text"])) for row in chain(read("train"), read("test")))
    assert [text for text, count in seen.items() if count > 1] == []


def test_tickets_share_no_long_run_of_words() -> None:
    seen = Counter(run for row in chain(read("train"), read("test")) for run in runs(row["text"]))
    assert [run for run, count in seen.items() if count > 1] == []


@pytest.mark.parametrize("split", SPLITS)
def test_tickets_vary_in_length_and_form(split: str) -> None:
    texts = [row["text"] for row in read(split)]
    lengths = [len(words(text)) for text in texts]
    assert min(lengths) >= 4
    assert min(lengths) <= 6
    assert max(lengths) > 40
    for name, part in {
        "short": [length <= 8 for length in lengths],
        "long": [length >= 20 for length in lengths],
        "lower case": [text[0].islower() for text in texts],
        "questions": ["?" in text for text in texts],
        "no full stop": [text[-1].isalnum() for text in texts],
    }.items():
        assert 0.05 < sum(part) / len(part) < 0.6, name


@pytest.mark.parametrize("split", SPLITS)
def test_tickets_hold_no_contact_details(split: str) -> None:
    for number, row in enumerate(read(split), 1):
        found = re.search(r"@|://|\bwww\.|\+\d|\d(?:[ -]?\d){6,}", row["text"])
        assert found is None, f"{split}, line {number}"
