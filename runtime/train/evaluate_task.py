"""How good a named task of a generative model is: asked as a server would be, on labelled rows."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.bundle_manifest import Calibration, ReportSummary
from sprat.inprocess import Runtime
from sprat.progress import Progress
from sprat.train.adapter_rows import Rows, Spec
from sprat.train.asked import ASKED_AT_ONCE, log_probabilities
from sprat.train.evaluate import SURE, evaluate
from sprat.train.evaluate_extract import ExtractReport, evaluate_extract
from sprat.train.evaluate_transform import (
    Rewritten,
    TransformReport,
    Wanted,
    evaluate_transform,
)
from sprat.train.report import Report
from sprat.values import Extraction, ExtractSpec, LabelSet

TaskReport = Report | ExtractReport | TransformReport


def evaluate_task(
    runtime: Runtime,
    task: str,
    spec: Spec,
    rows: Rows,
    progress: Progress,
    seed: int,
    *,
    threshold: float = SURE,
) -> TaskReport:
    """Evaluate a named task on rows.

    Parameters
    ----------
    spec : LabelSet, ExtractSpec or TransformSpec
        What the task asks.
    seed : int
        Of the resampling; at least 0.
    threshold : float
        Score from which on a label counts as sure, in (0, 1].

    Raises
    ------
    DataError
        Rows have other labels, or targets that do not fit the schema: their lines.
    """
    progress.phase(f"evaluate on {len(rows)} rows", total=len(rows))
    if isinstance(spec, LabelSet):
        names = [label.name for label in spec.labels]
        targets_n = rows.dataset().targets(names)
        asked = log_probabilities(
            lambda texts: runtime.classify(task, texts, partial=True),
            names,
            rows.dataset(),
            progress,
        )
        return evaluate(
            asked,
            targets_n,
            labels=names,
            lines=rows.lines,
            calibration=Calibration(temperature=1.0),
            threshold=threshold,
            seed=seed,
        )
    if isinstance(spec, ExtractSpec):
        found: list[Extraction | None] = []
        for texts in _batches(rows.texts):
            found += runtime.extract(task, texts, partial=True).items
            progress.advance(len(texts))
        return evaluate_extract(found, rows.answers, lines=rows.lines, seed=seed)
    answers = []
    for text, inputs in zip(rows.texts, rows.inputs, strict=True):
        chunks = list(runtime.transform(task, text, inputs=inputs))
        answers.append(
            Rewritten("".join(chunk.text for chunk in chunks), chunks[-1].finish_reason == "stop")
        )
        progress.advance(1)
    wanted = Wanted(rows.texts, rows.answers, rows.inputs, rows.lines, rows.path)
    grammar = spec.grammar
    schema = grammar.source if grammar is not None and grammar.kind == "json_schema" else None
    return evaluate_transform(answers, wanted, schema=schema, seed=seed)


def summary(report: TaskReport) -> ReportSummary:
    """The figures of a report with their intervals."""
    if isinstance(report, Report):
        return report.summary()
    return ReportSummary(n=report.n, metrics=report.metrics)


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[at : at + ASKED_AT_ONCE] for at in range(0, len(texts), ASKED_AT_ONCE)]
