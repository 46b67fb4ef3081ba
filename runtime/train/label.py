"""Label texts with a teacher: what it is sure of is kept, the rest is for people."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sprat.errors import DataError, InvalidInput
from sprat.progress import Progress, Silent
from sprat.train.journal import Journal, Row
from sprat.train.rows import read_records
from sprat.train.teacher import Labeller, Opinion

BATCH = 256
"""Texts that a teacher gets at once."""
KEEP_ABOVE = 0.8
_OURS = ("label", "confidence", "calibrated", "origin")


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """Rows with a ``text`` each, in the order of their file.

    Attributes
    ----------
    lines : tuple of int
        Line of each row, from 1.
    records : tuple of dict
        All of their fields.
    path : str
        The file, for messages.
    digest : str
        SHA-256 of the file.
    """

    lines: tuple[int, ...]
    records: tuple[dict[str, Any], ...]
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Labelling:
    """What came of a run.

    Attributes
    ----------
    rows : int
        Rows of the input; each is one of the next three.
    kept, unsure, failed : int
        Labelled with enough confidence; with too little, or with no label; not labelled because
        of an error.
    calibrated : bool
        Whether confidences are probabilities of being right; else they are the teacher's scores.
    by_label : dict of str to int
        Rows kept of each label, sorted by label.
    gold : int
        Rows that had a label already.
    agreement, kept_agreement : float or None
        Of these, the share that the teacher labelled the same: of all, and of those that were
        kept. None without any.
    """

    rows: int
    kept: int
    unsure: int
    failed: int
    calibrated: bool
    by_label: dict[str, int]
    gold: int
    agreement: float | None
    kept_agreement: float | None


def read_unlabelled(path: Path) -> Unlabelled:
    """Read rows with a ``text``; see `sprat.train.data.read_records` for the errors."""
    rows = read_records(path, ("text",))
    lines, records = zip(*rows, strict=True)
    return Unlabelled(lines, records, str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def label(
    data: Unlabelled,
    teacher: Labeller,
    out: Path,
    *,
    asked: dict[str, Any],
    keep_above: float = KEEP_ABOVE,
    review: Path | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> Labelling:
    """Label every row, and write those whose confidence is high enough.

    A row that is kept has all fields of its input row and ``label``, ``confidence``, ``calibrated``
    and ``origin``, which says that a model labelled it, and which. A row for review has
    ``suggestion`` in place of a label, so that nobody trains on it unawares; the least sure ones
    come first. The same text is asked about once.

    Parameters
    ----------
    asked : dict
        What else the answers depend on (labels, instructions), as JSON: a stopped run goes on only
        where it is the same.
    keep_above : float
        Least confidence of a row that is kept, in [0, 1]. A stopped run may go on with another.
    review : Path, optional
        Where rows go that are not kept.
    restart : bool
        Begin anew instead of going on where a stopped run ended.

    Raises
    ------
    InvalidInput
        ``keep_above`` is out of range, or both outputs are one file.
    DataError, StoreError
        See `sprat.train.journal.Journal`; also when no row could be labelled at all.
    SpratError
        What the teacher raises. What it has said until then is kept for the next run.
    """
    if not 0 <= keep_above <= 1:
        raise InvalidInput(f"keep_above: expected 0 to 1, got {keep_above:g}", field="keep_above")
    if review is not None and review.absolute() == out.absolute():
        raise InvalidInput("review: the same file as the labelled rows", field="review")
    progress = Silent() if progress is None else progress
    run = {"run": "label", "teacher": teacher.name, "data": data.digest, **asked}
    with Journal(out, run, restart=restart) as journal:
        said = {row["line"]: Opinion(**row["opinion"]) for row in journal.rows}
        lines_of: defaultdict[str, list[int]] = defaultdict(list)
        for line, record in zip(data.lines, data.records, strict=True):
            if line not in said:
                lines_of[record["text"]].append(line)
        progress.phase(f"label with {teacher.name}", total=len(data.lines))
        progress.advance(len(said))
        texts = list(lines_of)
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            for index, opinion in teacher.label(batch):
                for line in lines_of[batch[index]]:
                    said[line] = opinion
                    journal.append({"line": line, "opinion": asdict(opinion)})
                    progress.advance(1)
        opinions = [said[line] for line in data.lines]
        if all(opinion.error for opinion in opinions):
            raise DataError(
                data.path, data.lines[0], f"no row could be labelled: {opinions[0].error}"
            )
        is_kept = [o.label != "" and o.confidence >= keep_above for o in opinions]
        files = {
            out: [
                _labelled(record, opinion, teacher.name)
                for record, opinion, kept in zip(data.records, opinions, is_kept, strict=True)
                if kept
            ]
        }
        if review is not None:
            files[review] = _for_review(data, opinions, is_kept)
        journal.finish(files)
    return _summary(data, opinions, is_kept)


def _labelled(record: dict[str, Any], opinion: Opinion, teacher: str) -> Row:
    return {
        **{key: value for key, value in record.items() if key not in _OURS},
        "label": opinion.label,
        "confidence": round(opinion.confidence, 6),
        "calibrated": opinion.calibrated,
        "origin": {"labelled_by": teacher},
    }


def _for_review(
    data: Unlabelled, opinions: Sequence[Opinion], is_kept: Sequence[bool]
) -> list[Row]:
    rows = zip(data.lines, data.records, opinions, is_kept, strict=True)
    unsure = sorted(
        ((o.confidence, line, record, o) for line, record, o, kept in rows if not kept),
        key=lambda row: row[:2],
    )
    return [
        {
            **{key: value for key, value in record.items() if key not in _OURS},
            "suggestion": opinion.label,
            "confidence": round(confidence, 6),
            **({"error": opinion.error} if opinion.error else {}),
            "line": line,
        }
        for confidence, line, record, opinion in unsure
    ]


def _summary(data: Unlabelled, opinions: Sequence[Opinion], is_kept: Sequence[bool]) -> Labelling:
    failed = sum(opinion.error != "" for opinion in opinions)
    kept = sum(is_kept)
    right = [
        (opinion.label == str(record["label"]).strip(), is_sure)
        for record, opinion, is_sure in zip(data.records, opinions, is_kept, strict=True)
        if record.get("label")
    ]
    return Labelling(
        rows=len(opinions),
        kept=kept,
        unsure=len(opinions) - kept - failed,
        failed=failed,
        calibrated=all(opinion.calibrated for opinion in opinions if not opinion.error),
        by_label=dict(
            sorted(
                Counter(o.label for o, sure in zip(opinions, is_kept, strict=True) if sure).items()
            )
        ),
        gold=len(right),
        agreement=_share([is_right for is_right, _ in right]),
        kept_agreement=_share([is_right for is_right, is_sure in right if is_sure]),
    )


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
