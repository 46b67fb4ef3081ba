"""How good a fine-tuned classifier gets, and how long that takes beside SetFit: BANKING77.

The command is the one that a user would give: `sprat train --tiers finetune`. What is judged is the
int8 encoder that serves. Test rows are only ever evaluated on. SetFit (Tunstall et al., 2022) takes
part where ``SPRAT_SETFIT_PYTHON`` names an interpreter that has the package ``setfit``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.benchmarks import bundle, setfit_side
from sprat.benchmarks.harness import Context, Figure, Outcome, Table, figure
from sprat.benchmarks.workbench import Workbench, banking_rows, draw
from sprat.errors import SetupError
from sprat.pull import pull
from sprat.store import Store

DRAWS = 5
ROWS = 10
QUICK_LABELS = 4
QUICK = 5
"""A quick trial takes one row in so many."""
SETFIT_DRAWS = 1
"""It takes as long as many draws of ours."""
ITERATIONS = 20
"""Pairs of each kind that SetFit makes of a row: its default."""

NOISE = 0.9
"""Points that the accuracy of a draw moves by chance: two standard errors."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Shares in [0, 1], and the seconds of the whole command."""

    accuracy: float
    ece: float
    seconds: float


def run(context: Context) -> Outcome:
    """Fine-tune on each draw, beside SetFit on the first ones, then on all rows."""
    train, test = (banking_rows(context, part) for part in ("train", "test"))
    if context.quick:
        kept = sorted({row["label"] for row in train})[:QUICK_LABELS]
        train, test = ([r for r in rows if r["label"] in kept][::QUICK] for rows in (train, test))
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as folder_name:
        store = context.store
        pull(bundle.ENCODER, store)
        work = Workbench(Path(folder_name), store.root)
        work.write("test", test)
        manifest, folder = store.model(bundle.ENCODER)
        assert manifest.source_weights is not None
        encoder = _published(folder, manifest.source_weights, work.folder / "encoder")
        ours, theirs = [], []
        for seed in range(1 if context.quick else DRAWS):
            name = f"bench-draw-{seed}"
            chosen = draw([row["label"] for row in train], ROWS, seed)
            work.write(name, (train[at] for at in chosen))
            ours.append(_ours(work, store, name, quick=context.quick))
            context.say(f"{ROWS} rows a label, draw {seed + 1}: {ours[-1]}")
            if seed < SETFIT_DRAWS and "SPRAT_SETFIT_PYTHON" in os.environ:
                theirs.append(_setfit(work, name, encoder, quick=context.quick))
                context.say(f"SetFit: {theirs[-1]}")
        work.write("bench-all", train)
        whole = _ours(work, store, "bench-all", quick=context.quick)
        context.say(f"all {len(train)} rows: {whole}")
    return Outcome(
        parameters={
            "model": bundle.ENCODER,
            "train_rows": len(train),
            "test_rows": len(test),
            "rows_a_label": ROWS,
            "draws": len(ours),
            "setfit": theirs[0]["versions"] if theirs else None,
            "setfit_iterations": ITERATIONS,
        },
        method=(
            "`sprat train --tiers finetune` with its defaults: all layers of the encoder are "
            "trained, it is converted to int8, and that is evaluated on the published test rows, "
            "of which 6 repeat a training text. Ten rows a label are drawn at random (seeds 0 to "
            "4); mean of the draws. Settings were chosen on training rows that no draw has. Our "
            "time is that of the whole command, with loading, conversion and evaluation; SetFit's "
            f"(its defaults, {ITERATIONS} iterations) that of training alone, on the first draw, "
            "right after ours."
        ),
        figures=(
            figure("accuracy_all", "accuracy, all rows", "", [whole.accuracy], at_least=0.938),
            figure(
                "accuracy_ten",
                "accuracy, 10 rows a label",
                "",
                [statistics.mean(each.accuracy for each in ours)],
                at_least=0.865,
            ),
            figure("ece_all", "calibration error, all rows", "", [whole.ece], at_most=0.03),
            figure(
                "ece_ten",
                "calibration error, 10 rows a label",
                "",
                [statistics.mean(each.ece for each in ours)],
                at_most=0.03,
            ),
            *_beside(ours, theirs),
        ),
        table=Table(
            columns=("training rows", "by", "accuracy", "ECE", "seconds"),
            rows=(
                *(
                    (f"10 a label, draw {i + 1}", "sprat", *_row(each))
                    for i, each in enumerate(ours)
                ),
                *(
                    (
                        f"10 a label, draw {i + 1}",
                        "SetFit",
                        round(each["accuracy"], 4),
                        None,
                        round(each["seconds"]),
                    )
                    for i, each in enumerate(theirs)
                ),
                ("all", "sprat", *_row(whole)),
            ),
        ),
    )


def _published(folder: Path, weights: str, target: Path) -> Path:
    """A folder with an encoder as it was published: weights and tokenizer side by side."""
    target.mkdir()
    for path in (*(folder / weights).parent.iterdir(), folder / "tokenizer.json"):
        (target / path.name).symlink_to(path)
    return target


def _beside(ours: list[_Run], theirs: list[dict[str, Any]]) -> list[Figure]:
    """Accuracy and time against SetFit's, where it took part."""
    if not theirs:
        return []
    pairs = list(zip(ours, theirs, strict=False))
    gain = statistics.mean(100 * (mine.accuracy - other["accuracy"]) for mine, other in pairs)
    shares = [mine.seconds / other["seconds"] for mine, other in pairs]
    return [
        figure("setfit_gain", "points of accuracy over SetFit", "points", [gain], at_least=-NOISE),
        figure("setfit_time", "time, share of SetFit's", "", shares, at_most=0.5),
    ]


def _row(each: _Run) -> tuple[float, float, float]:
    return round(each.accuracy, 4), round(each.ece, 4), round(each.seconds)


def _ours(work: Workbench, store: Store, name: str, *, quick: bool) -> _Run:
    started = time.perf_counter()
    report = json.loads(
        work.sprat(
            *("train", str(work.rows(name)), "--base", bundle.ENCODER, "--tiers", "finetune"),
            *("--test", str(work.rows("test")), "-o", str(work.folder / name), "--json"),
            *(("--epochs", "1") if quick else ()),
        )
    )
    seconds = time.perf_counter() - started
    store.remove(f"{name}-encoder")
    return _Run(report["accuracy"], report["ece"], seconds)


def _setfit(work: Workbench, name: str, encoder: Path, *, quick: bool) -> dict[str, Any]:
    python, script = os.environ["SPRAT_SETFIT_PYTHON"], setfit_side.__file__
    rows = (str(work.rows(name)), str(work.rows("test")), str(1 if quick else ITERATIONS))
    done = subprocess.run(
        [python, script, str(encoder), *rows], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or ["it said nothing"]
        raise SetupError(f"SetFit ended with status {done.returncode}: {reason[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
