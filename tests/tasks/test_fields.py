"""What a model wrote of fields, held to its text."""

from __future__ import annotations

from typing import Any

import pytest

from sprat.bundle_manifest import Calibration
from sprat.tasks.fields import Settled, settle, sure

TEXT = "Ada and  Bea visit ada's shop"


def settled(value: Any, text: str = TEXT) -> Settled:
    def score(path: tuple[str | int, ...]) -> float:
        return 0.1 * (1 + path[1]) if isinstance(path[-1], int) else 0.5

    return settle(value, text, labels=("guests", "name"), many=("guests",), score=score)


def test_fields_are_what_stands_in_the_text() -> None:
    made = settled({"name": "ADA AND BEA", "guests": ["bea", "Ada"]})
    assert made.is_sound
    # In the order of the bundle, and of the text.
    assert list(made.value.items()) == [("guests", ["Ada", "Bea"]), ("name", "Ada and  Bea")]
    assert [(f.path, f.start, f.end, f.grounded) for f in made.fields] == [
        ("/guests/0", 0, 3, True),
        ("/guests/1", 9, 12, True),
        ("/name", 0, 12, True),
    ]
    # Scores stay with what was written, wherever it stands.
    assert [f.score for f in made.fields] == [0.2, 0.1, 0.5]


@pytest.mark.parametrize(
    "value", [{}, {"name": None, "guests": []}, {"name": "", "guests": None}, {"name": "  "}]
)
def test_fields_may_be_absent(value: dict[str, Any]) -> None:
    assert settled(value) == Settled({}, (), True)


def test_fields_at_one_place_count_once() -> None:
    made = settled({"guests": ["Bea", "Bea"]})
    assert (made.value, made.is_sound) == ({"guests": ["Bea"]}, True)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "Ada",
        {"name": "Cleo"},
        {"name": ["Ada"]},
        {"name": 7},
        {"name": {"first": "Ada"}},
        {"guests": "Ada"},
        {"guests": ["Ada", "Cleo"]},
        {"guests": ["Ada", None]},
        {"name": "Ada", "shop": "shop"},
    ],
)
def test_fields_that_do_not_hold_are_not_sound(value: Any) -> None:
    assert not settled(value).is_sound


def test_fields_that_were_invented_are_shown_without_a_place() -> None:
    made = settled({"guests": ["Cleo", "Ada"]})
    assert made.value == {"guests": ["Ada"]}
    assert [(f.path, f.start, f.grounded) for f in made.fields] == [
        ("/guests/0", 0, True),
        ("/guests/0", None, False),
    ]


def test_fields_that_are_not_sound_have_no_confidence() -> None:
    curve = Calibration(temperature=1.0, isotonic=((0.0, 0.4), (1.0, 0.8)), ceiling=0.7)
    assert sure([0.0, 0.5, 1.0], [True, False, True], curve) == [0.4, 0.0, 0.7]
    assert sure([0.5], [True], None) == [None]
