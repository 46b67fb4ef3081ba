"""Generative models: what happens between a prompt and the end of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from doubles import (
    GENERATOR,
    MAX_TOKENS,
    WAIT_S,
    Generator,
    eventually,
    generative_model,
    ids,
    no_leaked_threads,
)

from sprat.budget import ComputePermits
from sprat.errors import (
    DeadlineExceeded,
    EngineError,
    InputTooLong,
    InvalidInput,
    NotReady,
    QueueFull,
)
from sprat.model import GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.values import Chunk, Message, Sampling

TOO_LONG = "a " * MAX_TOKENS
WORD_A = ids("a")[1]


@pytest.fixture
async def mailbox() -> Mailbox:
    return Mailbox(asyncio.get_running_loop())


@pytest.fixture
def permits() -> ComputePermits:
    return ComputePermits(2)


@pytest.fixture
async def pool(permits: ComputePermits) -> AsyncIterator[ComputePool]:
    with no_leaked_threads():
        made = ComputePool(permits)
        yield made
        made.close()


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def source() -> Generator:
    return Generator(context_length=32)


@pytest.fixture
async def generator(
    source: Generator, permits: ComputePermits, pool: ComputePool
) -> AsyncIterator[GenerativeModel]:
    made = generative_model(source, permits, pool, capacity=100)
    yield made
    source.gate.set()
    if not source.closed:
        await asyncio.to_thread(made.close)


async def collect(stream: AsyncIterator[Chunk]) -> list[Chunk]:
    async def drain() -> list[Chunk]:
        return [chunk async for chunk in stream]

    return await asyncio.wait_for(drain(), WAIT_S)


async def test_model_generate_streams_and_ends_with_the_totals(
    generator: GenerativeModel, mailbox: Mailbox
) -> None:
    chunks = await collect(generator.generate("abc", Sampling(max_tokens=5), mailbox=mailbox))
    assert [c.text for c in chunks] == ["a", "b", "c", "a", "b"]
    assert [c.finish_reason for c in chunks] == [None] * 4 + ["length"]
    last = chunks[-1]
    assert (last.prompt_tokens, last.output_tokens) == (4, 5)
    assert (last.model, last.model_version) == (GENERATOR, generator.info.version)
    assert last.cpu_ms is not None
    timings = last.timings
    assert min(timings.tokenize_ns, timings.queue_ns, timings.infer_ns) > 0
    assert timings.total_ns >= timings.tokenize_ns + timings.queue_ns + timings.infer_ns


async def test_model_generate_passes_the_sampling_on(
    generator: GenerativeModel, mailbox: Mailbox
) -> None:
    sampling = Sampling(max_tokens=9, stop=("c",))
    chunks = await collect(generator.generate("abc", sampling, mailbox=mailbox))
    assert "".join(c.text for c in chunks) == "ab"
    assert chunks[-1].finish_reason == "stop"


async def test_model_generate_answers_a_chat_in_the_template(
    generator: GenerativeModel, mailbox: Mailbox
) -> None:
    chat = [Message("system", "s"), Message("user", "u")]
    chunks = await collect(generator.generate(chat, Sampling(max_tokens=10), mailbox=mailbox))
    assert "".join(c.text for c in chunks) == "<system>s<user>u"[:10]


async def test_model_generate_refuses_a_prompt_without_room_for_an_answer(
    generator: GenerativeModel, mailbox: Mailbox
) -> None:
    with pytest.raises(InputTooLong) as caught:
        await collect(generator.generate("x" * 31, Sampling(), mailbox=mailbox))
    assert (caught.value.field, caught.value.tokens, caught.value.limit) == ("prompt", 32, 31)
    with pytest.raises(InputTooLong) as caught:
        await collect(generator.generate([Message("user", "x" * 31)], Sampling(), mailbox=mailbox))
    assert caught.value.field == "chat"


async def test_model_generate_ends_at_the_context(
    generator: GenerativeModel, mailbox: Mailbox
) -> None:
    chunks = await collect(generator.generate("x" * 30, Sampling(), mailbox=mailbox))
    assert [c.finish_reason for c in chunks] == ["length"]
    chunks = await collect(generator.generate("ab", Sampling(max_tokens=999), mailbox=mailbox))
    assert chunks[-1].prompt_tokens + chunks[-1].output_tokens == 32


@pytest.mark.parametrize("bad", ["", " ", "\ud800"])
async def test_model_generate_refuses_what_is_no_text(
    generator: GenerativeModel, mailbox: Mailbox, bad: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await collect(generator.generate(bad, Sampling(), mailbox=mailbox))
    assert caught.value.field == "prompt"
    with pytest.raises(InvalidInput) as caught:
        chat = [Message("user", "a"), Message("user", bad)]
        await collect(generator.generate(chat, Sampling(), mailbox=mailbox))
    assert caught.value.field == "chat.messages[1].content"


async def test_model_generate_closed_early_stops_the_engine(
    generator: GenerativeModel, source: Generator, mailbox: Mailbox
) -> None:
    source.cells = source.context_length = 10**6
    answer: Any = generator.generate("ab", Sampling(max_tokens=30), mailbox=mailbox)
    async with aclosing(answer) as stream:
        assert (await anext(stream)).text == "a"
        source.gate.clear()
    source.gate.set()
    await eventually(lambda: not source.live, "the engine goes on")


async def test_model_generate_cancelled_stops_the_engine(
    generator: GenerativeModel, source: Generator, mailbox: Mailbox
) -> None:
    source.gate.clear()
    call = asyncio.ensure_future(
        collect(generator.generate("ab", Sampling(max_tokens=20), mailbox=mailbox))
    )
    await eventually(lambda: source.live, "the engine never started")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    source.gate.set()
    await eventually(lambda: source.stopped == [0], "the engine goes on")


async def test_model_generate_raises_what_the_scheduler_reports(
    generator: GenerativeModel, source: Generator, mailbox: Mailbox
) -> None:
    def fail() -> None:
        raise RuntimeError("secret")

    source.on_step = fail
    with pytest.raises(EngineError, match="RuntimeError"):
        await collect(generator.generate("ab", Sampling(), mailbox=mailbox))
    source.on_step = None
    assert await collect(generator.generate("ab", Sampling(max_tokens=1), mailbox=mailbox))


async def test_model_generate_raises_the_deadline_and_keeps_what_came(
    generator: GenerativeModel, source: Generator, mailbox: Mailbox
) -> None:
    source.on_step = lambda: time.sleep(0.003)
    got: list[Chunk] = []

    async def read() -> None:
        async for chunk in generator.generate(
            "ab", Sampling(max_tokens=29), deadline=time.monotonic() + 0.03, mailbox=mailbox
        ):
            got.append(chunk)

    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(read(), WAIT_S)
    assert 0 < len(got) < 29


async def test_model_generate_refuses_when_full(
    source: Generator, pool: ComputePool, mailbox: Mailbox
) -> None:
    source.sequence_limit = 1
    permits = ComputePermits(2)
    generator = generative_model(source, permits, pool, capacity=20)
    source.gate.clear()
    first = asyncio.ensure_future(
        collect(generator.generate("a", Sampling(max_tokens=5), mailbox=mailbox))
    )
    await eventually(lambda: source.live, "no start")
    second = asyncio.ensure_future(
        collect(generator.generate("b" * 9, Sampling(max_tokens=5), mailbox=mailbox))
    )
    await eventually(lambda: generator._scheduler._waiting, "nothing waits")
    with pytest.raises(QueueFull):
        await collect(generator.generate("cccccc", Sampling(max_tokens=5), mailbox=mailbox))
    source.gate.set()
    await asyncio.wait_for(asyncio.gather(first, second), WAIT_S)
    await asyncio.to_thread(generator.close)


async def test_model_generate_after_close(generator: GenerativeModel, mailbox: Mailbox) -> None:
    await asyncio.to_thread(generator.close)
    with pytest.raises(NotReady):
        await collect(generator.generate("ab", Sampling(), mailbox=mailbox))


async def test_model_generate_abandoned_before_its_first_chunk_costs_nothing(
    generator: GenerativeModel, source: Generator, mailbox: Mailbox
) -> None:
    await generator.generate("ab", Sampling(), mailbox=mailbox).aclose()  # type: ignore[attr-defined]
    assert source.started == []


async def test_model_generative_tokenize(generator: GenerativeModel) -> None:
    (answer,) = await generator.tokenize(["hé"])
    assert answer.ids == (0, ord("h"), ord("é"))
    assert answer.tokens[1:] == ("h", "é")
    with pytest.raises(InvalidInput):
        await generator.tokenize(["\ud800"])
