"""Classify with labels of the request's own: sprat's choices against grammars of the labels."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.benchmarks import bundle, peers_work
from sprat.benchmarks.load import Answer, Call
from sprat.benchmarks.peers_arena import Arena, Servers, play_on_servers
from sprat.benchmarks.peers_match import LATENCY, OURS, RATE, Goal, Match, Played
from sprat.benchmarks.peers_servers import LlamaServer, PythonServer
from sprat.errors import SetupError
from sprat.tasks import choose
from sprat.values import LabelSet

CLIENTS = 4
CALLS = 36
LABEL_TOKENS = 24
"""More than any label and its end."""

PLACEHOLDER = "%TEXT%"


def classify(arena: Arena) -> Played:
    """One task."""
    goals = (Goal(RATE, at_least=3.0), Goal(LATENCY, at_most=0.4))
    return _play(arena, "classify", f"classify, {CLIENTS} clients", 1, goals)


def interleaved(arena: Arena) -> Played:
    """Three tasks in turn, each with a prompt of its own."""
    title = f"classify, 3 tasks in turn, {CLIENTS} clients"
    return _play(arena, "classify_3_tasks", title, 3, (Goal(RATE, at_least=3.0),))


def _play(arena: Arena, name: str, title: str, tasks: int, goals: tuple[Goal, ...]) -> Played:
    sets = [
        LabelSet(bundle.GENERATOR, peers_work.LABELS, instructions)
        for instructions in peers_work.INSTRUCTIONS[:tasks]
    ]
    names = [label.name for label in peers_work.LABELS]
    grammar = peers_work.grammar(names)
    items = [(number % tasks, text) for number, text in enumerate(peers_work.mixed(arena.source))]

    def check(item: tuple[int, str], answer: Answer) -> None:
        if answer.text not in names:
            raise SetupError("an answer is none of the labels")

    async def prepare(servers: Servers) -> Match[tuple[int, str]]:
        prompts = [
            await servers.llama.render(peers_work.chat(choose.prompt(each), PLACEHOLDER))
            for each in sets
        ]

        async def ours(batch: Sequence[tuple[int, str]]) -> Answer:
            ((task, text),) = batch
            result = await servers.ours.choose(sets[task], [text], top_k=1)
            (item,) = result.items
            assert item is not None
            return Answer(result.timings, item.input_tokens, item.label)

        def theirs(server: LlamaServer | PythonServer) -> Call[tuple[int, str]]:
            async def call(batch: Sequence[tuple[int, str]]) -> Answer:
                ((task, text),) = batch
                prompt = prompts[task].replace(PLACEHOLDER, text)
                return await server.complete(prompt, grammar=grammar, tokens=LABEL_TOKENS)

            return call

        for task, text in items[:tasks]:
            tokens = (await ours([(task, text)])).output_tokens
            expected = await servers.llama.count(prompts[task].replace(PLACEHOLDER, text))
            if tokens != expected:
                raise SetupError(f"a prompt has {tokens} tokens here, {expected} at llama-server")
        sides = {OURS: ours, servers.llama.name: theirs(servers.llama)}
        if servers.python is not None:
            sides[servers.python.name] = theirs(servers.python)
        return Match(
            name=name,
            title=title,
            clients=CLIENTS,
            calls=CALLS,
            items=items,
            sides=sides,
            check=check,
            measures=(RATE, LATENCY),
            goals=goals,
        )

    return play_on_servers(arena, CLIENTS, prepare, with_python=tasks == 1)
