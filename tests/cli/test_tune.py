"""``sprat tune``, and ``sprat eval`` of a cascade, as programs and people call them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from servers import sprat
from tiny_models import encoder_files, write_files
from topics import toy_rows, write_rows

from sprat.bundle import Bundle, write_bundle
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the bundle ``two``, and the files it was made of."""
    folder = tmp_path_factory.mktemp("tune")
    store = Store(folder / "home")
    pull(str(write_files(folder / "tiny", encoder_files())), store)
    made = toy_rows(1000, 1)
    train = write_rows(folder / "train.jsonl", made[:300])
    write_rows(folder / "traffic.jsonl", made[300:])
    done = sprat(
        store, "train", str(train), "--base", "tiny", "--tiers", "static,head", "-o", "two"
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_tune_dry_run_writes_nothing(home: Path) -> None:
    store = Store(home / "home")
    before = store.bundle("two")[0]
    done = sprat(
        store,
        *("tune", "two", "--data", str(home / "traffic.jsonl"), "--max-loss", "3", "--dry-run"),
        *("--html", str(home / "tuning.html")),
    )
    assert done.returncode == 0, done.stderr
    page = (home / "tuning.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "Cost and quality" in page
    assert page.count('class="dot"') == 3
    for line in (home / "traffic.jsonl").read_text("utf-8").splitlines():
        assert json.loads(line)["text"] not in page
    assert "Chosen on 350 rows, verified on 350" in done.stdout
    assert "points of accuracy below" in done.stdout
    assert "Nothing was written." in done.stdout
    assert store.bundle("two")[0] == before


def test_tune_writes_a_bundle_that_can_be_evaluated(home: Path) -> None:
    store = Store(home / "home")
    arguments = ("tune", "two", "--data", str(home / "traffic.jsonl"), "--max-loss", "3")
    done = sprat(store, *arguments, "-o", "tuned", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["n"] == document["verified_on"] == 350
    assert document["loss_points"] <= 3
    assert document["cost_ratio"] > 0
    assert document["accept_at"].keys() == document["shares"].keys() == {"static", "head"}
    manifest, folder = store.bundle("tuned")
    assert manifest.version == document["version"]
    assert manifest.name == "tuned"
    assert manifest.tuning is not None
    assert manifest.tuning.data_sha256 == document["data_sha256"]
    kept = {name: at for name, at in document["accept_at"].items() if at is not None}
    assert {tier.name: tier.accept_at for tier in manifest.tiers} == kept
    assert len(Bundle.load(folder).heads) == len(kept)
    again = sprat(store, *arguments, "-o", "tuned")
    assert again.returncode == 1
    assert "there already" in again.stderr
    shown = sprat(store, "inspect", "tuned")
    assert shown.returncode == 0, shown.stderr
    assert "Thresholds for loss <= 0.03, on 350 rows" in shown.stdout


def test_tune_replaces_the_bundle_itself(home: Path, tmp_path: Path) -> None:
    store = Store(home / "home")
    train = sprat(
        store,
        *("train", str(home / "train.jsonl"), "--base", "tiny", "--tiers", "static,head"),
        *("-o", str(tmp_path / "b")),
    )
    assert train.returncode == 0, train.stderr
    done = sprat(
        store,
        *("tune", str(tmp_path / "b"), "--data", str(home / "traffic.jsonl")),
        *("--max-error", "0.3", "--delta", "0.2"),
    )
    assert done.returncode == 0, done.stderr
    tuning = Bundle.load(tmp_path / "b").manifest.tuning
    assert tuning is not None
    assert (tuning.rule, tuning.limit, tuning.delta) == ("error", 0.3, 0.2)


def test_tune_uses_costs_that_were_measured_here(home: Path) -> None:
    store = Store(home / "home")
    traffic = str(home / "traffic.jsonl")
    done = sprat(store, "bench", "--tiers", "two", "--data", traffic, "--seconds", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert [tier["name"] for tier in measured["tiers"]] == ["static", "head"]
    assert measured["tiers"][-1]["cost_ratio"] == 1
    assert measured["tiers"][0]["cost_ratio"] < 1
    assert measured["texts"] == 700

    arguments = ("tune", "two", "--data", traffic, "--max-loss", "3")
    tuned = sprat(store, *arguments, "-o", "cheap", "--json")
    assert tuned.returncode == 0, tuned.stderr
    document = json.loads(tuned.stdout)
    assert document["cost_ms"] == {
        tier["name"]: tier["cpu_ms"]["value"] for tier in measured["tiers"]
    }
    assert (document["cost_date"], document["cost_note"]) == (measured["measured"], "")
    manifest, _ = store.bundle("cheap")
    assert manifest.tuning is not None
    assert manifest.tuning.cost_date == measured["measured"]
    shown = sprat(store, "inspect", "two").stdout
    assert "Costs of a text on this machine" in shown
    assert "tiny-static (static, " in shown
    assert json.loads(sprat(store, "inspect", "two", "--json").stdout)["costs"] == measured
    day = measured["measured"][:10]
    assert f"CPU times: of `sprat bench --tiers`, {day}." in sprat(store, "inspect", "cheap").stdout

    path = store.root / "costs" / "two.json"
    path.write_text(path.read_text().replace('"numpy": "', '"numpy": "9'))
    dry = sprat(store, *arguments, "--dry-run")
    assert "those of `sprat bench --tiers` are of another version of numpy" in dry.stdout
    stale = sprat(store, "inspect", "two").stdout
    assert "Costs of `sprat bench --tiers` here are of another version of numpy" in stale
    again = sprat(store, *arguments, "--dry-run", "--json")
    document = json.loads(again.stdout)
    assert document["cost_date"] is None
    assert document["cost_note"].startswith("of another version of numpy")
    path.unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name one --task, one --model or one --tiers"),
        (("--tiers", "two", "--task", "two"), "name one --task, one --model or one --tiers"),
        (("--tiers", "two", "--texts", "x"), "expected none beside --tiers"),
        (("--tiers", "two", "--concurrency", "1"), "expected none beside --tiers"),
        (("--task", "two", "--data", "x"), "--data: expected --tiers beside it"),
        (("--tiers", "three"), "no bundle named 'three'"),
        (("--tiers", "two", "--data", "nothing.jsonl"), "nothing.jsonl: cannot be read"),
    ],
)
def test_bench_of_tiers_says_what_is_wrong(
    home: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = sprat(Store(home / "home"), "bench", *arguments)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.replace("\u2502", " ").split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-loss", "1", "--max-cost", "1"), "expected one of --max-loss, --max-error"),
        (("--delta", "0.2"), "--delta: expected --max-error beside it"),
        (("--max-error", "0.0000001"), "no thresholds keep|different texts to show"),
        (("--max-loss", "0.01"), "expected 20000 or more different texts"),
    ],
)
def test_tune_says_what_is_wrong(home: Path, arguments: tuple[str, ...], message: str) -> None:
    store = Store(home / "home")
    done = sprat(store, "tune", "two", "--data", str(home / "traffic.jsonl"), *arguments)
    assert done.returncode == 1
    assert any(each in done.stderr for each in message.split("|"))
    assert "Traceback" not in done.stderr
    assert store.bundle("two")[0].tuning is None


@pytest.fixture(scope="module")
def cascade(home: Path) -> Path:
    """The bundle with thresholds that both tiers miss now and then."""
    made = Bundle.load(Store(home / "home").bundle("two")[1])
    tiers = tuple(
        tier.model_copy(update={"accept_at": accept_at})
        for tier, accept_at in zip(made.manifest.tiers, (0.9, 0.6), strict=True)
    )
    changed = replace(made, manifest=made.manifest.model_copy(update={"tiers": tiers}))
    write_bundle(home / "cascade", lambda folder: changed.save(folder, report="{}"))
    return home / "cascade"


def test_eval_of_a_cascade_is_what_the_server_answers(home: Path, cascade: Path) -> None:
    store = Store(home / "home")
    data = home / "traffic.jsonl"
    done = sprat(store, "eval", str(cascade), str(data), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    given = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    with Runtime(tasks=[str(cascade)], store=store) as runtime:
        items = [
            item
            for at in range(0, len(given), 100)
            for item in runtime.classify("two", [row["text"] for row in given[at : at + 100]]).items
        ]
    right = [item.label == row["label"] for item, row in zip(items, given, strict=True)]
    # What shares a batch moves confidences of the encoder a little.
    assert report["accuracy"] == pytest.approx(sum(right) / len(right), abs=0.01)
    answered = [item for item in items if not item.abstained]
    assert report["coverage"] == pytest.approx(len(answered) / len(items), abs=0.01)
    assert 0 < report["coverage"] < 1
    by_tier = [sum(item.tier == at for item in answered) / len(items) for at in (0, 1)]
    assert [share["answers"] for share in report["shares"]] == pytest.approx(by_tier, abs=0.01)
    assert min(by_tier) > 0
    assert list(report["tiers"]) == ["static", "head"]
    for name, alone in report["tiers"].items():
        by_itself = sprat(store, "eval", str(cascade), str(data), "--tier", name, "--json")
        assert json.loads(by_itself.stdout)["accuracy"] == pytest.approx(
            alone["accuracy"], abs=0.01
        )


def test_eval_gates_and_compares_what_a_cascade_answers(
    home: Path, cascade: Path, tmp_path: Path
) -> None:
    store = Store(home / "home")
    arguments = ("eval", str(cascade), str(home / "traffic.jsonl"))
    report = json.loads(sprat(store, *arguments, "--json").stdout)
    alone = report["tiers"]["head"]["accuracy"]
    # Rows without an answer are not right: the tier by itself passes where the cascade does not.
    assert report["accuracy"] < alone
    limit = ("--min-accuracy", str((report["accuracy"] + alone) / 2))
    failed = sprat(store, *arguments, *limit)
    assert failed.returncode == 1
    assert "gate failed: accuracy is " in failed.stderr
    assert sprat(store, *arguments, *limit, "--tier", "head").returncode == 0
    refused = sprat(store, *arguments, "--min-micro-f1", "0.5")
    assert refused.returncode == 1
    assert (
        "--min-micro-f1: this evaluation has no micro_f1; it has above, accuracy, cost_ratio"
        in (refused.stderr)
    )
    page = tmp_path / "cascade.html"
    shown = sprat(store, *arguments, "--against", "two", "--html", str(page))
    assert shown.returncode == 0, shown.stderr
    assert "Tiers in the cascade" in shown.stdout
    assert "of the CPU time of" in shown.stdout
    assert "Accuracy differs by -" in shown.stdout
    html = page.read_text("utf-8")
    for part in ("Cost and quality", "Answered", "static on tiny-static", ", then head on tiny"):
        assert part in html
    for line in (home / "traffic.jsonl").read_text("utf-8").splitlines():
        assert json.loads(line)["text"] not in html
