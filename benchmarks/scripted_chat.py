"""``python -m sprat.benchmarks.scripted_chat ANSWERS``: a chat endpoint that fails by a script.

It speaks as much of the OpenAI protocol as a tier needs, over HTTP on loopback, answers from a file
(a JSON object: from text to the answer and its log-probability), and fails now and then in several
ways. `GET /counts` says how often it did what.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

FAILING = 0.2
"""Share of the requests that fail, at random."""

SLOW, SLOW_S = 0.02, 0.3
"""Share of the others that take so long."""

WAYS = ("status 500", "status 503", "cut", "no JSON", "no choice")


class ScriptedChat:
    """The endpoint.

    Parameters
    ----------
    answers : dict of str to (str, float)
        Answer and log-probability, by what the user said last; what is not in it gets an empty
        answer.
    """

    def __init__(self, answers: dict[str, tuple[str, float]], *, seed: int = 0) -> None:
        self._answers = answers
        self._draw = random.Random(seed)
        self._counts: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client closes it or the script cuts it."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; False where no other one can follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if head[0].startswith("GET "):
            await _send(writer, 200, self._counts)
            return True
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = json.loads(await reader.readexactly(int(fields["content-length"])))
        self._counts["requests"] += 1
        if self._draw.random() < FAILING:
            return await self._fail(writer)
        if self._draw.random() < SLOW:
            self._counts["slow"] += 1
            await asyncio.sleep(SLOW_S)
        await _send(writer, 200, self._reply(body))
        return True

    async def _fail(self, writer: asyncio.StreamWriter) -> bool:
        way = self._draw.choice(WAYS)
        self._counts[way] += 1
        if way == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            return False
        if way.startswith("status"):
            await _send(writer, int(way.split()[1]), {"error": {"code": "scripted"}})
        else:
            await _send(writer, 200, "not this" if way == "no JSON" else {"choices": []})
        return True

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        answer, logprob = self._answers.get(body["messages"][-1]["content"], ("", 0.0))
        logprobs = {"content": [{"token": answer, "logprob": logprob}]}
        return {
            "object": "chat.completion",
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer},
                    "finish_reason": "stop",
                    "logprobs": logprobs if body.get("logprobs") else None,
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104},
        }


async def _send(writer: asyncio.StreamWriter, status: int, document: Any) -> None:
    data = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Length: {len(data)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
    await writer.drain()


async def _main(answers: dict[str, tuple[str, float]], host: str, port: int) -> None:
    started = time.perf_counter()
    server = await asyncio.start_server(ScriptedChat(answers).serve, host, port)
    port = server.sockets[0].getsockname()[1]
    print(f"ready http://{host}:{port}/v1 ({time.perf_counter() - started:.2f} s)", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0: a free one")
    given = parser.parse_args()
    host, _, port = given.listen.rpartition(":")
    asyncio.run(_main(json.loads(given.answers.read_text("utf-8")), host, int(port)))


if __name__ == "__main__":
    main()
