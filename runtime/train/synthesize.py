"""Let a larger model write training rows: asked in many ways, cleaned, and judged again.

What is written once and never checked teaches a student the writer's mistakes. So each text is
compared with all that were written before, and a judge, who is not told for which label it was
written, has to give it that label again (agreement filtering, as in round-trip consistency:
Alberti et al., 2019).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sprat.errors import DataError, InvalidInput
from sprat.progress import Progress, Silent
from sprat.remote import Completion
from sprat.tasks.choose import MOST_LABELS, check_options, line
from sprat.tokenizer import check_text
from sprat.train.journal import Journal, Row
from sprat.train.novelty import Novelty
from sprat.train.teacher import Labeller, Opinion, Writer
from sprat.values import Label, Sampling

TEXTS = 5
"""Texts that one answer is asked for."""
ANSWERS = 4
"""Answers of one round."""
ROUNDS = 4
"""A label is given up after so many times the rounds that it would take if every text were kept."""
SHOWN_EXAMPLES = 3
SHOWN_LABELS = 20
"""Other labels that a prompt names: their texts are what the new ones must not be."""
AGREE_ABOVE = 0.5
LEAST_CHARACTERS = 3
MOST_CHARACTERS = 1000
"""Of a text. What is shorter or longer is no message but a slip of the writer."""

STYLES = (
    "short and plain",
    "two or three sentences with details",
    "informal, as typed on a phone",
    "formal and polite",
    "annoyed",
    "as a question",
    "with a typo or two",
    "indirect, without the obvious words",
)
"""One is drawn for each round: texts by one prompt alone are much alike (Yu et al., 2023)."""

_MARK = re.compile(r"^(?:[-*\u2022\u2013\u2014]|\(?\d{1,3}[.):])\s+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}


@dataclass(frozen=True, slots=True)
class SeededLabel:
    """A label to write texts for.

    Attributes
    ----------
    label : Label
        Its name, and what it means.
    examples : tuple of str
        Real texts of it: the writer is shown some, and must not repeat them.
    """

    label: Label
    examples: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """What became of the texts that were written for a label.

    Attributes
    ----------
    kept : int
        In the output, with those that are over and above what was asked for.
    malformed : int
        Too short, too long, or the label itself.
    repeated : int
        The same as another text or an example, or nearly.
    disagreed : int
        The judge gave them another label, or none.
    unsure : int
        The judge was not sure enough of the label.
    """

    kept: int = 0
    malformed: int = 0
    repeated: int = 0
    disagreed: int = 0
    unsure: int = 0

    def add(self, other: Tally) -> None:
        """Count what another tally has."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def synthesize(
    labels: Sequence[SeededLabel],
    writer: Writer,
    judge: Labeller,
    out: Path,
    *,
    per_label: int,
    about: str = "",
    agree_above: float = AGREE_ABOVE,
    temperature: float = 0.9,
    seed: int = 0,
    restart: bool = False,
    progress: Progress | None = None,
) -> dict[str, Tally]:
    """Write labelled rows, ``per_label`` of each label where the writer is good enough.

    Each row has ``text``, ``label``, the judge's ``confidence``, ``calibrated``, and ``origin``
    with ``written_by`` and ``judged_by``: it is marked as no real text. Evaluate on real ones.

    Parameters
    ----------
    labels : sequence of SeededLabel
        2 to 256, no two alike.
    judge : Labeller
        Labels each text, without knowing what it was written for.
    per_label : int
        Rows of each label, from 1.
    about : str
        Who writes such texts to whom, such as ``messages of customers to a bank``.
    agree_above : float
        Least confidence of the judge, in [0, 1].
    temperature : float
        Of the writer, above 0.
    seed : int
        From 0. A local writer repeats itself with it, as far as the batches are the same.
    restart : bool
        Begin anew instead of going on where a stopped run ended.

    Returns
    -------
    dict of str to Tally
        By label.

    Raises
    ------
    InvalidInput
        A label or a number cannot be used.
    DataError, StoreError
        See `sprat.train.journal.Journal`; also when not one row was kept: then nothing is written.
    SpratError
        What writer and judge raise. The rounds until then are kept for the next run.
    """
    _check(labels, about, per_label, agree_above, temperature)
    progress = Silent() if progress is None else progress
    run = {
        "run": "synthesize",
        "writer": writer.name,
        "judge": judge.name,
        # As JSON has it.
        "labels": [{**asdict(each), "examples": list(each.examples)} for each in labels],
        "about": about,
        "agree_above": agree_above,
        "temperature": temperature,
        "seed": seed,
    }
    most_rounds = ROUNDS * -(-per_label // (TEXTS * ANSWERS)) + ROUNDS
    with Journal(out, run, restart=restart) as journal:
        novelty = Novelty()
        for each in labels:
            for example in each.examples:
                novelty.add(example)
        tallies = {each.label.name: Tally() for each in labels}
        rounds = dict.fromkeys(tallies, 0)
        made: dict[str, list[Row]] = {name: [] for name in tallies}

        def note(row: Row) -> None:
            name = row["label"]
            rounds[name] += 1
            tallies[name].add(Tally(**row["tally"]))
            made[name] += row["rows"]

        for row in journal.rows:
            note(row)
            for text in row["seen"]:
                novelty.add(text)
        for number, each in enumerate(labels):
            name = each.label.name
            progress.phase(f"write {name}", total=per_label)
            progress.advance(min(per_label, len(made[name])))
            while len(made[name]) < per_label and rounds[name] < most_rounds:
                draw = random.Random(f"{seed}/{number}/{rounds[name]}")
                prompt = _prompt(each, labels, about, [row["text"] for row in made[name]], draw)
                sampling = Sampling(
                    max_tokens=64 * TEXTS,
                    temperature=temperature,
                    top_p=0.95,
                    seed=draw.randrange(2**31),
                )
                answers = writer.write(prompt, sampling, ANSWERS)
                row = _judged(name, _texts(answers), novelty, judge, agree_above)
                journal.append(row)
                note(row)
                progress.advance(len(row["rows"]))
        origin = {"written_by": writer.name, "judged_by": judge.name}
        rows = [
            {"text": row["text"], "label": name, **row["judged"], "origin": origin}
            for name, kept in made.items()
            for row in kept[:per_label]
        ]
        if not rows:
            written = sum(sum(asdict(tally).values()) for tally in tallies.values())
            raise DataError(
                str(out),
                0,
                f"none of {written} texts was kept, nothing is written; see the labels' "
                "descriptions, or use a better model",
            )
        journal.finish({out: rows})
    return tallies


def _check(
    labels: Sequence[SeededLabel],
    about: str,
    per_label: int,
    agree_above: float,
    temperature: float,
) -> None:
    check_options([each.label for each in labels], 2, MOST_LABELS, "labels")
    for number, each in enumerate(labels):
        for at, example in enumerate(each.examples):
            check_text(example, field=f"labels[{number}].examples[{at}]")
    if about:
        check_text(about, field="about")
    if per_label < 1:
        raise InvalidInput(f"per_label: expected 1 or more, got {per_label}", field="per_label")
    if not 0 <= agree_above <= 1:
        raise InvalidInput(
            f"agree_above: expected 0 to 1, got {agree_above:g}", field="agree_above"
        )
    if not 0 < temperature <= 10:
        raise InvalidInput(
            f"temperature: expected above 0, at most 10, got {temperature:g}", field="temperature"
        )


def _prompt(
    each: SeededLabel,
    labels: Sequence[SeededLabel],
    about: str,
    written: Sequence[str],
    draw: random.Random,
) -> str:
    others = [other.label.name for other in labels if other is not each]
    named = draw.sample(others, min(SHOWN_LABELS, len(others)))
    # Half real ones, where there are some; what was written lately shows what to do otherwise.
    shown = draw.sample(each.examples, min(SHOWN_EXAMPLES, len(each.examples)))
    shown += draw.sample(list(written), min(SHOWN_EXAMPLES, len(written)))
    parts = [
        f"Write {TEXTS} different texts: {about or 'messages that people send'}.",
        "All of them are of this kind:",
        line(each.label),
        f"None of them may be of these kinds: {', '.join(named)}.",
        f"Write them {draw.choice(STYLES)}.",
    ]
    if shown:
        parts += ["There are these already; write others:", *(f"- {text}" for text in shown)]
    parts.append("One text a line, nothing else.")
    return "\n".join(parts)


def _texts(answers: Iterable[Completion]) -> list[str]:
    """The texts of answers that list them: one a line, without numbers, bullets and quotes."""
    found = []
    for answer in answers:
        listed = answer.text.splitlines()
        # What was cut off is half a text.
        for source in listed if answer.complete else listed[:-1]:
            text = _MARK.sub("", source.strip()).strip()
            if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
                text = text[1:-1].strip()
            if text:
                found.append(text)
    return found


def _judged(
    name: str, texts: Sequence[str], novelty: Novelty, judge: Labeller, agree_above: float
) -> Row:
    """A round's line of the journal."""
    tally = Tally()
    fresh = []
    for text in texts:
        is_message = LEAST_CHARACTERS <= len(text) <= MOST_CHARACTERS
        if not is_message or text.casefold().strip(".!?:") == name.casefold():
            tally.malformed += 1
        elif not novelty.add(text):
            tally.repeated += 1
        else:
            fresh.append(text)
    opinions: dict[int, Opinion] = dict(judge.label(fresh)) if fresh else {}
    rows: list[Row] = []
    for index, text in enumerate(fresh):
        opinion = opinions[index]
        if opinion.label != name:
            tally.disagreed += 1
        elif opinion.confidence < agree_above:
            tally.unsure += 1
        else:
            tally.kept += 1
            judged: dict[str, Any] = {
                "confidence": round(opinion.confidence, 6),
                "calibrated": opinion.calibrated,
            }
            rows.append({"text": text, "judged": judged})
    return {"label": name, "tally": asdict(tally), "rows": rows, "seen": fresh}
