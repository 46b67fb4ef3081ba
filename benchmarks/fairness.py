"""What a long prompt on the generator does to others on the same server.

To short classifications on another model, and to answers that stream from the generator itself.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from sprat import measure
from sprat.benchmarks import bundle, data
from sprat.benchmarks.data import Texts
from sprat.benchmarks.harness import Context, Outcome, figure
from sprat.benchmarks.load import Load, LoadProcess, LoadResult, Target
from sprat.benchmarks.process import ServerProcess
from sprat.client import AsyncClient, Client
from sprat.errors import SetupError
from sprat.pull import pull
from sprat.values import Sampling

CALLS_IN_FLIGHT = 8
PROMPT_TOKENS = 2000
PROMPTS = 4
WINDOW_S = 8.0
HEAD_START_S = 0.5
STREAMS = 4
STREAM_TOKENS = 900
MOST_GAP_MS = 150.0


def run(context: Context) -> Outcome:
    """Alone and beside, in turn."""
    source = data.load(context.checkout)
    window_s = 1.0 if context.quick else WINDOW_S
    prompt_tokens = 200 if context.quick else PROMPT_TOKENS
    pull(bundle.GENERATOR, context.store)
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as folder:
        context.say("training the task")
        task = bundle.train(context.store, Path(folder))
        with ServerProcess(context.store.root, tasks=[task], models=[bundle.GENERATOR]) as server:
            with Client(server.address) as client:
                prompts = [
                    _prompt(client, source, number, prompt_tokens) for number in range(PROMPTS)
                ]
            short = Target(server.address, "classify", bundle.TASK, source.texts)
            long = Target(server.address, "generate", bundle.GENERATOR, prompts, output_tokens=4)
            with LoadProcess(short) as classify, LoadProcess(long) as generate:
                rounds = _measure(context, classify, generate, window_s, prompt_tokens)
            gaps = []
            for number in range(context.rounds):
                gaps.append(asyncio.run(_gaps(server.address, source, prompts, window_s)))
                context.say(f"streams, round {number + 1} of {context.rounds}")
    alone, beside, prompt_rates = zip(*rounds, strict=True)
    p99_alone = [measure.percentiles(each.latencies_ms).p99 for each in alone]
    p99_beside = [measure.percentiles(each.latencies_ms).p99 for each in beside]
    ratios = [b / a for a, b in zip(p99_alone, p99_beside, strict=True)]
    gaps_alone, gaps_beside = zip(*gaps, strict=True)
    return Outcome(
        parameters={
            "texts": source.source,
            "calls_in_flight": CALLS_IN_FLIGHT,
            "window_s": window_s,
            "prompt_tokens": prompt_tokens,
            "encoder": bundle.ENCODER,
            "generator": bundle.GENERATOR,
            "rounds": context.rounds,
        },
        method=(
            f"Classify with {CALLS_IN_FLIGHT} calls of 1 text in flight, {source.source} texts, "
            f"alone and beside one prompt of {prompt_tokens:,} tokens after another on "
            f"{bundle.GENERATOR}; one server, clients in processes of their own on the same cores. "
            "Median of rounds, each ratio within one round. Gaps: from token to token of "
            f"{STREAMS} answers that stream from {bundle.GENERATOR}, alone and while it reads such "
            "prompts, as their client sees them; all calls to classify have ended by then."
        ),
        figures=(
            figure("p99_alone", "p99 alone", "ms", p99_alone),
            figure("p99_beside", "p99 beside the prompt", "ms", p99_beside),
            figure("p99_ratio", "p99 beside the prompt : alone", "", ratios, at_most=3.0),
            figure("calls_alone", "calls/s alone", "calls/s", [each.calls_per_s for each in alone]),
            figure(
                "calls_beside",
                "calls/s beside the prompt",
                "calls/s",
                [each.calls_per_s for each in beside],
            ),
            figure("gap_alone", "longest gap of streams alone", "ms", [max(g) for g in gaps_alone]),
            figure(
                "gap_p99",
                "p99 gap of streams beside the prompt",
                "ms",
                [measure.percentiles(each).p99 for each in gaps_beside],
            ),
            figure(
                "gap_beside",
                "longest gap of streams beside the prompt",
                "ms",
                [max(each) for each in gaps_beside],
                at_most=MOST_GAP_MS,
            ),
            figure("prompt_rate", "prompt tokens/s beside the calls", "tokens/s", prompt_rates),
        ),
    )


def _measure(
    context: Context,
    classify: LoadProcess,
    generate: LoadProcess,
    window_s: float,
    prompt_tokens: int,
) -> list[tuple[LoadResult, LoadResult, float]]:
    """For each round: alone, beside, and the prompt tokens a second meanwhile."""
    short = Load(CALLS_IN_FLIGHT, seconds=window_s)
    classify.run(Load(CALLS_IN_FLIGHT, calls=64))
    rounds = []
    for number in range(context.rounds):
        alone = classify.run(short)
        # Prompts are under way from before the first short call until after the last.
        generate.start(Load(1, seconds=HEAD_START_S + window_s))
        classify.run(Load(CALLS_IN_FLIGHT, seconds=HEAD_START_S))
        beside = classify.run(short)
        prompts = generate.finish()
        for result in (alone, beside, prompts):
            if result.refused:
                raise SetupError(f"{result.refused} calls were refused")
        rate = prompts.calls * prompt_tokens / prompts.elapsed_s
        rounds.append((alone, beside, rate))
        context.say(f"round {number + 1} of {context.rounds}: {prompts.calls} prompts meanwhile")
    return rounds


async def _gaps(
    address: str, source: Texts, prompts: list[str], window_s: float
) -> tuple[list[float], list[float]]:
    """Milliseconds from token to token of the streams: alone, and while a prompt is read."""
    alone: list[float] = []
    beside: list[float] = []
    reading = False
    seen = asyncio.Event()

    async def stream(client: AsyncClient, number: int) -> None:
        sampling = Sampling(max_tokens=STREAM_TOKENS)
        while True:
            text = source.texts[number]
            last = None
            # With log-probabilities, every token is reported when it comes.
            chunks = client.generate(bundle.GENERATOR, text, sampling, logprobs=0)
            async with aclosing(chunks):  # type: ignore[type-var]
                async for chunk in chunks:
                    now = time.perf_counter()
                    if last is not None and chunk.logprobs:
                        (beside if reading else alone).append(1000 * (now - last))
                        seen.set()
                    last = now
            number += STREAMS

    async with AsyncClient(address) as client:
        streams = [asyncio.ensure_future(stream(client, number)) for number in range(STREAMS)]
        await asyncio.sleep(HEAD_START_S)
        alone.clear()
        seen.clear()
        await asyncio.sleep(window_s / 2)
        # On a busy machine a short window may see no token at all.
        waiting = asyncio.ensure_future(seen.wait())
        await asyncio.wait([waiting, *streams], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        end = time.perf_counter() + window_s
        number = 0
        while time.perf_counter() < end or not (beside or any(each.done() for each in streams)):
            prompt = prompts[number % len(prompts)]
            reading = True
            async for _ in client.generate(bundle.GENERATOR, prompt, Sampling(max_tokens=1)):
                reading = False
            number += 1
        for each in streams:
            each.cancel()
        for outcome in await asyncio.gather(*streams, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                raise SetupError(f"a stream failed: {outcome}")
    return alone, beside


def _prompt(client: Client, source: Texts, number: int, limit: int) -> str:
    """The longest run of words of at most ``limit`` tokens that begins with text ``number``."""
    words = " ".join(source.exactly(number + limit)[number:]).split()
    least, most = 1, limit
    while least < most:
        middle = (least + most + 1) // 2
        prompt = " ".join(words[:middle])
        (tokens,) = client.tokenize(bundle.GENERATOR, [prompt]).items
        if len(tokens.ids) <= limit:
            least = middle
        else:
            most = middle - 1
    return " ".join(words[:least])
