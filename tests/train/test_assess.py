"""Bundles on labelled rows: every tier, rows out of scope, and two bundles side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from asking import Asked

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Calibration, ReportSummary, TierManifest
from sprat.errors import DataError, InvalidInput
from sprat.head import Head
from sprat.manifest import Interval, ModelRef
from sprat.train.assess import assess, compare_assessments
from sprat.train.data import Dataset
from sprat.train.fit import fit_head
from sprat.train.split import assign_folds
from sprat.values import FloatArray

Embed = Callable[[Sequence[str]], FloatArray]
OTHER = "something else"


@pytest.fixture(scope="module")
def made(dataset: Callable[..., Dataset], embed: Embed) -> Bundle:
    """A bundle of two tiers: an empty head without calibration, and a fitted one."""
    data = dataset(300)
    labels = tuple(sorted(set(data.labels)))
    fitted = fit_head(embed(data.texts), data.targets(labels), assign_folds(data, seed=0))
    figure = Interval(value=0.5, low=0.4, high=0.6)
    tiers = tuple(
        TierManifest(
            name=name,  # type: ignore[arg-type]
            base=ModelRef(name="words", digest="0" * 64),
            weights=f"{name}.safetensors",
            calibration=calibration,
            evaluation=ReportSummary(n=1, metrics={"accuracy": figure}),
        )
        for name, calibration in (("static", None), ("head", fitted.calibration.calibration))
    )
    manifest = BundleManifest(
        name="tickets",
        kind="classify",
        labels=labels,
        tiers=tiers,
        train_rows=300,
        created="2020-01-01T00:00:00+00:00",
        made_by="sprat 0",
        files=(),
    )
    head = Head(fitted.weight, fitted.bias, fitted.calibration.calibration.temperature)
    empty = Head(np.zeros_like(fitted.weight), np.zeros_like(fitted.bias))
    return Bundle(manifest, (empty, head))


def with_others(data: Dataset) -> Dataset:
    """Every fifth row is of no label, and says nothing that the head knows."""
    rows = range(len(data))
    return Dataset(
        tuple(f"zebra {i}" if i % 5 == 0 else data.texts[i] for i in rows),
        tuple(OTHER if i % 5 == 0 else data.labels[i] for i in rows),
        data.lines,
        data.path,
    )


def test_assess_asks_a_language_tier(made: Bundle, dataset: Callable[..., Dataset]) -> None:
    data = with_others(dataset(200, seed=1))
    asked = Asked()
    with asked.open(made.manifest, 0) as ask:
        result = assess(made, data, ask=ask, out_of_scope_label=OTHER)
        answers = [item.label for item in ask(result.rows).items if item]
    assert list(result.answers) == answers
    assert result.report.out_of_scope_rows == 40
    assert result.report.accuracy == pytest.approx(
        np.mean([a == b for a, b in zip(answers, result.rows.labels, strict=True)])
    )


def test_assess_evaluates_the_last_tier_or_another(
    made: Bundle, dataset: Callable[..., Dataset], embed: Embed
) -> None:
    data = dataset(200, seed=3)
    last = assess(made, data, embed=embed)
    assert last.report.accuracy > 0.75
    assert last.rows == data
    right = np.mean([a == b for a, b in zip(last.answers, data.labels, strict=True)])
    assert right == pytest.approx(last.report.accuracy)
    first = assess(made, data, embed=embed, tier=0)
    assert set(first.answers) == {made.manifest.labels[0]}
    assert first.report.reliability[-1].confidence == pytest.approx(1 / 3)


def test_assess_keeps_rows_out_of_scope_apart(
    made: Bundle, dataset: Callable[..., Dataset], embed: Embed
) -> None:
    data = with_others(dataset(200, seed=3))
    result = assess(made, data, embed=embed, out_of_scope_label=OTHER)
    assert (result.report.n, result.report.out_of_scope_rows) == (160, 40)
    assert len(result.answers) == len(result.rows) == 160
    assert OTHER not in result.rows.labels
    assert result.report.out_of_scope_auroc is not None
    assert result.report.out_of_scope_auroc > 0.8
    with pytest.raises(DataError, match=r"tickets\.jsonl:1: label: unknown"):
        assess(made, data, embed=embed)


def test_assess_refuses_scopes_that_make_no_sense(
    made: Bundle, dataset: Callable[..., Dataset], embed: Embed
) -> None:
    data = dataset(20, seed=3)
    with pytest.raises(InvalidInput, match="'billing' is a label of the bundle"):
        assess(made, data, embed=embed, out_of_scope_label="billing")
    with pytest.raises(DataError, match="no row has the label 'none'"):
        assess(made, data, embed=embed, out_of_scope_label="none")
    others = Dataset(data.texts, (OTHER,) * len(data), data.lines, data.path)
    with pytest.raises(DataError, match="every row has the label"):
        assess(made, others, embed=embed, out_of_scope_label=OTHER)


def test_assess_compares_on_the_same_rows(
    made: Bundle, dataset: Callable[..., Dataset], embed: Embed
) -> None:
    data = with_others(dataset(200, seed=3))
    better, worse = (
        assess(made, data, embed=embed, tier=tier, out_of_scope_label=OTHER) for tier in (1, 0)
    )
    comparison = compare_assessments(better, worse)
    assert comparison.n == 160
    assert comparison.difference.value == pytest.approx(
        better.report.accuracy - worse.report.accuracy
    )
    assert comparison.p_value < 1e-6
    assert {d.line for d in comparison.disagreements} <= set(better.rows.lines)
    assert compare_assessments(better, better).p_value == 1


def test_assess_uncalibrated_tier_is_judged_by_its_scores(
    made: Bundle, dataset: Callable[..., Dataset], embed: Embed
) -> None:
    (_, tier), (_, head) = made.manifest.tiers, made.heads
    plain = tier.model_copy(update={"calibration": None})
    hot = tier.model_copy(update={"calibration": Calibration(temperature=5.0)})
    reports = [
        assess(
            Bundle(made.manifest.model_copy(update={"tiers": (each,)}), (head,)),
            dataset(100, seed=3),
            embed=embed,
        ).report
        for each in (plain, hot)
    ]
    assert reports[0].accuracy == reports[1].accuracy
    assert reports[0].reliability[-1].confidence > reports[1].reliability[-1].confidence
