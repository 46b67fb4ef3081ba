"""Costs of tiers: kept as they are, and used only where they hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sprat import costs, measure
from sprat.bundle_manifest import BundleManifest
from sprat.costs import Costs, TierCost
from sprat.errors import StoreError
from sprat.manifest import Interval, ModelRef
from sprat.store import Store

TIERS = ("static", "head")


def interval(value: float) -> Interval:
    return Interval(value=value, low=value / 2, high=value * 2)


def measured(**change: Any) -> Costs:
    """What would have been measured on this machine."""
    machine = measure.machine()
    facts: dict[str, Any] = {
        "bundle": "tickets",
        "labels": 2,
        "measured": "2026-01-02T03:04:05+00:00",
        "cpu": machine["cpu"],
        "threads": machine["threads"],
        "versions": measure.versions(costs.PACKAGES),
        "source": "given",
        "texts": 10,
        "characters": 40.0,
        "rounds": 7,
        "tiers": tuple(
            TierCost(
                name=name,
                base=ModelRef(name=f"model-{place}", digest=str(place) * 64),
                engine="ct2",
                quantization="int8",
                tokens=12.0,
                texts_per_call=64,
                cpu_ms=interval(0.5 + place),
                texts_per_s=interval(100.0),
                latency_ms=interval(3.0),
            )
            for place, name in enumerate(TIERS)
        ),
    }
    return Costs(**(facts | change))


def bundle(
    *,
    digests: str = "01",
    labels: tuple[str, ...] = ("a", "b"),
    asked: str = "",
    remote: bool = False,
) -> BundleManifest:
    """A bundle; with a language tier that is asked so, and with a remote one behind the others."""
    evaluation = {"n": 9, "metrics": {}}
    sections = {"labels": [{"name": label} for label in labels]}
    more: list[dict[str, Any]] = []
    if asked:
        base = {"name": "generator", "digest": "a" * 64}
        more.append(
            {"name": "language", "base": base, "language": {**sections, "instructions": asked}}
        )
    if remote:
        more.append({"name": "remote", "remote": {**sections, "model": "far"}})
    return BundleManifest.model_validate(
        {
            "name": "tickets",
            "kind": "classify",
            "labels": labels,
            "tiers": [
                {
                    "name": name,
                    "base": {"name": f"model-{place}", "digest": digest * 64},
                    "weights": f"{name}.safetensors",
                    "calibration": None,
                    "evaluation": evaluation,
                }
                for place, (name, digest) in enumerate(
                    zip(("static", "head", "finetune"), digests, strict=False)
                )
            ]
            + [{**tier, "calibration": None, "evaluation": evaluation} for tier in more],
            "train_rows": 30,
            "created": "2025-01-01T00:00:00Z",
            "made_by": "tests",
            "files": [],
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_costs_are_kept_as_they_are(store: Store) -> None:
    assert costs.find(store, bundle()) == (None, "")
    costs.save(store, measured(rounds=3))
    path = costs.save(store, measured())
    assert costs.find(store, bundle()) == (measured(), "")
    assert measured().cpu_ms == {"static": 0.5, "head": 1.5}
    assert [each.name for each in path.parent.iterdir()] == ["tickets.json"]
    document = measured().to_json()
    assert [each["cost_ratio"] for each in document["tiers"]] == [pytest.approx(1 / 3), 1.0]
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("change", "asked", "why_not"),
    [
        ({"cpu": "Another CPU"}, bundle, "of another machine (Another CPU, "),
        ({"threads": 1000}, bundle, "1000 compute threads; here "),
        ({"versions": {}}, bundle, "of another version of ctranslate2 (none, now "),
        (
            {"versions": {**measure.versions(costs.PACKAGES), "numpy": "0.1"}},
            bundle,
            "of another version of numpy (0.1, now ",
        ),
        ({}, lambda: bundle(digests="02"), "of another model of tier head"),
        ({}, lambda: bundle(digests="012"), "without tier finetune"),
        (
            {},
            lambda: bundle(labels=("a", "b", "c")),
            "of a bundle of 2 labels, not of 3",
        ),
    ],
)
def test_costs_that_do_not_hold_are_ignored_with_a_word(
    store: Store, change: dict[str, Any], asked: Callable[[], BundleManifest], why_not: str
) -> None:
    costs.save(store, measured(**change))
    found, said = costs.find(store, asked())
    assert found is None
    assert why_not in said


def test_costs_hold_for_a_bundle_that_left_a_tier_out(store: Store) -> None:
    costs.save(store, measured())
    assert costs.find(store, bundle(digests="0")) == (measured(), "")


def test_costs_of_a_language_tier_hold_for_what_it_is_asked(store: Store) -> None:
    asking = bundle(asked="Which one?")
    *_, tier = asking.tiers
    cost = (
        measured()
        .tiers[0]
        .model_copy(
            update={"name": "language", "base": tier.model, "asked": costs.asked(asking, tier)}
        )
    )
    costs.save(store, measured(tiers=(*measured().tiers, cost)))
    assert costs.find(store, bundle(asked="Which one?"))[1] == ""
    found, why_not = costs.find(store, bundle(asked="Which of these?"))
    assert found is None
    assert why_not == "of another model of tier language, or it is asked something else"


def test_costs_are_not_of_remote_tiers(store: Store) -> None:
    costs.save(store, measured())
    assert costs.find(store, bundle(remote=True)) == (measured(), "")
    assert [tier.name for tier in costs.local_tiers(bundle(remote=True))] == ["static", "head"]


def test_costs_hold_for_texts_of_about_their_length(store: Store) -> None:
    costs.save(store, measured())
    for length in (32, 40, 50):
        assert costs.find(store, bundle(), texts=["x" * length]) == (measured(), "")
    for length in (0, 31, 51):
        found, why_not = costs.find(store, bundle(), texts=["x" * length, "x" * length])
        assert found is None
        assert why_not == f"on texts of 40 characters, not of {max(1, length)} as these"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2}',
        measured().model_dump_json().replace('"value":0.5', '"value":0.0').encode(),
        measured().model_dump_json().replace('"value":0.5', '"value":NaN').encode(),
        measured().model_dump_json().replace('"high":1.0', '"high":Infinity').encode(),
        measured().model_dump_json().replace('"tokens":12.0', '"tokens":0').encode(),
    ],
)
def test_costs_in_a_broken_file_are_ignored_with_a_word(store: Store, content: bytes) -> None:
    path = costs.save(store, measured())
    path.write_bytes(content)
    found, why_not = costs.find(store, bundle())
    assert found is None
    assert why_not.startswith(f"unusable ({path}: ")
    costs.save(store, measured())
    assert costs.find(store, bundle()) == (measured(), "")


def test_costs_go_with_their_bundle(store: Store) -> None:
    (store.root / "bundles" / "tickets").mkdir(parents=True)
    costs.save(store, measured(bundle="others"))
    costs.save(store, measured())
    store.remove("tickets")
    assert costs.find(store, bundle()) == (None, "")
    assert [each.name for each in (store.root / "costs").iterdir()] == ["others.json"]


def test_costs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(StoreError, match="home"):
        costs.save(Store(tmp_path / "home"), measured())
    store = Store(tmp_path / "other")
    (store.root / "costs" / "tickets.json").mkdir(parents=True)
    with pytest.raises(StoreError, match="directory"):
        costs.save(store, measured())
    assert [each.name for each in (store.root / "costs").iterdir()] == ["tickets.json"]
