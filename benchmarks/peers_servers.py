"""Other servers of GGUF models, and how each is asked for what sprat is asked for."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from sprat.benchmarks.load import Answer
from sprat.benchmarks.process import end
from sprat.errors import SetupError
from sprat.values import Timings

if TYPE_CHECKING:
    from typing_extensions import Self

READY_TIMEOUT_S = 120.0
CALL_TIMEOUT_S = 300.0
PYTHON_SERVER_NEEDS = ("fastapi", "uvicorn", "sse_starlette", "starlette_context")
"""Of ``llama-cpp-python[server]``, beside what sprat needs anyway."""


def python_server_lacks() -> tuple[str, ...]:
    """Packages that llama-cpp-python's server needs and that are not installed."""
    names = (*PYTHON_SERVER_NEEDS, "pydantic_settings")
    return tuple(name for name in names if find_spec(name) is None)


class HttpServer:
    """A program that serves JSON over HTTP. Use it as a context manager.

    Connections are kept open, one for each of the calls side by side.

    Parameters
    ----------
    command : sequence of str
        Without host and port, which are added as ``--host`` and ``--port``.
    health : str
        A path that answers 200 when the server is ready.
    callers : int
        Most calls side by side.

    Raises
    ------
    SetupError
        It does not get ready; the message has the last line that it logged.
    """

    name: ClassVar[str]

    def __init__(self, command: Sequence[str], *, health: str, callers: int) -> None:
        self._port = _free_port()
        self._thread = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._callers = ThreadPoolExecutor(callers)
        self._files = tempfile.TemporaryDirectory(prefix="sprat-bench-")
        self._log = Path(self._files.name) / "log"
        address = ["--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, *address], stdout=log, stderr=log)
        try:
            self._wait(health, time.perf_counter() + READY_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def _wait(self, health: str, deadline: float) -> None:
        while not self._is_ready(health):
            status = self._process.poll()
            if status is not None or time.perf_counter() > deadline:
                state = "not ready in time" if status is None else f"ended with status {status}"
                lines = self._log.read_text("utf-8", "replace").splitlines() or ["nothing logged"]
                raise SetupError(f"{self.name}: {state}: {lines[-1]}")
            time.sleep(0.05)

    def _is_ready(self, health: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", health)
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a request, from JSON.

        Raises
        ------
        SetupError
            The server refused it.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._callers, self._post, path, body)

    async def stream(self, path: str, body: dict[str, Any]) -> list[tuple[float, Any]]:
        """The events of an answer, each with the milliseconds since the request was sent.

        Raises
        ------
        SetupError
            The server refused it.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._callers, self._stream, path, body)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return json.loads(self._send(path, body).read())

    def _stream(self, path: str, body: dict[str, Any]) -> list[tuple[float, Any]]:
        sent = time.perf_counter()
        events = []
        # At its end the response sets the connection free for the next request.
        with self._send(path, {**body, "stream": True}) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    now = time.perf_counter()
                    events.append(((now - sent) * 1e3, json.loads(line.removeprefix(b"data: "))))
        return events

    def _send(self, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
        if not hasattr(self._thread, "connection"):
            self._thread.connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=CALL_TIMEOUT_S
            )
            self._connections.append(self._thread.connection)
        connection: http.client.HTTPConnection = self._thread.connection
        try:
            response = _ask(connection, path, body)
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # A server closes what was idle for some seconds, as between its rounds.
            connection.close()
            response = _ask(connection, path, body)
        if response.status != http.client.OK:
            reason = response.read()[:300].decode("utf-8", "replace")
            raise SetupError(f"{path} answered {response.status}: {reason}")
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and remove its files."""
        end(self._process)
        self._callers.shutdown()
        for connection in self._connections:
            connection.close()
        self._files.cleanup()


class LlamaServer(HttpServer):
    """llama-server, with its prompt cache on, and a slot for each caller.

    Parameters
    ----------
    programs : Path
        Folder of the program.
    model : Path
        GGUF file.
    threads : int
        Compute threads.
    slots : int
        Requests side by side.
    slot_tokens : int
        Most tokens of each.
    """

    name = "llama-server"

    def __init__(
        self, programs: Path, model: Path, *, threads: int, slots: int, slot_tokens: int
    ) -> None:
        command = [
            *(str(programs / "llama-server"), "--model", str(model), "--no-ui"),
            *("--threads", str(threads), "--threads-batch", str(threads)),
            *("--parallel", str(slots), "--ctx-size", str(slots * slot_tokens)),
            *("--flash-attn", "off", "--cache-prompt"),
        ]
        super().__init__(command, health="/health", callers=slots)

    async def render(self, messages: Sequence[dict[str, str]]) -> str:
        """A chat as a prompt, by the model's template."""
        answer = await self.post("/apply-template", {"messages": list(messages)})
        return str(answer["prompt"])

    async def count(self, prompt: str) -> int:
        """Tokens of a prompt."""
        body = {"content": prompt, "add_special": True, "parse_special": True}
        return len((await self.post("/tokenize", body))["tokens"])

    async def complete(self, prompt: str, *, grammar: str, tokens: int) -> Answer:
        """The greedy continuation of a prompt under a grammar."""
        body = {
            "prompt": prompt,
            "temperature": 0,
            "n_predict": tokens,
            "grammar": grammar,
            "cache_prompt": True,
        }
        answer = await self.post("/completion", body)
        return Answer(Timings(), int(answer["tokens_predicted"]), str(answer["content"]))

    async def write(self, prompt: str, tokens: int) -> Answer:
        """A greedy continuation of so many tokens, as it streams."""
        events = await self.stream(
            "/completion",
            {"prompt": prompt, "temperature": 0, "n_predict": tokens, "ignore_eos": True},
        )
        first_ms = next(at for at, event in events if event["content"])
        made = int(events[-1][1]["tokens_predicted"])
        text = "".join(event["content"] for _, event in events)
        return Answer(Timings(), made, text, first_ms)

    async def extract(
        self, messages: Sequence[dict[str, str]], schema: dict[str, Any], tokens: int
    ) -> Answer:
        """A JSON value under a schema, as the greedy answer to a chat."""
        body = {
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": tokens,
            "cache_prompt": True,
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        }
        return _chat_answer(await self.post("/v1/chat/completions", body))


class PythonServer(HttpServer):
    """llama-cpp-python's own server. It has one sequence: calls wait for one another.

    Parameters
    ----------
    model : Path
        GGUF file.
    threads : int
        Compute threads.
    callers : int
        Calls side by side.
    tokens : int
        Most tokens of one.
    """

    name = "llama-cpp-python"

    def __init__(self, model: Path, *, threads: int, callers: int, tokens: int) -> None:
        command = [
            *(sys.executable, "-m", "llama_cpp.server", "--model", str(model)),
            *("--n_threads", str(threads), "--n_threads_batch", str(threads)),
            *("--n_ctx", str(tokens), "--flash_attn", "false", "--verbose", "false"),
            # Else the next request ends an answer that streams.
            *("--interrupt_requests", "false"),
        ]
        super().__init__(command, health="/v1/models", callers=callers)

    async def complete(self, prompt: str, *, grammar: str, tokens: int) -> Answer:
        """The greedy continuation of a prompt under a grammar."""
        body = {"prompt": prompt, "temperature": 0, "max_tokens": tokens, "grammar": grammar}
        answer = await self.post("/v1/completions", body)
        made = int(answer["usage"]["completion_tokens"])
        return Answer(Timings(), made, str(answer["choices"][0]["text"]))

    async def write(self, prompt: str, tokens: int) -> Answer:
        """A greedy continuation of at most so many tokens, as it streams."""
        body = {"prompt": prompt, "temperature": 0, "max_tokens": tokens}
        events = await self.stream("/v1/completions", body)
        texts = [(at, event["choices"][0]["text"]) for at, event in events if event.get("choices")]
        made = sum(bool(text) for _, text in texts)
        first_ms = next(at for at, text in texts if text)
        return Answer(Timings(), made, "".join(text for _, text in texts), first_ms)

    async def extract(
        self, messages: Sequence[dict[str, str]], schema: dict[str, Any], tokens: int
    ) -> Answer:
        """A JSON value under a schema, as the greedy answer to a chat."""
        body = {
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": tokens,
            "response_format": {"type": "json_object", "schema": schema},
        }
        return _chat_answer(await self.post("/v1/chat/completions", body))


def _ask(
    connection: http.client.HTTPConnection, path: str, body: dict[str, Any]
) -> http.client.HTTPResponse:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


def _chat_answer(body: dict[str, Any]) -> Answer:
    made = int(body["usage"]["completion_tokens"])
    return Answer(Timings(), made, str(body["choices"][0]["message"]["content"]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
