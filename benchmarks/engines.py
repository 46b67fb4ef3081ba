"""The engines themselves, in this process: no server, queue or tokenizer.

The generator's figures are of the same kind as those of ``llama-bench``: ``pp512`` is the prompt,
``tg128`` the answer of one sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sprat.benchmarks import bundle, ceiling, data
from sprat.benchmarks.harness import Context, Figure, Outcome, figure
from sprat.budget import detect
from sprat.engine.ct2 import Ct2Encoder
from sprat.engine.llama import LlamaEngine
from sprat.manifest import ModelManifest
from sprat.pull import pull
from sprat.quantize.speed import STEP_TOKENS, answer_rate, prompt_rate
from sprat.scheduler import SLICE_TOKENS
from sprat.tokenizer import Tokenizer

TEXTS = 1024
BATCHES = (1, 2, 4, 8, 16, 32)
PROMPT_TOKENS = 512
ANSWER_TOKENS = 128
SEQUENCES = (1, 4, 8)
CONTEXT_LENGTH = 1024


def run(context: Context) -> Outcome:
    """Measure the encoder, then the generator."""
    threads = detect().threads
    source = data.load(context.checkout)
    encoder = pull(bundle.ENCODER, context.store)
    generator = pull(bundle.GENERATOR, context.store)
    texts = source.exactly(64 if context.quick else TEXTS)
    figures = [
        *_encoder(context, encoder, texts, threads),
        *_generator(context, generator, threads),
    ]
    return Outcome(
        parameters={
            "texts": source.source,
            "text_count": len(texts),
            "threads": threads,
            "rounds": context.rounds,
            "prompt_tokens": PROMPT_TOKENS,
            "answer_tokens": ANSWER_TOKENS,
            "encoder": f"{encoder.name} {encoder.quantization}",
            "generator": f"{generator.name} {generator.quantization}",
        },
        method=(
            f"{encoder.name} {encoder.quantization}: {source.source} texts as token ids, longest "
            "first, to normalized vectors, one submitting thread a worker. "
            f"{generator.name} {generator.quantization}: a prompt of {PROMPT_TOKENS} tokens; "
            f"{ANSWER_TOKENS} greedy tokens for each sequence after a prompt of about 12; all "
            "compute threads. Median of rounds."
        ),
        figures=tuple(figures),
    )


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure to be and the call that gives one round of it."""

    name: str
    title: str
    unit: str
    call: Callable[[], float]


def _in_turn(context: Context, measurements: Sequence[Measurement]) -> list[Figure]:
    """Take every measurement once to warm up, then once a round."""
    rounds: dict[str, list[float]] = {each.name: [] for each in measurements}
    for number in range(context.rounds + 1):
        for each in measurements:
            value = each.call()
            if number > 0:
                rounds[each.name].append(value)
        context.say(f"round {number} of {context.rounds}" if number else "warmed up")
    return [figure(each.name, each.title, each.unit, rounds[each.name]) for each in measurements]


def _encoder(
    context: Context, manifest: ModelManifest, texts: Sequence[str], threads: int
) -> list[Figure]:
    _, folder = context.store.model(manifest.name)
    assert manifest.pooling is not None
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    rows = ceiling.by_length(tokenizer.encode_batch(texts))
    engine = Ct2Encoder(
        folder / manifest.weights,
        pooling=manifest.pooling,
        max_tokens=manifest.max_tokens,
        workers=threads,
    )

    def rate(size: int) -> float:
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        with ThreadPoolExecutor(threads) as submitters:
            started = time.perf_counter()
            for _ in submitters.map(lambda batch: engine.encode(batch, threads=1), batches):
                pass
            return len(rows) / (time.perf_counter() - started)

    context.say(manifest.name)
    measurements = [
        Measurement(
            f"encode_{size}",
            f"{manifest.name}, batches of {size}",
            "texts/s",
            partial(rate, size),
        )
        for size in BATCHES
    ]
    try:
        return _in_turn(context, measurements)
    finally:
        engine.close()


def _generator(context: Context, manifest: ModelManifest, threads: int) -> list[Figure]:
    _, folder = context.store.model(manifest.name)
    engine = LlamaEngine(
        folder / manifest.weights,
        context_length=CONTEXT_LENGTH,
        sequence_limit=max(SEQUENCES),
        threads=threads,
    )
    context.say(manifest.name)
    prompt, answer = (64, 8) if context.quick else (PROMPT_TOKENS, ANSWER_TOKENS)
    measurements = [
        Measurement(
            f"prompt_{tokens}",
            f"{manifest.name}, prompt, {tokens} tokens a step",
            "tokens/s",
            partial(prompt_rate, engine, prompt, tokens, threads),
        )
        for tokens in (STEP_TOKENS, SLICE_TOKENS)
    ]
    measurements += [
        Measurement(
            f"answer_{count}",
            f"{manifest.name}, answers, {count} side by side",
            "tokens/s",
            partial(answer_rate, engine, count, answer, threads),
        )
        for count in SEQUENCES
    ]
    try:
        return _in_turn(context, measurements)
    finally:
        engine.close()
