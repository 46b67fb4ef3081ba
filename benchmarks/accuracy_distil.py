"""How much a student loses whose rows were labelled by a teacher: BANKING77, the static tier.

The commands are those that a user would give: `sprat train`, `sprat label`, `sprat train`, `sprat
eval`. Test rows are only ever evaluated on.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sprat.benchmarks import bundle
from sprat.benchmarks.harness import Context, Outcome, Table, figure
from sprat.benchmarks.workbench import Row, Workbench, banking_rows, parse
from sprat.pull import pull

ROWS = 5_000
SEED = 7
KEEP_ABOVE = 0.5
STUDENT = f"{bundle.ENCODER}-static"
QUICK_LABELS = 4
QUICK_ROWS = 200
GAP = 2.0
"""Goal: most points of accuracy that a student loses."""


@dataclass(frozen=True, slots=True)
class _Student:
    """What came of one teacher's labels.

    Attributes
    ----------
    kept : float
        Share of the rows that the teacher was sure of.
    right : float
        Share of these that have their gold label.
    accuracy : float
        Of the student, on the test rows.
    """

    kept: float
    right: float
    accuracy: float


def run(context: Context) -> Outcome:
    """Train a student on gold and one on each teacher's labels, evaluate them on the test rows."""
    pull(bundle.ENCODER, context.store)
    with tempfile.TemporaryDirectory() as name:
        work = _Work(Path(name), context.store.root)
        train, test = (banking_rows(context, part) for part in ("train", "test"))
        if context.quick:
            labels = sorted({row["label"] for row in train})[:QUICK_LABELS]
            train, test = ([r for r in rows if r["label"] in labels] for rows in (train, test))
        random.Random(SEED).shuffle(train)
        count = QUICK_ROWS if context.quick else ROWS
        chosen, others = train[:count], train[count:]
        work.write("test", test)
        anew = () if context.quick else ("--replace",)
        work.sprat("static", bundle.ENCODER, "-o", STUDENT, *anew)
        work.write("gold", chosen)
        gold = work.train("gold", STUDENT)
        context.say(f"student by gold: {gold:.4f}")
        students, teachers = {}, {}
        for title, rows in (("all", train), ("others", others)):
            work.write(title, rows)
            teachers[title] = work.train(title, bundle.ENCODER)
            context.say(f"teacher by {title}: {teachers[title]:.4f}")
            students[title] = work.student(title, chosen)
            context.say(f"its student: {students[title]}")
    gap, strict_gap = (100 * (gold - students[title].accuracy) for title in ("all", "others"))
    return Outcome(
        parameters={
            "teacher": bundle.ENCODER,
            "student": STUDENT,
            "texts": len(chosen),
            "train_rows": len(train),
            "test_rows": len(test),
            "keep_above": KEEP_ABOVE,
            "seed": SEED,
        },
        method=(
            f"{len(chosen)} texts are drawn from the training file of BANKING77 and lose their "
            "labels. A teacher (a head on the encoder) labels them, and a student (a head on the "
            f"static model) learns the rows of which it is at least {KEEP_ABOVE:.0%} sure; beside "
            "it the same head learns the same texts by their gold labels. The teacher of the goal "
            "has learned all training rows, so it knows the gold labels of these texts: what is "
            "measured is what calibration, dropping and fitting lose. The other teacher has "
            "learned the rest of the file only and sees the texts for the first time. Accuracy on "
            "the test file, of which 6 rows repeat a training text; one draw."
        ),
        figures=(
            figure("gold", "student by gold labels", "", [gold]),
            figure("student", "student by a teacher of all rows", "", [students["all"].accuracy]),
            figure("gap", "points lost", "points", [gap], at_most=GAP),
            figure("strict_gap", "points lost, teacher of other rows", "points", [strict_gap]),
        ),
        table=Table(
            columns=(
                "teacher",
                "its accuracy",
                "rows kept",
                "of these right",
                "student's accuracy",
            ),
            rows=tuple(
                (
                    f"learned {title} rows",
                    round(teachers[title], 4),
                    round(student.kept, 4),
                    round(student.right, 4),
                    round(student.accuracy, 4),
                )
                for title, student in students.items()
            ),
        ),
    )


class _Work(Workbench):
    """Teachers and students."""

    def train(self, name: str, base: str) -> float:
        """Train the bundle ``name`` on the rows of that name; its accuracy on the test rows."""
        out, test = self.folder / name, str(self.rows("test"))
        arguments = ("--base", base, "--test", test, "-o", str(out))
        self.sprat("train", str(self.rows(name)), *arguments)
        report = json.loads(self.sprat("eval", str(out), test, "--json"))
        return float(report["accuracy"])

    def student(self, teacher: str, rows: Sequence[Row]) -> _Student:
        """Train a student on rows by the labels of a teacher."""
        name = f"student-of-{teacher}"
        self.write("texts", [{"text": row["text"], "id": i} for i, row in enumerate(rows)])
        self.sprat(
            *("label", str(self.rows("texts")), "--with", str(self.folder / teacher)),
            *("--keep-above", str(KEEP_ABOVE), "--truncate", "-o", str(self.rows(name))),
        )
        labelled = parse(self.rows(name))
        right = sum(row["label"] == rows[row["id"]]["label"] for row in labelled)
        return _Student(
            kept=len(labelled) / len(rows),
            right=right / max(1, len(labelled)),
            accuracy=self.train(name, STUDENT),
        )
