"""Bundles of kind transform, from ``sprat add-tier --new`` on, as users run them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora
import pytest
import typer
from chat_server import ChatServer, user_text
from servers import sprat, start_server
from tiny_models import CHAT_TEMPLATE, gguf_file
from typer.testing import CliRunner

from sprat import adapter
from sprat.bundle import Bundle
from sprat.cli.add_tier import add_tier
from sprat.errors import SpratError
from sprat.inprocess import Runtime
from sprat.manifest import ADAPTER_MANIFEST, list_files, sha256_file
from sprat.manifest import write as write_manifest
from sprat.pull import pull
from sprat.store import Store
from sprat.train.task_file import task_files
from sprat.values import Grammar, Label, LabelSet, Sampling, TransformSpec

TASK = """
[tasks.answer]
kind = "transform"
model = "tiny"
prompt = "Say {tone} whether: {text}"
grammar = { regex = "yes|no" }
sampling = { max_tokens = 12 }
"""


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Texts with answers that nobody can know: about half of what a model says is right."""
    rng = random.Random(seed)
    return [
        {
            "text": f"It is {rng.randrange(10**6)} and {rng.randrange(10**6)}.",
            "tone": rng.choice(["kindly", "coldly"]),
            "target": rng.choice(["yes", "no"]),
        }
        for _ in range(count)
    ]


def write(path: Path, given: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


def run(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 1, done.stdout
    return done.stderr


def trained(store: Store, name: str, spec: LabelSet | TransformSpec, data: Path) -> None:
    """An adapter as if `sprat train` had made it, on rows of that file."""
    manifest, folder = store.adapter("polite")

    def build(out: Path) -> None:
        shutil.copyfile(folder / manifest.weights, out / manifest.weights)
        for file, content in task_files(spec, name).items():
            (out / file).write_text(content)
        report = {"provenance": {"train": {"sha256": sha256_file(data)}}}
        (out / "report.json").write_text(json.dumps(report))
        own = manifest.model_copy(update={"name": name, "files": list_files(out)})
        write_manifest(out / ADAPTER_MANIFEST, own)

    store.add_adapter(name, build)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a tiny language model and adapters of it, a task and rows."""
    folder = tmp_path_factory.mktemp("rewriting")
    store = Store(folder / "home")
    gguf = folder / "tiny.gguf"
    gguf.write_bytes(gguf_file(folder, context_length=1024, chat_template=CHAT_TEMPLATE))
    pull(str(gguf), store)
    made = lora.write_adapter(folder / "polite.gguf", lora.pairs(gguf))
    adapter.add(made, store, base="tiny")
    (folder / "task.toml").write_text(TASK)
    for name, count, seed in (("few", 20, 2), ("rows", 60, 3), ("traffic", 60, 4)):
        write(folder / f"{name}.jsonl", rows(count, seed))
    learned = folder / "learned.jsonl"
    write(learned, rows(60, 5))
    asked = TransformSpec(
        "tiny", "{tone} {text}", Grammar("regex", "yes|no"), Sampling(max_tokens=9)
    )
    trained(store, "rewriter", asked, learned)
    trained(store, "labels", LabelSet("tiny", (Label("yes"), Label("no"))), learned)
    _bad_files(folder)
    return folder


def _bad_files(folder: Path) -> None:
    few = rows(60, 6)
    odd = [{**row, "target": "maybe"} if at == 7 else row for at, row in enumerate(few)]
    write(folder / "odd.jsonl", odd)
    write(folder / "plain.jsonl", [{"text": row["text"], "target": "yes"} for row in few])
    (folder / "labels.toml").write_text(
        '[tasks.l]\nkind = "classify"\nmodel = "tiny"\nlabels = ["a", "b"]\n'
    )
    (folder / "two.toml").write_text(TASK + TASK.replace("answer", "reply"))
    (folder / "longer.toml").write_text(TASK.replace("yes|no", "yes|no|maybe"))
    (folder / "labels.json").write_text('[{"name": "yes"}]')


@pytest.fixture(scope="module")
def store(home: Path) -> Store:
    return Store(home / "home")


@pytest.fixture(scope="module")
def begun(home: Path, store: Store) -> dict[str, Any]:
    """The bundle ``answer`` with its first tier."""
    given = ("add-tier", "answer", "--new", "--task", str(home / "task.toml"))
    return dict(json.loads(run(store, *given, "--data", str(home / "rows.jsonl"), "--json")))


@pytest.fixture(scope="module")
def both(home: Path, store: Store, begun: dict[str, Any]) -> dict[str, Any]:
    """The bundle ``both``: behind it the same model under an adapter, with another prompt."""
    given = ("add-tier", "answer", "--model", "tiny", "--adapter", "polite", "--name", "polite")
    asks = ("--prompt", "{text} {tone}?", "-o", "both")
    return dict(json.loads(run(store, *given, *asks, "--data", str(home / "rows.jsonl"), "--json")))


def test_add_rewriting_begins_a_bundle(store: Store, begun: dict[str, Any]) -> None:
    manifest, folder = store.bundle("answer", check=True)
    assert (manifest.kind, manifest.labels, manifest.version) == ("transform", (), begun["version"])
    assert manifest.transform is not None
    assert manifest.transform.inputs == ("tone",)
    assert manifest.transform.grammar is not None
    assert manifest.transform.grammar.source == "yes|no"
    assert manifest.transform.right_at == 1
    assert manifest.train_rows == 30
    (tier,) = manifest.tiers
    assert begun["tier"] == tier.model_dump(mode="json")
    assert (tier.name, tier.accept_at) == ("language", 0)
    assert tier.sureness is not None
    assert tier.whole is not None
    figures = begun["evaluation"]["metrics"]
    assert {"exact_match", "edit_similarity", "right", "ece", "auroc"} <= figures.keys()
    assert begun["evaluation"]["n"] == tier.evaluation.n == 30
    report = json.loads((folder / "report.json").read_text())
    assert report["tiers"]["language"]["evaluation"] == begun["evaluation"]
    fitted = report["tiers"]["language"]["training"]["calibration"]
    assert fitted["sureness"]["weights"] == list(tier.sureness.weights)
    assert fitted["rows"] == 30
    assert "It is" not in (folder / "report.json").read_text()


def test_add_rewriting_puts_a_tier_behind_another(store: Store, both: dict[str, Any]) -> None:
    manifest = store.bundle("both", check=True)[0]
    first, second = manifest.tiers
    assert first == store.bundle("answer")[0].tiers[0]
    assert (second.name, second.model.name) == ("polite", "tiny")
    assert second.language is not None
    assert second.language.adapter is not None
    assert second.language.adapter.digest == store.adapter("polite")[0].digest
    assert both["tier"]["language"]["prompt"] == "{text} {tone}?"
    # What is not said is as of the tier before.
    assert both["tier"]["language"]["sampling"]["max_tokens"] == 12
    report = json.loads((store.bundle("both")[1] / "report.json").read_text())
    assert list(report["tiers"]) == ["language", "polite"]


def test_add_rewriting_is_shown(store: Store, both: dict[str, Any]) -> None:
    shown = run(store, "inspect", "both")
    assert "that fit a regex" in shown
    assert "text, tone" in shown
    assert "Asked, for 12 tokens at most: {text} {tone}?" in shown
    assert "of log-probabilities, a curve of" in shown
    assert f"Adapter: polite, digest {store.adapter('polite')[0].digest}" in shown


def test_add_rewriting_calibrates_what_is_served(
    home: Path, store: Store, both: dict[str, Any]
) -> None:
    traffic = home / "traffic.jsonl"
    figures = json.loads(run(store, "eval", "both", str(traffic), "--tier", "language", "--json"))
    with Runtime(tasks=["answer"], store=store) as runtime:
        right, sure = 0, []
        for row in map(json.loads, traffic.read_text().splitlines()):
            *pieces, last = runtime.transform("answer", row["text"], inputs={"tone": row["tone"]})
            right += "".join(piece.text for piece in [*pieces, last]) == row["target"]
            sure.append(last.confidence)
    metrics = figures["metrics"]
    # Evaluated side by side, served alone.
    assert metrics["right"]["value"] == metrics["exact_match"]["value"]
    assert metrics["right"]["value"] == pytest.approx(right / 60, abs=0.04)
    bins = figures["whole"]["reliability"]
    assert sum(each["n"] for each in bins) == 60
    assert min(sure) == pytest.approx(bins[0]["lowest"], abs=0.02)
    assert max(sure) == pytest.approx(bins[-1]["highest"], abs=0.02)


def test_add_rewriting_is_tuned_and_evaluated(
    home: Path, store: Store, both: dict[str, Any]
) -> None:
    traffic = str(home / "traffic.jsonl")
    # That at most 9 of 10 are wrong, anything shows.
    given = ("tune", "both", "--data", traffic, "--max-error", "0.9", "--json", "-o", "tuned")
    page = home / "tuning.html"
    tuned = json.loads(run(store, *given, "--html", str(page)))
    assert tuned["cost_ms"].keys() == {"language", "polite"}
    assert tuned["chosen_on"] + tuned["verified_on"] == 60
    assert "What is passed on" in page.read_text()
    manifest = store.bundle("tuned", check=True)[0]
    assert manifest.transform == store.bundle("both")[0].transform
    assert [tier.accept_at for tier in manifest.tiers] == [
        each for each in tuned["accept_at"].values() if each is not None
    ]
    shown = run(store, "eval", "tuned", traffic, "--against", "both", "--min-exact-match", "0.1")
    assert "exact_match" in shown
    assert "Exact match differs by" in shown
    missed = sprat(store, "eval", "both", traffic, "--min-exact-match", "0.99")
    assert missed.returncode == 1
    assert "gate failed: exact_match" in missed.stderr


def test_add_rewriting_of_a_cascade_is_evaluated_with_its_tiers(
    home: Path, store: Store, both: dict[str, Any]
) -> None:
    bundle = Bundle.open(store, "both")
    least = 0.5
    tiers = [
        tier.model_copy(update={"accept_at": least if at == 0 else 0.0})
        for at, tier in enumerate(bundle.manifest.tiers)
    ]
    cascade = Bundle(bundle.manifest.model_copy(update={"tiers": tuple(tiers)}))
    store.add_bundle("cascade", lambda folder: cascade.named("cascade").save(folder, report="{}"))
    page = home / "cascade.html"
    found = json.loads(
        run(store, "eval", "cascade", str(home / "traffic.jsonl"), "--json", "--html", str(page))
    )
    assert [share["name"] for share in found["shares"]] == ["language", "polite"]
    assert [share["accept_at"] for share in found["shares"]] == [least, 0.0]
    assert found["shares"][0]["asked"] == 1
    assert sum(share["answers"] for share in found["shares"]) == pytest.approx(1)
    assert found["metrics"]["coverage"]["value"] == 1
    assert found["metrics"]["cost_ratio"]["value"] > 0
    assert found["tiers"].keys() == {"language", "polite"}
    text = page.read_text()
    assert "AUROC" in text
    assert "Not as wanted" in text
    assert "It is" not in text
    table = run(store, "eval", "cascade", str(home / "traffic.jsonl"))
    assert "Tiers in the cascade" in table


def test_add_rewriting_tiers_are_measured(home: Path, store: Store, both: dict[str, Any]) -> None:
    needs = refused(store, "bench", "--tiers", "both", "--seconds", "0.5")
    assert "expected rows with the inputs of both: tone" in needs
    given = ("--data", str(home / "few.jsonl"), "--seconds", "0.5", "--json")
    measured = json.loads(run(store, "bench", "--tiers", "both", *given))
    assert [(tier["name"], tier["engine"]) for tier in measured["tiers"]] == [
        ("language", "llama"),
        ("polite", "llama"),
    ]
    assert measured["labels"] == 0
    assert len({tier["asked"] for tier in measured["tiers"]}) == 2
    assert json.loads(run(store, "inspect", "both", "--json"))["costs"] == measured


@pytest.fixture
def far(home: Path) -> Iterator[ChatServer]:
    """An endpoint that knows most of the answers, and which ones it does not."""
    files = ("rows", "traffic")
    known = {
        row["text"]: row["target"]
        for file in files
        for row in map(json.loads, (home / f"{file}.jsonl").read_text().splitlines())
    }

    def answer(body: dict[str, Any]) -> tuple[str, float]:
        text = user_text(body).partition(": ")[2]
        right = known[text]
        if hash_of(text) % 5:
            return right, -0.01
        return {"yes": "no", "no": "yes"}[right], -2.0

    with ChatServer(answer=answer, usage=(20, 1)) as server:
        (home / "sprat.toml").write_text(
            f'[endpoints.far]\nurl = "{server.url}"\nmodel = "big"\n'
            '[tasks.far]\nbundle = "far"\ntiers = { remote = { endpoint = "far" } }\n'
        )
        yield server


def hash_of(text: str) -> int:
    return sum(text.encode())


def test_add_rewriting_of_an_endpoint_is_calibrated_tuned_and_evaluated(
    home: Path, store: Store, begun: dict[str, Any], far: ChatServer
) -> None:
    asks = ("--endpoint", "far", "--config", str(home / "sprat.toml"))
    given = ("add-tier", "answer", *asks, "--data", str(home / "rows.jsonl"), "-o", "far")
    done = sprat(store, *given)
    assert done.returncode == 0, done.stderr
    assert "today (UTC): 60 requests" in done.stderr
    assert "Until `sprat tune far` the last tier that is not remote answers alone." in done.stdout
    tier = store.bundle("far", check=True)[0].tiers[-1]
    assert tier.name == "remote"
    assert tier.remote is not None
    assert tier.remote.model_dump()["prompt"] == "Say {tone} whether: {text}"
    metrics = tier.evaluation.metrics
    assert metrics["auroc"].value == 1
    assert 0.6 < metrics["right"].value < 1
    assert metrics["ece"].value < 0.2
    traffic = str(home / "traffic.jsonl")
    needs = refused(store, "tune", "far", "--data", traffic)
    assert "expected the endpoint of tier remote" in needs
    # The small model knows nothing: what it is sure of helps nobody.
    tune = ("tune", "far", "--data", traffic, *asks, "--remote-cost-ms", "50")
    useless = refused(store, *tune, "--max-error", "0.45", "--delta", "0.3")
    assert "every text would be sent to tier remote: no tier before it pays" in useless
    tuned = json.loads(run(store, *tune, "--max-error", "0.9", "--dry-run", "--json"))
    assert tuned["cost_ms"]["remote"] == 50
    report = json.loads(run(store, "eval", "far", traffic, *asks, "--tier", "remote", "--json"))
    right = sum(hash_of(row["text"]) % 5 > 0 for row in rows(60, 4)) / 60
    assert report["metrics"]["right"]["value"] == pytest.approx(right)
    shown = run(store, "inspect", "far")
    assert "Remote: model big, if the configuration names an endpoint" in shown
    assert "Asked once: Say {tone} whether: {text}" in shown


def test_add_rewriting_of_another_server_is_as_sure_as_its_task(
    home: Path, store: Store, begun: dict[str, Any]
) -> None:
    (home / "peer").mkdir()
    server = start_server(store, home / "peer", "--task", "answer")
    config = home / "peer.toml"
    config.write_text(f'[endpoints.peer]\nurl = "{server.address}"\nmodel = "answer"\n')
    asks = ("--endpoint", "peer", "--config", str(config), "--data", str(home / "rows.jsonl"))
    no_prompt = refused(store, "add-tier", "answer", *asks, "--prompt", "{text} {tone}")
    assert "expected none for a sprat server" in no_prompt
    run(store, "add-tier", "answer", *asks, "-o", "peered")
    assert server.stop() == 0
    tier = store.bundle("peered", check=True)[0].tiers[-1]
    assert tier.remote is not None
    assert (tier.remote.model, tier.remote.task_version) == ("answer", begun["version"])
    assert tier.sureness is None
    assert tier.whole is not None
    # It is the very same model; what is asked side by side moves it a little.
    own = begun["evaluation"]["metrics"]["right"]["value"]
    assert tier.evaluation.metrics["right"].value == pytest.approx(own, abs=0.07)


NEW = ("add-tier", "other", "--new", "--task", "task.toml")
BEHIND = ("add-tier", "answer", "--model", "tiny", "--name", "second")


@pytest.mark.parametrize(
    ("given", "data", "message"),
    [
        (NEW, "few.jsonl", "expected 50 or more different texts, found 20"),
        ((*NEW, "--right-at", "0"), "rows.jsonl", "right_at: expected above 0 and at most 1"),
        ((*NEW, "--right-at", "1.5"), "rows.jsonl", "right_at: expected above 0 and at most 1"),
        ((*NEW, "--held-out", "1"), "rows.jsonl", "held_out: expected above 0 and below 1"),
        ((*NEW, "--name", "head"), "rows.jsonl", "name: expected 1 to 32 of a to z"),
        ((*NEW, "--name", "A b"), "rows.jsonl", "name: expected 1 to 32 of a to z"),
        ((*NEW, "-o", "third"), "rows.jsonl", "--out: expected none beside --new"),
        ((*NEW, "--adapter", "polite"), "rows.jsonl", "--adapter: expected none beside --task"),
        ((*NEW, "--model", "tiny"), "rows.jsonl", "expected one of --model, --task and --endpoint"),
        ((*NEW, "--instructions", "x"), "rows.jsonl", "--instructions: expected none beside --new"),
        ((*NEW, "--prompt", "No text"), "rows.jsonl", "expected the placeholder {text}"),
        ((*NEW, "--prompt", "{text} {mood}"), "rows.jsonl", "mood: missing"),
        ((*NEW, "--max-tokens", "1"), "rows.jsonl", "expected 10 or more different texts with an"),
        (NEW, "odd.jsonl", "target: does not fit the regex"),
        (NEW, "plain.jsonl", "tone: missing"),
        (("add-tier", "answer", *NEW[2:]), "rows.jsonl", "answer: is there already"),
        (("add-tier", "other", "--new", "--model", "tiny"), "rows.jsonl", "prompt: expected one"),
        (
            ("add-tier", "other", "--new", "--model", "tiny", "--adapter", "labels"),
            "rows.jsonl",
            "adapter: expected one for transform, but labels was trained for another kind",
        ),
        (
            ("add-tier", "other", "--new", "--task", "labels.toml"),
            "rows.jsonl",
            "expected a task of kind transform",
        ),
        (("add-tier", "other", "--new", "--task", "two.toml"), "rows.jsonl", "found 2"),
        (
            ("add-tier", "other", "--new", "--endpoint", "far"),
            "rows.jsonl",
            "the first tier may not be remote",
        ),
        (("add-tier", "answer", "--model", "tiny"), "rows.jsonl", "has a tier language already"),
        ((*BEHIND, "--right-at", "0.5"), "rows.jsonl", "--right-at: expected --new beside it"),
        ((*BEHIND, "--prompt", "{text}?"), "rows.jsonl", "expected the placeholders of the bundle"),
        (
            ("add-tier", "answer", "--task", "longer.toml", "--name", "second"),
            "rows.jsonl",
            "grammar: expected that of the bundle, the same regex",
        ),
        ((*BEHIND, "--scoring", "full"), "rows.jsonl", "scoring: a task of kind transform is not"),
        ((*BEHIND, "--labels-file", "labels.json"), "rows.jsonl", "labels: expected none"),
        (
            (*BEHIND, "--adapter", "labels"),
            "learned.jsonl",
            "adapter: expected one for transform, but labels",
        ),
    ],
)
def test_add_rewriting_refuses(
    home: Path,
    store: Store,
    begun: dict[str, Any],
    given: tuple[str, ...],
    data: str,
    message: str,
) -> None:
    shown = [str(home / each) if each.endswith((".toml", ".json")) else each for each in given]
    before = [manifest.version for manifest, _ in store.bundles()]
    app = typer.Typer()
    app.command()(add_tier)
    environment = {"SPRAT_HOME": str(store.root)}
    result = CliRunner().invoke(app, [*shown[1:], "--data", str(home / data)], env=environment)
    assert isinstance(result.exception, SpratError), result.output
    assert message in result.exception.message
    assert [manifest.version for manifest, _ in store.bundles()] == before


def test_add_rewriting_asks_as_an_adapter_was_trained(
    home: Path, store: Store, begun: dict[str, Any]
) -> None:
    given = ("add-tier", "answer", "--model", "tiny", "--adapter", "rewriter", "--name", "trained")
    same = refused(store, *given, "--data", str(home / "learned.jsonl"))
    assert "adapter rewriter was trained on rows of this file" in same
    rows = ("--data", str(home / "rows.jsonl"), "-o", "trained", "--json")
    tier = json.loads(run(store, *given, *rows))["tier"]
    assert tier["language"]["prompt"] == "{tone} {text}"
    assert tier["language"]["sampling"]["max_tokens"] == 9
    # And so it may be the first one.
    new = ("add-tier", "first", "--new", "--model", "tiny", "--adapter", "rewriter")
    run(store, *new, "--right-at", "0.5", "--data", str(home / "rows.jsonl"))
    transform = store.bundle("first")[0].transform
    assert transform is not None
    assert (transform.inputs, transform.right_at) == (("tone",), 0.5)
    assert transform.grammar == Grammar("regex", "yes|no")
