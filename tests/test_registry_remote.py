"""Cascades with a remote tier, in process, against a scripted endpoint with its faults."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Fault, certificate
from doubles import LABELS, bundle, no_leaked_threads
from remotes import MODEL, configuration, with_remote
from tiny_models import encoder_files, write_files

from sprat import remote
from sprat.bundle import Bundle
from sprat.bundle_manifest import Route
from sprat.config import Config
from sprat.endpoints.breaker import FAILURES, FIRST_PAUSE_S
from sprat.errors import (
    ConfigError,
    CorruptFile,
    DeadlineExceeded,
    EngineError,
    QueueFull,
    SpratError,
)
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.task_config import TaskConfig, TierConfig
from sprat.values import ClassifyResult, TierInfo

ENCODER, TASK = "tiny-encoder", "tiered"
SECRET = "mackerel"
TEXT = f"a {SECRET} text"
SURE = math.log(0.9)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(answer=lambda body: (LABELS[1], SURE)) as server:
        yield server


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("published") / ENCODER, encoder_files())


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    pull(str(published), store)
    return store


def add(store: Store, *, first: float = 1.0, kind: str = "classify", **changes: Any) -> None:
    """A bundle of a head, which is never sure unless ``first`` says so, and a remote tier."""
    head = bundle(store.model(ENCODER)[0], accept_at=first)
    made = with_remote(head, **changes).named(TASK)
    if kind == "route":
        route = Route(targets={label: f"q/{label}" for label in LABELS}, default_target="people")
        made = Bundle(made.manifest.model_copy(update={"kind": kind, "route": route}), made.heads)
    store.add_bundle(TASK, lambda path: made.save(path, report="{}"))


def ask(store: Store, config: Config, *texts: str, **options: Any) -> ClassifyResult:
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        return runtime.classify(TASK, texts or (TEXT,), **options)


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never was so")


def tier_of(runtime: Runtime) -> TierInfo:
    return runtime.list_tasks()[0].tiers[-1]


def test_registry_remote_tier_answers_what_the_first_is_not_sure_of(
    store: Store, chat: ChatServer
) -> None:
    add(store)
    with Runtime(config=configuration(TASK, chat.url), store=store) as runtime:
        result = runtime.classify(TASK, [TEXT, "b"])
        (info,) = runtime.list_tasks()
    assert [item and (item.label, item.tier) for item in result.items] == [(LABELS[1], 1)] * 2
    item = result.items[0]
    assert item is not None
    assert item.confidence == pytest.approx(0.9, abs=1e-6)
    assert [(score.label, round(score.score, 6)) for score in item.scores] == [(LABELS[1], 0.9)]
    assert (result.model, result.model_version, result.calibrated) == (MODEL, "", True)
    assert info.models[1] == (MODEL, "")
    assert info.unconfigured == ()
    assert info.version == store.bundle(TASK)[0].version
    far = info.tiers[1].endpoint
    assert far is not None
    assert (far.name, far.state, far.requests_today) == ("far", "closed", 2)


def test_registry_remote_tier_sends_prompt_and_text_and_nothing_else(
    store: Store, chat: ChatServer
) -> None:
    described = [{"name": label, "description": f"about {label}"} for label in LABELS]
    add(store, asks={"labels": described, "instructions": "Sort letters."})
    ask(store, configuration(TASK, chat.url))
    lines = [
        "Sort letters.",
        "Answer with one of these labels and nothing else:",
        *(f"- {label}: about {label}" for label in LABELS),
    ]
    longest = max(len(label) for label in LABELS)
    assert chat.bodies == [
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "\n".join(lines)},
                {"role": "user", "content": TEXT},
            ],
            "max_tokens": longest + 16,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": 1,
        }
    ]
    sent = {name.lower() for name in chat.headers[0]}
    assert sent <= {
        *("host", "accept", "accept-encoding", "connection", "user-agent"),
        *("content-length", "content-type"),
    }


def test_registry_remote_tier_is_not_asked_where_a_smaller_one_is_sure(
    store: Store, chat: ChatServer
) -> None:
    add(store, first=0.01)
    result = ask(store, configuration(TASK, chat.url))
    assert result.items[0] is not None
    assert (result.items[0].tier, chat.bodies) == (0, [])


def test_registry_remote_tier_is_left_out_unless_an_endpoint_is_named(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    add(store)
    with caplog.at_level(logging.WARNING), Runtime(tasks=[TASK], store=store) as runtime:
        (item,) = runtime.classify(TASK, [TEXT]).items
        (info,) = runtime.list_tasks()
    assert item is not None
    # The first tier's threshold still counts: what it is not sure of nobody answers.
    assert (item.abstained, item.tier) == (True, 0)
    assert (info.unconfigured, [name for name, _ in info.models]) == (("remote",), [ENCODER])
    assert info.version != store.bundle(TASK)[0].version
    assert "tier remote is left out: tasks.tiered.tiers.remote.endpoint names none" in caplog.text


def test_registry_remote_tier_routes(store: Store, chat: ChatServer) -> None:
    add(store, kind="route")
    with Runtime(config=configuration(TASK, chat.url), store=store) as runtime:
        (routed,) = runtime.route(TASK, [TEXT]).items
        chat.answer = lambda body: "hm"
        (lost,) = runtime.route(TASK, [TEXT]).items
    assert routed is not None
    assert lost is not None
    assert (routed.target, lost.target) == (f"q/{LABELS[1]}", "people")


@pytest.mark.parametrize(
    "answer", ["", "none of them", "\x00\ufffd" * 50, f"{LABELS[0]} or {LABELS[1]}", "LABEL"]
)
@pytest.mark.parametrize("accept_at", [0.0, 0.5])
def test_registry_remote_garbage_is_no_label(
    store: Store, chat: ChatServer, answer: str, accept_at: float
) -> None:
    add(store, accept_at=accept_at)
    chat.answer = lambda body: answer
    (item,) = ask(store, configuration(TASK, chat.url)).items
    assert item is not None
    assert (item.label, item.abstained, item.confidence, item.scores) == ("", True, 0.0, ())
    assert (item.tier, item.degraded) == (1, None)
    assert item.tiers[1].label == ""


def test_registry_remote_answers_below_the_threshold_are_abstained_from(
    store: Store, chat: ChatServer
) -> None:
    add(store)
    (item,) = ask(store, configuration(TASK, chat.url, accept_at=0.95)).items
    assert item is not None
    assert (item.abstained, item.tier, item.scores[0].label) == (True, 1, LABELS[1])


def test_registry_remote_confidence_is_calibrated(store: Store, chat: ChatServer) -> None:
    add(store, calibration={"temperature": 2.0, "ceiling": 0.7})
    (item,) = ask(store, configuration(TASK, chat.url)).items
    assert item is not None
    # The two other labels share what the answer leaves.
    assert item.confidence == pytest.approx(0.9**0.5 / (0.9**0.5 + 2 * 0.05**0.5), abs=1e-6)
    chat.answer = lambda body: (LABELS[1], 0.0)
    (sure,) = ask(store, configuration(TASK, chat.url)).items
    assert sure is not None
    assert sure.confidence == 0.7


def test_registry_remote_votes_are_shares(store: Store, chat: ChatServer) -> None:
    add(store, asks={"votes": 4})
    said = iter([LABELS[2], LABELS[0], "hm", LABELS[2]])
    chat.answer = lambda body: next(said)
    (item,) = ask(store, configuration(TASK, chat.url)).items
    assert item is not None
    assert [(each.label, round(each.score, 6)) for each in item.scores] == [(LABELS[2], 0.5)]
    assert item.confidence == pytest.approx(0.5)
    assert all("logprobs" not in body for body in chat.bodies)


FAULTS = {
    "slow": (Fault(delay_s=30), "no_time", DeadlineExceeded),
    "429": (Fault(429, {"Retry-After": "3600"}), "failure", EngineError),
    "500": (Fault(500, body=b"<html>" + SECRET.encode()), "failure", EngineError),
    "garbage": (Fault(body=b"\xff\xfe{" + SECRET.encode()), "failure", EngineError),
    "empty": (Fault(body=b'{"choices": []}'), "failure", EngineError),
    "cut": (Fault(0), "failure", EngineError),
    "400": (Fault(400, body=b'{"error": {"code": "context_length"}}'), "failure", EngineError),
    "401": (Fault(401), "failure", EngineError),
}


@pytest.mark.parametrize(("fault", "why", "error"), FAULTS.values(), ids=FAULTS)
def test_registry_remote_fault_is_what_the_policy_says(
    store: Store,
    chat: ChatServer,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    why: str,
    error: type[SpratError],
) -> None:
    add(store)
    caplog.set_level(logging.DEBUG)
    # A slow one is given up by its own time; no other fault comes near it.
    options = {"timeout_s": 0.2 if fault.delay_s else 20.0}
    chat.faults = [fault]
    (abstained,) = ask(store, configuration(TASK, chat.url, **options)).items
    assert abstained is not None
    assert (abstained.label, abstained.abstained, abstained.degraded) == ("", True, why)
    assert (abstained.tier, [each.tier for each in abstained.tiers]) == (0, [0])
    chat.faults = [fault]
    (flagged,) = ask(store, configuration(TASK, chat.url, on_failure="answer", **options)).items
    assert flagged is not None
    assert (flagged.label in LABELS, flagged.abstained, flagged.degraded) == (True, False, why)
    chat.faults = [fault]
    with pytest.raises(SpratError) as caught:
        ask(store, configuration(TASK, chat.url, on_failure="error", **options))
    assert type(caught.value) is error
    assert SECRET not in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    assert SECRET not in caplog.text


def test_registry_remote_faults_of_some_texts_leave_the_others(
    store: Store, chat: ChatServer
) -> None:
    add(store)

    def answer(body: dict[str, Any]) -> tuple[str, float]:
        if "b" in body["messages"][-1]["content"]:
            raise ConnectionResetError
        return LABELS[1], SURE

    chat.answer = answer
    config = configuration(TASK, chat.url, on_failure="error")
    result = ask(store, config, "a", "b", "c", partial=True)
    assert [item and item.label for item in result.items] == [LABELS[1], None, LABELS[1]]
    assert [(each.index, each.reason) for each in result.errors] == [(1, "ENGINE")]


def test_registry_remote_tries_again_after_a_passing_fault(store: Store, chat: ChatServer) -> None:
    add(store)
    chat.faults = [Fault(503), Fault(0)]
    (item,) = ask(store, configuration(TASK, chat.url, attempts=3)).items
    assert item is not None
    assert (item.label, len(chat.bodies)) == (LABELS[1], 3)


def test_registry_remote_waits_for_nobody_beyond_the_deadline(
    store: Store, chat: ChatServer
) -> None:
    add(store)
    chat.faults = [Fault(429, {"Retry-After": "30"})]
    # The pause that the endpoint asks for is longer than the time left, so it is not begun.
    (item,) = ask(store, configuration(TASK, chat.url, attempts=3), budget_ms=5000).items
    assert item is not None
    assert (item.degraded, len(chat.bodies)) == ("failure", 1)


def test_registry_remote_answers_in_time_are_kept_at_the_deadline(
    store: Store, chat: ChatServer
) -> None:
    add(store)

    def answer(body: dict[str, Any]) -> tuple[str, float]:
        if "b" in body["messages"][-1]["content"]:
            chat.closing.wait(30)
        return LABELS[1], SURE

    chat.answer = answer
    result = ask(store, configuration(TASK, chat.url), "a", "b", budget_ms=5000)
    assert [item and item.degraded for item in result.items] == [None, "no_time"]


def test_registry_remote_breaker_opens_and_closes(
    store: Store, chat: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    add(store)
    chat.faults = [Fault(500)] * FAILURES
    with Runtime(config=configuration(TASK, chat.url), store=store) as runtime:
        for _ in range(FAILURES + 3):
            (item,) = runtime.classify(TASK, [TEXT]).items
            assert item is not None
            assert item.degraded == "failure"
        assert len(chat.bodies) == FAILURES
        opened = tier_of(runtime)
        assert opened.endpoint is not None
        assert (opened.endpoint.state, opened.missed) == ("open", FAILURES + 3)
        # Time passes.
        far = runtime._service.registry.endpoints["far"]
        far.guard.breaker._until -= FIRST_PAUSE_S
        (item,) = runtime.classify(TASK, [TEXT]).items
        closed = tier_of(runtime)
    assert item is not None
    assert (item.label, item.degraded) == (LABELS[1], None)
    assert closed.endpoint is not None
    assert (closed.endpoint.state, len(chat.bodies)) == ("closed", FAILURES + 1)
    assert "endpoint far fails; it is left alone for 5 s" in caplog.text


@pytest.mark.parametrize("on_failure", ["abstain", "answer", "error"])
def test_registry_remote_cap_stops_spending_also_after_a_restart(
    store: Store, chat: ChatServer, on_failure: Any
) -> None:
    add(store)
    config = configuration(TASK, chat.url, on_failure=on_failure, daily_requests=2)
    ask(store, config, "a")
    ask(store, config, "b")
    if on_failure == "error":
        with pytest.raises(QueueFull, match="daily_requests of 2 is used up") as full:
            ask(store, config, "c")
        assert full.value.retry_after_s <= 86400
    else:
        (item,) = ask(store, config, "c").items
        assert item is not None
        assert (item.degraded, item.abstained) == ("overload", on_failure == "abstain")
    assert len(chat.bodies) == 2


def test_registry_remote_money_is_what_the_endpoint_says(store: Store, chat: ChatServer) -> None:
    add(store)
    chat.usage = (100, 10)
    config = configuration(
        TASK, chat.url, input_price=10.0, output_price=50.0, daily_spend=7.0, concurrency=1
    )
    with Runtime(config=config, store=store) as runtime:
        items = runtime.classify(TASK, ["a", "b", "c", "d"]).items
        far = tier_of(runtime).endpoint
    # Each costs 1.5 in the end and might cost 3.3: a fourth might bring the day above 7.
    assert [item and item.degraded for item in items] == [None, None, None, "overload"]
    assert far is not None
    assert (far.requests_today, far.tokens_today, far.spent_today) == (3, 330, 4.5)


def test_registry_remote_texts_beyond_the_room_are_refused_at_once(
    store: Store, chat: ChatServer
) -> None:
    add(store)
    chat.faults = [Fault(delay_s=2)]
    config = configuration(TASK, chat.url, concurrency=1, queue=1)
    with Runtime(config=config, store=store) as runtime:

        async def both() -> list[ClassifyResult]:
            first = asyncio.create_task(runtime._service.classify(TASK, ["a", "b"]))
            await until(lambda: bool(chat.bodies))
            late = await runtime._service.classify(TASK, ["c"])
            return [late, await first]

        late, first = runtime._loop.run(both())
    assert [item and item.degraded for item in late.items] == ["overload"]
    assert [item and item.degraded for item in first.items] == [None, None]


def test_registry_remote_rows_go_side_by_side_up_to_the_cap(store: Store, chat: ChatServer) -> None:
    add(store)

    def answer(body: dict[str, Any]) -> tuple[str, float]:
        for _ in range(500):
            if chat.most >= 3:
                break
            chat.closing.wait(0.01)
        return LABELS[1], SURE

    chat.answer = answer
    ask(store, configuration(TASK, chat.url, concurrency=3), *"abcdefgh")
    assert chat.most == 3


def test_registry_remote_call_that_is_given_up_ends_its_requests(
    store: Store, chat: ChatServer
) -> None:
    add(store)
    chat.faults = [Fault(delay_s=30)] * 4
    with Runtime(config=configuration(TASK, chat.url, concurrency=2), store=store) as runtime:

        async def give_up() -> None:
            call = asyncio.create_task(runtime._service.classify(TASK, list("abcd")))
            await until(lambda: len(chat.bodies) == 2)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            # Those that waited for a place are never sent, and the places are free again.
            chat.faults.clear()
            again = await runtime._service.classify(TASK, ["e"])
            assert again.items[0] is not None
            assert again.items[0].label == LABELS[1]

        runtime._loop.run(give_up())
        far = tier_of(runtime).endpoint
    assert [body["messages"][-1]["content"] for body in chat.bodies][2:] == ["e"]
    assert far is not None
    assert far.state == "closed"


def test_registry_remote_wrong_certificate_sends_nothing(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(store)
    pair = certificate(tmp_path, "other", ["DNS:elsewhere.example"])
    with ChatServer(answer=lambda body: LABELS[0], tls=pair) as server:
        (untrusted,) = ask(store, configuration(TASK, server.url)).items
        (misnamed,) = ask(store, configuration(TASK, server.url, ca=pair[0])).items
    assert untrusted is not None
    assert misnamed is not None
    assert [untrusted.degraded, misnamed.degraded, server.bodies] == ["failure", "failure", []]
    assert "certificate" in caplog.text


def test_registry_remote_right_certificate_and_key(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store)
    monkeypatch.setenv("FAR_KEY", "k-1")
    pair = certificate(tmp_path, "far", ["IP:127.0.0.1"])
    with ChatServer(answer=lambda body: LABELS[0], tls=pair) as server:
        config = configuration(TASK, server.url, ca=pair[0], key_variable="FAR_KEY")
        (item,) = ask(store, config).items
    assert item is not None
    assert item.label == LABELS[0]
    assert server.headers[0]["Authorization"] == "Bearer k-1"


URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("endpoint", "where", "what"),
    [
        ({"url": "http://models.example.org/v1"}, "endpoints.far.url", "this machine"),
        ({"url": "ftp://h"}, "endpoints.far.url", "expected https://HOST/v1, sprat://"),
        ({"url": "sprat://host"}, "endpoints.far.url", "sprat://HOST:PORT"),
        ({"url": "sprat://host:1"}, "endpoints.far.ca", "texts travel over TLS"),
        ({"url": "sprat://[::1]:1"}, "endpoints.far.url", "expected the chat endpoint"),
        ({"url": "https://u:p@h/v1"}, "endpoints.far.url", "without credentials"),
        ({"url": "https://h/v1"}, "endpoints.far", "nothing else bounds what a day may cost"),
        ({"ca": "/nowhere.pem"}, "endpoints.far.ca", "No such file"),
        ({"key_file": "/nowhere"}, "endpoints.far.key_file", "cannot be read"),
        ({"key_variable": "NO_SUCH"}, "endpoints.far.key_variable", "has no NO_SUCH"),
        ({"model": "bigger"}, "endpoints.far.model", "expected big, which the tier was calib"),
    ],
)
def test_registry_remote_bad_endpoint_is_an_error_at_the_start(
    store: Store, endpoint: dict[str, str], where: str, what: str
) -> None:
    add(store)
    config = configuration(TASK, **{"url": URL, **endpoint})
    with no_leaked_threads(), pytest.raises(ConfigError) as caught:
        Runtime(config=config, store=store)
    assert caught.value.path == where
    assert what in caught.value.message


@pytest.mark.parametrize(
    ("task", "where", "what"),
    [
        (
            {"tiers": {"remote": TierConfig(endpoint="near")}},
            "tasks.tiered.tiers.remote.endpoint",
            "no endpoint named 'near'; known: far",
        ),
        (
            {"tiers": {"head": TierConfig(endpoint="far")}},
            "tasks.tiered.tiers.head.endpoint",
            "the tier is not remote",
        ),
        (
            {
                "tiers": {
                    "head": TierConfig(accept_at=0.0),
                    "remote": TierConfig(endpoint="far"),
                }
            },
            "tasks.tiered.tiers.remote.endpoint",
            "every text would be sent: no tier before remote has a threshold",
        ),
    ],
)
def test_registry_remote_bad_task_is_an_error_at_the_start(
    store: Store, task: dict[str, Any], where: str, what: str
) -> None:
    add(store)
    config = configuration(TASK, URL).model_copy(
        update={"tasks": {TASK: TaskConfig(bundle=TASK, **task)}}
    )
    with no_leaked_threads(), pytest.raises(ConfigError) as caught:
        Runtime(config=config, store=store)
    assert caught.value.path == where
    assert what in caught.value.message


def test_registry_remote_corrupt_spending_is_an_error_at_the_start(store: Store) -> None:
    add(store)
    store.endpoints.mkdir()
    (store.endpoints / "far.json").write_text("{")
    with no_leaked_threads(), pytest.raises(CorruptFile, match="remove it"):
        Runtime(config=configuration(TASK, URL, daily_requests=5), store=store)
