"""Evaluate the bundles that rewrite texts on rows: what they answer, or a tier alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.errors import DataError
from sprat.progress import Progress
from sprat.train.asked import OpenTier, say_and_cost
from sprat.train.asked_rewritings import AskedRewritings, schema_of, transform_of
from sprat.train.compare import RewritingComparison, compare_rewriting
from sprat.train.evaluate import SURE
from sprat.train.evaluate_rewriting import RewritingReport, TierRewritings, evaluate_rewriting
from sprat.train.evaluate_transform import score_rows
from sprat.train.metrics import Floats
from sprat.train.tune import EngineOf
from sprat.train.wanted import Wanted

_KIND = AskedRewritings()


@dataclass(frozen=True, slots=True, eq=False)
class RewritingAssessment:
    """What a bundle answers, and how good that is.

    Attributes
    ----------
    report : RewritingReport
    rows : Wanted
        N rows.
    scores : mapping of str to float64[N]
        What each answer is worth: see `sprat.train.evaluate_transform.score_rows`.
    """

    report: RewritingReport
    rows: Wanted
    scores: Mapping[str, Floats]


def assess_rewriting(
    bundle: Bundle,
    rows: Wanted,
    *,
    engine_of: EngineOf,
    open_tier: OpenTier,
    remote_cost_ms: Callable[[], float] | None = None,
    threshold: float = SURE,
    seed: int = 0,
    progress: Progress,
) -> RewritingAssessment:
    """Evaluate what a bundle answers to rows: its cascade, or its last tier.

    Of a cascade every tier reads every row once, and the thresholds are those of the bundle.

    Parameters
    ----------
    engine_of, open_tier : callable
        See `sprat.train.tune.EngineOf` and `sprat.train.asked.OpenTier`.
    remote_cost_ms : callable, optional
        See `sprat.train.asked.say_and_cost`.
    threshold : float
        Confidence from which on an answer counts as sure, in (0, 1].
    seed : int
        Of the resampling, at least 0.

    Raises
    ------
    DataError
        Targets do not fit the grammar of the bundle: their lines. Or a row cannot be answered.
    """
    manifest = bundle.manifest
    _KIND.check(manifest, rows)
    places = range(len(manifest.tiers))
    if len(manifest.answering) == 1:
        places = places[-1:]
    tiers = []
    for place in places:
        tier = manifest.tiers[place]
        progress.phase(f"tier {tier.name}: {len(rows)} rows", total=len(rows))
        with open_tier(manifest, place) as ask:
            said, cost_ms = say_and_cost(
                _KIND, manifest, place, ask, rows, progress, remote_cost_ms
            )
        tiers.append(
            TierRewritings(
                name=tier.name,
                engine="remote" if tier.remote is not None else engine_of(tier.model.name),
                accept_at=_accept_at(manifest, place),
                answers=said.answers,
                confidence_n=said.confidences(tier),
                cost_ms=cost_ms,
            )
        )
    transform = transform_of(manifest)
    schema = schema_of(transform)
    report, answers = evaluate_rewriting(
        tiers, rows, schema=schema, right_at=transform.right_at, threshold=threshold, seed=seed
    )
    return RewritingAssessment(report, rows, score_rows(answers, rows, schema=schema))


def compare_assessments(
    first: RewritingAssessment, second: RewritingAssessment, *, seed: int = 0
) -> RewritingComparison:
    """Compare two bundles on the same rows; each is right by its own schema.

    Raises
    ------
    DataError
        The rows are not the same.
    """
    if first.rows.lines != second.rows.lines:
        raise DataError(first.rows.path, 0, "expected the same rows for both bundles")
    return compare_rewriting(first.scores, second.scores, lines=first.rows.lines, seed=seed)


def _accept_at(manifest: BundleManifest, place: int) -> float | None:
    """The threshold of a tier that takes part; of a tier alone every answer counts."""
    if len(manifest.answering) == 1:
        return 0.0
    return manifest.tiers[place].accept_at if place in manifest.answering else None
