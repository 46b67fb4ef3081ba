"""Evaluate the extract bundles that there are: what they find, or a tier alone."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.progress import Progress
from sprat.tagger import Reading, Span, Tagger, all_read
from sprat.train.asked import Ask, OpenTier, say_and_cost
from sprat.train.asked_fields import AskedFields, values
from sprat.train.compare import RIGHT, Findings, FindingsComparison, compare_findings
from sprat.train.evaluate_extract import ExtractReport, value_findings
from sprat.train.evaluate_extract_cascade import (
    ExtractCascadeReport,
    TierFound,
    evaluate_extract_cascade,
)
from sprat.train.evaluate_spans import SpanReport, evaluate_spans, shown_spans, span_findings
from sprat.train.row_cost import row_cost
from sprat.train.spans import SpanDataset
from sprat.train.tagger import OpenStates, States, whole_confidences
from sprat.train.tune import EngineOf

_ASKED = AskedFields()


@dataclass(frozen=True, slots=True, eq=False)
class SpanAssessment:
    """What a bundle or a tier finds, and how good that is.

    Attributes
    ----------
    report : SpanReport, ExtractReport or ExtractCascadeReport
        Of a tagger, of a tier that asks, and of a cascade.
    found : tuple of str
        What is found in each text, as JSON in which every field has a list; empty where there is
        no value.
    findings : Findings or None
        The spans of taggers; None where tiers ask.
    """

    report: SpanReport | ExtractReport | ExtractCascadeReport
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
    readings = _read(tagger, data, states)
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
    _ASKED.check(manifest, data)
    said = _ASKED.say(manifest, ask, data, progress)
    report = _ASKED.evaluate(manifest, said, data, manifest.tiers[-1], seed=seed)
    return SpanAssessment(report, tuple(_lists(each.value) for each in said.found))


def assess_extract_cascade(
    bundle: Bundle,
    data: SpanDataset,
    *,
    engine_of: EngineOf,
    open_states: OpenStates,
    open_tier: OpenTier,
    remote_cost_ms: Callable[[], float] | None = None,
    seed: int = 0,
    progress: Progress,
) -> SpanAssessment:
    """Evaluate what a cascade answers to texts with spans, and each of its tiers.

    Every tier reads every text once, and the thresholds are those of the bundle. Taggers alone are
    judged by spans; where a tier asks, all are judged by strings, as `AskedFields` has it.

    Parameters
    ----------
    engine_of, open_states, open_tier, remote_cost_ms : callable
        See `sprat.train.tune.tune`.

    See `assess_tagger` for the others and for what is raised.
    """
    manifest = bundle.manifest
    data.check_fields(manifest.labels)
    assert manifest.extract is not None  # the manifest of an extract bundle has it
    many = manifest.extract.many
    is_tagged = all(tier.weights for tier in manifest.tiers)
    tiers: list[TierFound[Any]] = []
    for place, tier in enumerate(manifest.tiers):
        progress.phase(f"tier {tier.name}: {len(data)} rows", total=len(data))
        found: Sequence[Any]
        if tier.weights:
            with open_states(tier.model.name) as states:
                states(data.texts[:1])  # What is done once only is nobody's cost.
                read = functools.partial(_read, bundle.taggers[place], data, states)
                readings, cost_ms = row_cost(read, len(data))
            spans = [each.spans for each in readings]
            found = spans if is_tagged else values(data.texts, spans, many)
            sure_n = whole_confidences(readings, tier.whole)
        else:
            with open_tier(manifest, place) as ask:
                said, cost_ms = say_and_cost(
                    _ASKED, manifest, place, ask, data, progress, remote_cost_ms
                )
            found = [None if each.value is None else each.json for each in said.found]
            sure_n = None if tier.whole is None else _ASKED.rate(manifest, said, data, tier)[0]
        engine = "remote" if tier.remote is not None else engine_of(tier.model.name)
        accept_at = tier.accept_at if place in manifest.answering else None
        tiers.append(TierFound(tier.name, engine, accept_at, tuple(found), sure_n, cost_ms))
    return (_by_spans if is_tagged else _by_strings)(tiers, manifest, data, seed=seed)


def _by_spans(
    tiers: Sequence[TierFound[Any]],
    manifest: BundleManifest,
    data: SpanDataset,
    *,
    seed: int,
) -> SpanAssessment:
    def find(found: Sequence[list[Span] | None]) -> Findings:
        return span_findings(found, data, manifest.labels)

    report, served = evaluate_extract_cascade(tiers, find, by="spans", lines=data.lines, seed=seed)
    strings = values(data.texts, [each or () for each in served], manifest.labels)
    return SpanAssessment(
        report,
        tuple("" if own is None else each for own, each in zip(served, strings, strict=True)),
        find(served),
    )


def _by_strings(
    tiers: Sequence[TierFound[Any]], manifest: BundleManifest, data: SpanDataset, *, seed: int
) -> SpanAssessment:
    assert manifest.extract is not None
    wanted = values(data.texts, data.spans, manifest.extract.many)
    report, served = evaluate_extract_cascade(
        tiers,
        lambda found: value_findings([each or "" for each in found], wanted, needs_value=True),
        by="strings",
        lines=data.lines,
        seed=seed,
    )
    return SpanAssessment(
        report, tuple(_lists(None if each is None else json.loads(each)) for each in served)
    )


def _read(tagger: Tagger, data: SpanDataset, states: States) -> list[Reading]:
    return all_read(tagger.read(data.texts, states(data.texts), data.requested))


def _lists(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    return json.dumps({name: [v] if isinstance(v, str) else v for name, v in value.items()})


def compare_tiers(
    data: SpanDataset, first: SpanAssessment, second: SpanAssessment, *, seed: int = 0
) -> FindingsComparison:
    """Compare two on the same texts; they may have other models and fields.

    What taggers find is compared as places, anything else as strings.
    """
    one, other = first.findings, second.findings
    if one is not None and other is not None:
        wanted = tuple(map(shown_spans, data.spans))
        return compare_findings(wanted, one, other, lines=data.lines, seed=seed)
    gold = values(data.texts, data.spans, data.fields)
    one, other = (value_findings(each.found, gold, needs_value=True) for each in (first, second))
    return compare_findings([RIGHT] * len(data), one, other, lines=data.lines, seed=seed)
