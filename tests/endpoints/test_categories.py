"""Endpoints that are asked for categories: what is sent, what comes back, and what goes wrong."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from chat_server import ChatServer, Fault
from doubles import moderator, no_leaked_threads
from pydantic import TypeAdapter
from remotes import configuration, with_remote_categories
from tiny_models import encoder_files, write_files

from sprat.endpoints.base import SaidCategories
from sprat.endpoints.breaker import FAILURES
from sprat.errors import ConfigError, EngineError
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.task_config import TierConfig
from sprat.values import ModerateResult, Moderation

NAME, ENCODER = "tiered", "tiny-encoder"
LIMITS = [{"flag_at": 0.5}] * 2
SECRET = "a very secret text"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("categories")
    store = Store(folder / "home")
    pull(str(write_files(folder / ENCODER, encoder_files())), store)
    return store


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(answer=lambda body: (names("zed"), math.log(0.9)), usage=(7, 3)) as server:
        yield server


def names(*given: str) -> str:
    return json.dumps({"categories": given})


def add(store: Store, **changes: Any) -> None:
    """The bundle: heads that pass everything on, and a remote tier."""
    heads = moderator(store.model(ENCODER)[0], thresholds=LIMITS)
    tier = heads.manifest.tiers[0].model_copy(update={"accept_at": 1.0})
    manifest = heads.manifest.model_copy(update={"tiers": (tier,)})
    made = with_remote_categories(type(heads)(manifest, heads.heads), **changes).named(NAME)
    store.add_bundle(NAME, lambda path: made.save(path, report="{}"), replace=True)


def moderate(
    store: Store, chat: ChatServer, *texts: str, times: int = 1, **settings: Any
) -> list[ModerateResult]:
    given = {key: settings.pop(key) for key in ("budget_ms",) if key in settings}
    config = configuration(NAME, chat.url, **settings)
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        return [
            runtime.moderate(NAME, texts or [SECRET], partial=True, **given) for _ in range(times)
        ]


def only(results: Sequence[ModerateResult]) -> Moderation:
    ((item,),) = [result.items for result in results]
    assert item is not None
    return item


def chances(item: Moderation) -> list[float]:
    return [each.probability for each in item.categories]


def test_categories_come_from_the_endpoint(home: Store, chat: ChatServer) -> None:
    add(home, asks={"instructions": "Posts."})
    item = only(moderate(home, chat, "  some text "))
    assert chances(item) == pytest.approx([0.9, 0.1])
    assert (item.tier, item.action, item.category, item.degraded) == (1, "flag", "zed", None)
    assert item.confidence == pytest.approx(0.81)
    assert (item.chunks, item.input_tokens) == (1, 7)
    assert [(each.start, each.end) for each in item.categories] == [(2, 11)] * 2
    (body,) = chat.bodies
    system, user = body["messages"]
    assert system["content"].startswith("Posts.\n- zed\n- quirk\nAnswer with JSON")
    assert user == {"role": "user", "content": "  some text "}
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["categories"]["items"] == {
        "type": "string",
        "enum": ["zed", "quirk"],
    }
    assert body.keys() == {
        *("model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs"),
        "response_format",
    }


def test_categories_of_an_unsure_answer_are_still_more_probable_than_others(
    home: Store, chat: ChatServer
) -> None:
    add(home)
    chat.answer = lambda body: (names("quirk"), math.log(0.2))
    item = only(moderate(home, chat))
    assert chances(item) == pytest.approx([0.49, 0.51])
    assert item.category == "quirk"


def test_categories_of_a_clean_text_are_all_improbable(home: Store, chat: ChatServer) -> None:
    add(home)
    chat.answer = lambda body: (names(), math.log(0.95))
    item = only(moderate(home, chat))
    assert chances(item) == pytest.approx([0.05, 0.05])
    assert (item.action, item.category, item.abstained) == ("allow", "", False)


def test_categories_are_calibrated_and_acted_on_here(home: Store, chat: ChatServer) -> None:
    acts = {
        "odds": [{"slope": 2, "offset": 1}, {"slope": 1, "offset": 2}],
        "thresholds": [{"flag_at": 0.6, "block_at": 0.99}, {"flag_at": 0.9}],
    }
    add(home, acts=acts)
    item = only(moderate(home, chat))
    odds = math.log(0.9 / 0.1)
    expected = [1 / (1 + math.exp(-2 * odds - 1)), 1 / (1 + math.exp(odds - 2))]
    assert chances(item) == pytest.approx(expected)
    assert [each.action for each in item.categories] == ["block", "allow"]


def test_categories_are_shares_of_votes(home: Store, chat: ChatServer) -> None:
    """Of the answers that are lists of categories, with one vote for and one against each."""
    add(home, asks={"votes": 4})
    given = iter([names("zed"), names("zed", "quirk"), "no idea", names()])
    chat.answer = lambda body: next(given)
    chat.has_logprobs = False
    item = only(moderate(home, chat))
    assert chances(item) == pytest.approx([3 / 5, 2 / 5])
    assert item.input_tokens == 28
    assert {body["temperature"] for body in chat.bodies} == {1.0}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "zed",
        "[]",
        '["zed"]',
        "{}",
        '{"categories": "zed"}',
        '{"categories": [1]}',
        '{"categories": ["war"]}',
        '{"categories": ["zed"], "more": 1}',
        '{"categories": ["zed"',
        '{"categories": ' + "[" * 10_000,
        "I cannot help with that.",
    ],
)
@pytest.mark.parametrize("votes", [1, 2])
def test_categories_that_are_no_list_of_these_are_never_sure(
    home: Store, chat: ChatServer, answer: str, votes: int
) -> None:
    add(home, asks={"votes": votes})
    chat.answer = lambda body: answer
    item = only(moderate(home, chat, on_failure="answer"))
    assert (item.tier, item.abstained, item.action, item.category) == (1, True, "flag", "")
    assert (item.confidence, item.degraded) == (0.0, None)
    assert [each.label for each in item.tiers] == ["allow", ""]


def test_categories_that_are_no_list_of_these_are_nothing_to_fall_back_on(
    home: Store, chat: ChatServer
) -> None:
    """Where the tier behind is missed, and answers are wanted all the same."""
    heads = moderator(home.model(ENCODER)[0], thresholds=LIMITS)
    made = with_remote_categories(with_remote_categories(heads), name="farther").named(NAME)
    home.add_bundle(NAME, lambda path: made.save(path, report="{}"), replace=True)
    config = configuration(NAME, chat.url, on_failure="answer")
    tiers = {
        "head": TierConfig(accept_at=1.0),
        "remote": TierConfig(endpoint="far", accept_at=0.9),
        "farther": TierConfig(endpoint="far"),
    }
    task = config.tasks[NAME].model_copy(update={"tiers": tiers})
    chat.answer = lambda body: "no"
    chat.faults = [Fault(), Fault(500)]
    config = config.model_copy(update={"tasks": {NAME: task}})
    with Runtime(config=config, store=home) as runtime:
        (item,) = runtime.moderate(NAME, [SECRET]).items
    assert item is not None
    assert (item.tier, item.degraded, item.abstained, item.action) == (1, "failure", True, "flag")


def test_categories_of_an_answer_that_was_cut_off_count_for_nothing(
    home: Store, chat: ChatServer
) -> None:
    add(home)
    message = {"content": names("zed")}
    choice = {"message": message, "finish_reason": "length", "logprobs": None}
    chat.faults = [Fault(body=json.dumps({"choices": [choice]}).encode())]
    assert only(moderate(home, chat)).abstained


@pytest.mark.parametrize(
    "fault", [Fault(500), Fault(429), Fault(400), Fault(401), Fault(0), Fault(body=b"nonsense")]
)
@pytest.mark.parametrize("on_failure", ["abstain", "answer", "error"])
def test_categories_that_do_not_come_are_a_failure(
    home: Store, chat: ChatServer, fault: Fault, on_failure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    add(home)
    chat.faults = [fault]
    with caplog.at_level(logging.DEBUG):
        (result,) = moderate(home, chat, on_failure=on_failure)
    assert SECRET not in caplog.text
    if on_failure == "error":
        assert result.items == (None,)
        assert [error.reason for error in result.errors] == [EngineError.reason]
        assert SECRET not in result.errors[0].message
        return
    item = only([result])
    action = "flag" if on_failure == "abstain" else "allow"
    assert (item.tier, item.degraded, item.action) == (0, "failure", action)
    assert item.abstained is (on_failure == "abstain")


def test_categories_that_fail_for_one_text_come_for_the_others(
    home: Store, chat: ChatServer
) -> None:
    add(home)
    chat.faults = [Fault(500)]
    (result,) = moderate(home, chat, "one", "two", "three", concurrency=1)
    found = [(item.tier, item.degraded) for item in result.items if item]
    assert sorted(found, key=str) == [(0, "failure"), (1, None), (1, None)]


def test_categories_that_come_too_late_are_not_waited_for(home: Store, chat: ChatServer) -> None:
    add(home)
    chat.faults = [Fault(delay_s=60)]
    item = only(moderate(home, chat, budget_ms=200))
    assert (item.tier, item.degraded) == (0, "no_time")
    chat.closing.set()


def test_categories_without_probabilities_need_votes(home: Store, chat: ChatServer) -> None:
    add(home)
    chat.has_logprobs = False
    assert only(moderate(home, chat)).degraded == "failure"


def test_categories_are_not_asked_for_above_the_cap(home: Store, chat: ChatServer) -> None:
    add(home)
    results = moderate(home, chat, times=3, daily_requests=2)
    assert [only([result]).degraded for result in results] == [None, None, "overload"]
    assert len(chat.bodies) == 2


def test_categories_are_not_asked_for_while_the_breaker_is_open(
    home: Store, chat: ChatServer
) -> None:
    add(home)
    chat.faults = [Fault(500)] * 100
    results = moderate(home, chat, times=FAILURES + 3)
    assert {only([result]).degraded for result in results} == {"failure"}
    assert len(chat.bodies) == FAILURES


def test_categories_of_bad_texts_are_not_asked_for(home: Store, chat: ChatServer) -> None:
    add(home)
    (result,) = moderate(home, chat, "good", " ")
    assert [item and item.tier for item in result.items] == [1, None]
    assert [error.index for error in result.errors] == [1]
    assert len(chat.bodies) == 1


def test_categories_that_were_said_can_be_kept_as_json() -> None:
    said = SaidCategories.of({"zed": 0.75, "quirk": 0.5}, 7, spans={"zed": (1, 3)}, chunks=2)
    assert said.confidence == pytest.approx(0.375)
    adapter = TypeAdapter(SaidCategories)
    assert adapter.validate_json(adapter.dump_json(said)) == said
    nothing = SaidCategories.of({}, 7)
    assert nothing.confidence == 0
    assert adapter.validate_json(adapter.dump_json(nothing)) == nothing


def test_categories_are_left_out_where_nobody_is_named(home: Store, chat: ChatServer) -> None:
    add(home)
    with Runtime(tasks=[NAME], store=home) as runtime:
        (item,) = runtime.moderate(NAME, ["good"]).items
        (info,) = runtime.list_tasks()
    assert item is not None
    assert item.tier == 0
    assert info.unconfigured == ("remote",)
    assert chat.bodies == []


@pytest.mark.parametrize(
    ("asks", "said"),
    [
        ({"model": "other"}, "expected other, which the tier was calibrated with, got big"),
        ({"task_version": "1" * 12}, "expected the sprat server with task big"),
    ],
)
def test_categories_of_something_else_are_refused(
    home: Store, chat: ChatServer, asks: dict[str, str], said: str
) -> None:
    add(home, asks=asks)
    with pytest.raises(ConfigError, match=said):
        moderate(home, chat)
