"""Evaluate the taggers that there are: on texts with spans, alone or beside another one."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.bundle import Bundle
from sprat.train.compare import Findings, FindingsComparison, compare_findings
from sprat.train.evaluate_spans import SpanReport, evaluate_spans, shown_spans, span_findings
from sprat.train.spans import SpanDataset
from sprat.train.tagger import States


@dataclass(frozen=True, slots=True, eq=False)
class SpanAssessment:
    """What a tagger finds, and how good that is."""

    report: SpanReport
    findings: Findings


def assess_tagger(
    bundle: Bundle, data: SpanDataset, *, states: States, seed: int = 0
) -> SpanAssessment:
    """Evaluate the last tier of a bundle on texts with spans.

    Parameters
    ----------
    states : callable
        Called once.
    seed : int
        Of the resampling, at least 0.

    Raises
    ------
    DataError
        When rows have fields that the bundle does not have: with their lines and its fields.
    """
    fields = bundle.manifest.labels
    data.check_fields(fields)
    tagger = bundle.taggers[-1]
    found = tagger.tag(data.texts, states(data.texts), data.requested)
    return SpanAssessment(
        evaluate_spans(found, data, tagger, seed=seed), span_findings(found, data, fields)
    )


def compare_taggers(
    data: SpanDataset, first: SpanAssessment, second: SpanAssessment, *, seed: int = 0
) -> FindingsComparison:
    """Compare two taggers on the same texts; they may have other models and fields."""
    wanted = tuple(map(shown_spans, data.spans))
    return compare_findings(wanted, first.findings, second.findings, lines=data.lines, seed=seed)
