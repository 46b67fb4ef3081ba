"""What is wrong with labelled rows: errors that stop a training, and findings that are reported."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.errors import DataError, InvalidInput
from sprat.train.data import Dataset
from sprat.train.duplicates import near_duplicates
from sprat.train.rows import MAX_SHOWN_ROWS, bad_rows
from sprat.train.split import same_texts, text_key

Conflicts = Literal["refuse", "drop", "keep"]

LEAST_ROWS = 4
"""Different texts that a label needs: one to evaluate on, three to learn from and to calibrate."""

MOST_LISTED = 20
"""Repeats in a report; the counts cover all."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Repeat(_Part):
    """A row whose text stands in an earlier row, or for a test row in a training row.

    Attributes
    ----------
    line, of : int
        Line of the row, and of the one that it repeats; each in its own file.
    similarity : float
        1 where the texts differ at most in case, white space and Unicode form; see
        `sprat.train.duplicates`.
    same_label : bool
        Whether both have the same label.
    """

    line: int
    of: int
    similarity: float
    same_label: bool


class Repeats(_Part):
    """How many rows repeat another, and the first 20 of them."""

    count: int
    first: tuple[Repeat, ...]


class DataReport(_Part):
    """What was found in the rows; none of it holds text.

    Attributes
    ----------
    rows, test_rows : int
        Training rows, after conflicts were dropped, and the rows to evaluate on.
    rows_of_label : dict of str to int
        Training rows of each label.
    similar_labels : tuple of (str, str)
        Pairs that differ only in case, white space, hyphens and underscores.
    conflict_lines : tuple of int
        Training rows whose text also has another label, as far as they were kept.
    dropped_lines : tuple of int
        Rows that were left out because their text also has another label.
    damaged_lines, damaged_test_lines : tuple of int
        Rows whose text was decoded with a wrong encoding somewhere on its way here.
    duplicates, near_duplicates : Repeats
        Within the training rows.
    leaked, nearly_leaked : Repeats
        Test rows that repeat a training row.
    """

    rows: int
    test_rows: int
    rows_of_label: dict[str, int]
    similar_labels: tuple[tuple[str, str], ...]
    conflict_lines: tuple[int, ...]
    dropped_lines: tuple[int, ...]
    damaged_lines: tuple[int, ...]
    damaged_test_lines: tuple[int, ...]
    duplicates: Repeats
    near_duplicates: Repeats
    leaked: Repeats
    nearly_leaked: Repeats

    def messages(self, what: str = "labels") -> list[str]:
        """One line for people about each thing that was found, with line numbers.

        Parameters
        ----------
        what : str
            What the labels are.
        """
        repeats = (
            (self.duplicates, "training rows repeat another"),
            (self.near_duplicates, "training rows nearly repeat another"),
            (self.leaked, f"of {self.test_rows} test rows repeat a training row"),
            (self.nearly_leaked, f"of {self.test_rows} test rows nearly repeat a training row"),
        )
        lines = (
            (self.dropped_lines, f"rows left out, whose text also has other {what}"),
            (self.conflict_lines, f"training rows kept, whose text also has other {what}"),
            (self.damaged_lines, "training rows were decoded with a wrong encoding once"),
            (self.damaged_test_lines, "test rows were decoded with a wrong encoding once"),
        )
        return [
            *(f"labels {a!r} and {b!r} are nearly the same" for a, b in self.similar_labels),
            *(f"{len(n)} {what}: {shown_lines(n)}" for n, what in lines if n),
            *(f"{found.count} {what}{_pairs(found)}" for found, what in repeats if found.count),
        ]


def resolve_conflicts(
    data: Dataset, conflicts: Conflicts, *, what: str = "labels"
) -> tuple[Dataset, tuple[int, ...]]:
    """Deal with texts that have more than one label: no head can learn both.

    Texts are the same where they differ at most in case, white space and Unicode form.

    Parameters
    ----------
    conflicts : {"refuse", "drop", "keep"}
        Raise, leave all rows of such a text out, or leave them all in.
    what : str
        What the labels are, for messages.

    Returns
    -------
    Dataset, tuple of int
        The rows that are left, and the lines of those that were dropped.

    Raises
    ------
    DataError
        With ``refuse``, when there are such rows: it names their lines.
    """
    if conflicts not in get_args(Conflicts):
        expected = ", ".join(get_args(Conflicts))
        raise InvalidInput(
            f"conflicts: expected one of {expected}, got {conflicts!r}", field="conflicts"
        )
    rivals = [rows for rows in _rows_of_text(data.texts) if _labels(data, rows) > 1]
    if conflicts == "keep" or not rivals:
        return data, ()
    if conflicts == "drop":
        dropped = {row for rows in rivals for row in rows}
        left = data.take(row for row in range(len(data)) if row not in dropped)
        return left, tuple(data.lines[row] for row in sorted(dropped))
    raise bad_rows(
        data.path,
        [
            (
                data.lines[rows[0]],
                f"the same text with other {what} in "
                + shown_lines(
                    [data.lines[r] for r in rows if data.labels[r] != data.labels[rows[0]]]
                ),
            )
            for rows in rivals
        ],
        hint=f"\n  correct the {what}, or drop or keep such rows explicitly (--conflicts)",
    )


def conflicting_lines(data: Dataset) -> tuple[int, ...]:
    """Lines of the rows whose text has more than one label."""
    rivals = (rows for rows in _rows_of_text(data.texts) if _labels(data, rows) > 1)
    return tuple(sorted(data.lines[row] for rows in rivals for row in rows))


def require_rows(data: Dataset, least: int = LEAST_ROWS) -> None:
    """Check that there is enough to learn from.

    Parameters
    ----------
    least : int
        Different texts that each label needs.

    Raises
    ------
    DataError
        When there are fewer than two labels, or a label has fewer texts: it names their lines.
    """
    labels = sorted(set(data.labels))
    if len(labels) < 2:
        raise DataError(
            data.path,
            min(data.lines, default=0),
            f"expected 2 or more labels, found {len(labels)} in {len(data)} rows: "
            f"{shown_lines(data.lines)}",
        )
    texts: dict[str, set[str]] = {label: set() for label in labels}
    lines: dict[str, list[int]] = {label: [] for label in labels}
    for text, label, line in zip(data.texts, data.labels, data.lines, strict=True):
        lines[label].append(line)
        if len(texts[label]) < least:
            texts[label].add(text_key(text))
    few = [label for label in labels if len(texts[label]) < least]
    if few:
        shown = "".join(
            f"\n  {label!r}: {len(texts[label])} in {shown_lines(lines[label])}"
            for label in few[:MAX_SHOWN_ROWS]
        )
        more = len(few) - MAX_SHOWN_ROWS
        raise DataError(
            data.path,
            lines[few[0]][0],
            f"expected {least} or more different texts of each label, found fewer of "
            f"{len(few)} labels:{shown}" + (f"\n  and {more} more" if more > 0 else ""),
        )


def inspect(
    train: Dataset, test: Dataset, *, dropped_lines: tuple[int, ...] = ()
) -> tuple[DataReport, npt.NDArray[np.bool_]]:
    """Find repeats within the training rows and between them and the test rows, and damage.

    Parameters
    ----------
    dropped_lines : tuple of int
        What `resolve_conflicts` left out, for the report.

    Returns
    -------
    DataReport
    bool[N]
        The test rows that repeat a training row, exactly or nearly.
    """
    texts = (*train.texts, *test.texts)
    labels = (*train.labels, *test.labels)
    lines = (*train.lines, *test.lines)
    first: dict[int, int] = {}
    exact: dict[int, Repeat] = {}
    numbers = same_texts(texts).tolist()

    def repeat(row: int, of: int, similarity: float) -> Repeat:
        return Repeat(
            line=lines[row],
            of=lines[of],
            similarity=similarity,
            same_label=labels[row] == labels[of],
        )

    for row, number in enumerate(numbers):
        if number in first:
            exact[row] = repeat(row, first[number], 1.0)
        elif row < len(train):
            first[number] = row
    near = {
        row: repeat(row, match.row, match.similarity)
        for row, match in near_duplicates(texts, len(train)).items()
        if row not in exact
    }
    is_leaked = np.array(
        [row in exact or row in near for row in range(len(train), len(texts))], np.bool_
    )
    report = DataReport(
        rows=len(train),
        test_rows=len(test),
        rows_of_label=dict(sorted(Counter(train.labels).items())),
        similar_labels=_similar(train.labels),
        conflict_lines=conflicting_lines(train),
        dropped_lines=dropped_lines,
        damaged_lines=_damaged(train),
        damaged_test_lines=_damaged(test),
        duplicates=_repeats(exact, range(len(train))),
        near_duplicates=_repeats(near, range(len(train))),
        leaked=_repeats(exact, range(len(train), len(texts))),
        nearly_leaked=_repeats(near, range(len(train), len(texts))),
    )
    return report, is_leaked


def is_damaged(text: str) -> bool:
    """Whether a text was decoded with a wrong encoding: ``cafÃ©``, or U+FFFD in place of a letter.

    UTF-8 that was read as Windows-1252 can be turned back, and text that was not cannot, but by
    rare chance.
    """
    if text.isascii():
        return False
    if _REPLACEMENT in text:
        return True
    for word in re.findall(r"\S*[^\x00-\x7f]\S*", text):
        try:
            word.encode("cp1252").decode()
        except UnicodeError:
            continue
        return True
    return False


def _damaged(data: Dataset) -> tuple[int, ...]:
    return tuple(
        line for text, line in zip(data.texts, data.lines, strict=True) if is_damaged(text)
    )


def _similar(labels: Iterable[str]) -> tuple[tuple[str, str], ...]:
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        groups.setdefault(re.sub(r"[\s_-]+", "", text_key(label)), []).append(label)
    return tuple((group[0], other) for group in groups.values() for other in group[1:])


def _rows_of_text(texts: Sequence[str]) -> list[list[int]]:
    """The rows of each different text, in the order of first occurrence."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(same_texts(texts).tolist()):
        rows.setdefault(number, []).append(row)
    return list(rows.values())


def _labels(data: Dataset, rows: Iterable[int]) -> int:
    return len({data.labels[row] for row in rows})


def _repeats(found: dict[int, Repeat], rows: range) -> Repeats:
    there = [found[row] for row in rows if row in found]
    return Repeats(count=len(there), first=tuple(there[:MOST_LISTED]))


def shown_lines(lines: Sequence[int]) -> str:
    """Some lines and how many more, for messages."""
    more = f" and {len(lines) - MAX_SHOWN_ROWS} more" if len(lines) > MAX_SHOWN_ROWS else ""
    return f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines[:MAX_SHOWN_ROWS]))}{more}"


def _pairs(found: Repeats) -> str:
    shown = ", ".join(f"{each.line} ({each.of})" for each in found.first[:MAX_SHOWN_ROWS])
    more = f" and {found.count - MAX_SHOWN_ROWS} more" if found.count > MAX_SHOWN_ROWS else ""
    return f": lines {shown}{more}"
