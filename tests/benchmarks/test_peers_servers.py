"""What is said over HTTP, to a small program; llama-server itself is not on every machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from sprat.benchmarks.peers_servers import HttpServer
from sprat.errors import SetupError

PROGRAM = r"""
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, b"{}")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/leave":
            self.answer(200, b"{}")
            # Without a word in its answer: as a server closes what was idle for long.
            self.close_connection = True
        elif self.path == "/bad":
            self.answer(400, b"no such field")
        elif body.get("stream"):
            events = "".join(f"data: {json.dumps({'content': part})}\n\n" for part in body["parts"])
            self.answer(200, (events + "data: [DONE]\n\n").encode())
        else:
            self.answer(200, json.dumps({"path": self.path, **body}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer((sys.argv[2], int(sys.argv[4])), Handler).serve_forever()
"""


class Program(HttpServer):
    name = "program"

    def __init__(self, source: str) -> None:
        super().__init__([sys.executable, "-c", source], health="/health", callers=2)


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with Program(PROGRAM) as server:
        yield server


async def test_peers_servers_answer_from_json(server: Program) -> None:
    for text in ("one", "zwei ü"):
        assert await server.post("/ask", {"text": text}) == {"path": "/ask", "text": text}


async def test_peers_servers_stream_events_with_their_times(server: Program) -> None:
    events = await server.stream("/ask", {"parts": ["a", "b", "c"]})
    assert [event["content"] for _, event in events] == ["a", "b", "c"]
    times = [at for at, _ in events]
    assert times == sorted(times)
    assert times[0] > 0
    assert await server.post("/ask", {}) == {"path": "/ask"}


async def test_peers_servers_connect_again_when_a_connection_was_closed(server: Program) -> None:
    for _ in range(2):
        await server.post("/leave", {})
        assert await server.post("/ask", {}) == {"path": "/ask"}


async def test_peers_servers_say_what_was_refused(server: Program) -> None:
    with pytest.raises(SetupError, match="/bad answered 400: no such field"):
        await server.post("/bad", {})
    assert await server.post("/ask", {}) == {"path": "/ask"}


def test_peers_servers_that_do_not_start_say_why() -> None:
    with pytest.raises(SetupError, match="program: ended with status 3: out of herrings"):
        Program("import sys; print('out of herrings'); sys.exit(3)")
