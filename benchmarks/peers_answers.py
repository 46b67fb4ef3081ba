"""Answers that stream, several side by side."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

from sprat.benchmarks import bundle, peers_work
from sprat.benchmarks.load import Answer, Call
from sprat.benchmarks.peers_arena import Arena, Servers, play_on_servers
from sprat.benchmarks.peers_match import FIRST, OURS, TOKENS, Goal, Match, Played
from sprat.benchmarks.peers_servers import LlamaServer, PythonServer
from sprat.errors import SetupError
from sprat.values import Sampling

STREAMS = 8
ANSWER_TOKENS = 64


def answers(arena: Arena) -> Played:
    """Raw prompts, each another one; every stream begins its next when its last one ends.

    The prompts are such that greedy answers to them do not end before the limit.
    """

    def check(prompt: str, answer: Answer) -> None:
        if not 1 <= answer.output_tokens <= ANSWER_TOKENS:
            raise SetupError(f"an answer has {answer.output_tokens} tokens")

    async def prepare(servers: Servers) -> Match[str]:
        async def ours(prompts: Sequence[str]) -> Answer:
            sampling = Sampling(max_tokens=ANSWER_TOKENS)
            sent = time.perf_counter()
            first_ms = None
            async for chunk in servers.ours.generate(bundle.GENERATOR, prompts[0], sampling):
                if first_ms is None and chunk.text:
                    first_ms = (time.perf_counter() - sent) * 1e3
            return Answer(chunk.timings, chunk.output_tokens, first_ms=first_ms)

        def theirs(server: LlamaServer | PythonServer) -> Call[str]:
            async def call(prompts: Sequence[str]) -> Answer:
                return await server.write(prompts[0], ANSWER_TOKENS)

            return call

        async def goes_on(prompt: str) -> bool:
            async with slots:
                return (await ours([prompt])).output_tokens == ANSWER_TOKENS

        slots = asyncio.Semaphore(STREAMS)
        prompts = peers_work.stories(arena.source, 2 * STREAMS if arena.context.quick else 160)
        # Only llama-server can be told to go on, so who ends early is not asked at all.
        long = await asyncio.gather(*map(goes_on, prompts))
        sides = {OURS: ours, servers.llama.name: theirs(servers.llama)}
        if servers.python is not None:
            sides[servers.python.name] = theirs(servers.python)
        return Match(
            name="answers",
            title=f"answers of {ANSWER_TOKENS} tokens, {STREAMS} streams",
            clients=STREAMS,
            calls=3 * STREAMS,
            items=tuple(itertools.compress(prompts, long)),
            sides=sides,
            check=check,
            measures=(TOKENS, FIRST),
            goals=(Goal(TOKENS, at_least=1.05), Goal(FIRST, at_most=1.0)),
        )

    return play_on_servers(arena, STREAMS, prepare, with_python=True)
