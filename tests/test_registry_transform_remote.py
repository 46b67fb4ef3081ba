"""Cascades that rewrite texts with a remote tier: a scripted endpoint, and another sprat server."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import rewritings
from chat_server import ChatServer, Fault, user_text
from doubles import no_leaked_threads
from remotes import configuration
from rewritings import language_tier, remote_tier
from servers import Server, start_server
from tiny_models import CHAT_TEMPLATE, gguf_file

from sprat import remote
from sprat.config import Config
from sprat.endpoints.breaker import FAILURES
from sprat.errors import ConfigError, DeadlineExceeded, EngineError, QueueFull, SpratError
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.values import Chunk, TierInfo

GENERATOR, TASK, FAR = "tiny", "kinder", "far-task"
SECRET = "mackerel"
TEXT = f"a {SECRET} text"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
JSON = {"grammar": {"kind": "json_schema", "source": json.dumps(SCHEMA)}}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(answer=lambda body: ("Good day", -0.2), usage=(7, 3)) as server:
        yield server


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    path = folder / "tiny.gguf"
    path.write_bytes(gguf_file(folder, context_length=512, chat_template=CHAT_TEMPLATE))
    return path


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    pull(str(published), store)
    return store


def add(store: Store, *, prompt: str = rewritings.PROMPT, task: Any = None, **remote: Any) -> None:
    """A bundle of a tier that is never sure, and a remote one."""
    asks = {"sampling": {"max_tokens": 4}, "prompt": prompt}
    made = rewritings.bundle(
        language_tier(store.model(GENERATOR)[0], accept_at=1.0, asks=asks),
        remote_tier(**{**remote, "asks": {"prompt": prompt, **remote.get("asks", {})}}),
        name=TASK,
        transform=task or {},
    )
    store.add_bundle(TASK, lambda path: made.save(path, report="{}"), replace=True)


def ask(store: Store, config: Config, text: str = TEXT, **options: Any) -> Chunk:
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        return answer(runtime, text, **options)


def answer(runtime: Runtime, text: str = TEXT, **options: Any) -> Chunk:
    """The only chunk: what is remote comes at once."""
    (only,) = runtime.transform(TASK, text, **options)
    return only


def tier_of(runtime: Runtime) -> TierInfo:
    return runtime.list_tasks()[0].tiers[-1]


def test_remote_rewriter_answers_what_the_first_is_not_sure_of(
    store: Store, chat: ChatServer
) -> None:
    add(store)
    with no_leaked_threads(), Runtime(config=configuration(TASK, chat.url), store=store) as runtime:
        only = answer(runtime)
        (info,) = runtime.list_tasks()
        far = tier_of(runtime).endpoint
    assert (only.text, only.tier, only.escalated, only.complete) == ("Good day", 1, True, True)
    # The scripted endpoint says -0.1 of each of two tokens.
    assert only.confidence == pytest.approx(1 / (1 + math.exp(-0.8)))
    assert (only.model, only.model_version, only.finish_reason) == ("big", "", "stop")
    assert (only.prompt_tokens, only.output_tokens) == (7, 3)
    assert only.tiers[1].cpu_ms == 0
    assert info.models[1] == ("big", "")
    assert info.version == store.bundle(TASK)[0].version
    assert far is not None
    assert (far.name, far.state, far.requests_today, far.tokens_today) == ("far", "closed", 1, 10)


def test_remote_rewriter_sends_the_prompt_and_nothing_else(store: Store, chat: ChatServer) -> None:
    sampling = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["!"]}
    add(
        store,
        prompt="{tone}: {text}",
        task={"inputs": ["tone"]},
        asks={"sampling": sampling},
    )
    ask(store, configuration(TASK, chat.url), inputs={"tone": "kind"})
    (body,) = chat.bodies
    assert body == {
        "model": "big",
        "messages": [{"role": "user", "content": f"kind: {TEXT}"}],
        **sampling,
        "logprobs": True,
        "top_logprobs": 1,
    }


@pytest.mark.parametrize(
    ("grammar", "text", "found", "fits"),
    [
        (None, " as it is ", " as it is ", True),
        ({"kind": "regex", "source": "[a-z]+ day"}, "good day", "good day", True),
        ({"kind": "regex", "source": "[a-z]+ day"}, "Good day", "Good day", False),
        ({"kind": "lark", "source": 'start: "a" "b"'}, "ab", "ab", True),
        ({"kind": "lark", "source": 'start: "a" "b"'}, "a", "a", False),
        (JSON["grammar"], '{ "a": "\\u00e9", "b": 1 }\n', '{"a":"é","b":1}', True),
        (JSON["grammar"], '{"a": "x"}', '{"a":"x"}', False),
        (JSON["grammar"], '{"a": "x", "b": "1"}', '{"a":"x","b":"1"}', False),
        (JSON["grammar"], "no JSON", "no JSON", False),
        (JSON["grammar"], "[" * 100, "[" * 100, False),
    ],
)
def test_remote_rewriter_holds_answers_to_the_grammar(
    store: Store, chat: ChatServer, grammar: Any, text: str, found: str, fits: bool
) -> None:
    """What does not fit has no confidence; a last tier that never abstains says so."""
    add(store, task={"grammar": grammar})
    chat.answer = lambda body: (text, -0.2)
    only = ask(store, configuration(TASK, chat.url, accept_at=0.0))
    assert (only.text, only.complete, only.tier) == (found, fits, 1)
    assert only.confidence == (pytest.approx(1 / (1 + math.exp(-0.8))) if fits else 0.0)
    strict = ask(store, configuration(TASK, chat.url, accept_at=0.1))
    assert (strict.abstained, strict.text) == (not fits, found if fits else "")
    is_json = grammar is not None and grammar["kind"] == "json_schema"
    assert ("response_format" in chat.bodies[0]) == is_json
    if is_json:
        assert chat.bodies[0]["response_format"]["json_schema"]["schema"] == SCHEMA


def test_remote_rewriter_is_never_sure_of_a_cut_answer(store: Store, chat: ChatServer) -> None:
    add(store)
    token = {"token": "Good", "logprob": -0.01}
    choice = {
        "message": {"role": "assistant", "content": "Good"},
        "finish_reason": "length",
        "logprobs": {"content": [token]},
    }
    chat.faults = [Fault(body=json.dumps({"choices": [choice]}).encode())]
    only = ask(store, configuration(TASK, chat.url, accept_at=0.0))
    assert (only.complete, only.finish_reason, only.confidence) == (False, "length", 0.0)


FAULTS = {
    "429": Fault(429),
    "500": Fault(500, body=SECRET.encode()),
    "401": Fault(401),
    "400": Fault(400, body=SECRET.encode()),
    "garbage": Fault(body=b"<html>"),
    "cut": Fault(0),
    "no choices": Fault(body=b'{"choices": []}'),
    "no number": Fault(
        body=b'{"choices": [{"message": {"content": "x"}, '
        b'"logprobs": {"content": [{"token": "x", "logprob": NaN}]}}]}'
    ),
    "no logprobs": Fault(body=b'{"choices": [{"message": {"content": "x"}}]}'),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("on_failure", ["abstain", "answer", "error"])
def test_remote_rewriter_failure_is_one_of_the_policy(
    store: Store,
    chat: ChatServer,
    fault: str,
    on_failure: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(store)
    chat.faults = [FAULTS[fault]]
    config = configuration(TASK, chat.url, on_failure=on_failure)
    if on_failure == "error":
        with pytest.raises(EngineError) as caught:
            ask(store, config)
        assert SECRET not in str(caught.value)
    else:
        only = ask(store, config)
        assert (only.degraded, only.tier) == ("failure", 0)
        assert only.abstained == (on_failure == "abstain")
        assert bool(only.text) == (on_failure == "answer")
    assert SECRET not in caplog.text


def test_remote_rewriter_too_slow_for_the_budget_is_missed(store: Store, chat: ChatServer) -> None:
    add(store)
    chat.faults = [Fault(delay_s=30)]
    only = ask(store, configuration(TASK, chat.url), budget_ms=300)
    assert (only.degraded, only.tier, only.abstained) == ("no_time", 0, True)


def test_remote_rewriter_open_breaker_asks_nobody(store: Store, chat: ChatServer) -> None:
    add(store)
    chat.faults = [Fault(500)] * FAILURES
    config = configuration(TASK, chat.url)
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        for _ in range(FAILURES + 3):
            assert answer(runtime).degraded == "failure"
        info = tier_of(runtime)
    assert len(chat.bodies) == FAILURES
    assert (info.missed, info.endpoint and info.endpoint.state) == (FAILURES + 3, "open")


def test_remote_rewriter_spends_no_more_than_a_day_may_cost(store: Store, chat: ChatServer) -> None:
    add(store)
    config = configuration(TASK, chat.url, daily_requests=2, on_failure="error")
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        for _ in range(2):
            assert answer(runtime).tier == 1
        with pytest.raises(QueueFull, match="daily_requests"):
            answer(runtime)
    assert len(chat.bodies) == 2


def test_remote_rewriter_given_up_frees_its_place(store: Store, chat: ChatServer) -> None:
    add(store)
    chat.faults = [Fault(delay_s=30)]
    config = configuration(TASK, chat.url, concurrency=1, queue=0)
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        # The tier is given up a little before the deadline, so that this can be said.
        with suppress(DeadlineExceeded):
            (only,) = runtime.transform(TASK, TEXT, timeout_s=0.5)
            assert only.degraded == "no_time"
        end = time.monotonic() + 10
        while answer(runtime).tier != 1:
            assert time.monotonic() < end


def test_remote_rewriter_of_another_model_is_refused(store: Store, chat: ChatServer) -> None:
    add(store)
    with pytest.raises(ConfigError, match="calibrated with"):
        ask(store, configuration(TASK, chat.url, model="small"))
    add(store, asks={"prompt": "", "task_version": "0" * 12}, sureness=None)
    with pytest.raises(ConfigError, match="expected the sprat server"):
        ask(store, configuration(TASK, chat.url))


def test_remote_rewriter_that_cannot_be_asked_is_refused(store: Store, chat: ChatServer) -> None:
    add(store, asks={"sampling": {"temperature": 99.0}})
    with pytest.raises(ConfigError) as caught:
        ask(store, configuration(TASK, chat.url))
    assert caught.value.path == f"tasks.{TASK}.tiers.remote"
    assert not chat.bodies


def test_remote_rewriter_texts_are_kept_apart(store: Store, chat: ChatServer) -> None:
    add(store)
    chat.answer = lambda body: (user_text(body).removeprefix("Repeat: "), -0.2)
    config = configuration(TASK, chat.url)

    async def ask_all(runtime: Runtime) -> list[str]:
        texts = [f"text {number}" for number in range(12)]
        calls = (asyncio.to_thread(answer, runtime, text) for text in texts)
        return [each.text for each in await asyncio.gather(*calls)]

    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        assert asyncio.run(ask_all(runtime)) == [f"text {number}" for number in range(12)]


# -- another sprat server --------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server of a task of one tier, and the version of that."""
    folder = tmp_path_factory.mktemp("peer")
    store = Store(folder / "home")
    pull(str(published), store)
    made = rewritings.bundle(
        language_tier(
            store.model(GENERATOR)[0], asks={"sampling": {"max_tokens": 4}, "prompt": "{x} {text}"}
        ),
        name=FAR,
        transform={"inputs": ["x"], "grammar": {"kind": "regex", "source": "[0-9]{3}"}},
    )
    manifest, _ = store.add_bundle(FAR, lambda path: made.save(path, report="{}"))
    server = start_server(store, folder, "--task", FAR)
    yield server, manifest.version
    assert server.stop() == 0
    assert SECRET not in server.log.read_text()


def onto(store: Store, peer: tuple[Server, str], **changes: Any) -> Config:
    """A cascade onto the peer's task."""
    asks = {"model": FAR, "task_version": peer[1], **changes.pop("asks", {}), "prompt": ""}
    made = rewritings.bundle(
        language_tier(
            store.model(GENERATOR)[0], accept_at=1.0, asks={"sampling": {"max_tokens": 4}} | PROMPT
        ),
        remote_tier(**{"asks": asks, "sureness": None, **changes}),
        name=TASK,
        transform={"inputs": ["x"]},
    )
    store.add_bundle(TASK, lambda path: made.save(path, report="{}"), replace=True)
    return configuration(TASK, peer[0].address, model=FAR)


PROMPT = {"prompt": "{x} {text}"}


def test_remote_rewriter_asks_another_server(store: Store, peer: tuple[Server, str]) -> None:
    config = onto(store, peer)
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        only = answer(runtime, inputs={"x": "y"})
        far = tier_of(runtime).endpoint
        (info,) = runtime.list_tasks()
    assert (only.tier, only.complete, len(only.text)) == (1, True, 3)
    assert only.text.isdigit()
    assert (only.model, only.model_version) == (FAR, peer[1])
    assert info.models[1] == (FAR, peer[1])
    # The confidence of the task there, through a curve that leaves it as it is.
    assert only.confidence is not None
    assert 0 < only.confidence <= 0.99
    assert far is not None
    assert (far.requests_today, far.tokens_today) == (1, only.prompt_tokens + only.output_tokens)


def test_remote_rewriter_task_of_another_version_is_missed(
    store: Store, peer: tuple[Server, str]
) -> None:
    config = onto(store, peer, asks={"task_version": "0" * 12})
    only = ask(store, config, inputs={"x": "y"})
    assert (only.degraded, only.tier) == ("failure", 0)


def test_remote_rewriter_server_that_is_gone_is_missed(store: Store, tmp_path: Path) -> None:
    gone = Server(None, f"unix:{tmp_path}/gone.sock", tmp_path)  # type: ignore[arg-type]
    only = ask(store, onto(store, (gone, "0" * 12)), inputs={"x": "y"})
    assert (only.degraded, only.tier) == ("failure", 0)


def test_remote_rewriter_unknown_task_is_missed(store: Store, peer: tuple[Server, str]) -> None:
    onto(store, peer, asks={"model": "nobody"})
    config = configuration(TASK, peer[0].address, model="nobody")
    only = ask(store, config, inputs={"x": "y"})
    assert (only.degraded, only.tier) == ("failure", 0)


def test_remote_rewriter_manifest_of_a_peer_has_no_sureness(store: Store) -> None:
    with pytest.raises((SpratError, ValueError), match="a task has a confidence, and no sureness"):
        onto(store, (Server(None, "x", Path()), "0" * 12), sureness=rewritings.SURENESS)  # type: ignore[arg-type]
