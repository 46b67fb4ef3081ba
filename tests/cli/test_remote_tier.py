"""A remote tier from ``sprat add-tier --endpoint`` to a served cascade, as users run it."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Fault, user_text
from doubles import WAIT_S
from servers import environment, sprat, start_server
from tiny_models import encoder_files, write_files

from sprat.client import Client
from sprat.pull import pull
from sprat.store import Store

TOPICS = {"delivery": ("parcel", "late"), "money": ("refund", "broken")}
ROUTE = "both"


def write(path: Path, count: int, seed: int, *, hard: float) -> dict[str, str]:
    """Words of a topic; in a share of the rows as many of the other: those nobody can tell."""
    rng = random.Random(seed)
    made: dict[str, str] = {}
    while len(made) < count:
        label, other = rng.sample(sorted(TOPICS), 2)
        words = [rng.choice(TOPICS[label]) for _ in range(rng.randint(4, 8))]
        if len(made) < hard * count:
            words += [rng.choice(TOPICS[other]) for _ in words]
            rng.shuffle(words)
        made.setdefault(" ".join(words), label)
    rows = [{"text": text, "label": label} for text, label in made.items()]
    rng.shuffle(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    store = Store(folder / "home")
    pull(str(write_files(folder / "tiny-encoder", encoder_files())), store)
    write(folder / "train.jsonl", 100, 1, hard=0.0)
    run(store, "train", str(folder / "train.jsonl"), "--base", "tiny-encoder", "-o", "head")
    return folder


@pytest.fixture(scope="module")
def store(home: Path) -> Store:
    return Store(home / "home")


@pytest.fixture(scope="module")
def truth(home: Path) -> dict[str, str]:
    """What the endpoint knows of the rows."""
    rows = write(home / "rows.jsonl", 80, 3, hard=0.3)
    return {**rows, **write(home / "traffic.jsonl", 400, 4, hard=0.3)}


@pytest.fixture(scope="module")
def chat(truth: dict[str, str]) -> Iterator[ChatServer]:
    def answer(body: dict[str, Any]) -> tuple[str, float]:
        return f"**{truth[user_text(body)].title()}**.", math.log(0.95)

    with ChatServer(answer=answer, usage=(50, 3)) as server:
        yield server


@pytest.fixture(scope="module")
def config(home: Path, chat: ChatServer) -> Path:
    path = home / "sprat.toml"
    path.write_text(
        f'[endpoints.far]\nurl = "{chat.url}"\nmodel = "big"\ninput_price = 0.01\n'
        "output_price = 0.1\n"
        f'[tasks.{ROUTE}]\nbundle = "{ROUTE}"\ntiers = {{ remote = {{ endpoint = "far" }} }}\n'
    )
    return path


@pytest.fixture(scope="module")
def added(home: Path, store: Store, config: Path, chat: ChatServer) -> str:
    """The bundle ``both``: the head, then the endpoint; and what was said on stderr."""
    done = sprat(
        *(store, "add-tier", "head", "--endpoint", "far", "--config", str(config)),
        *("--data", str(home / "rows.jsonl"), "--instructions", "Which desk?", "-o", ROUTE),
    )
    assert done.returncode == 0, done.stderr
    assert [
        set(body["messages"][0]["content"].split()) >= {"Which", "desk?"} for body in chat.bodies
    ]
    assert len(chat.bodies) == 80
    assert "Until `sprat tune both` the last tier that is not remote answers alone." in done.stdout
    return done.stderr


@pytest.fixture(scope="module")
def tuned(home: Path, store: Store, config: Path, added: str) -> dict[str, Any]:
    given = ("tune", ROUTE, "--data", str(home / "traffic.jsonl"), "--max-loss", "4")
    asks = ("--endpoint", "far", "-c", str(config), "--remote-cost-ms", "40")
    return dict(json.loads(run(store, *given, *asks, "--json")))


def run(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_remote_tier_says_what_was_spent(added: str) -> None:
    assert (
        "endpoint far, today (UTC): 80 requests, 4000 tokens read, 240 written, 0.0640 spent"
        in added
    )


def test_remote_tier_is_shown_and_evaluated(
    home: Path, store: Store, config: Path, added: str
) -> None:
    shown = run(store, "inspect", ROUTE)
    assert "Remote: model big, if the configuration names an endpoint" in shown
    assert "Asked once: Which desk?" in shown
    assert "tiny-encoder, big (remote)" in run(store, "models")
    rows = str(home / "traffic.jsonl")
    asks = ("--endpoint", "far", "--config", str(config))
    report = json.loads(run(store, "eval", ROUTE, rows, *asks, "--json"))
    assert (report["n"], report["accuracy"]) == (400, 1.0)
    assert "expected --endpoint for tier remote" in refused(store, "eval", ROUTE, rows)
    run(store, "eval", ROUTE, rows, "--tier", "head")


def test_remote_tier_is_tuned_by_its_cost(tuned: dict[str, Any]) -> None:
    assert tuned["cost_ms"]["remote"] == 40
    assert tuned["best_tier"] == "remote"
    assert 0 < tuned["shares"]["remote"] < 0.6
    assert tuned["cost_ratio"] < 0.7
    assert tuned["loss_points"] <= 4


def test_remote_tier_answers_the_hard_texts_of_a_server(
    store: Store,
    config: Path,
    chat: ChatServer,
    tuned: dict[str, Any],
    truth: dict[str, str],
    tmp_path: Path,
) -> None:
    asked = len(chat.bodies)
    server = start_server(store, tmp_path, "--config", str(config))
    texts = list(truth)[-100:]
    try:
        with Client(server.address) as client:
            result = client.classify(ROUTE, texts)
            (info,) = client.list_tasks()
        explained = json.loads(
            run(store, "explain", ROUTE, texts[0], "--server", server.address, "--json")
        )
    finally:
        assert server.stop() == 0
    here = json.loads(run(store, "explain", ROUTE, texts[0], "--config", str(config), "--json"))
    for each in (here, explained):
        far_tier = each["tiers"][1]
        assert (far_tier["tier"], far_tier["model"]) == ("remote", "big")
        assert [score["label"] for score in far_tier["scores"]] == [truth[texts[0]]]
    both = ("--config", str(config), "--server", "default")
    assert "expected no --server" in refused(store, "explain", ROUTE, "a", *both)
    items = [item for item in result.items if item is not None]
    far = info.tiers[1]
    escalated = [text for text, item in zip(texts, items, strict=True) if item.tier == 1]
    assert [user_text(body) for body in chat.bodies[asked : asked + len(escalated)]] == escalated
    assert all(
        item.label == truth[text] for text, item in zip(texts, items, strict=True) if item.tier == 1
    )
    assert far.endpoint is not None
    assert (far.endpoint.name, far.endpoint.state) == ("far", "closed")
    assert far.endpoint.requests_today == far.asked == len(escalated)
    log = server.log.read_text()
    assert "its remote tier asks endpoint far" in log
    assert not any(text in log for text in texts)


def test_remote_tier_cap_is_one_for_all_processes(
    home: Path, store: Store, chat: ChatServer, tuned: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "capped.toml"
    config.write_text(
        f'[endpoints.capped]\nurl = "{chat.url}"\nmodel = "big"\ndaily_requests = 3\n'
        f'[tasks.{ROUTE}]\nbundle = "{ROUTE}"\n'
        'tiers = { head = { accept_at = 1.0 }, remote = { endpoint = "capped" } }\n'
    )
    before = len(chat.bodies)
    seen = []
    for text in ("parcel", "late"):
        server = start_server(store, tmp_path, "--config", str(config))
        chat.faults = [Fault(body=_answer("money"))] * 3
        with Client(server.address) as client:
            items = client.classify(ROUTE, [text, text]).items
        assert server.stop() == 0
        seen += [item and item.degraded for item in items]
    assert seen == [None, None, None, "overload"]
    assert len(chat.bodies) == before + 3


def _answer(text: str) -> bytes:
    message = {"message": {"content": text}, "logprobs": {"content": [{"logprob": -0.1}]}}
    return json.dumps({"choices": [message]}).encode()


def test_remote_tier_that_no_configuration_names_is_left_out(
    store: Store, chat: ChatServer, tuned: dict[str, Any], tmp_path: Path
) -> None:
    before = len(chat.bodies)
    server = start_server(store, tmp_path, "--task", ROUTE)
    with Client(server.address) as client:
        client.classify(ROUTE, ["parcel refund"])
        (info,) = client.list_tasks()
    assert server.stop() == 0
    assert (info.unconfigured, len(info.models)) == (("remote",), 1)
    assert "tier remote is left out" in server.log.read_text()
    assert len(chat.bodies) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--model", "tiny", "--endpoint", "far"),
            "expected one of --model, --task and --endpoint",
        ),
        ((), "expected one of --model, --task and --endpoint"),
        (("--endpoint", "far"), "endpoints.far: no such endpoint; known: none"),
        (("--endpoint", "far", "--adapter", "a"), "--adapter: expected --model beside it"),
        (("--model", "tiny", "--votes", "3"), "--votes: expected --endpoint beside it"),
        (("--model", "tiny", "-c", "sprat.toml"), "--config: expected --endpoint beside it"),
    ],
)
def test_remote_tier_options_that_make_no_sense_are_refused(
    home: Path, store: Store, options: tuple[str, ...], said: str
) -> None:
    rows = str(home / "train.jsonl")
    assert said in refused(store, "add-tier", "head", "--data", rows, *options)


def test_remote_tier_of_an_endpoint_that_fails_is_not_added(
    home: Path, store: Store, config: Path, chat: ChatServer, truth: dict[str, str]
) -> None:
    given = ("add-tier", "head", "--endpoint", "far", "-c", str(config), "-o", "never")
    rows = ("--data", str(home / "rows.jsonl"))
    chat.faults = [Fault(401)] * 40
    said = refused(store, *given, *rows)
    chat.faults = []
    assert "endpoint far failed" in said
    assert "requests" in said
    assert "never" not in [manifest.name for manifest, _ in store.bundles()]


def test_remote_tier_that_failed_asks_only_for_the_rest(
    home: Path, store: Store, config: Path, chat: ChatServer, added: str
) -> None:
    given = ("add-tier", "head", "--endpoint", "far", "-c", str(config), "-o", "resumed")
    rows = ("--data", str(home / "rows.jsonl"))
    before = len(chat.bodies)
    chat.faults = [*[Fault()] * 40, Fault(400)]
    said = refused(store, *given, *rows)
    chat.faults = []
    answered = len(chat.bodies) - before - 1
    assert answered >= 40
    assert f"endpoint far: {answered} answers are kept" in said
    done = sprat(store, *given, *rows)
    assert done.returncode == 0, done.stderr
    assert f"endpoint far: {answered} rows were answered in a stopped run" in done.stderr
    assert len(chat.bodies) - before == 81
    assert list(store.answers.iterdir()) == []
    # What was learned of kept answers is what was learned of those of one run.
    made, whole = (store.bundle(name)[0].tiers[-1] for name in ("resumed", ROUTE))
    asked = {"instructions": "Which desk?"}
    assert made.remote is not None
    assert made.remote.model_copy(update=asked) == whole.remote
    assert made.calibration == whole.calibration
    assert "--restart: expected --endpoint" in refused(
        *(store, "add-tier", "head", "--model", "tiny-encoder", *rows, "--restart")
    )


def test_remote_tier_that_is_interrupted_keeps_its_answers(
    home: Path, store: Store, config: Path, chat: ChatServer, added: str
) -> None:
    given = ("tune", ROUTE, "--data", str(home / "traffic.jsonl"), "--max-loss", "4")
    asks = ("--endpoint", "far", "-c", str(config), "--dry-run", "--json")
    before = len(chat.bodies)
    chat.faults = [*[Fault()] * 50, *[Fault(delay_s=WAIT_S)] * 50]
    process = subprocess.Popen(
        [sys.executable, "-m", "sprat", *given, *asks],
        env=environment(store),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + WAIT_S
    while len(chat.bodies) - before < 52 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT_S)
    chat.faults = []
    assert process.returncode != 0
    assert "answers are kept; the same question asks only for the others" in said
    asked = [user_text(body) for body in chat.bodies[before:]]
    before = len(chat.bodies)
    # Four requests are under way side by side.
    for least, most in ((350, 354), (0, 0)):
        figures = json.loads(run(store, *given, *asks))
        assert figures["n"] > 100
        # Nobody said what an answer costs: it was measured when it was asked for.
        assert 0 < figures["cost_ms"]["remote"] < 1000
        again = [user_text(body) for body in chat.bodies[before:]]
        assert least <= len(again) <= most
        assert set(again).isdisjoint(asked[:46])
        before = len(chat.bodies)


def test_remote_tier_needs_its_endpoint_to_be_tuned(
    home: Path, store: Store, config: Path, added: str
) -> None:
    rows = ("--data", str(home / "traffic.jsonl"))
    assert "expected the endpoint of tier remote" in refused(store, "tune", ROUTE, *rows)
    far = ("--endpoint", "far", "-c", str(config))
    assert "no tier is remote" in refused(store, "tune", "head", *rows, *far)


def test_remote_tier_doctor_says_whom_a_server_would_ask(
    store: Store, config: Path, chat: ChatServer, added: str, tmp_path: Path
) -> None:
    def found(*options: str) -> dict[str, tuple[str, str]]:
        findings = json.loads(sprat(store, "doctor", *options, "--json").stdout)
        return {each["part"]: (each["state"], each["detail"]) for each in findings}

    before = len(chat.bodies)
    assert found()["outbound"] == (
        "ok",
        "no task names an endpoint: nothing leaves this machine",
    )
    with_config = found("--config", str(config))
    assert with_config["endpoint far"] == ("ok", f"{chat.url} gets texts of {ROUTE}")
    assert "outbound" not in with_config
    assert with_config[f"bundle {ROUTE}"] == ("ok", "on tiny-encoder, big (remote)")
    broken = tmp_path / "broken.toml"
    broken.write_text(config.read_text().replace("[tasks.", 'key_variable = "NO_SUCH"\n[tasks.'))
    state, said = found("--config", str(broken))["endpoint far"]
    assert (state, "has no NO_SUCH" in said) == ("problem", True)
    assert len(chat.bodies) == before
