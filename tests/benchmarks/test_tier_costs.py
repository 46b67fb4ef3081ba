"""Costs of tiers, measured on a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import pytest

from sprat.benchmarks import tier_costs
from sprat.benchmarks.data import Texts
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.errors import InvalidInput
from sprat.progress import Silent
from sprat.store import Store

TEXTS = Texts("given", tuple("parcel " * (1 + number % 30) for number in range(90)))


def test_tier_costs_of_a_real_bundle(store: Store, bundle: Path) -> None:
    made = Bundle.load(bundle)
    measured = tier_costs.run(made, store, TEXTS, seconds=0.1, progress=Silent())
    (tier,) = measured.tiers
    assert (tier.name, tier.base) == ("head", made.manifest.tiers[0].base)
    assert (tier.engine, tier.quantization) == ("ct2", "int8")
    assert (measured.bundle, measured.labels) == (made.manifest.name, len(made.manifest.labels))
    assert (measured.source, measured.texts) == ("given", 90)
    assert measured.characters == pytest.approx(sum(map(len, TEXTS.texts)) / 90)
    assert 3 < tier.tokens < 60
    for each in (tier.cpu_ms, tier.texts_per_s, tier.latency_ms):
        assert 0 < each.low <= each.value <= each.high
    assert tier_costs.LEAST_PER_CALL <= tier.texts_per_call <= tier_costs.TEXTS_PER_CALL
    assert measured.differs(made.manifest) == ""


def test_tier_costs_of_texts_beyond_the_models_limit(store: Store, bundle: Path) -> None:
    long = Texts("given", ("parcel " * 2_000,))
    measured = tier_costs.run(Bundle.load(bundle), store, long, seconds=0.01, progress=Silent())
    assert measured.tiers[0].tokens == store.model("minilm-l6")[0].max_tokens


def test_tier_costs_refuse_arguments_out_of_range(store: Store, bundle: Path) -> None:
    made = Bundle.load(bundle)
    with pytest.raises(InvalidInput, match="texts: expected 1 or more, got none"):
        tier_costs.run(made, store, Texts("given", ()), seconds=1, progress=Silent())
    for seconds in (0.0, float("nan")):
        with pytest.raises(InvalidInput, match="seconds: expected more than 0"):
            tier_costs.run(made, store, TEXTS, seconds=seconds, progress=Silent())


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 8), (64, 64), (65, 64), (90, 8)])
def test_tier_costs_even_parts_have_all_lengths(count: int, size: int) -> None:
    texts = ["x" * (1 + number * 7 % count) for number in range(count)]
    parts = tier_costs.even(texts, size)
    assert sorted(text for part in parts for text in part) == sorted(texts)
    assert all(1 <= len(part) <= size for part in parts)
    means = [sum(map(len, part)) / len(part) for part in parts]
    assert max(means) - min(means) <= len(parts)


def test_tier_costs_know_every_kind_of_bundle() -> None:
    kinds = get_args(BundleManifest.model_fields["kind"].annotation)
    assert len(kinds) >= 5
    for kind in kinds:
        assert callable(tier_costs._caller(cast(Any, None), kind, "task", {}))
