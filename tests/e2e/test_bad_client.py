"""One bad client among 8 good ones: clear errors for the one, right answers for the others.

A real server in front of a tiny model, in this process, so that what is left inside it shows.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from doubles import eventually, no_leaked_threads

from sprat.client import AsyncClient, to_error
from sprat.config import Config, ModelConfig
from sprat.errors import InputTooLong, InvalidInput, NotFound, SpratError
from sprat.model import GenerativeModel
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.pull import pull
from sprat.server.servicer import Servicer
from sprat.service import Service
from sprat.store import Store
from sprat.values import (
    ExtractSpec,
    Grammar,
    Label,
    LabelSet,
    Question,
    QuestionSet,
    Sampling,
    TransformSpec,
)

GOOD_CLIENTS = 8
ROUNDS = 200
TEXT = "Where is my parcel?"
SCHEMA = '{"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["a"]}'
LABELS = tuple(map(Label, ("parcel", "refund", "refund late")))
NOISE = 2e-3
"""Of a probability, by what else is in the batch."""

Call = Callable[[AsyncClient, Any], Awaitable[Any]]


@dataclass
class Front:
    """A server, a raw channel to it, and what is behind it."""

    address: str
    channel: Any
    servicer: Servicer
    model: GenerativeModel


@pytest.fixture
async def front(tiny: Path, tmp_path: Path) -> AsyncIterator[Front]:
    store = Store(tmp_path / "home")
    await asyncio.to_thread(pull, str(tiny), store)
    settings = ModelConfig(context_length=1024, sequences=6)
    async with AsyncExitStack() as stack:
        stack.enter_context(no_leaked_threads())
        service = await Service.open(Config(models={"tiny": settings}), store)
        stack.push_async_callback(service.close)
        servicer = Servicer(max_concurrent_calls=64)
        servicer.service = service
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((servicer.handler(),))
        address = f"unix:{tmp_path}/s"
        server.add_insecure_port(address)
        await server.start()
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        model = service.registry.models["tiny"]
        assert isinstance(model, GenerativeModel)
        yield Front(address, channel, servicer, model)


# -- what good clients ask -------------------------------------------------------------------


async def text_of(chunks: Any) -> str:
    return "".join([chunk.text async for chunk in chunks])


async def choose(client: AsyncClient, number: int) -> list[float]:
    labels = LabelSet("tiny", LABELS, scoring=("constrained", "full")[number % 2])  # type: ignore[arg-type]
    (item,) = (await client.choose(labels, [f"{TEXT} {number}"])).items
    assert item is not None
    return [score.score for score in sorted(item.scores, key=lambda score: score.label)]


async def decide(client: AsyncClient, number: int) -> list[float]:
    questions = (
        Question("kind", "What is it?", "choice", LABELS),
        Question("angry", "Is the writer angry?", "yes_no"),
    )
    (item,) = (await client.decide(QuestionSet("tiny", questions), [f"{TEXT} {number}"])).items
    assert item is not None
    return [score.score for answer in item.answers for score in answer.scores]


async def extract(client: AsyncClient, number: int) -> str:
    spec = ExtractSpec("tiny", SCHEMA, max_tokens=24)
    (item,) = (await client.extract(spec, [f"{TEXT} {number}"])).items
    assert item is not None
    return item.json


async def transform(client: AsyncClient, number: int) -> str:
    spec = TransformSpec(
        "tiny", "Rewrite: {text}", Grammar("regex", "[a-z]{6}"), Sampling(max_tokens=9)
    )
    return await text_of(client.transform(spec, f"{TEXT} {number}"))


async def generate(client: AsyncClient, number: int) -> str:
    return await text_of(client.generate("tiny", f"{TEXT} {number}", Sampling(max_tokens=6)))


GOOD: tuple[Call, ...] = (choose, decide, extract, transform, generate)


def same(found: Any, right: Any) -> bool:
    if isinstance(right, str):
        return bool(found == right)
    return all(math.isclose(a, b, abs_tol=NOISE) for a, b in zip(found, right, strict=True))


# -- what the bad one asks -------------------------------------------------------------------


def chosen(labels: tuple[Label, ...], text: str = TEXT, **fields: Any) -> Call:
    return lambda client, _: client.choose(LabelSet("tiny", labels, **fields), [text])


def extracted(schema: str, text: str = TEXT) -> Call:
    return lambda client, _: client.extract(ExtractSpec("tiny", schema), [text])


def transformed(prompt: str, grammar: Grammar | None = None) -> Call:
    return lambda client, _: text_of(client.transform(TransformSpec("tiny", prompt, grammar), TEXT))


def generated(prompt: Any, **fields: Any) -> Call:
    return lambda client, _: text_of(client.generate("tiny", prompt, **fields))


async def _raw(front: Front, method: str, data: bytes) -> None:
    try:
        call = front.channel.unary_unary(f"/sprat.v1.Sprat/{method}")
        await call(data, timeout=10)
    except grpc.aio.AioRpcError as error:
        raise to_error(error) from None


def sent(method: str, data: bytes) -> Call:
    return lambda _, front: _raw(front, method, data)


DEEP = '{"a":' * 3000 + "1" + "}" * 3000
NO_UTF8 = pb.ClassifyRequest(task="xx").SerializeToString().replace(b"xx", b"\xff\xfe")
BAD: dict[str, tuple[type[SpratError], Call]] = {
    "schema that is none": (InvalidInput, extracted('{"type": 7}')),
    "schema that is no JSON": (InvalidInput, extracted("{")),
    "schema that is deep": (InvalidInput, extracted(DEEP)),
    "schema that is huge": (InvalidInput, extracted('{"title": "' + "x" * 2_000_000 + '"}')),
    "grammar without a string": (
        InvalidInput,
        transformed("{text}", Grammar("lark", 'start: start "a"')),
    ),
    "grammar that is none": (InvalidInput, transformed("{text}", Grammar("regex", "(("))),
    "labels alike": (InvalidInput, chosen((LABELS[0], LABELS[0]))),
    "257 labels": (InvalidInput, chosen(tuple(Label(f"label {n}") for n in range(257)))),
    "one label": (InvalidInput, chosen(LABELS[:1])),
    "text over the context": (InputTooLong, chosen(LABELS, TEXT * 200)),
    "prompt over the context": (InputTooLong, generated(TEXT * 200)),
    "extract over the context": (InputTooLong, extracted(SCHEMA, TEXT * 200)),
    "template that reaches inside": (InvalidInput, transformed("{text.__class__}")),
    "template that is open": (InvalidInput, transformed("{text")),
    "template of others' inputs": (InvalidInput, transformed("{text} {secret}")),
    "chat of nobody": (InvalidInput, generated([])),
    "adapter unknown": (NotFound, chosen(LABELS, adapter="blue")),
    "adapter unknown to generate": (NotFound, generated(TEXT, adapter="../../etc")),
    "model unknown": (NotFound, lambda client, _: client.tokenize("none", [TEXT])),
    "more answers than places": (InvalidInput, generated(TEXT, sequences=9)),
    "no sampling": (InvalidInput, generated(TEXT, sampling=Sampling(temperature=math.nan))),
    "malformed bytes": (InvalidInput, sent("Classify", b"\xff\xff\xff\xff")),
    "invalid UTF-8": (InvalidInput, sent("Classify", NO_UTF8)),
    "nothing at all": (InvalidInput, sent("Decide", b"")),
}


async def leaves(front: Front, client: AsyncClient, draw: random.Random) -> None:
    """Ask for much, and be gone: by cancelling, by closing the stream or by the connection."""
    way = draw.randrange(4)
    if way == 0:
        task = asyncio.ensure_future(choose(client, 0))
        await asyncio.sleep(draw.random() / 100)
        task.cancel()
        await asyncio.wait([task])
        return
    other = AsyncClient(front.address) if way == 1 else client
    stream: Any = other.generate("tiny", TEXT, Sampling(max_tokens=900))
    async with aclosing(stream):
        async for _ in stream:
            if way == 2:
                break
            if way == 1:
                await other.close()
            await asyncio.sleep(draw.random() / 100)
            break


async def test_bad_client_harms_nobody(front: Front) -> None:
    draw = random.Random(11)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(front.address))
            for _ in range(GOOD_CLIENTS + 1)
        ]
        bad = clients.pop()
        asked = [(call, number) for call in GOOD for number in range(3)]
        right = {(call, number): await call(bad, number) for call, number in asked}
        done = 0

        async def good(index: int, client: AsyncClient) -> None:
            nonlocal done
            for turn in range(ROUNDS):
                key = asked[(index + 7 * turn) % len(asked)]
                found = await key[0](client, key[1])
                assert same(found, right[key]), (key[0].__name__, found, right[key])
                done += 1

        async def be_bad() -> None:
            names = [*BAD]
            while working:
                for name in draw.sample(names, len(names)):
                    kind, call = BAD[name]
                    with pytest.raises(SpratError) as caught:
                        await call(bad, front)
                    assert type(caught.value) is kind, (name, caught.value)
                    assert TEXT not in caught.value.message
                    await leaves(front, bad, draw)

        working = True
        badness = asyncio.ensure_future(be_bad())
        await asyncio.gather(*(good(index, client) for index, client in enumerate(clients)))
        working = False
        await badness
    assert done == GOOD_CLIENTS * ROUNDS
    await asyncio.wait_for(front.servicer.idle(), 10)
    await nothing_is_left(front.model)


async def nothing_is_left(model: GenerativeModel) -> None:
    scheduler: Any = model._scheduler
    engine: Any = scheduler.engine
    await eventually(
        lambda: not (scheduler._live or scheduler._waiting or scheduler._choices),
        "work is left behind",
    )
    assert not engine.busy()
    for lane in engine._lanes:
        assert not lane._occupants
        assert not engine._prefixes[lane]._makers
    assert not engine.chooser()._live
