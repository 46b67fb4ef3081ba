"""What a model wrote of the fields of a text, held to the text: only what stands there counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences
from sprat.text.grounding import Grounder
from sprat.text.leaves import Path, pointer
from sprat.values import Extraction, Field


@dataclass(frozen=True, slots=True)
class Settled:
    """The fields of a text as a bundle has them.

    Attributes
    ----------
    value : dict of str to str, or to list of str
        What stands in the text, as it stands there; in the order of the bundle, values of one field
        in that of the text.
    fields : tuple of Field
        Its leaves; behind them strings that do not stand in the text.
    is_sound : bool
        Whether this is all that was written: every string stands in the text, and fits its field.
    """

    value: dict[str, Any]
    fields: tuple[Field, ...]
    is_sound: bool

    def over(self, own: Extraction) -> Extraction:
        """An answer with these fields."""
        return replace(
            own,
            value=self.value,
            json=json.dumps(self.value, ensure_ascii=False, separators=(",", ":")),
            fields=self.fields,
        )


def settle(
    value: Any,
    text: str,
    *,
    labels: Sequence[str],
    many: Collection[str],
    score: Callable[[Path], float],
) -> Settled:
    """Hold a value to its text.

    Null, blank strings and empty lists say that a field is not there. A string stands in the text
    up to case and white space; see `sprat.text.grounding.Grounder.string`.

    Parameters
    ----------
    value : object
        JSON that was written. What is no object says nothing, and is not sound.
    labels : sequence of str
        The fields of the bundle.
    many : collection of str
        Those that a text may have several of.
    score : callable
        Of a leaf, by its path in ``value``.

    Examples
    --------
    >>> written = {"name": "anna", "time": None}
    >>> made = settle(written, "I am Anna", labels=("name", "time"), many=(), score=lambda path: 1)
    >>> made.value, made.fields[0].start, made.is_sound
    ({'name': 'Anna'}, 5, True)
    """
    if not isinstance(value, dict):
        return Settled({}, (), False)
    grounder = Grounder(text)
    made: dict[str, Any] = {}
    fields: list[Field] = []
    invented: list[Field] = []
    is_sound = value.keys() <= set(labels)
    for name in labels:
        given = value.get(name)
        is_many = name in many
        items = given if isinstance(given, list) else [] if given is None else [given]
        is_sound &= isinstance(given, list) == is_many or given is None
        found: dict[tuple[int, int], float] = {}
        for at, item in enumerate(items):
            path = (name, at) if is_many else (name,)
            if not isinstance(item, str):
                is_sound = False
            elif item.strip():
                place = grounder.string(item)
                if place is None:
                    invented.append(Field(pointer(path), score(path)))
                else:
                    found.setdefault(place, score(path))
        spans = sorted(found.items())
        strings = [text[start:end] for (start, end), _ in spans]
        if strings:
            made[name] = strings if is_many else strings[0]
        fields += [
            Field(pointer((name, at) if is_many else (name,)), chance, *place, grounded=True)
            for at, (place, chance) in enumerate(spans)
        ]
    return Settled(made, (*fields, *invented), is_sound and not invented)


def sure(
    chances: Sequence[float], is_sound: Sequence[bool], calibration: Calibration | None
) -> list[float | None]:
    """Confidences in answers: 0 in those that are not sound, None without a calibration.

    Parameters
    ----------
    chances : sequence of float
        Probability in [0, 1] of each answer as a whole, by the lights of what gave it.
    """
    if calibration is None:
        return [None] * len(chances)
    given = confidences(np.array(chances), calibration).tolist()
    return [each if sound else 0.0 for each, sound in zip(given, is_sound, strict=True)]
