"""Generate: the ranges of what may be asked, each edge of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from doubles import Generator, generative_model

from sprat.budget import ComputePermits
from sprat.errors import InvalidInput
from sprat.model import GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks import generate
from sprat.values import Message, Sampling


@pytest.fixture
async def model() -> AsyncIterator[GenerativeModel]:
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    made = generative_model(Generator(), permits, pool)
    yield made
    await asyncio.to_thread(made.close)
    pool.close()


ALLOWED: list[tuple[str, Any]] = [
    ("max_tokens", 1),
    ("max_tokens", 2**20),
    ("temperature", 0.0),
    ("temperature", 10.0),
    ("top_k", 0),
    ("top_k", 2**20),
    ("top_p", 1e-6),
    ("top_p", 1.0),
    ("min_p", 0.0),
    ("min_p", 1.0),
    ("repeat_penalty", 1e-6),
    ("repeat_penalty", 10.0),
    ("seed", None),
    ("seed", 0),
    ("seed", 2**32 - 1),
    ("stop", ()),
    ("stop", ("a",) * 16),
    ("stop", ("\n", "ü" * 128)),
]
NAN, INF = float("nan"), float("inf")
REFUSED: list[tuple[str, Any, str]] = [
    ("max_tokens", 0, "sampling.max_tokens: expected [1, 1048576], got 0"),
    ("max_tokens", -1, "sampling.max_tokens"),
    ("max_tokens", 2**20 + 1, "sampling.max_tokens"),
    ("temperature", -0.1, "sampling.temperature: expected [0, 10], got -0.1"),
    ("temperature", 10.1, "sampling.temperature"),
    ("temperature", NAN, "sampling.temperature"),
    ("temperature", INF, "sampling.temperature"),
    ("top_k", -1, "sampling.top_k"),
    ("top_p", 0.0, "sampling.top_p: expected (0, 1], got 0.0"),
    ("top_p", 1.01, "sampling.top_p"),
    ("top_p", NAN, "sampling.top_p"),
    ("min_p", -0.1, "sampling.min_p"),
    ("min_p", 1.1, "sampling.min_p"),
    ("repeat_penalty", 0.0, "sampling.repeat_penalty: expected (0, 10], got 0.0"),
    ("repeat_penalty", -1.0, "sampling.repeat_penalty"),
    ("repeat_penalty", INF, "sampling.repeat_penalty"),
    ("seed", -1, "sampling.seed"),
    ("seed", 2**32, "sampling.seed"),
    ("stop", ("a",) * 17, "sampling.stop: expected at most 16 strings, got 17"),
    ("stop", ("a", ""), "sampling.stop[1]: expected 1 to 256 bytes, got 0"),
    ("stop", ("ü" * 129,), "sampling.stop[0]: expected 1 to 256 bytes, got 258"),
    ("stop", ("\ud800",), "sampling.stop[0]"),
]


def test_generate_defaults_are_allowed() -> None:
    generate.check(Sampling())


@pytest.mark.parametrize(("name", "value"), ALLOWED)
def test_generate_takes_the_edges(name: str, value: Any) -> None:
    generate.check(replace(Sampling(), **{name: value}))


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_generate_refuses_what_is_beyond(name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        generate.check(replace(Sampling(), **{name: value}))
    assert caught.value.message.startswith(message)
    assert caught.value.field == message.split(":")[0]


async def test_generate_refuses_before_anything_runs(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    with pytest.raises(InvalidInput) as caught:
        generate.run(model, "a", Sampling(top_p=2.0), mailbox=mailbox)
    assert caught.value.field == "sampling.top_p"
    with pytest.raises(InvalidInput) as caught:
        generate.run(model, [], Sampling(), mailbox=mailbox)
    assert caught.value.field == "chat.messages"


async def test_generate_streams_the_answer(model: GenerativeModel, mailbox: Mailbox) -> None:
    for prompt, answer in (("abc", "abcab"), ([Message("user", "x")], "<user")):
        stream = generate.run(model, prompt, Sampling(max_tokens=5), mailbox=mailbox)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.text for chunk in chunks) == answer
        assert chunks[-1].finish_reason == "length"
        assert all(chunk.finish_reason is None for chunk in chunks[:-1])
