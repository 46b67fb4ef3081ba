"""Tuning a bundle of two tiers on labelled rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import Asked

from sprat.asked_manifest import Language
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Calibration, ReportSummary, TierManifest
from sprat.calibration import tempered
from sprat.errors import DataError, InvalidInput
from sprat.head import Head
from sprat.manifest import Interval, ModelRef
from sprat.model import Encoded
from sprat.progress import Silent
from sprat.scheduler import Mailbox
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.head_tier import HeadTier
from sprat.tasks.tier import Part
from sprat.train.data import Dataset
from sprat.train.fit import fit_head
from sprat.train.head import Embed
from sprat.train.split import assign_folds
from sprat.train.thresholds import ABSTAINED, Aim, cascade
from sprat.train.tune import tune
from sprat.values import Classification, Label, ModelInfo

Rows = Callable[..., Dataset]


@pytest.fixture(scope="module")
def made(dataset: Rows, embeds: dict[str, Embed]) -> Bundle:
    data = dataset(600, seed=8)
    labels = tuple(sorted(set(data.labels)))
    tiers, heads = [], []
    for name, model in (("static", "coarse"), ("head", "fine")):
        fitted = fit_head(
            embeds[model](data.texts), data.targets(labels), assign_folds(data, seed=0)
        )
        calibration = fitted.calibration.calibration
        figure = Interval(value=0.5, low=0.4, high=0.6)
        tiers.append(
            TierManifest(
                name=name,  # type: ignore[arg-type]
                base=ModelRef(name=model, digest="0" * 64),
                weights=f"{name}.safetensors",
                calibration=calibration,
                evaluation=ReportSummary(n=1, metrics={"accuracy": figure}),
            )
        )
        heads.append(Head(fitted.weight, fitted.bias, calibration.temperature))
    manifest = BundleManifest(
        name="tickets",
        kind="classify",
        labels=labels,
        tiers=tuple(tiers),
        train_rows=600,
        created="2020-01-01T00:00:00+00:00",
        made_by="sprat 0",
        files=(),
    )
    return Bundle(manifest, tuple(heads))


@pytest.fixture(scope="module")
def opened(embeds: dict[str, Embed]) -> Callable[[str], object]:
    @contextmanager
    def open_embed(model: str) -> Iterator[Embed]:
        yield embeds[model]

    return open_embed


def engine_of(model: str) -> str:
    return {"coarse": "static", "fine": "ct2", "small": "llama"}[model]


def test_tune_writes_thresholds_with_their_evidence(
    made: Bundle, dataset: Rows, opened: object, tmp_path: Path
) -> None:
    data = replace(dataset(2000, seed=9), sha256="5" * 64)
    tuned = tune(
        made, data, Aim("loss", 0.02), open_embed=opened, engine_of=engine_of, progress=Silent()
    )  # type: ignore[arg-type]
    tuning = tuned.tuning
    static, head = tuned.bundle.manifest.tiers
    assert 0 < static.accept_at <= 1
    assert head.accept_at == 0
    assert tuning.data_sha256 == "5" * 64
    assert tuning.best_tier == "head"
    assert tuning.chosen_on + tuning.verified_on == 2000
    assert tuning.cost_ms["static"] < tuning.cost_ms["head"]
    assert tuning.shares["static"] > 0
    assert sum(tuning.shares.values()) == pytest.approx(1)
    assert tuning.cost_ratio.low <= tuning.cost_ratio.value <= tuning.cost_ratio.high
    assert tuning.loss_points.value <= 2
    assert tuning.coverage.value == 1
    assert tuned.bundle.manifest.version != made.manifest.version
    saved = tuned.bundle.save(tmp_path, report="{}")
    assert Bundle.load(tmp_path).manifest == saved
    assert saved.tuning == tuning


def test_tune_counts_what_the_cascade_would_answer(
    made: Bundle, dataset: Rows, opened: object
) -> None:
    data = dataset(1200, seed=10)
    tuned = tune(
        made, data, Aim("error", 0.2), open_embed=opened, engine_of=engine_of, progress=Silent()
    )  # type: ignore[arg-type]
    tuning, answers = tuned.tuning, tuned.chosen.answers
    assert tuning.coverage.value == pytest.approx(answers.answered / tuning.verified_on)
    assert tuning.wrong.value == pytest.approx(answers.wrong / answers.answered)
    assert tuning.wrong.value <= 0.2


class Served:
    """A model of a server that gives the vectors of ``embed``."""

    def __init__(self, name: str, embed: Embed) -> None:
        self._embed = embed
        self.info = ModelInfo(
            name=name,
            kind="encoder",
            engine="ct2",
            version="0" * 12,
            architecture="bert",
            quantization="int8",
            tokenizer="none",
            max_tokens=512,
            dimension=384,
            licence="",
            size_bytes=1,
        )

    async def encode(self, texts: Sequence[str], **_: Any) -> Encoded:
        n = len(texts)
        return Encoded(self._embed(texts), list(range(n)), [1] * n, [0] * n, [1] * n, (), 1, 1, 1)


async def test_tune_evidence_is_what_the_served_cascade_does(
    made: Bundle, dataset: Rows, opened: Any, embeds: dict[str, Embed]
) -> None:
    """On the same rows: shares of tiers and labels, and what the watch compares with."""
    data = dataset(2000, seed=9)
    tuned = tune(
        made,
        data,
        Aim("loss", 0.02),
        open_embed=opened,
        engine_of=lambda model: "ct2",  # Both have a band above their thresholds.
        progress=Silent(),
    )
    manifest, tuning = tuned.bundle.manifest, tuned.tuning
    texts = [data.texts[row] for row in tuned.chosen.verified.tolist()]
    first = manifest.tiers[0].accept_at
    verified = [tier.take(tuned.chosen.verified) for tier in tuned.scores]
    # The row that it is the confidence of is in the band above it.
    middle = float(np.quantile(verified[0].confidence_n, 0.5, method="lower"))

    async def serve(accept_at: Sequence[float]) -> tuple[ClassifyTask, list[Classification]]:
        parts = []
        for place, (tier, least) in enumerate(zip(manifest.tiers, accept_at, strict=True)):
            model: Any = Served(tier.base.name, embeds[tier.base.name])
            parts.append(Part(place, HeadTier.of(tuned.bundle, place, model), least))
        served = ClassifyTask("tickets", manifest, parts)
        result = await served.run(texts, mailbox=Mailbox(asyncio.get_running_loop()))
        return served, [item for item in result.items if item is not None]

    for accept_at in ((middle, 0.0), (middle, 0.7)):
        _, items = await serve(accept_at)
        answers = cascade(verified, accept_at)
        tiers = [ABSTAINED if item.abstained else item.tier for item in items]
        assert tiers == answers.tier_n.tolist()

    served, items = await serve((first, 0.0))
    for place, tier in enumerate(manifest.tiers):
        share = sum(item.tier == place for item in items) / tuning.verified_on
        assert share == pytest.approx(tuning.shares[tier.name])
    traffic, drift = tuning.traffic, served.info.drift
    assert traffic is not None
    assert drift is not None
    assert Counter(item.label for item in items) == traffic.labels
    assert drift.rows == traffic.rows == len(items) == tuning.verified_on
    assert drift.verdict == "stable"
    for each in drift.figures:
        assert each.psi is None or each.psi == pytest.approx(0, abs=1e-9)
        # What was promised needs rows that somebody reviewed.
        assert each.share == (None if each.what in ("error", "loss") else each.expected)


def test_tune_leaves_out_tiers_that_do_not_pay(made: Bundle, dataset: Rows, opened: object) -> None:
    guessing = Head(np.zeros_like(made.heads[0].weight), made.heads[0].bias)
    poor = Bundle(made.manifest, (guessing, made.heads[1]))
    data = dataset(1200, seed=11)
    tuned = tune(
        poor, data, Aim("loss", 0.01), open_embed=opened, engine_of=engine_of, progress=Silent()
    )  # type: ignore[arg-type]
    (only,) = tuned.bundle.manifest.tiers
    assert only.name == "head"
    assert len(tuned.bundle.heads) == 1
    assert tuned.tuning.cost_ratio.value == 1


def with_language_model(made: Bundle, temperature: float = 2.0) -> Bundle:
    """The bundle with a language tier that knows the words of the topics."""
    figure = Interval(value=0.5, low=0.4, high=0.6)
    tier = TierManifest(
        name="language",
        base=ModelRef(name="small", digest="0" * 64),
        language=Language(labels=tuple(map(Label, made.manifest.labels))),
        calibration=Calibration(temperature=temperature),
        evaluation=ReportSummary(n=1, metrics={"accuracy": figure}),
    )
    tiers = (*made.manifest.tiers, tier)
    return Bundle(made.manifest.model_copy(update={"tiers": tiers}), made.heads)


def test_tune_asks_language_tiers(
    made: Bundle, dataset: Rows, opened: object, tmp_path: Path
) -> None:
    data = dataset(1200, seed=11)
    asked = Asked()
    tuned = tune(
        with_language_model(made),
        data,
        Aim("error", 0.25),
        open_embed=opened,  # type: ignore[arg-type]
        open_tier=asked.open,
        engine_of=engine_of,
        progress=Silent(),
    )
    assert [tier.name for tier in tuned.scores] == ["static", "head", "language"]
    assert [tier.model.name for tier in asked.opened] == ["small"]
    assert sum(asked.calls) == 1200 + 1, "each row once, and one to begin with"
    with asked.open(with_language_model(made).manifest, 2) as ask:
        answers = ask(data).items
    last = tuned.scores[-1]
    for row, item in enumerate(answers):
        assert item is not None
        given = np.array([[score.score for score in item.scores]], np.float32)
        assert last.confidence_n[row] == pytest.approx(tempered(given, 2.0).max(), abs=1e-6)
        assert last.is_right_n[row] == (item.label == data.labels[row])
        assert made.manifest.labels[last.answer_n[row]] == item.label
    assert last.cost_ms > 0
    assert [tier.engine for tier in tuned.scores] == ["static", "ct2", "llama"]
    kept = [tier.name for tier in tuned.bundle.manifest.tiers]
    assert len(tuned.bundle.heads) == len([name for name in kept if name != "language"])
    assert sum(tuned.tuning.shares.values()) + (1 - tuned.tuning.coverage.value) == (
        pytest.approx(1)
    )
    tuned.bundle.save(tmp_path, report="{}")
    assert [tier.name for tier in Bundle.load(tmp_path).manifest.tiers] == kept


def test_tune_leaves_out_a_language_tier_that_guesses(
    made: Bundle, dataset: Rows, opened: object
) -> None:
    tuned = tune(
        with_language_model(made),
        dataset(1200, seed=12),
        Aim("loss", 0.02),
        open_embed=opened,  # type: ignore[arg-type]
        open_tier=Asked(weight=1.0).open,
        engine_of=engine_of,
        progress=Silent(),
    )
    assert tuned.tuning.best_tier == "head"
    assert tuned.chosen.thresholds[-1] is None
    names = [tier.name for tier in tuned.bundle.manifest.tiers]
    assert "language" not in names
    assert len(tuned.bundle.heads) == len(names)


def test_tune_needs_what_asks_a_language_tier(made: Bundle, dataset: Rows, opened: object) -> None:
    with pytest.raises(InvalidInput, match="tier language needs open_tier"):
        tune(
            with_language_model(made),
            dataset(300),
            Aim("loss", 0.05),
            open_embed=opened,  # type: ignore[arg-type]
            engine_of=engine_of,
            progress=Silent(),
        )


def test_tune_refuses_what_cannot_be_tuned(made: Bundle, dataset: Rows, opened: object) -> None:
    def refused(bundle: Bundle, aim: Aim, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            tune(
                bundle, dataset(300), aim, open_embed=opened, engine_of=engine_of, progress=Silent()
            )  # type: ignore[arg-type]

    good = Aim("loss", 0.05)
    single = Bundle(
        made.manifest.model_copy(update={"tiers": made.manifest.tiers[1:]}), made.heads[1:]
    )
    refused(single, good, InvalidInput, "expected 2 or more tiers, found head alone")
    blind = made.manifest.tiers[0].model_copy(update={"calibration": None})
    tiers = (blind, made.manifest.tiers[1])
    bare = Bundle(made.manifest.model_copy(update={"tiers": tiers}), made.heads)
    refused(bare, good, InvalidInput, "tier static is not calibrated")
    refused(made, Aim("loss", 0.0), InvalidInput, "expected a limit above 0 and below 100 %")
    refused(made, Aim("error", 1.0), InvalidInput, "expected a limit above 0 and below 100 %")
    refused(made, Aim("cost", -1.0), InvalidInput, "expected a limit above 0, got -1")
    refused(made, Aim("error", 0.1, 1.0), InvalidInput, "delta: expected above 0 and below 1")
    refused(made, Aim("loss", 0.001), DataError, "expected 2000 or more different texts")
