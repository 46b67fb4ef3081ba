"""Rewriting with drafts from the prompt, against the same without them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from sprat.benchmarks import bundle, peers_work
from sprat.benchmarks.load import Answer, Call
from sprat.benchmarks.peers_arena import Arena, Servers, play_on_servers
from sprat.benchmarks.peers_match import OURS, TOKENS, Goal, Match, Played
from sprat.errors import SetupError
from sprat.values import Sampling, TransformSpec

WITHOUT = "sprat without lookup"
ANSWER_TOKENS = 96
TEXTS = 6
COPY = "Copy this text word for word, and correct its spelling:\n\n{text}"
INVENT = "Write a poem about the sea for a friend whose name is {text}."
NAMES = ("Ada", "Ben", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Lou")
WINDOW = 4
"""Words in a row that count as copied."""


def rewrite(arena: Arena) -> Played:
    """Answers that copy at least 60 % of their words."""
    letters = peers_work.letters(arena.source, 40 * TEXTS)
    title = "rewrite, at least 60 % copied, 1 client"
    return _play(arena, "rewrite", title, COPY, letters, copied=(0.6, 1.0), at_least=1.3)


def invent(arena: Arena) -> Played:
    """Answers with nothing to copy."""
    title = "write, nothing to copy, 1 client"
    return _play(arena, "write", title, INVENT, NAMES, copied=(0.0, 0.1), at_least=0.97)


def copied_share(text: str, answer: str) -> float:
    """Share of an answer's words, in [0, 1], that stand in the text, `WINDOW` or more in a row."""
    words = answer.split()
    if not words:
        return 0.0
    blocks = SequenceMatcher(None, text.split(), words, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks if block.size >= WINDOW) / len(words)


def _play(
    arena: Arena,
    name: str,
    title: str,
    prompt: str,
    texts: Sequence[str],
    *,
    copied: tuple[float, float],
    at_least: float,
) -> Played:
    with_lookup = TransformSpec(
        model=bundle.GENERATOR, prompt=prompt, sampling=Sampling(max_tokens=ANSWER_TOKENS)
    )
    without = replace(with_lookup, lookup=False)

    def check(text: str, answer: Answer) -> None:
        if not answer.output_tokens:
            raise SetupError("an answer has no tokens")

    async def prepare(servers: Servers) -> Match[str]:
        def side(spec: TransformSpec) -> Call[str]:
            async def call(texts: Sequence[str]) -> Answer:
                sent = time.perf_counter()
                first_ms = None
                parts = []
                async for chunk in servers.ours.transform(spec, texts[0]):
                    if first_ms is None and chunk.text:
                        first_ms = (time.perf_counter() - sent) * 1e3
                    parts.append(chunk.text)
                return Answer(chunk.timings, chunk.output_tokens, "".join(parts), first_ms)

            return call

        ours, plain = side(with_lookup), side(without)
        # A model this small does not always do as it is told: texts are chosen by what it did.
        chosen: list[str] = []
        for text in texts:
            share = copied_share(text, (await plain([text])).text)
            if copied[0] <= share <= copied[1]:
                chosen.append(text)
            if len(chosen) == TEXTS:
                break
        else:
            raise SetupError(f"{title}: only {len(chosen)} of {len(texts)} answers are of the kind")
        return Match(
            name=name,
            title=title,
            clients=1,
            calls=TEXTS,
            items=chosen,
            sides={OURS: ours, WITHOUT: plain},
            check=check,
            measures=(TOKENS,),
            goals=(Goal(TOKENS, at_least=at_least, against=WITHOUT),),
        )

    return play_on_servers(arena, 1, prepare, with_python=False)
