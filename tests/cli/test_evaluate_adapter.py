"""``sprat eval`` of adapters: one that was trained here, and one that came from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lora import pairs, write_adapter
from servers import sprat

from sprat import adapter
from sprat.progress import Silent
from sprat.pull import pull
from sprat.store import Store

ROWS = [
    {"text": f"{n} Zoé {label}", "label": label, "value": {"who": "Zoé"}, "target": "Zoé"}
    for n in range(5)
    for label in ("ab", "cd")
]
SCHEMA = '{"type":"object","properties":{"who":{"type":"string"}},"required":["who"]}'


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def store(tiny: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with an adapter of each kind of task, of a tiny random model."""
    pytest.importorskip(
        "torch", reason="needs torch: pip install 'sprat[finetune]'", exc_type=ImportError
    )
    from sprat.train.adapt import train_adapter
    from sprat.train.lora import LoraSettings
    from sprat.values import ExtractSpec, LabelSet, TransformSpec

    store = Store(tmp_path_factory.mktemp("store") / "home")
    pull(str(tiny), store, name="tiny")
    settings = LoraSettings(rank=2, epochs=1, batch=4, learning_rate=0.01)
    for name, spec in (
        ("labels", LabelSet("tiny", ())),
        ("fields", ExtractSpec("tiny", SCHEMA, max_tokens=16)),
        ("texts", TransformSpec("tiny", "Who? {text}")),
    ):
        train_adapter(rows, spec, store, name=name, settings=settings, test=rows, progress=Silent())
    return store


def evaluated(store: Store, *arguments: str) -> dict[str, Any]:
    done = sprat(store, "eval", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["labels", "fields", "texts"])
def test_eval_of_an_adapter_gives_the_figures_of_its_training(
    name: str, store: Store, rows: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    report = evaluated(store, name, str(rows), "--html", str(page))
    trained = json.loads((store.adapter(name)[1] / "report.json").read_text())["evaluation"]
    assert report.pop("gates") == []
    assert report == trained
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert store.adapter(name)[0].version in html
    assert not [row["text"] for row in ROWS if str(row["text"]) in html]
    shown = sprat(store, "eval", name, str(rows))
    assert "Evaluation on 10 held-out rows" in shown.stdout
    # The folder can be moved: nothing in it says where it lies.
    assert str(store.root) not in (store.adapter(name)[1] / "task.toml").read_text()


@pytest.mark.parametrize(
    ("name", "kept", "missed"),
    [
        ("labels", ("--min-accuracy", "0"), ("--min-macro-f1", "1.01")),
        ("fields", ("--min-micro-f1", "0"), ("--min-exact-match", "1.01")),
        ("texts", ("--min-exact-match", "0"), ("--min-exact-match", "1.01")),
    ],
)
def test_eval_of_an_adapter_keeps_limits(
    name: str, kept: tuple[str, str], missed: tuple[str, str], store: Store, rows: Path
) -> None:
    assert evaluated(store, name, str(rows), *kept)["gates"][0]["passed"] is True
    done = sprat(store, "eval", name, str(rows), *missed)
    assert done.returncode == 1
    assert f"below {missed[0]} 1.01" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("labels", "Accuracy differs"),
        ("fields", "Micro-F1 differs"),
        ("texts", "Exact match differs"),
    ],
)
def test_eval_of_an_adapter_against_another(name: str, said: str, store: Store, rows: Path) -> None:
    against = evaluated(store, name, str(rows), "--against", name)["against"]
    assert (against["name"], against["version"]) == (name, store.adapter(name)[0].version)
    comparison = against["comparison"]
    counts = comparison.get("rows", comparison)
    assert (counts["n"], counts["only_first"], counts["only_second"]) == (10, 0, 0)
    assert counts["p_value"] == 1
    shown = sprat(store, "eval", name, str(rows), "--against", name)
    assert shown.returncode == 0, shown.stderr
    assert f"First: {name}. Second: {name}." in shown.stdout
    assert f"{said} by +0.0000" in shown.stdout


def test_eval_of_an_adapter_says_what_it_cannot_do(
    store: Store, rows: Path, tmp_path: Path
) -> None:
    def refused(*arguments: str) -> str:
        done = sprat(store, "eval", *arguments)
        assert done.returncode == 1
        return done.stderr

    for option in ("--tier", "--endpoint", "--out-of-scope-label", "--clean-label"):
        said = refused("labels", str(rows), option, "x")
        assert f"{option}: expected a bundle, not an adapter" in said
    said = refused("labels", str(rows), "--against", "fields")
    assert "--against: expected an adapter for classify, but fields is for extract" in said
    said = refused("labels", str(rows), "--against", "nix")
    assert "no bundle or adapter named 'nix'" in said
    said = refused("fields", str(rows), "--threshold", "0.5")
    assert "--threshold: expected an adapter for classify, not extract" in said
    said = refused("texts", str(rows), "--min-accuracy", "0.5")
    assert "this evaluation has no accuracy; it has edit_similarity, exact_match" in said
    assert "no bundle or adapter named 'nix'; known: fields, labels, texts" in refused(
        "nix", str(rows)
    )
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "x", "label": "ef"}\n')
    assert "other.jsonl:1: label: unknown" in refused("labels", str(other))
    foreign = tmp_path / "foreign.gguf"
    base = store.model("tiny")[1] / store.model("tiny")[0].weights
    write_adapter(foreign, pairs(base))
    adapter.add(foreign, store, base="tiny", name="foreign")
    said = refused("foreign", str(rows))
    assert "foreign: nothing says what this adapter is asked" in said
    store.remove_adapter("foreign")
