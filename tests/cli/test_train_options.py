"""Options of ``sprat train`` that mean nothing to the base: refused, not ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import encoder_files, write_files

from sprat.cli.train import train
from sprat.errors import InvalidInput
from sprat.pull import pull
from sprat.store import Store


@pytest.fixture(scope="module")
def store(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("options")
    store = Store(folder / "home")
    pull(str(tiny), store, name="generator")
    pull(str(write_files(folder / "encoder", encoder_files())), store)
    return store


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"tiers": "static,head"}, "tiers"),
        ({"static_base": "x"}, "static-base"),
        ({"class_weights": "balanced"}, "class-weights"),
        ({"accept_at": 0.5}, "accept-at"),
        ({"targets": Path("t.json")}, "targets"),
        ({"default": "x"}, "default"),
        ({"clean_label": "x"}, "clean-label"),
        ({"policy": Path("p.toml")}, "policy"),
        ({"min_precision": ["1"]}, "min-precision"),
        ({"min_recall": ["1"]}, "min-recall"),
        ({"block_precision": ["1"]}, "block-precision"),
        ({"learning_curve": True}, "learning-curve"),
        ({"suspects": Path("s.jsonl")}, "suspects"),
        ({"no_cache": True}, "no-cache"),
    ],
)
def test_train_of_an_adapter_refuses_options_of_bundles(
    given: dict[str, Any], option: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAT_HOME", str(store.root))
    with pytest.raises(InvalidInput) as caught:
        train(Path("rows.jsonl"), "out", base="generator", **given)
    assert str(caught.value) == (
        f"--{option}: expected an encoder as the base, but generator is a generative model"
    )


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"instructions": "Which?"}, "instructions"),
        ({"schema": Path("s.json")}, "schema"),
        ({"require_grounding": True}, "require-grounding"),
        ({"prompt": "{text}"}, "prompt"),
        ({"rank": 8}, "rank"),
        ({"bf16": True}, "bf16"),
        ({"kind": "transform"}, "kind transform"),
    ],
)
def test_train_of_a_bundle_refuses_options_of_adapters(
    given: dict[str, Any], option: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAT_HOME", str(store.root))
    with pytest.raises(InvalidInput) as caught:
        train(Path("rows.jsonl"), "out", base="encoder", **given)
    assert str(caught.value) == (
        f"--{option}: expected a generative model as the base, but encoder is an encoder"
    )
