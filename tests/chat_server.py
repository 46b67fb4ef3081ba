"""An OpenAI-compatible chat endpoint on loopback: enough of its protocol, and its faults."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

LOGPROB = -0.05
Answer = str | tuple[str, float]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes
    ----------
    status : int
        0: the connection is cut in the middle of the reply.
    headers : dict
        Beside those that every reply has.
    body : bytes
        What is sent in place of an answer.
    delay_s : float
        Before anything is sent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_s: float = 0.0


@dataclass
class ChatServer:
    """Answers chats by a function; faults come first, one a request.

    Attributes
    ----------
    answer : callable
        From a request's document to the text, or text and log-probability of it as a whole.
    bodies, headers : list
        What came, in order.
    usage : tuple of (int, int) or None
        Tokens read and written that every answer says it took.
    most : int
        Most requests that were under way at once.
    """

    answer: Callable[[dict[str, Any]], Answer] = lambda body: "yes"
    faults: list[Fault] = field(default_factory=list)
    has_logprobs: bool = True
    usage: tuple[int, int] | None = None
    tls: tuple[Path, Path] | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most: int = 0
    active: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        chat = self

        class Handler(_Handler):
            state = chat

        self._server = _Server(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            # The handshake is the handler's: one that fails must not stop the others.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing on stderr: clients that give up are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ChatServer

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on stderr."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.state
        with chat.lock:
            chat.bodies.append(body)
            chat.headers.append(dict(self.headers))
            chat.paths.append(self.path)
            chat.active += 1
            chat.most = max(chat.most, chat.active)
            fault = chat.faults.pop(0) if chat.faults else Fault()
        try:
            chat.closing.wait(fault.delay_s)
            document = fault.body
            if document is None:
                document = json.dumps(self._document(body)).encode()
            if fault.status == 0:
                self._send(200, {}, document, cut=True)
            else:
                self._send(fault.status, fault.headers, document)
        finally:
            with chat.lock:
                chat.active -= 1

    def _document(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.state.answer(body)
        text, logprob = answer if isinstance(answer, tuple) else (answer, LOGPROB)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "logprobs": None,
        }
        if body.get("logprobs") and self.state.has_logprobs:
            # The answer's probability is the product over its tokens.
            tokens = [
                {"token": text, "logprob": logprob / 2},
                {"token": "", "logprob": logprob / 2},
            ]
            choice["logprobs"] = {"content": tokens}
        document = {"id": "1", "object": "chat.completion", "model": body["model"]}
        if self.state.usage is not None:
            read, written = self.state.usage
            document["usage"] = {"prompt_tokens": read, "completion_tokens": written}
        return {**document, "choices": [choice]}

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)


def user_text(body: Mapping[str, Any]) -> str:
    """What the user said last."""
    return str(body["messages"][-1]["content"])


def by_words(rules: Mapping[str, Answer]) -> Callable[[dict[str, Any]], Answer]:
    """A function that answers by the first word of ``rules`` that the text holds; else nothing."""

    def answer(body: dict[str, Any]) -> Answer:
        text = user_text(body)
        return next((found for word, found in rules.items() if word in text), "")

    return answer


def certificate(folder: Path, name: str, addresses: Sequence[str]) -> tuple[Path, Path]:
    """A self-signed certificate and its key, for these subject alternative names."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed")
    paths = (folder / f"{name}.crt", folder / f"{name}.key")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-addext", f"subjectAltName={','.join(addresses)}"),
        *("-out", str(paths[0]), "-keyout", str(paths[1])),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return paths
