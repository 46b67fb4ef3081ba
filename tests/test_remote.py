"""The client of chat endpoints against a real server on loopback, with its faults."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from chat_server import LOGPROB, ChatServer, Fault, certificate

from sprat import remote
from sprat.errors import (
    ConfigError,
    DeadlineExceeded,
    EndpointError,
    InvalidInput,
    NotFound,
    Retryable,
    SpratError,
)
from sprat.remote import ChatEndpoint, Completion
from sprat.values import Message, Sampling

CHAT = [Message("system", "Answer."), Message("user", "a secret text")]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[ChatEndpoint]:
    endpoint = ChatEndpoint(url, "big", **options)
    try:
        yield endpoint
    finally:
        await endpoint.aclose()


async def ask(url: str, sampling: Sampling = Sampling(), **options: Any) -> Completion:
    async with opened(url, **options) as endpoint:
        return await endpoint.complete(CHAT, sampling, logprobs=True)


async def test_remote_sends_the_chat_and_nothing_else(chat: ChatServer) -> None:
    answer = await ask(chat.url, Sampling(max_tokens=9), key="k-1")
    assert answer == Completion(
        "yes", complete=True, logprob=LOGPROB, logprobs=(LOGPROB / 2, LOGPROB / 2)
    )
    assert chat.bodies == [
        {
            "model": "big",
            "messages": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": "a secret text"},
            ],
            "max_tokens": 9,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": 1,
        }
    ]
    assert chat.paths == ["/v1/chat/completions"]
    assert chat.headers[0]["Authorization"] == "Bearer k-1"


async def test_remote_sends_the_sampling_that_is_not_off(chat: ChatServer) -> None:
    await ask(chat.url, Sampling(9, 0.7, top_p=0.9, seed=3, stop=("\n",)))
    sent = chat.bodies[0]
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.7, 0.9, 3)
    assert sent["stop"] == ["\n"]
    assert "top_k" not in sent
    assert "Authorization" not in chat.headers[0]


@pytest.mark.parametrize("tail", ["", "/", "/chat/completions"])
async def test_remote_takes_the_url_with_and_without_its_end(chat: ChatServer, tail: str) -> None:
    await ask(chat.url + tail)
    assert chat.paths == ["/v1/chat/completions"]


async def test_remote_says_nothing_of_probabilities_that_it_was_not_told(chat: ChatServer) -> None:
    chat.has_logprobs = False
    assert (await ask(chat.url)).logprob is None


@pytest.mark.parametrize(("reason", "complete"), [("stop", True), ("length", False), (None, True)])
async def test_remote_tells_what_was_cut_off(
    chat: ChatServer, reason: str | None, complete: bool
) -> None:
    said = "null" if reason is None else f'"{reason}"'
    body = f'{{"choices": [{{"message": {{"content": null}}, "finish_reason": {said}}}]}}'
    chat.faults = [Fault(body=body.encode())]
    assert await ask(chat.url) == Completion("", complete=complete, logprob=None)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429),
        Fault(500, body=b"<html>"),
        Fault(503, {"Retry-After": "soon"}),
        Fault(408),
        Fault(0),
    ],
    ids=["429", "500", "503", "408", "cut"],
)
async def test_remote_tries_again_after_a_passing_fault(chat: ChatServer, fault: Fault) -> None:
    chat.faults = [fault, fault]
    assert (await ask(chat.url)).text == "yes"
    assert len(chat.bodies) == 3


async def test_remote_tries_again_after_a_slow_answer(chat: ChatServer) -> None:
    chat.faults = [Fault(delay_s=20)]
    assert (await ask(chat.url, timeout_s=2)).text == "yes"


async def test_remote_waits_as_long_as_it_is_told(chat: ChatServer) -> None:
    chat.faults = [Fault(429, {"Retry-After": "0.4"})]
    started = time.monotonic()
    await ask(chat.url)
    assert time.monotonic() - started >= 0.4


async def test_remote_reads_a_date_to_wait_for(chat: ChatServer) -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    chat.faults = [Fault(503, {"Retry-After": date})]
    with pytest.raises(Retryable) as caught:
        await ask(chat.url)
    # An hour is for the caller to decide about, not for a loop.
    assert 3590 < caught.value.retry_after_s <= 3600
    assert len(chat.bodies) == 1


async def test_remote_gives_up_after_so_many_attempts(chat: ChatServer) -> None:
    chat.faults = [Fault(500)] * 9
    with pytest.raises(Retryable, match="status 500"):
        await ask(chat.url, attempts=3)
    assert len(chat.bodies) == 3


async def test_remote_reports_an_endpoint_that_is_always_too_slow(chat: ChatServer) -> None:
    chat.faults = [Fault(delay_s=20)] * 2
    with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
        await ask(chat.url, timeout_s=0.1, attempts=2)


async def test_remote_reports_an_endpoint_that_is_not_there(chat: ChatServer) -> None:
    url = chat.url
    chat.__exit__(None, None, None)
    with pytest.raises(Retryable, match="ConnectError"):
        await ask(url, attempts=2)
    chat.__enter__()


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault(401, body=b'{"error": {"code": "invalid_api_key"}}'), EndpointError, "401 (invalid"),
        (Fault(403, body=b"no"), EndpointError, "status 403"),
        (Fault(302, {"Location": "https://elsewhere.example/"}), EndpointError, "status 302"),
        (Fault(404, body=b'{"error": {"code": "model_not_found"}}'), NotFound, "no model named"),
        (Fault(404), EndpointError, "is /v1/chat/completions the right path?"),
        (
            Fault(400, body=b'{"error": {"type": "a secret text", "code": "content_filter"}}'),
            InvalidInput,
            "status 400 (content_filter)",
        ),
        (Fault(413), InvalidInput, "status 413"),
    ],
)
async def test_remote_does_not_repeat_what_is_refused(
    chat: ChatServer, fault: Fault, kind: type[SpratError], message: str
) -> None:
    chat.faults = [fault]
    with pytest.raises(kind) as caught:
        await ask(chat.url)
    assert message in caught.value.message
    assert len(chat.bodies) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>a secret text</html>",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {}, "logprobs": {"content": [{"logprob": "x"}]}}]}',
        b'{"choices": [{"message": {}, "logprobs": {"content": [{"logprob": NaN}]}}]}',
    ],
)
async def test_remote_refuses_what_is_no_completion(chat: ChatServer, body: bytes) -> None:
    chat.faults = [Fault(body=body)]
    with pytest.raises(EndpointError, match="expected a chat completion"):
        await ask(chat.url)


async def test_remote_never_repeats_texts_in_errors_or_logs(
    chat: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = b'{"error": {"message": "a secret text", "type": "a secret text"}}'
    chat.faults = [Fault(500, body=echo), Fault(400, body=echo)]
    with pytest.raises(InvalidInput) as caught:
        await ask(chat.url, key="k-secret")
    said = caught.value.message + caplog.text
    assert "status 500" in said
    assert "secret text" not in said
    assert "k-secret" not in said


async def test_remote_bounds_a_reply(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LARGEST_REPLY", 100)
    chat.faults = [Fault(body=b" " * 101)]
    with pytest.raises(EndpointError, match="more than 100 bytes"):
        await ask(chat.url)


async def test_remote_bounds_what_is_under_way(chat: ChatServer) -> None:
    chat.faults = [Fault(delay_s=0.05)] * 8
    async with opened(chat.url, concurrency=3) as endpoint:
        await asyncio.gather(*(endpoint.complete(CHAT, Sampling()) for _ in range(8)))
    assert chat.most == 3


async def test_remote_is_usable_after_a_cancelled_request(chat: ChatServer) -> None:
    chat.faults = [Fault(delay_s=20)]
    async with opened(chat.url, concurrency=1) as endpoint:
        task = asyncio.create_task(endpoint.complete(CHAT, Sampling()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await endpoint.complete(CHAT, Sampling())).text == "yes"


async def test_remote_does_not_ask_a_proxy_about_this_machine(
    chat: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await ask(chat.url, attempts=1)).text == "yes"


# -- TLS -------------------------------------------------------------------------------------


async def test_remote_trusts_the_authorities_it_is_given(tmp_path: Path) -> None:
    pair = certificate(tmp_path, "own", ["IP:127.0.0.1"])
    with ChatServer(tls=pair) as chat:
        assert (await ask(chat.url, ca=pair[0])).text == "yes"


async def test_remote_sends_nothing_to_a_stranger(tmp_path: Path) -> None:
    with ChatServer(tls=certificate(tmp_path, "own", ["IP:127.0.0.1"])) as chat:
        with pytest.raises(EndpointError, match="self-signed"):
            await ask(chat.url, key="k")
        assert chat.bodies == []


async def test_remote_sends_nothing_to_another_host_than_the_certificate_names(
    tmp_path: Path,
) -> None:
    pair = certificate(tmp_path, "other", ["DNS:other.example"])
    with ChatServer(tls=pair) as chat:
        with pytest.raises(EndpointError, match=r"not valid for '127\.0\.0\.1'"):
            await ask(chat.url, ca=pair[0])
        assert chat.bodies == []


# -- URLs and keys ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example.org/v1",
        "HTTPS://models.example.org",
        "http://127.0.0.1:8080/v1",
        "http://127.9.9.9",
        "http://[::1]:8080",
        "http://localhost:1",
    ],
)
def test_remote_takes_https_and_loopback(url: str) -> None:
    assert remote.is_url(url)
    ChatEndpoint(url, "big")


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example.org/v1",
        "http://192.168.0.7:8080",
        "http://localhost.example.org",
        "https://",
        "https://user:pass@models.example.org",
        "https://models.example.org/v1?key=k",
        "ftp://models.example.org",
        "https://models.example.org:port",
    ],
)
def test_remote_refuses_urls_that_leak_or_lead_nowhere(url: str) -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        ChatEndpoint(url, "big")


@pytest.mark.parametrize("name", ["tickets", "./tickets", "httpd", "https", "/srv/http://x"])
def test_remote_urls_are_not_names(name: str) -> None:
    assert not remote.is_url(name)


def test_remote_reads_the_key_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(remote.KEY_VARIABLE, raising=False)
    assert remote.read_key(None) is None
    monkeypatch.setenv(remote.KEY_VARIABLE, " from-environment ")
    assert remote.read_key(None) == "from-environment"
    path = tmp_path / "key"
    path.write_text("from-file\n")
    assert remote.read_key(path) == "from-file"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two words", b"a\nb", b"\xff", "schlüssel".encode()]
)
def test_remote_refuses_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        remote.read_key(path)
    assert "words" not in caught.value.message.replace("one word", "")


def test_remote_refuses_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        remote.read_key(tmp_path / "nothing")


def test_remote_refuses_authorities_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with pytest.raises(ConfigError, match="No such file"):
        ChatEndpoint("https://models.example.org", "big", ca=path)
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="no certificate"):
        ChatEndpoint("https://models.example.org", "big", ca=path)
