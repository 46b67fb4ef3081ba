"""Tune the thresholds of a bundle's tiers on labelled rows that none of them was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.costs import Costs
from sprat.errors import DataError, InvalidInput
from sprat.progress import Progress
from sprat.train.asked import Ask, OpenTier, say_and_cost
from sprat.train.asked_kinds import asked_kind
from sprat.train.head import OpenEmbed
from sprat.train.metrics import Floats, Picks, bootstrap, interval
from sprat.train.rate import RATE, Rows
from sprat.train.row_cost import row_cost
from sprat.train.split import same_texts
from sprat.train.tagger import OpenStates
from sprat.train.thresholds import (
    ABSTAINED,
    Aim,
    Answers,
    Chosen,
    TierScores,
    best_tier,
    cascade,
    choose,
)
from sprat.train.traffic import answer_names, traffic_of
from sprat.train.window_vectors import OpenCompute
from sprat.tuning_manifest import LoggedRows, Tuning

EngineOf = Callable[[str], str]
"""The engine of a model of the store, by the model's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """A bundle with thresholds, and what they come from.

    Attributes
    ----------
    bundle : Bundle
        With the tiers that pay, each with its threshold.
    scores : tuple of TierScores
        Of all tiers, on all rows.
    chosen : Chosen
    """

    bundle: Bundle
    scores: tuple[TierScores, ...]
    chosen: Chosen

    @property
    def tuning(self) -> Tuning:
        """The evidence."""
        assert self.bundle.manifest.tuning is not None
        return self.bundle.manifest.tuning


def tune(
    bundle: Bundle,
    data: Rows,
    aim: Aim,
    *,
    open_embed: OpenEmbed | OpenStates | OpenCompute,
    engine_of: EngineOf,
    open_tier: OpenTier | None = None,
    remote_cost_ms: Callable[[], float] | None = None,
    costs: Costs | None = None,
    logged: LoggedRows | None = None,
    seed: int = 0,
    progress: Progress,
) -> Tuned:
    """Choose the thresholds of a cascade together, and leave out tiers that do not pay.

    Every tier scores every row once. Then see `sprat.train.thresholds.choose`.

    Parameters
    ----------
    bundle : Bundle
        With two or more calibrated tiers.
    data : Dataset, CategoryData, SpanDataset or Wanted
        Rows that no tier was trained on, such as real traffic: what the kind of the bundle takes.
    aim : Aim
    open_embed : callable
        See `OpenEmbed`; asked for the model of each tier with a head. Of a moderate task see
        `OpenCompute`, of an extract task `OpenStates`.
    engine_of : callable
        See `EngineOf`.
    open_tier : callable, optional
        See `sprat.train.asked.OpenTier`; asked for each tier without weights.
    remote_cost_ms : callable, optional
        What an answer of a remote tier costs, in CPU milliseconds of this machine. Called when all
        rows are answered. Absent: the CPU time that asking takes here.
    costs : Costs, optional
        Of the tiers that are not remote, on this machine; absent: measured while they score.
    logged : LoggedRows, optional
        Which rows of a decision log these are; absent: those of a file.
    seed : int
        Of halves and resampling, at least 0.

    Raises
    ------
    InvalidInput
        The bundle has a single tier or one without calibration; or a number is out of range.
    DataError
        Rows have labels, categories or fields that the bundle does not have, are too few, or do not
        allow what is asked.
    SetupError
        When scikit-learn, which brings scipy, is not installed.
    """
    _check(bundle, aim, seed)
    scores = score_tiers(
        bundle,
        data,
        open_embed=open_embed,
        engine_of=engine_of,
        open_tier=open_tier,
        remote_cost_ms=remote_cost_ms,
        progress=progress,
    )
    if costs is not None:
        known = costs.cpu_ms
        scores = tuple(replace(each, cost_ms=known.get(each.name, each.cost_ms)) for each in scores)
    progress.phase("choose thresholds")
    chosen = choose(scores, aim, groups=same_texts(data.texts), seed=seed, path=data.path)
    kept = [index for index, each in enumerate(chosen.thresholds) if each is not None]
    manifest = bundle.manifest
    if manifest.tiers[kept[0]].remote is not None:
        raise DataError(
            data.path,
            0,
            f"every text would be sent to tier {manifest.tiers[kept[0]].name}: no tier before it "
            "pays; allow a greater loss, or train a better tier",
        )
    tiers = tuple(
        manifest.tiers[index].model_copy(update={"accept_at": chosen.thresholds[index]})
        for index in kept
    )
    tuning = _evidence(scores, chosen, aim, data, answer_names(manifest), logged, costs, seed=seed)
    tuned = replace(
        bundle,
        manifest=manifest.model_copy(update={"tiers": tiers, "tuning": tuning}),
        heads=tuple(bundle.heads[index] for index in kept if index < len(bundle.heads)),
        taggers=tuple(bundle.taggers[index] for index in kept if index < len(bundle.taggers)),
    )
    return Tuned(tuned, scores, chosen)


def score_tiers(
    bundle: Bundle,
    data: Rows,
    *,
    open_embed: OpenEmbed | OpenStates | OpenCompute,
    engine_of: EngineOf,
    open_tier: OpenTier | None = None,
    remote_cost_ms: Callable[[], float] | None = None,
    progress: Progress,
) -> tuple[TierScores, ...]:
    """What each tier makes of labelled rows, and the CPU time that it takes.

    Parameters
    ----------
    bundle : Bundle
        Every tier is calibrated.
    open_embed, open_tier, remote_cost_ms
        See `tune`.

    Raises
    ------
    DataError
        Rows have labels, categories or fields that the bundle does not have, or cannot be answered.
    InvalidInput
        There is a tier without weights, and no ``open_tier``.
    """
    scores = []
    for index, tier in enumerate(bundle.manifest.tiers):
        progress.phase(f"tier {tier.name}: {len(data)} rows", total=len(data))
        if tier.weights:
            scores.append(_score(bundle, index, data, open_embed, engine_of))
            continue
        if open_tier is None:
            raise InvalidInput(
                f"{bundle.manifest.name}: tier {tier.name} needs open_tier", field="open_tier"
            )
        with open_tier(bundle.manifest, index) as ask:
            scores.append(
                _score_asked(bundle.manifest, index, data, ask, engine_of, remote_cost_ms, progress)
            )
    return tuple(scores)


_MORE_TIERS = {
    "extract": "train it with, for example, --tiers head,finetune",
    "transform": "put a better one behind it with sprat add-tier",
}
"""By kind, where the others come from."""


def _check(bundle: Bundle, aim: Aim, seed: int) -> None:
    manifest = bundle.manifest
    if len(manifest.tiers) < 2:
        raise InvalidInput(
            f"{manifest.name}: expected 2 or more tiers, found {manifest.tiers[0].name} alone; "
            + _MORE_TIERS.get(manifest.kind, "train it with, for example, --tiers static,head"),
            field="task",
        )
    for tier in manifest.tiers:
        if (tier.calibration if manifest.kind in ("classify", "route") else tier.whole) is None:
            raise InvalidInput(
                f"{manifest.name}: tier {tier.name} is not calibrated and so has no confidence",
                field="task",
            )
    shares = aim.rule != "cost"
    if not 0 < aim.limit < (1 if shares else np.inf):
        expected = "above 0 and below 100 %" if shares else "above 0"
        raise InvalidInput(
            f"{aim.rule}: expected a limit {expected}, got {aim.limit:g}", field=aim.rule
        )
    if not 0 < aim.delta < 1:
        raise InvalidInput(f"delta: expected above 0 and below 1, got {aim.delta:g}", field="delta")
    if seed < 0:
        raise InvalidInput(f"seed: expected 0 or more, got {seed}", field="seed")


def _score(
    bundle: Bundle,
    index: int,
    data: Rows,
    open_embed: OpenEmbed | OpenStates | OpenCompute,
    engine_of: EngineOf,
) -> TierScores:
    tier = bundle.manifest.tiers[index]
    with open_embed(tier.model.name) as read:
        read(data.texts[:1])  # What is done once only is nobody's cost.
        (confidence_n, answer_n, is_right_n), cost_ms = row_cost(
            lambda: RATE[bundle.manifest.kind](bundle, index, data, read), len(data)
        )
    return TierScores(
        tier.name, confidence_n, answer_n, is_right_n, cost_ms, engine_of(tier.model.name)
    )


def _score_asked(
    manifest: BundleManifest,
    index: int,
    data: Rows,
    ask: Ask,
    engine_of: EngineOf,
    remote_cost_ms: Callable[[], float] | None,
    progress: Progress,
) -> TierScores:
    tier, kind = manifest.tiers[index], asked_kind(manifest)
    kind.check(manifest, data)
    said, cost_ms = say_and_cost(kind, manifest, index, ask, data, progress, remote_cost_ms)
    confidence_n, answer_n, is_right_n = kind.rate(manifest, said, data, tier)
    engine = "remote" if tier.remote is not None else engine_of(tier.model.name)
    return TierScores(tier.name, confidence_n, answer_n, is_right_n, cost_ms, engine)


def _evidence(
    scores: tuple[TierScores, ...],
    chosen: Chosen,
    aim: Aim,
    data: Rows,
    labels: Sequence[str],
    logged: LoggedRows | None,
    costs: Costs | None,
    *,
    seed: int,
) -> Tuning:
    verified = [tier.take(chosen.verified) for tier in scores]
    answers = chosen.answers
    best = best_tier(verified)
    alone = cascade(verified, [0.0 if index == best else None for index in range(len(verified))])
    every = np.arange(len(chosen.verified), dtype=np.int32)[None]
    point = _figures(answers, alone, every)
    resampled = bootstrap(
        lambda picks_rn: _figures(answers, alone, picks_rn),
        (len(chosen.verified),),
        np.random.default_rng(seed),
    )
    figures = {name: interval(float(point[name][0]), resampled[name]) for name in point}
    return Tuning(
        rule=aim.rule,
        limit=aim.limit,
        delta=aim.delta,
        data_sha256=data.sha256,
        chosen_on=chosen.chosen_on,
        verified_on=chosen.verified_on,
        cost_ms={tier.name: tier.cost_ms for tier in scores},
        cost_date=None if costs is None else costs.measured,
        best_tier=scores[best].name,
        shares={
            tier.name: float((answers.tier_n == index).mean()) for index, tier in enumerate(scores)
        },
        traffic=traffic_of(verified, chosen.thresholds, answers, labels),
        logged=logged,
        cost_ratio=figures["cost_ratio"],
        loss_points=figures["loss_points"],
        coverage=figures["coverage"],
        wrong=figures["wrong"],
    )


def _figures(answers: Answers, alone: Answers, picks_rn: Picks) -> dict[str, Floats]:
    """The figures of `Tuning`, for samples of rows."""
    is_answered_n = answers.tier_n != ABSTAINED
    answered_r = is_answered_n[picks_rn].mean(axis=1)
    right_r = answers.is_right_n[picks_rn].mean(axis=1)
    return {
        "cost_ratio": answers.cost_n[picks_rn].mean(axis=1) / alone.cost_n[picks_rn].mean(axis=1),
        "loss_points": 100 * (alone.is_right_n[picks_rn].mean(axis=1) - right_r),
        "coverage": answered_r,
        "wrong": np.where(answered_r > 0, 1 - right_r / np.maximum(answered_r, 1e-12), 0.0),
    }
