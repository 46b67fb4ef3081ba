"""Where matches are played: the model, and the servers that are started for each match."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sprat.benchmarks import bundle
from sprat.benchmarks.data import Texts
from sprat.benchmarks.harness import Context
from sprat.benchmarks.load import Item
from sprat.benchmarks.peers_match import Match, Played, play
from sprat.benchmarks.peers_servers import LlamaServer, PythonServer, python_server_lacks
from sprat.benchmarks.process import ServerProcess
from sprat.client import AsyncClient
from sprat.store import Store

SLOT_TOKENS = 1024
"""Most tokens of a request at the other servers."""


@dataclass(frozen=True, slots=True)
class Arena:
    """What all matches on one model need.

    Attributes
    ----------
    source : Texts
        What is asked about.
    store : Store
        With the model under the name `bundle.GENERATOR`.
    weights : str
        Type of its weights, for titles.
    model : Path
        Its file.
    programs : Path
        Folder of llama-server and llama-bench.
    threads : int
        Compute threads of each.
    """

    context: Context
    source: Texts
    store: Store
    weights: str
    model: Path
    programs: Path
    threads: int


@dataclass(frozen=True, slots=True)
class Servers:
    """Who is ready to answer; ``python`` is None where it does not take part."""

    ours: AsyncClient
    llama: LlamaServer
    python: PythonServer | None


def play_on_servers(
    arena: Arena,
    clients: int,
    prepare: Callable[[Servers], Awaitable[Match[Item]]],
    *,
    with_python: bool,
) -> Played:
    """Start the servers, play a match, and stop them.

    Parameters
    ----------
    clients : int
        Calls in flight: llama-server has a slot for each.
    prepare : callable
        Makes the match, and may look at the servers before.
    with_python : bool
        Whether llama-cpp-python's server takes part, where its packages are installed.

    Raises
    ------
    SetupError
        As `play`, or a server does not get ready.
    """
    threads = arena.threads

    async def start(server: ServerProcess, others: contextlib.ExitStack) -> Played:
        llama = LlamaServer(
            arena.programs, arena.model, threads=threads, slots=clients, slot_tokens=SLOT_TOKENS
        )
        others.enter_context(llama)
        python = None
        if with_python and not python_server_lacks():
            python = PythonServer(arena.model, threads=threads, callers=clients, tokens=SLOT_TOKENS)
            others.enter_context(python)
        async with AsyncClient(server.address, timeout_s=None) as ours:
            match = await prepare(Servers(ours, llama, python))
            return await play(arena.context, match, arena.weights)

    with (
        ServerProcess(arena.store.root, models=[bundle.GENERATOR]) as server,
        contextlib.ExitStack() as others,
    ):
        return asyncio.run(start(server, others))
