"""Four fields from a text, as JSON under a schema."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sprat.benchmarks import bundle, peers_work
from sprat.benchmarks.load import Answer, Call
from sprat.benchmarks.peers_arena import Arena, Servers, play_on_servers
from sprat.benchmarks.peers_match import LATENCY, OURS, RATE, Goal, Match, Played
from sprat.benchmarks.peers_servers import LlamaServer, PythonServer
from sprat.errors import SetupError
from sprat.tasks import extract as task
from sprat.text.schema import Schema
from sprat.values import ExtractSpec

CLIENTS = 4
CALLS = 16
VALUE_TOKENS = 192
"""More than any value that the schema allows."""


def extract(arena: Arena) -> Played:
    """One schema for all texts; the same chat for all servers."""
    spec = ExtractSpec(
        model=bundle.GENERATOR,
        schema=json.dumps(peers_work.SCHEMA),
        instructions=peers_work.EXTRACT_INSTRUCTIONS,
        max_tokens=VALUE_TOKENS,
    )
    system = task.prompt(spec, Schema(spec.schema))

    def check(text: str, answer: Answer) -> None:
        if not peers_work.fits_schema(answer.text):
            raise SetupError("an answer does not fit the schema")

    async def prepare(servers: Servers) -> Match[str]:
        async def ours(texts: Sequence[str]) -> Answer:
            result = await servers.ours.extract(spec, texts)
            (item,) = result.items
            assert item is not None
            return Answer(result.timings, item.output_tokens, item.json)

        def theirs(server: LlamaServer | PythonServer) -> Call[str]:
            async def call(texts: Sequence[str]) -> Answer:
                chat = peers_work.chat(system, texts[0])
                return await server.extract(chat, peers_work.SCHEMA, VALUE_TOKENS)

            return call

        sides = {OURS: ours, servers.llama.name: theirs(servers.llama)}
        if servers.python is not None:
            sides[servers.python.name] = theirs(servers.python)
        return Match(
            name="extract",
            title=f"extract 4 fields, {CLIENTS} clients",
            clients=CLIENTS,
            calls=CALLS,
            items=peers_work.mixed(arena.source),
            sides=sides,
            check=check,
            measures=(RATE, LATENCY),
            goals=(Goal(RATE, at_least=1.5),),
        )

    return play_on_servers(arena, CLIENTS, prepare, with_python=True)
