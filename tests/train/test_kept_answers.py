"""What an endpoint has answered is kept, and asked for once."""

from __future__ import annotations

import asyncio
import json
import math
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Fault, by_words, user_text
from doubles import WAIT_S, eventually

from sprat import remote as chats
from sprat.asked_manifest import (
    Remote,
    RemoteCategories,
    RemoteFields,
    RemoteRewriting,
    fields_schema,
)
from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.base import SaidCategories, SaidLabel, SaidText
from sprat.endpoints.opening import open_endpoint
from sprat.errors import DataError, InvalidInput, SpratError, StoreError
from sprat.scheduler import LoopThread
from sprat.train.kept_answers import KeptAnswers
from sprat.values import Label

ASKED = Remote(model="big", labels=(Label("red"), Label("blue")))
TEXTS = tuple(f"{colour} {number}" for number in range(3) for colour in ("red", "blue"))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    words = {colour: (colour, -0.1) for colour in ("red", "blue")}
    with ChatServer(answer=by_words(words), usage=(20, 2)) as server:
        yield server


class Run:
    """A run that asks, on a loop of its own."""

    def __init__(self, chat: ChatServer, folder: Path, **options: Any) -> None:
        config = EndpointConfig(url=chat.url, model="big", attempts=1, concurrency=2)
        self.kept = KeptAnswers(folder / "answers", "far", options.pop("url", chat.url), **options)
        self.endpoint = self.kept.over(open_endpoint("far", config, folder))
        self.loop = LoopThread()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run(self.endpoint.aclose())
        self.loop.close()
        self.kept.close()

    def ask(self, *texts: str, asked: Remote = ASKED) -> list[SaidLabel | SpratError]:
        question = self.endpoint.labels(asked)
        return self.loop.run(question.ask(texts, deadline=math.inf))


def labels(heard: list[SaidLabel | SpratError]) -> list[str]:
    return [said.label if isinstance(said, SaidLabel) else "failed" for said in heard]


def journals(folder: Path) -> list[Path]:
    return sorted((folder / "answers").iterdir())


def test_kept_answers_are_not_asked_for_again(chat: ChatServer, tmp_path: Path) -> None:
    with Run(chat, tmp_path) as run:
        first = run.ask(*TEXTS[:4])
        again = run.ask(*TEXTS[:4])
        assert (run.kept.found, run.kept.count) == (0, 4)
    with Run(chat, tmp_path) as run:
        heard = run.ask(*TEXTS)
        assert (run.kept.found, run.kept.count) == (4, 6)
        assert run.kept.cost_ms() > 0
    assert first == again == heard[:4]
    assert labels(heard) == [text.split()[0] for text in TEXTS]
    assert sorted(map(user_text, chat.bodies)) == sorted(TEXTS)
    (journal,) = journals(tmp_path)
    assert stat.S_IMODE(journal.parent.stat().st_mode) == 0o700
    # No text of the rows.
    assert not any(text in journal.read_text() for text in TEXTS)


def test_kept_answers_ask_about_the_same_text_once(chat: ChatServer, tmp_path: Path) -> None:
    with Run(chat, tmp_path) as run:
        assert labels(run.ask("red", "blue", "red")) == ["red", "blue", "red"]
    assert len(chat.bodies) == 2


def test_kept_answers_are_those_before_a_failure(chat: ChatServer, tmp_path: Path) -> None:
    chat.faults = [Fault(), Fault(), Fault(400)]
    with Run(chat, tmp_path) as run:
        heard = labels(run.ask(*TEXTS))
    assert heard.count("failed") == 1
    with Run(chat, tmp_path) as run:
        assert "failed" not in labels(run.ask(*TEXTS))
        assert run.kept.found == 5
    assert len(chat.bodies) == len(TEXTS) + 1


def test_kept_answers_are_those_before_the_caller_gave_up(tmp_path: Path) -> None:
    asked, answer = threading.Semaphore(0), threading.Event()

    def slowly(body: dict[str, Any]) -> tuple[str, float]:
        if user_text(body) == TEXTS[1]:
            asked.release()
            assert answer.wait(WAIT_S)
        return user_text(body).split()[0], -0.1

    with ChatServer(answer=slowly, usage=(20, 2)) as chat:
        with Run(chat, tmp_path) as run:
            question = run.endpoint.labels(ASKED)

            async def give_up() -> None:
                task = asyncio.ensure_future(question.ask(TEXTS[:2], deadline=math.inf))
                await eventually(lambda: run.kept.count == 1, "no answer is kept")
                await asyncio.to_thread(asked.acquire, timeout=WAIT_S)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            run.loop.run(asyncio.wait_for(give_up(), WAIT_S))
        answer.set()
        with Run(chat, tmp_path) as run:
            assert labels(run.ask(*TEXTS[:2])) == ["red", "blue"]
            assert run.kept.found == 1
        assert [user_text(body) for body in chat.bodies].count(TEXTS[0]) == 1


def test_kept_answers_are_of_one_question_to_one_endpoint(chat: ChatServer, tmp_path: Path) -> None:
    with Run(chat, tmp_path) as run:
        run.ask("red")
    others = [
        ASKED.model_copy(update={"instructions": "Which?"}),
        ASKED.model_copy(update={"votes": 3}),
        ASKED.model_copy(update={"labels": ASKED.labels[::-1]}),
        ASKED.model_copy(update={"labels": (Label("red", "as fire"), Label("blue"))}),
    ]
    with Run(chat, tmp_path) as run:
        for other in others:
            run.ask("red", asked=other)
        assert run.kept.found == 0
    with Run(chat, tmp_path, url="https://elsewhere.example/v1") as run:
        run.ask("red")
        assert run.kept.found == 0
    assert len(journals(tmp_path)) == len(others) + 2


def test_kept_answers_go_when_they_are_dropped_or_not_wanted(
    chat: ChatServer, tmp_path: Path
) -> None:
    with Run(chat, tmp_path) as run:
        run.ask("red")
    with Run(chat, tmp_path, restart=True) as run:
        run.ask("red")
        assert run.kept.found == 0
        run.kept.drop()
        assert run.kept.count == 0
    assert journals(tmp_path) == []
    assert len(chat.bodies) == 2
    chat.faults = [Fault(401)]
    with Run(chat, tmp_path) as run:
        assert labels(run.ask("red")) == ["failed"]
    assert journals(tmp_path) == []


def test_kept_answers_are_asked_for_by_one_process(chat: ChatServer, tmp_path: Path) -> None:
    with Run(chat, tmp_path) as run:
        run.ask("red")
        with Run(chat, tmp_path) as other, pytest.raises(StoreError, match="another process"):
            other.ask("red")


@pytest.mark.parametrize("line", ["no JSON", '{"text": "a", "said": {"label": 3}}'])
def test_kept_answers_that_are_none_are_refused(
    chat: ChatServer, tmp_path: Path, line: str
) -> None:
    with Run(chat, tmp_path) as run:
        run.ask("red")
    (journal,) = journals(tmp_path)
    with journal.open("a") as file:
        file.write(line + "\n")
    with Run(chat, tmp_path) as run, pytest.raises(DataError, match="--restart"):
        run.ask("red")
    with Run(chat, tmp_path, restart=True) as run:
        assert labels(run.ask("red")) == ["red"]


def test_kept_answers_that_cannot_be_written_end_the_run(
    chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(journal: object, row: dict[str, Any]) -> None:
        if "said" in row:
            raise StoreError("no space is left")

    with Run(chat, tmp_path) as run:
        question = run.endpoint.labels(ASKED)
        monkeypatch.setattr("sprat.train.journal.Journal.append", full)
        with pytest.raises(StoreError, match="no space"):
            run.loop.run(question.ask(["red"], deadline=math.inf))


def test_kept_answers_do_not_know_a_cost_that_nobody_measured(
    chat: ChatServer, tmp_path: Path
) -> None:
    with Run(chat, tmp_path) as run:
        run.ask("red")
    (journal,) = journals(tmp_path)
    rows = [row for row in journal.read_text().splitlines() if "cpu_ms" not in json.loads(row)]
    journal.write_text("".join(f"{row}\n" for row in rows))
    with Run(chat, tmp_path) as run:
        run.ask("red")
        with pytest.raises(InvalidInput, match="--remote-cost-ms: expected it"):
            run.kept.cost_ms()


def test_kept_answers_of_fields(tmp_path: Path) -> None:
    schema = fields_schema((Label("name"),), ("name",))
    asked = RemoteFields(model="big", json_schema=schema)
    with ChatServer(answer=lambda body: ('{"name": ["Ada"]}', -0.1), usage=(20, 2)) as chat:
        heard = []
        for _ in range(2):
            with Run(chat, tmp_path) as run:
                question = run.endpoint.fields(asked)
                heard.append(run.loop.run(question.ask(["I am Ada"], deadline=math.inf)))
        assert heard[0] == heard[1]
        assert len(chat.bodies) == 1


def test_kept_answers_of_texts_depend_on_the_inputs(tmp_path: Path) -> None:
    asked = RemoteRewriting(model="big", prompt="{tone}: {text}")
    with ChatServer(answer=lambda body: ("Dear Ada", -0.1), usage=(20, 2)) as chat:
        heard = []
        for tone in ("kind", "kind", "harsh"):
            with Run(chat, tmp_path) as run:
                question = run.endpoint.texts(asked, schema=None, has_logprobs=True)
                heard += run.loop.run(
                    question.ask(["Ada"], deadline=math.inf, inputs={"tone": tone})
                )
        assert [said.text for said in heard if isinstance(said, SaidText)] == ["Dear Ada"] * 3
        assert heard[0] == heard[1]
        assert len(chat.bodies) == 2


def test_kept_answers_of_categories(tmp_path: Path) -> None:
    asked = RemoteCategories(model="big", categories=(Label("insult"), Label("threat")))
    with ChatServer(answer=lambda body: ('["insult"]', -0.1), usage=(20, 2)) as chat:
        heard = []
        for _ in range(2):
            with Run(chat, tmp_path) as run:
                question = run.endpoint.categories(asked)
                heard.append(run.loop.run(question.ask(["You fool"], deadline=math.inf)))
        assert heard[0] == heard[1]
        assert isinstance(heard[0][0], SaidCategories)
        assert len(chat.bodies) == 1
