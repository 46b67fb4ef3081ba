"""How good a named task of a generative model is: asked as a server would be, on labelled rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sprat.bundle_manifest import Calibration
from sprat.inprocess import Runtime
from sprat.progress import Progress
from sprat.train.adapter_rows import Rows, Spec
from sprat.train.asked import ASKED_AT_ONCE
from sprat.train.asked_labels import log_probabilities
from sprat.train.compare import (
    RIGHT,
    Comparison,
    FindingsComparison,
    RewritingComparison,
    compare,
    compare_findings,
    compare_rewriting,
)
from sprat.train.evaluate import SURE, evaluate
from sprat.train.evaluate_extract import ExtractReport, evaluate_extract, value_findings
from sprat.train.evaluate_transform import (
    Rewritten,
    TransformReport,
    check_targets,
    evaluate_transform,
    score_rows,
)
from sprat.train.report import Report
from sprat.values import Extraction, ExtractSpec, FloatArray, LabelSet, TransformSpec

TaskReport = Report | ExtractReport | TransformReport
TaskComparison = Comparison | FindingsComparison | RewritingComparison


@dataclass(frozen=True, slots=True, eq=False)
class TaskAnswers:
    """What a named task answers to rows.

    Attributes
    ----------
    spec : LabelSet, ExtractSpec or TransformSpec
        What it asks.
    rows : Rows
        N rows.
    given : tuple
        N answers: log-probabilities of the labels, float32[K]; `Extraction` or None; `Rewritten`.
    """

    spec: Spec
    rows: Rows
    given: tuple[FloatArray | Extraction | Rewritten | None, ...]

    def take(self, rows: Iterable[int]) -> TaskAnswers:
        """Those of some rows."""
        rows = tuple(rows)
        return TaskAnswers(self.spec, self.rows.take(rows), tuple(self.given[row] for row in rows))

    def judge(self, *, threshold: float = SURE, seed: int = 0) -> TaskReport:
        """How good they are.

        Parameters
        ----------
        threshold : float
            Score from which on a label counts as sure, in (0, 1].
        seed : int
            Of the resampling; at least 0.

        """
        if isinstance(self.spec, LabelSet):
            names = self._labels()
            return evaluate(
                self._log_p(),
                self.rows.dataset().targets(names),
                labels=names,
                lines=self.rows.lines,
                calibration=Calibration(temperature=1.0),
                threshold=threshold,
                seed=seed,
            )
        if isinstance(self.spec, ExtractSpec):
            return evaluate_extract(
                self._extractions(), self.rows.answers, lines=self.rows.lines, seed=seed
            )
        return evaluate_transform(self._texts(), self.rows, schema=_schema(self.spec), seed=seed)

    def compare(self, other: TaskAnswers, *, seed: int = 0) -> TaskComparison:
        """These beside those of another task of the same kind, to the same rows.

        Of extract and transform each is right by its own schema and prompt.
        """
        lines = self.rows.lines
        if isinstance(self.spec, LabelSet):
            first, second = (
                [each._labels()[at] for at in each._log_p().argmax(axis=1).tolist()]
                for each in (self, other)
            )
            return compare(self.rows.answers, first, second, lines=lines, seed=seed)
        if isinstance(self.spec, ExtractSpec):
            one, two = (
                value_findings(
                    [found.json if found else "" for found in each._extractions()],
                    each.rows.answers,
                )
                for each in (self, other)
            )
            return compare_findings([RIGHT] * len(lines), one, two, lines=lines, seed=seed)
        scores = [
            score_rows(each._texts(), each.rows, schema=_schema(each.spec))
            for each in (self, other)
        ]
        return compare_rewriting(*scores, lines=lines, seed=seed)

    def _labels(self) -> list[str]:
        assert isinstance(self.spec, LabelSet)
        return [label.name for label in self.spec.labels]

    def _log_p(self) -> FloatArray:
        return np.stack([each for each in self.given if isinstance(each, np.ndarray)])

    def _extractions(self) -> list[Extraction | None]:
        return [each if isinstance(each, Extraction) else None for each in self.given]

    def _texts(self) -> list[Rewritten]:
        return [each for each in self.given if isinstance(each, Rewritten)]


def ask(runtime: Runtime, task: str, spec: Spec, rows: Rows, progress: Progress) -> TaskAnswers:
    """Ask a named task of a runtime about rows.

    Parameters
    ----------
    spec : LabelSet, ExtractSpec or TransformSpec
        What the task asks.

    Raises
    ------
    DataError
        Rows have other labels, or targets that do not fit the schema: their lines.
    """
    progress.phase(f"evaluate on {len(rows)} rows", total=len(rows))
    given: list[FloatArray | Extraction | Rewritten | None] = []
    if isinstance(spec, LabelSet):
        names = [label.name for label in spec.labels]
        rows.dataset().targets(names)
        given.extend(
            log_probabilities(
                lambda few: runtime.classify(task, few.texts, partial=True),
                names,
                rows.dataset(),
                progress,
            )
        )
    elif isinstance(spec, ExtractSpec):
        for texts in _batches(rows.texts):
            given += runtime.extract(task, texts, partial=True).items
            progress.advance(len(texts))
    else:
        if (schema := _schema(spec)) is not None:
            check_targets(rows, schema)
        for text, inputs in zip(rows.texts, rows.inputs, strict=True):
            chunks = list(runtime.transform(task, text, inputs=inputs))
            is_whole = chunks[-1].finish_reason == "stop"
            given.append(Rewritten("".join(chunk.text for chunk in chunks), is_whole))
            progress.advance(1)
    return TaskAnswers(spec, rows, tuple(given))


def _schema(spec: Spec) -> str | None:
    """The JSON Schema that rewritten texts have to fit."""
    assert isinstance(spec, TransformSpec)
    grammar = spec.grammar
    return grammar.source if grammar is not None and grammar.kind == "json_schema" else None


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[at : at + ASKED_AT_ONCE] for at in range(0, len(texts), ASKED_AT_ONCE)]
