"""``sprat eval`` and ``sprat inspect`` as programs and people call them, on a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import sprat

from sprat.bundle_manifest import BUNDLE_MANIFEST, BundleManifest
from sprat.manifest import read, sha256_file
from sprat.store import Store
from sprat.train.report import METRICS


@pytest.fixture(scope="module")
def other(
    store: Store, minilm: Path, tickets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A worse bundle: of the same labels, but every fifth training row only."""
    folder = tmp_path_factory.mktemp("other")
    rows = tickets[0].read_text("utf-8").splitlines()
    (folder / "few.jsonl").write_text("\n".join(rows[::5]) + "\n", encoding="utf-8")
    done = sprat(
        store,
        *("train", str(folder / "few.jsonl"), "--test", str(tickets[1])),
        *("-o", str(folder / "few"), "--html", str(folder / "few.html")),
    )
    assert done.returncode == 0, done.stderr
    return folder / "few"


def evaluated(store: Store, *arguments: str) -> dict[str, Any]:
    done = sprat(store, "eval", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_eval_reports_every_figure_with_its_interval(
    store: Store, bundle: Path, tickets: tuple[Path, Path]
) -> None:
    report = evaluated(store, str(bundle), str(tickets[1]))
    assert set(METRICS) == report["intervals"].keys()
    for metric in METRICS:
        low, high = report["intervals"][metric]
        assert low <= high
        assert isinstance(report[metric], float)
    assert report["gates"] == []
    assert "against" not in report


def test_eval_gates_exit_with_status_1_and_say_by_how_much(
    store: Store, bundle: Path, tickets: tuple[Path, Path]
) -> None:
    arguments = ("eval", str(bundle), str(tickets[1]))
    passed = sprat(store, *arguments, "--min-accuracy", "0.5", "--max-ece", "0.9")
    assert passed.returncode == 0, passed.stderr
    failed = sprat(store, *arguments, "--min-accuracy", "0.5", "--min-macro-f1", "1.01", "--json")
    assert failed.returncode == 1
    assert "gate failed: macro_f1 is " in failed.stderr
    assert "below --min-macro-f1 1.01" in failed.stderr
    assert "accuracy" not in failed.stderr
    gates = json.loads(failed.stdout)["gates"]
    assert [(gate["option"], gate["passed"]) for gate in gates] == [
        ("min-accuracy", True),
        ("min-macro-f1", False),
    ]


def test_eval_against_another_bundle(
    store: Store, bundle: Path, other: Path, tickets: tuple[Path, Path]
) -> None:
    arguments = (str(bundle), str(tickets[1]), "--against", str(other))
    against = evaluated(store, *arguments)["against"]
    comparison = against["comparison"]
    counts = [comparison[n] for n in ("both_right", "only_first", "only_second", "both_wrong")]
    assert sum(counts) == comparison["n"]
    assert against["version"] == read(other / BUNDLE_MANIFEST, BundleManifest).version
    assert 0 <= comparison["p_value"] <= 1
    assert len(comparison["disagreements"]) >= counts[1] + counts[2]
    shown = sprat(store, "eval", *arguments)
    assert "Accuracy differs by" in shown.stdout
    assert f"only the second: {comparison['only_second']}" in shown.stdout


def test_eval_writes_a_page_without_any_text(
    store: Store, bundle: Path, other: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    evaluated(store, str(bundle), str(tickets[1]), "--html", str(page))
    for path, data in ((page, tickets[1]), (other.parent / "few.html", tickets[1])):
        html = path.read_text("utf-8")
        assert html.startswith("<!doctype html>")
        assert sha256_file(data)[:12] in html
        for row in data.read_text("utf-8").splitlines():
            assert json.loads(row)["text"] not in html
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    missing = sprat(
        store, "eval", str(bundle), str(tickets[1]), "--html", str(tmp_path / "no" / "r.html")
    )
    assert missing.returncode == 1
    assert "no is no folder; make it first" in missing.stderr


def test_eval_out_of_scope_rows(
    store: Store, bundle: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = tickets[1].read_text("utf-8").splitlines()
    strange = [json.dumps({"text": f"lorem ipsum {i}", "label": "oos"}) for i in range(12)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(rows + strange) + "\n", encoding="utf-8")
    report = evaluated(store, str(bundle), str(data), "--out-of-scope-label", "oos")
    assert (report["n"], report["out_of_scope_rows"]) == (len(rows), 12)
    assert report["out_of_scope_auroc"] > 0.5
    done = sprat(store, "eval", str(bundle), str(data))
    assert done.returncode == 1
    assert "label: unknown" in done.stderr


def test_eval_unknown_tier_names_those_that_are_there(
    store: Store, bundle: Path, tickets: tuple[Path, Path]
) -> None:
    done = sprat(store, "eval", str(bundle), str(tickets[1]), "--tier", "static")
    assert done.returncode == 1
    assert "static" in done.stderr
    assert "head" in done.stderr


def test_inspect_is_the_card_of_a_bundle(
    store: Store, bundle: Path, tickets: tuple[Path, Path]
) -> None:
    done = sprat(store, "inspect", str(bundle), "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    manifest = read(bundle / BUNDLE_MANIFEST, BundleManifest)
    assert (card["type"], card["version"]) == ("bundle", manifest.version)
    (tier,) = manifest.tiers
    model = card["models"][tier.base.name]
    assert model["card"]["digest"] == model["digest"] == tier.base.digest
    assert model["card"]["licence"] in card["licences"][0]
    provenance = card["report"]["provenance"]
    for part, path in zip(("train", "test"), tickets, strict=True):
        assert provenance[part]["sha256"] == sha256_file(path)
        assert provenance[part]["rows"] == len(path.read_text("utf-8").splitlines())
    assert {"python", "sprat", "numpy", "scikit-learn", "ctranslate2"} <= set(
        provenance["versions"]
    )
    shown = sprat(store, "inspect", str(bundle)).stdout
    for text in (manifest.version, tier.base.digest, sha256_file(tickets[0]), "accuracy"):
        assert text in shown


def test_inspect_is_the_card_of_a_model(store: Store, minilm: Path) -> None:
    card = json.loads(sprat(store, "inspect", "minilm-l6", "--json").stdout)
    assert (card["type"], card["engine"]) == ("model", "ct2")
    assert card["files"]
    assert "Apache-2.0" in sprat(store, "inspect", "minilm-l6").stdout
    done = sprat(store, "inspect", "no-such-thing")
    assert done.returncode == 1
    assert "minilm-l6" in done.stderr


def test_train_twice_gives_the_same_weights_and_version(
    store: Store, other: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    done = sprat(
        store,
        *("train", str(other.parent / "few.jsonl"), "--test", str(tickets[1]), "--no-cache"),
        *("-o", str(tmp_path / "few")),
        anew=True,
    )
    assert done.returncode == 0, done.stderr
    first, again = (
        read(path / BUNDLE_MANIFEST, BundleManifest) for path in (other, tmp_path / "few")
    )
    assert again.version == first.version
    weights = first.tiers[0].weights
    assert (other / weights).read_bytes() == (tmp_path / "few" / weights).read_bytes()
    # What else runs decides which test texts share a batch, and that rounds their vectors.
    old, new = first.tiers[0], again.tiers[0]
    same = {"evaluation": old.evaluation, "traffic": old.traffic}
    assert new.model_copy(update=same) == old
    for name, figure in new.evaluation.metrics.items():
        assert figure.value == pytest.approx(old.evaluation.metrics[name].value, abs=0.01), name
