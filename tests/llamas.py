"""Prompts for the llama.cpp engine, and ways to drive it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sprat.engine.base import Progress, Start
from sprat.engine.llama import LlamaEngine
from sprat.values import IntArray, Sampling

CONTEXT = 512
ANSWER = 12
STORIES = [
    f"Once upon a time, in the year {year}, a fisherman caught {fish}"
    for year, fish in (
        (1900, "a herring"),
        (1911, "a sprat, a mackerel and three eels that"),
        (1925, "nothing. So he"),
        (1939, "an old boot"),
        (1946, "a bottle with a letter in it. It said:"),
        (1958, "two herrings and three"),
        (1963, "a talking pike who"),
        (1977, "a cold"),
    )
]


def tokens(engine: LlamaEngine, text: str) -> IntArray:
    return engine.tokenize(text, add_special=True, parse_special=False)


def long_prompt(engine: LlamaEngine, length: int) -> IntArray:
    return tokens(engine, " ".join(f"{n} herrings," for n in range(length)))[:length]


def run(
    engine: LlamaEngine, *, max_tokens: int = 64, threads: int = 2
) -> dict[int, list[Progress]]:
    """Step until nothing is live; what came for each sequence."""
    seen: dict[int, list[Progress]] = {}
    while engine.busy():
        for progress in engine.step(max_tokens=max_tokens, threads=threads):
            seen.setdefault(progress.sequence, []).append(progress)
    return seen


def text_of(progress: list[Progress]) -> str:
    return "".join(p.text for p in progress)


def generate(
    engine: LlamaEngine, prompt: str | IntArray, *, slice_tokens: int = 64, **sampling: Any
) -> tuple[str, Progress]:
    """The answer to one prompt, alone, and the last progress."""
    ids = tokens(engine, prompt) if isinstance(prompt, str) else prompt
    engine.start(Start(0, ids, Sampling(**({"max_tokens": ANSWER} | sampling))))
    progress = run(engine, max_tokens=slice_tokens)[0]
    return text_of(progress), progress[-1]


def patched(source: Path, out: Path, old: bytes, new: bytes) -> Path:
    data = source.read_bytes()
    assert len(old) == len(new)
    assert old in data
    out.write_bytes(data.replace(old, new, 1))
    return out
