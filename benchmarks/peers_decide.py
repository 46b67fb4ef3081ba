"""Several questions about one text: one call here, one call each at llama-server."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sprat.benchmarks import bundle, peers_work
from sprat.benchmarks.load import Answer
from sprat.benchmarks.peers_arena import Arena, Servers, play_on_servers
from sprat.benchmarks.peers_match import LATENCY, OURS, RATE, Goal, Match, Played
from sprat.errors import SetupError
from sprat.values import Label, Question, QuestionSet, Timings

CALLS = 12
OPTION_TOKENS = 8
"""More than any option and its end."""

INSTRUCTIONS = "Answer a question about a letter to a bank."
PLACEHOLDER = "%LETTER%"


def decide(arena: Arena) -> Played:
    """The peer is asked with the text first, so that it reads it once and keeps it."""
    questions = QuestionSet(
        model=bundle.GENERATOR,
        questions=tuple(map(_question, peers_work.QUESTIONS)),
        instructions=INSTRUCTIONS,
    )
    options = [given for _, _, given in peers_work.QUESTIONS]
    grammars = list(map(peers_work.grammar, options))

    def check(letter: str, answer: Answer) -> None:
        found = json.loads(answer.text)
        if [a in o for a, o in zip(found, options, strict=True)] != [True] * len(options):
            raise SetupError("an answer is none of the options of its question")

    async def prepare(servers: Servers) -> Match[str]:
        prompts = [
            await servers.llama.render(
                peers_work.chat(INSTRUCTIONS, "\n".join([PLACEHOLDER, text, *given]))
            )
            for _, text, given in peers_work.QUESTIONS
        ]

        async def ours(letters: Sequence[str]) -> Answer:
            result = await servers.ours.decide(questions, letters)
            (item,) = result.items
            assert item is not None
            return Answer(result.timings, text=json.dumps([a.option for a in item.answers]))

        async def theirs(letters: Sequence[str]) -> Answer:
            answers = []
            for prompt, grammar in zip(prompts, grammars, strict=True):
                filled = prompt.replace(PLACEHOLDER, letters[0])
                answers.append(
                    await servers.llama.complete(filled, grammar=grammar, tokens=OPTION_TOKENS)
                )
            return Answer(Timings(), text=json.dumps([answer.text for answer in answers]))

        return Match(
            name="decide",
            title=f"decide, {len(options)} questions about 100 tokens, 1 client",
            clients=1,
            calls=CALLS,
            items=peers_work.letters(arena.source, 128),
            sides={OURS: ours, servers.llama.name: theirs},
            check=check,
            measures=(RATE, LATENCY),
            goals=(Goal(RATE, at_least=3.0),),
        )

    return play_on_servers(arena, 1, prepare, with_python=False)


def _question(row: tuple[str, str, tuple[str, ...]]) -> Question:
    name, text, options = row
    if options == ("yes", "no"):
        return Question(name, text, "yes_no")
    return Question(name, text, "choice", tuple(map(Label, options)))
