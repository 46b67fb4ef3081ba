"""How good rewritten texts are: the same as wanted, near to it, and what they must look like."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import ReportSummary
from sprat.errors import InvalidInput, SetupError
from sprat.manifest import Interval
from sprat.train import metrics
from sprat.train.metrics import Floats
from sprat.train.rows import bad_rows
from sprat.train.wanted import Wanted

MOST_LISTED = 20
"""Lines of wrong answers in a report; the counts cover all."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """An answer; ``complete`` says whether it ended by itself."""

    text: str
    complete: bool = True


class TransformReport(BaseModel):
    """An evaluation, without any text of the rows.

    Attributes
    ----------
    n : int
        Rows.
    incomplete : int
        Answers that did not end by themselves.
    metrics : dict of str to Interval
        Means over the rows with 95 % bootstrap intervals, all in [0, 1]. ``exact_match``: the
        answer is what was wanted; up to white space at both ends and Unicode form, and with a
        schema as JSON values, so that neither the order of keys nor white space counts.
        ``edit_similarity``: see `edit_similarity`. ``schema_valid``: the answer is JSON and fits
        the schema; absent without one.
    wrong_lines : tuple of int
        Rows without an exact match, the least similar first, at most 20.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    incomplete: int
    metrics: dict[str, Interval]
    wrong_lines: tuple[int, ...]

    def summary(self) -> ReportSummary:
        """The figures with their intervals."""
        return ReportSummary(n=self.n, metrics=self.metrics)


def evaluate_transform(
    answers: Sequence[Rewritten], wanted: Wanted, *, schema: str | None = None, seed: int = 0
) -> TransformReport:
    """Compare answers with what was wanted.

    Parameters
    ----------
    answers : sequence of Rewritten
        One for each row.
    schema : str, optional
        JSON Schema, as JSON, that answers have to fit.
    seed : int
        Of the resampling; at least 0.

    Raises
    ------
    DataError
        A target does not fit the schema itself: its line.
    InvalidInput
        The schema is none.
    SetupError
        jsonschema is not installed, and there is a schema.
    """
    columns = score_rows(answers, wanted, schema=schema)
    n = len(answers)
    resampled = metrics.bootstrap(
        lambda picks_rn: {name: column[picks_rn].mean(axis=1) for name, column in columns.items()},
        (n,),
        np.random.default_rng(seed),
    )
    exact, similar = columns["exact_match"], columns["edit_similarity"]
    wrong = sorted(np.flatnonzero(exact == 0).tolist(), key=lambda row: (similar[row], row))
    return TransformReport(
        n=n,
        incomplete=sum(not answer.complete for answer in answers),
        metrics={
            name: metrics.interval(float(column.mean()), resampled[name])
            for name, column in columns.items()
        },
        wrong_lines=tuple(wanted.lines[row] for row in wrong[:MOST_LISTED]),
    )


def score_rows(
    answers: Sequence[Rewritten], wanted: Wanted, *, schema: str | None = None
) -> dict[str, Floats]:
    """What each answer is worth: the figures of `TransformReport` row by row, float64[N] of each.

    See `evaluate_transform` for the parameters and for what is raised.
    """
    is_valid = None if schema is None else check_targets(wanted, schema)
    pairs = [(_plain(a.text), _plain(t)) for a, t in zip(answers, wanted.targets, strict=True)]
    columns: dict[str, Floats] = {
        "exact_match": np.array(
            [a == t or (is_valid is not None and _same_json(a, t)) for a, t in pairs], np.float64
        ),
        "edit_similarity": np.array([edit_similarity(a, t) for a, t in pairs]),
    }
    if is_valid is not None:
        columns["schema_valid"] = np.array([is_valid(a.text) for a in answers], np.float64)
    return columns


def right_answers(
    answers: Sequence[Rewritten], wanted: Wanted, *, schema: str | None = None, right_at: float = 1
) -> npt.NDArray[np.bool_]:
    """Which answers count as right: those that ended, and are as wanted, or near enough to it.

    Parameters
    ----------
    right_at : float
        Least edit similarity, in (0, 1]; 1: an exact match, as `TransformReport` has it.

    See `evaluate_transform` for the others and for what is raised.
    """
    scores = score_rows(answers, wanted, schema=schema)
    near_n = scores["exact_match"] == 1
    if right_at < 1:
        near_n |= scores["edit_similarity"] >= right_at
    right_n: npt.NDArray[np.bool_] = near_n & [answer.complete for answer in answers]
    return right_n


def check_targets(wanted: Wanted, schema: str) -> Callable[[str], bool]:
    """Refuse targets that do not fit a schema; see `validator` for what is returned and raised.

    Raises
    ------
    DataError
        It names their lines.
    """
    is_valid = validator(schema)
    faults = [
        (line, "target: does not fit the schema")
        for line, target in zip(wanted.lines, wanted.targets, strict=True)
        if not is_valid(target)
    ]
    if faults:
        raise bad_rows(wanted.path, faults)
    return is_valid


def edit_similarity(one: str, other: str) -> float:
    """How near two texts are: 1 minus their edit distance by the length of the longer.

    Returns
    -------
    float
        In [0, 1]; 1 for the same text.
    """
    longer = max(len(one), len(other))
    return 1.0 if longer == 0 else 1 - edit_distance(one, other) / longer


def edit_distance(one: str, other: str) -> int:
    """Least number of characters to put in, take out or replace (Levenshtein, 1966).

    A column of the table of distances is two integers with a bit for each of its steps, and a
    character costs some ten operations on them (Myers, 1999; Hyyrö, 2003).
    """
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for index, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << index
    every, last = (1 << len(one)) - 1, 1 << len(one) - 1
    up, down, distance = every, 0, len(one)
    for character in other:
        same = places.get(character, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        right_up = down | ~(diagonal | up) & every
        right_down = up & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up = right_up << 1 | 1
        right_down <<= 1
        up = (right_down | ~(diagonal | right_up)) & every
        down = right_up & diagonal & every
    return distance


def validator(schema: str) -> Callable[[str], bool]:
    """A function that says whether a text is JSON that fits a schema.

    Raises
    ------
    InvalidInput
        The schema is none. Field: ``schema``.
    SetupError
        jsonschema is not installed.
    """
    try:
        from jsonschema import exceptions, validators
    except ImportError:
        raise SetupError(
            "checking JSON needs jsonschema; install it with: pip install 'sprat[train]'"
        ) from None
    try:
        document = json.loads(schema)
        kind = validators.validator_for(document, default=validators.Draft202012Validator)
        kind.check_schema(document)
    except (ValueError, RecursionError):
        raise InvalidInput("schema: expected JSON", field="schema") from None
    except exceptions.SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "top level"
        raise InvalidInput(f"schema: not valid at {where}", field="schema") from None
    checker = kind(document)

    def is_valid(text: str) -> bool:
        try:
            return bool(checker.is_valid(_json(text)))
        except (ValueError, RecursionError):
            return False

    return is_valid


def _json(text: str) -> Any:
    def refuse(_: str) -> None:
        raise ValueError

    return json.loads(text, parse_constant=refuse)


def _same_json(one: str, other: str) -> bool:
    try:
        # As text: 1, 1.0 and true are equal in Python.
        first, second = (json.dumps(_json(each), sort_keys=True) for each in (one, other))
    except (ValueError, RecursionError):
        return False
    return first == second


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
