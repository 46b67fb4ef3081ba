"""How good a classifier gets on a frozen encoder: BANKING77, all training rows and ten a label.

Vectors are computed once; everything behind them is what ``sprat train`` does. Test rows are only
ever evaluated on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sprat.benchmarks import bundle, data
from sprat.benchmarks.harness import Context, Outcome, Table, figure
from sprat.benchmarks.workbench import draw
from sprat.errors import SetupError
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.train.data import Dataset, read
from sprat.train.evaluate import evaluate
from sprat.train.fit import fit_head
from sprat.train.report import Report
from sprat.train.split import assign_folds
from sprat.values import FloatArray

DRAWS = 5
ROWS = 10
QUICK_LABELS = 8
BATCH = 256


def run(context: Context) -> Outcome:
    """Train on all rows and on each draw, evaluate on the test rows."""
    train, test = (_rows(context, name) for name in ("train", "test"))
    if context.quick:
        kept = sorted(set(train.labels))[:QUICK_LABELS]
        train, test = (_only(rows, kept) for rows in (train, test))
    encoder = pull(bundle.ENCODER, context.store)
    context.say(f"embed {len(train) + len(test)} texts")
    with Runtime(models=[encoder.name], store=context.store) as runtime:
        vectors, test_vectors = (_embed(runtime, rows.texts) for rows in (train, test))
    context.say(f"all {len(train)} rows")
    whole, seconds = _train(train, vectors, test, test_vectors)
    draws = []
    for seed in range(1 if context.quick else DRAWS):
        context.say(f"{ROWS} rows a label, draw {seed + 1}")
        rows = draw(train.labels, ROWS, seed)
        part = _train(train.take(rows), vectors[rows], test, test_vectors)
        draws.append(part[0])
    accuracies = [report.accuracy for report in draws]
    errors = [report.ece for report in draws]
    return Outcome(
        parameters={
            "model": f"{encoder.name} {encoder.quantization}",
            "train_rows": len(train),
            "test_rows": len(test),
            "rows_a_label": ROWS,
            "draws": len(draws),
        },
        method=(
            "Logistic regression on frozen sentence vectors, regularization and calibration by "
            "cross-validation within the training rows, as `sprat train` does it; accuracy and "
            "calibration error (15 bins of equally many rows) on the published test rows, of which "
            "6 repeat a training text. Ten rows a label are drawn at random (seeds 0 to 4); mean "
            "of the draws. The time is that of fitting the head, on one thread, without embedding."
        ),
        figures=(
            figure("accuracy_all", "accuracy, all rows", "", [whole.accuracy], at_least=0.93),
            figure(
                "accuracy_ten",
                "accuracy, 10 rows a label",
                "",
                [statistics.mean(accuracies)],
                at_least=0.84,
            ),
            figure("ece_all", "calibration error, all rows", "", [whole.ece], at_most=0.03),
            figure(
                "ece_ten",
                "calibration error, 10 rows a label",
                "",
                [statistics.mean(errors)],
                at_most=0.03,
            ),
            figure("training_all", "training, all rows", "s", [seconds], at_most=60),
        ),
        table=Table(
            columns=("training rows", "accuracy", "macro-F1", "ECE", "noise of ECE", "AURC"),
            rows=tuple(
                (name, *(round(value, 4) for value in _row(report)))
                for name, report in (
                    ("all", whole),
                    *((f"10 a label, draw {i + 1}", r) for i, r in enumerate(draws)),
                )
            ),
        ),
        raw={"all": _figures(whole), "draws": [_figures(report) for report in draws]},
    )


def _rows(context: Context, part: str) -> Dataset:
    path: Path | None = data.find(f"banking77.{part}.jsonl", context.checkout)
    if path is None:
        raise SetupError(
            f"banking77.{part}.jsonl is not on this machine; SPRAT_TEST_DATA names its folder"
        )
    return read(path)


def _only(rows: Dataset, labels: Sequence[str]) -> Dataset:
    return rows.take(i for i, label in enumerate(rows.labels) if label in labels)


def _embed(runtime: Runtime, texts: Sequence[str]) -> FloatArray:
    return np.concatenate(
        [
            runtime.embed(bundle.ENCODER, texts[i : i + BATCH], truncation="truncate").vectors
            for i in range(0, len(texts), BATCH)
        ]
    )


def _train(
    train: Dataset, vectors: FloatArray, test: Dataset, test_vectors: FloatArray
) -> tuple[Report, float]:
    """The evaluation of a head that was fitted on these rows, and the seconds that it took."""
    labels = sorted(set(train.labels))
    started = time.perf_counter()
    head = fit_head(vectors, train.targets(labels), assign_folds(train, seed=0))
    seconds = time.perf_counter() - started
    report = evaluate(
        test_vectors @ head.weight.T + head.bias,
        test.targets(labels),
        labels=labels,
        lines=test.lines,
        calibration=head.calibration.calibration,
    )
    return report, seconds


def _row(report: Report) -> tuple[float, ...]:
    return report.accuracy, report.macro_f1, report.ece, report.ece_noise, report.aurc


def _figures(report: Report) -> dict[str, Any]:
    return {name: report.interval(name).model_dump() for name in report.intervals}
