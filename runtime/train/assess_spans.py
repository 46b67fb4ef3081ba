"""Evaluate the tiers of extract tasks that there are, alone or beside another one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.progress import Progress
from sprat.tagger import all_read
from sprat.train.asked import Ask
from sprat.train.asked_fields import AskedFields, values
from sprat.train.compare import RIGHT, Findings, FindingsComparison, compare_findings
from sprat.train.evaluate_extract import ExtractReport, value_findings
from sprat.train.evaluate_spans import SpanReport, evaluate_spans, shown_spans, span_findings
from sprat.train.spans import SpanDataset
from sprat.train.tagger import States, whole_confidences


@dataclass(frozen=True, slots=True, eq=False)
class SpanAssessment:
    """What a tier finds, and how good that is.

    Attributes
    ----------
    report : SpanReport or ExtractReport
        Of a tagger, and of a tier that asks.
    found : tuple of str
        What is found in each text, as JSON in which every field has a list; empty where there is
        no value.
    findings : Findings or None
        The spans of a tagger; None of a tier that asks.
    """

    report: SpanReport | ExtractReport
    found: tuple[str, ...]
    findings: Findings | None = None


def assess_tagger(
    bundle: Bundle, data: SpanDataset, *, states: States, seed: int = 0
) -> SpanAssessment:
    """Evaluate the last tier of a bundle, a tagger, on texts with spans.

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
    readings = all_read(tagger.read(data.texts, states(data.texts), data.requested))
    found = [each.spans for each in readings]
    sure = whole_confidences(readings, bundle.manifest.tiers[-1].whole)
    return SpanAssessment(
        evaluate_spans(found, data, tagger, confidence_n=sure, seed=seed),
        values(data.texts, found, fields),
        span_findings(found, data, fields),
    )


def assess_asked(
    manifest: BundleManifest, data: SpanDataset, *, ask: Ask, seed: int = 0, progress: Progress
) -> SpanAssessment:
    """Evaluate the last tier of a bundle, which asks, on texts with spans.

    Parameters
    ----------
    ask : callable
        Asks it.

    See `assess_tagger` for the others and for what is raised.
    """
    kind = AskedFields()
    kind.check(manifest, data)
    said = kind.say(manifest, ask, data, progress)
    report = kind.evaluate(manifest, said, data, manifest.tiers[-1], seed=seed)
    return SpanAssessment(report, tuple(_lists(each.value) for each in said.found))


def _lists(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    return json.dumps({name: [v] if isinstance(v, str) else v for name, v in value.items()})


def compare_tiers(
    data: SpanDataset, first: SpanAssessment, second: SpanAssessment, *, seed: int = 0
) -> FindingsComparison:
    """Compare two on the same texts; they may have other models and fields.

    Spans of two taggers are compared as places, anything else as strings.
    """
    one, other = first.findings, second.findings
    if one is not None and other is not None:
        wanted = tuple(map(shown_spans, data.spans))
        return compare_findings(wanted, one, other, lines=data.lines, seed=seed)
    gold = values(data.texts, data.spans, data.fields)
    one, other = (value_findings(each.found, gold, needs_value=True) for each in (first, second))
    return compare_findings([RIGHT] * len(data), one, other, lines=data.lines, seed=seed)
