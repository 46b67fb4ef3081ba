"""Extract bundles with a remote tier, in process, against a scripted endpoint with its faults."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chat_server import ChatServer, Fault
from doubles import no_leaked_threads
from fields import FIELDS, SCHEMA, extract_bundle, with_remote_fields
from remotes import configuration
from tiny_models import encoder_files, write_files

from sprat import remote
from sprat.config import Config
from sprat.errors import ConfigError, DeadlineExceeded, EngineError, SpratError
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.values import Extraction, ExtractResult

ENCODER, TASK = "tiny-encoder", "visitors"
TEXT = "Ada brings Bea and Cleo"
VALUE = {"name": "Ada", "guests": ["Bea", "cleo"]}
SURE = math.log(0.9)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(answer=lambda body: (json.dumps(VALUE), SURE), usage=(30, 9)) as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder / "home")
    pull(str(write_files(folder / ENCODER, encoder_files())), store)
    add(store)
    return store


def add(store: Store, *, first: float = 1.0, **asks: Any) -> None:
    """A bundle of a tagger, which is never sure unless ``first`` says so, and a remote tier."""
    made = with_remote_fields(extract_bundle(store.model(ENCODER)[0], accept_at=first), **asks)
    store.add_bundle(TASK, lambda path: made.save(path, report="{}"), replace=True)


@pytest.fixture
def changed(store: Store) -> Iterator[Callable[..., None]]:
    """Change what the remote tier asks, for one test."""
    yield lambda **changes: add(store, **changes)
    add(store)


def ask(store: Store, config: Config, *texts: str, **options: Any) -> ExtractResult:
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        return runtime.extract(TASK, texts or (TEXT,), **options)


def only(result: ExtractResult) -> Extraction:
    (item,) = result.items
    assert item is not None
    return item


def test_remote_fields_answer_what_the_tagger_is_not_sure_of(
    store: Store, chat: ChatServer
) -> None:
    with Runtime(config=configuration(TASK, chat.url), store=store) as runtime:
        result = runtime.extract(TASK, [TEXT, TEXT], requested=["name"])
        (info,) = runtime.list_tasks()
    for item in result.items:
        assert item is not None
        # As it stands in the text, in the order of the bundle.
        assert item.json == '{"guests":["Bea","Cleo"],"name":"Ada"}'
        assert item.value == {"guests": ["Bea", "Cleo"], "name": "Ada"}
        assert [(f.path, f.start, f.end, f.grounded) for f in item.fields] == [
            ("/guests/0", 11, 14, True),
            ("/guests/1", 19, 23, True),
            ("/name", 0, 3, True),
        ]
        assert item.confidence == pytest.approx(0.9, abs=1e-6)
        assert (item.tier, item.escalated, item.abstained, item.complete) == (1, True, False, True)
        assert [each.tier for each in item.tiers] == [0, 1]
        assert item.input_tokens == 30
    assert (result.model, result.calibrated) == ("big", True)
    assert info.models[1] == ("big", "")
    far = info.tiers[1].endpoint
    assert far is not None
    assert (far.requests_today, far.tokens_today) == (2, 78)


def test_remote_fields_send_prompt_schema_and_text_and_nothing_else(
    store: Store, chat: ChatServer, changed: Callable[..., None]
) -> None:
    changed(instructions="Who comes?", max_tokens=50)
    ask(store, configuration(TASK, chat.url), requested=["name"])
    (body,) = chat.bodies
    system, user = body.pop("messages")
    assert system["content"].splitlines()[0] == "Who comes?"
    assert json.loads(system["content"].splitlines()[-1]) == json.loads(SCHEMA)
    assert user == {"role": "user", "content": TEXT}
    form = {"name": "fields", "schema": json.loads(SCHEMA), "strict": True}
    assert body == {
        "model": "big",
        "max_tokens": 50,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 1,
        "response_format": {"type": "json_schema", "json_schema": form},
    }


def test_remote_fields_are_not_asked_where_the_tagger_is_sure(
    store: Store, chat: ChatServer, changed: Callable[..., None]
) -> None:
    changed(first=0.01)
    item = only(ask(store, configuration(TASK, chat.url)))
    assert (item.tier, item.value, chat.bodies) == (0, {}, [])


def test_remote_fields_are_left_out_unless_an_endpoint_is_named(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Runtime(tasks=[TASK], store=store) as runtime:
        item = only(runtime.extract(TASK, [TEXT]))
        (info,) = runtime.list_tasks()
    assert (item.abstained, item.tier) == (True, 0)
    assert (info.unconfigured, [name for name, _ in info.models]) == (("remote",), [ENCODER])
    assert info.version != store.bundle(TASK)[0].version
    assert f"tier remote is left out: tasks.{TASK}.tiers.remote.endpoint names none" in caplog.text


BAD = {
    "empty": "",
    "prose": "Ada comes with Bea.",
    "cut": '{"name": "Ada", "guests": ["Bea"',
    "array": '["Ada"]',
    "number": '{"name": 7, "guests": []}',
    "one of many": '{"name": "Ada", "guests": "Bea"}',
    "many of one": '{"name": ["Ada"], "guests": []}',
    "other field": '{"name": "Ada", "guests": [], "shop": "Ada"}',
    "not in the text": '{"name": "Dora", "guests": []}',
    "one not in the text": '{"name": "Ada", "guests": ["Bea", "Dora"]}',
    "deep": '{"name": ' + "[" * 200 + "]" * 200 + "}",
    "twice": '{"name": "Ada", "guests": []}{"name": "Bea", "guests": []}',
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
@pytest.mark.parametrize("accept_at", [None, 0.01])
def test_remote_fields_that_do_not_hold_are_abstained_from(
    store: Store, chat: ChatServer, answer: str, accept_at: float | None
) -> None:
    chat.answer = lambda body: (answer, 0.0)
    item = only(ask(store, configuration(TASK, chat.url, accept_at=accept_at)))
    assert (item.value, item.json, item.abstained, item.confidence) == (None, "", True, 0.0)
    assert (item.tier, item.degraded) == (1, None)
    effort = only(ask(store, configuration(TASK, chat.url), accept_at=0.0, max_tier=1))
    # Whoever takes anything takes what the tagger says.
    assert (effort.tier, effort.value) == (0, {})


def test_remote_fields_may_be_absent(store: Store, chat: ChatServer) -> None:
    chat.answer = lambda body: ('{"name": null, "guests": []}', SURE)
    item = only(ask(store, configuration(TASK, chat.url)))
    assert (item.value, item.json, item.fields, item.abstained) == ({}, "{}", (), False)
    assert item.confidence == pytest.approx(0.9, abs=1e-6)


def test_remote_fields_below_the_threshold_are_abstained_from(
    store: Store, chat: ChatServer
) -> None:
    item = only(ask(store, configuration(TASK, chat.url, accept_at=0.95)))
    assert (item.abstained, item.tier, item.value) == (True, 1, None)
    assert len(item.fields) == 3


def test_remote_fields_votes_are_shares_of_answers_that_say_the_same(
    store: Store, chat: ChatServer, changed: Callable[..., None]
) -> None:
    changed(votes=4)
    said = iter(
        [
            '{"name": "Ada", "guests": []}',
            '{"name": "Bea", "guests": []}',
            "hm",
            '{"guests": [], "name": "Ada"}',
        ]
    )
    chat.answer = lambda body: next(said)
    item = only(ask(store, configuration(TASK, chat.url)))
    assert item.value == {"name": "Ada"}
    assert item.confidence == pytest.approx(0.5)
    assert all("logprobs" not in body for body in chat.bodies)


def test_remote_fields_without_log_probabilities_fail(store: Store, chat: ChatServer) -> None:
    chat.has_logprobs = False
    item = only(ask(store, configuration(TASK, chat.url)))
    assert (item.tier, item.degraded, item.abstained) == (0, "failure", True)


FAULTS = {
    "slow": (Fault(delay_s=30), "no_time", DeadlineExceeded),
    "429": (Fault(429, {"Retry-After": "3600"}), "failure", EngineError),
    "500": (Fault(500, body=b"<html>Ada"), "failure", EngineError),
    "garbage": (Fault(body=b"\xff\xfe{Ada"), "failure", EngineError),
    "cut": (Fault(0), "failure", EngineError),
    "400": (Fault(400, body=b'{"error": {"code": "context_length"}}'), "failure", EngineError),
}


@pytest.mark.parametrize(("fault", "why", "error"), FAULTS.values(), ids=FAULTS)
def test_remote_fields_fault_is_what_the_policy_says(
    store: Store,
    chat: ChatServer,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    why: str,
    error: type[SpratError],
) -> None:
    caplog.set_level(logging.DEBUG)
    options = {"timeout_s": 0.2 if fault.delay_s else 20.0}
    chat.faults = [fault]
    item = only(ask(store, configuration(TASK, chat.url, **options)))
    assert (item.value, item.abstained, item.degraded, item.tier) == (None, True, why, 0)
    chat.faults = [fault]
    flagged = only(ask(store, configuration(TASK, chat.url, on_failure="answer", **options)))
    assert (flagged.value, flagged.abstained, flagged.degraded) == ({}, False, why)
    chat.faults = [fault]
    with pytest.raises(SpratError) as caught:
        ask(store, configuration(TASK, chat.url, on_failure="error", **options))
    assert type(caught.value) is error
    assert "Ada" not in caught.value.message + caplog.text


def test_remote_fields_faults_of_some_texts_leave_the_others(
    store: Store, chat: ChatServer
) -> None:
    def answer(body: dict[str, Any]) -> tuple[str, float]:
        if "Bea" in body["messages"][-1]["content"]:
            raise ConnectionResetError
        return '{"name": "Ada", "guests": []}', SURE

    chat.answer = answer
    config = configuration(TASK, chat.url, on_failure="error")
    result = ask(store, config, "Ada and a b", "Bea and a b", "ada and a b", partial=True)
    assert [item and item.value for item in result.items] == [
        {"name": "Ada"},
        None,
        {"name": "ada"},
    ]
    assert [(each.index, each.reason) for each in result.errors] == [(1, "ENGINE")]


def test_remote_fields_tried_again_and_capped(store: Store, chat: ChatServer) -> None:
    chat.faults = [Fault(503), Fault(0)]
    config = configuration(TASK, chat.url, attempts=3, daily_requests=4, concurrency=1)
    result = ask(store, config, TEXT, TEXT, TEXT)
    assert len(chat.bodies) == 4
    assert [item and item.degraded for item in result.items] == [None, None, "overload"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "other"}, "endpoints.far.model"),
        ({"task_version": "abc"}, "endpoints.far.url"),
    ],
)
def test_remote_fields_of_another_model_are_refused(
    store: Store,
    chat: ChatServer,
    changed: Callable[..., None],
    changes: dict[str, str],
    said: str,
) -> None:
    changed(**changes)
    with pytest.raises(ConfigError) as caught:
        ask(store, configuration(TASK, chat.url))
    assert caught.value.path == said
    assert (FIELDS, chat.bodies) == (("guests", "name"), [])
