"""The load generator: a client in a process of its own, which keeps calls in flight.

Closed loop: each of ``concurrency`` callers sends its next call when its last one is answered, so
latencies are those that as many patient clients see.

``python -m sprat.benchmarks.load`` is the other side of `LoadProcess`: one JSON line in for what
to call, then one for each load; one JSON line out for each result.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sprat import measure
from sprat.errors import Retryable, SetupError, SpratError
from sprat.values import Sampling, Timings

if TYPE_CHECKING:
    from sprat.client import AsyncClient

Item = TypeVar("Item")
Verb = Literal["classify", "embed", "generate"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is called.

    Attributes
    ----------
    address : str
        Of the server.
    name : str
        The task (``classify``) or the model (``embed``, ``generate``).
    texts : sequence of str
        Sent in this order, and again from the first. A prompt each for ``generate``.
    output_tokens : int
        Most tokens of an answer of ``generate``.
    """

    address: str
    verb: Verb
    name: str
    texts: Sequence[str]
    output_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Load:
    """How much is called. Ends with the earlier of ``calls`` and ``seconds``.

    Attributes
    ----------
    concurrency : int
        Calls in flight, from 1.
    texts_per_call : int
        From 1; 1 for ``generate``.
    calls : int or None
        Calls to send; None without a limit.
    seconds : float or None
        After which no call is sent any more; None without a limit.
    """

    concurrency: int
    texts_per_call: int = 1
    calls: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class LoadResult:
    """What happened.

    Attributes
    ----------
    calls, texts : int
        Answered.
    refused : int
        Calls that the server refused for now; each caller waits as told before its next.
    elapsed_s, cpu_s : float
        Wall time from the first call sent to the last answered; CPU time of the client process.
    latencies_ms : list of float
        Of the answered calls.
    first_ms : list of float
        Of the answered calls that stream: until the first text.
    output_tokens : int
        Of ``generate``.
    server_ms : dict of str to float
        Medians of the timings in the answers: ``tokenize``, ``queue``, ``infer``, ``total``.
    """

    calls: int = 0
    texts: int = 0
    refused: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    output_tokens: int = 0
    server_ms: dict[str, float] = field(default_factory=dict)

    @property
    def calls_per_s(self) -> float:
        """Answered calls a second."""
        return self.calls / self.elapsed_s

    @property
    def texts_per_s(self) -> float:
        """Answered texts a second."""
        return self.texts / self.elapsed_s


class LoadProcess:
    """A load generator that is connected and waits for work. Use it as a context manager.

    Parameters
    ----------
    target : Target
        What every load calls.
    """

    def __init__(self, target: Target) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sprat.benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._send(asdict(target))

    def run(self, load: Load) -> LoadResult:
        """`start` and `finish`."""
        self.start(load)
        return self.finish()

    def start(self, load: Load) -> None:
        """Begin a load; the last one is finished."""
        self._send(asdict(load))

    def finish(self) -> LoadResult:
        """Wait for the load that was started.

        Raises
        ------
        SetupError
            When a call failed for another reason than a refusal for now.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SetupError(f"the load generator ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SetupError(f"a call failed under load: {answer['error']}")
        return LoadResult(**answer)

    def _send(self, document: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            # ASCII: a lone surrogate would have no other encoding.
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SetupError(
                f"the load generator ended with status {self._process.wait()}"
            ) from None

    def __enter__(self) -> LoadProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(force=error is not None)

    def close(self, *, force: bool = False) -> None:
        """End the process: when its load is finished, or at once."""
        if force:
            self._process.kill()
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of an answer.

    Attributes
    ----------
    text : str
        What was answered, where somebody looks at it.
    first_ms : float or None
        Until the first text of an answer that streams.
    """

    timings: Timings
    output_tokens: int = 0
    text: str = ""
    first_ms: float | None = None


Call = Callable[[Sequence[Item]], Awaitable[Answer]]


def _call(client: AsyncClient, target: Target) -> Call[str]:
    """One call of the target's verb."""

    async def classify(texts: Sequence[str]) -> Answer:
        return Answer((await client.classify(target.name, texts)).timings)

    async def embed(texts: Sequence[str]) -> Answer:
        return Answer((await client.embed(target.name, texts)).timings)

    async def generate(texts: Sequence[str]) -> Answer:
        answer = Answer(Timings())
        sampling = Sampling(max_tokens=target.output_tokens)
        async for chunk in client.generate(target.name, texts[0], sampling):
            answer = Answer(chunk.timings, chunk.output_tokens)
        return answer

    calls: dict[Verb, Call[str]] = {"classify": classify, "embed": embed, "generate": generate}
    return calls[target.verb]


async def drive(call: Call[Item], texts: Sequence[Item], load: Load) -> LoadResult:
    """Keep calls in flight until the load is over.

    Raises
    ------
    SpratError
        Of the first call that failed for another reason than a refusal for now.
    """
    result = LoadResult()
    timings: list[Timings] = []
    source = itertools.cycle(texts)
    numbers = iter(itertools.count() if load.calls is None else range(load.calls))
    started = time.perf_counter()
    end = math.inf if load.seconds is None else started + load.seconds

    async def caller() -> None:
        while time.perf_counter() < end and next(numbers, None) is not None:
            batch = list(itertools.islice(source, load.texts_per_call))
            sent = time.perf_counter()
            try:
                answer = await call(batch)
            except Retryable as error:
                result.refused += 1
                await asyncio.sleep(error.retry_after_s)
                continue
            result.latencies_ms.append((time.perf_counter() - sent) * 1e3)
            result.texts += len(batch)
            result.output_tokens += answer.output_tokens
            if answer.first_ms is not None:
                result.first_ms.append(answer.first_ms)
            timings.append(answer.timings)

    cpu = time.process_time()
    callers = [asyncio.ensure_future(caller()) for _ in range(load.concurrency)]
    try:
        await asyncio.gather(*callers)
    finally:
        for each in callers:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    result.elapsed_s = time.perf_counter() - started
    result.cpu_s = time.process_time() - cpu
    result.calls = len(result.latencies_ms)
    if timings:
        result.server_ms = {
            part: measure.median(getattr(t, f"{part}_ns") for t in timings) / 1e6
            for part in ("tokenize", "queue", "infer", "total")
        }
    return result


def main() -> None:
    """Read a target and loads from stdin; write results to stdout."""
    from sprat.client import AsyncClient

    target = Target(**json.loads(sys.stdin.readline()))
    loop = asyncio.new_event_loop()

    async def connect() -> AsyncClient:
        return AsyncClient(target.address)

    client = loop.run_until_complete(connect())
    call = _call(client, target)

    def answer(load: Load) -> dict[str, Any]:
        try:
            return asdict(loop.run_until_complete(drive(call, target.texts, load)))
        except SpratError as error:
            return {"error": f"{error.reason}: {error.message}"}

    try:
        for line in sys.stdin:
            print(json.dumps(answer(Load(**json.loads(line)))), flush=True)
    finally:
        loop.run_until_complete(client.close())
        loop.close()


if __name__ == "__main__":
    main()
