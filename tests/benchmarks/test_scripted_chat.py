"""The chat endpoint that fails: as often as it says, and right otherwise."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from sprat.benchmarks.process import ScriptedChatProcess
from sprat.benchmarks.scripted_chat import FAILING, WAYS
from sprat.errors import SpratError
from sprat.remote import ChatEndpoint
from sprat.values import Message, Sampling


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"one": ["a", -0.1], "two": ["b", -1.5]}))
    return path


def counts(url: str) -> dict[str, int]:
    found: dict[str, int] = json.load(urlopen(f"{url}/counts", timeout=10))
    return found


async def test_scripted_chat_answers_and_fails_in_every_way(answers: Path) -> None:
    heard: dict[str, int] = {}
    with ScriptedChatProcess(answers) as server:
        endpoint = ChatEndpoint(server.address, "scripted", attempts=1)
        try:
            for number in range(150):
                text = ("one", "two", "three")[number % 3]
                chat = [Message("system", "Which?"), Message("user", text)]
                try:
                    said = await endpoint.complete(chat, Sampling(max_tokens=4), logprobs=True)
                except SpratError as error:
                    heard[type(error).__name__] = heard.get(type(error).__name__, 0) + 1
                else:
                    assert said.text == {"one": "a", "two": "b"}.get(text, "")
                    assert said.complete
                    assert said.logprob == {"one": -0.1, "two": -1.5}.get(text, 0.0)
        finally:
            await endpoint.aclose()
        found = counts(server.address)
    assert found["requests"] == 150
    failed = sum(found.get(way, 0) for way in WAYS)
    assert failed == sum(heard.values())
    assert 0.5 * FAILING < failed / 150 < 2 * FAILING
    assert set(WAYS) <= found.keys()
    assert {"Retryable", "EndpointError"} == heard.keys()


def test_scripted_chat_does_not_mind_broken_clients(answers: Path) -> None:
    with ScriptedChatProcess(answers) as server:
        host, _, port = server.address.removeprefix("http://").removesuffix("/v1").partition(":")
        broken = http.client.HTTPConnection(host, int(port), timeout=10)
        broken.connect()
        broken.sock.sendall(b"POST /v1 HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
        broken.close()
        fetched: Any = counts(server.address)
    assert fetched == {}
