"""Values are plain, frozen and self-describing."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest

from sprat import values
from sprat.values import Chunk, Classification, Message, Sampling, Timings

CLASSES = [v for v in vars(values).values() if dataclasses.is_dataclass(v)]


def test_values_are_found() -> None:
    assert len(CLASSES) >= 13


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_values_are_frozen_slotted_and_documented(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(kind)
    assert inspect.getdoc(kind)
    assert not inspect.getdoc(kind).startswith(f"{kind.__name__}(")  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_values_fields_resolve_to_immutable_types(kind: type) -> None:
    for name, hint in typing.get_type_hints(kind).items():
        assert typing.get_origin(hint) not in (list, dict, set), name


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Message("user", "hi").content = "other"  # type: ignore[misc]


def test_values_compare_by_content() -> None:
    assert Timings(1, 2, 3, 4) == Timings(1, 2, 3, 4)
    assert Sampling() == Sampling(max_tokens=256, temperature=0.0)


def test_values_defaults_say_nothing_happened() -> None:
    answer = Classification("a", None, ())
    assert (answer.abstained, answer.tier, answer.escalated) == (False, 0, False)
    chunk = Chunk("text")
    assert chunk.finish_reason is None
    assert chunk.timings == Timings()


def test_values_import_nothing_else_of_sprat() -> None:
    source = inspect.getsource(values)
    assert "sprat" not in {
        line.split()[1].split(".")[0]
        for line in source.splitlines()
        if line.startswith(("import ", "from "))
    }
