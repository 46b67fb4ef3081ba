"""Transform: prompts, inputs and grammars that can and that cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from doubles import eventually, generative_model
from writer import Writer, said

from sprat.budget import ComputePermits
from sprat.errors import InputTooLong, InvalidInput
from sprat.model import GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks import transform
from sprat.values import Chunk, Grammar, Sampling, TransformSpec

PROMPT = "Rewrite {tone}: {text}"


def spec(prompt: str = PROMPT, **fields: Any) -> TransformSpec:
    return TransformSpec("gen", prompt, **fields)


@pytest.fixture
def writer() -> Writer:
    return Writer(answer=lambda text: "Good day")


@pytest.fixture
async def model(writer: Writer) -> AsyncIterator[GenerativeModel]:
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    made = generative_model(writer, permits, pool)
    yield made
    writer.gate.set()
    await asyncio.to_thread(made.close)
    pool.close()


async def chunks(
    model: GenerativeModel, mailbox: Mailbox, spec: TransformSpec, **inputs: str
) -> list[Chunk]:
    given = inputs or {"tone": "kindly"}
    return [c async for c in transform.run(model, "go", spec, inputs=given, mailbox=mailbox)]


async def test_transform_streams_the_answer(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    made = await chunks(model, mailbox, spec())
    assert "".join(chunk.text for chunk in made) == "Good day"
    assert all(chunk.finish_reason is None for chunk in made[:-1])
    last = made[-1]
    assert (last.finish_reason, last.complete, last.output_tokens) == ("stop", True, 8)
    assert last.cached_tokens == writer.starts[0].shared
    assert (last.model, last.model_version) == (model.info.name, model.info.version)


async def test_transform_that_was_cut_is_not_complete(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    made = await chunks(model, mailbox, spec(sampling=Sampling(max_tokens=3)))
    assert (made[-1].finish_reason, made[-1].complete) == ("length", False)


async def test_transform_asks_what_the_prompt_says(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    sampling = Sampling(max_tokens=9, temperature=0.5, seed=3)
    await chunks(model, mailbox, spec(sampling=sampling, lookup=False), tone="{text}")
    (start,) = writer.starts
    assert said(start) == "<user>Rewrite {text}: go"
    assert start.shared == 1 + len("<user>Rewrite ")
    assert (start.sampling, start.lookup, start.grammar) == (sampling, False, None)


async def test_transform_follows_a_grammar(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    grammar = Grammar("regex", "[a-z]+")
    await chunks(model, mailbox, spec(grammar=grammar))
    assert writer.grammars == [grammar]
    assert writer.starts[0].grammar is grammar
    assert writer.starts[0].lookup is True


async def test_transform_grammar_that_is_none(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.refusal = "not a usable regex"
    with pytest.raises(InvalidInput, match="grammar: not a usable regex") as caught:
        await chunks(model, mailbox, spec(grammar=Grammar("regex", "[")))
    assert caught.value.field == "grammar"
    assert writer.starts == []


@pytest.mark.parametrize(
    ("asked", "text", "inputs", "field"),
    [
        (spec("{text.__class__}"), "go", {}, "prompt"),
        (spec("{0} {text}"), "go", {}, "prompt"),
        (spec("{text!r:>1000000}"), "go", {}, "prompt"),
        (spec("Rewrite."), "go", {}, "prompt"),
        (spec(""), "go", {}, "prompt"),
        (spec("{text}" * 20), "x" * 1_000_000, {}, "prompt"),
        (spec(), "go", {}, "inputs"),
        (spec(), "go", {"tone": "kindly", "more": "x"}, "inputs"),
        (spec(), "go", {"tone": "kindly", "text": "x"}, "inputs"),
        (spec(), "go", {"tone": "\ud800"}, "inputs"),
        (spec(), "", {"tone": "kindly"}, "text"),
        (spec(), "\ud800", {"tone": "kindly"}, "text"),
        (spec(sampling=Sampling(top_p=2)), "go", {"tone": "x"}, "sampling.top_p"),
        (spec(grammar=Grammar("ebnf", "x")), "go", {"tone": "x"}, "grammar"),  # type: ignore[arg-type]
    ],
)
async def test_transform_refuses_before_anything_runs(
    model: GenerativeModel,
    writer: Writer,
    mailbox: Mailbox,
    asked: TransformSpec,
    text: str,
    inputs: dict[str, str],
    field: str,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        transform.run(model, text, asked, inputs=inputs, mailbox=mailbox)
    assert caught.value.field == field
    assert (writer.starts, writer.grammars) == ([], [])


async def test_transform_inputs_may_be_empty(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    await chunks(model, mailbox, spec(), tone="")
    assert said(writer.starts[0]) == "<user>Rewrite : go"


async def test_transform_prompt_over_the_context(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    with pytest.raises(InputTooLong, match="prompt: ") as caught:
        await chunks(model, mailbox, spec(), tone="x" * 5000)
    assert caught.value.field == "prompt"
    assert caught.value.tokens > caught.value.limit == 3999


async def test_transform_reader_that_leaves_stops_the_model(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.answer = lambda text: "x" * 3000
    asked = spec("{text}", sampling=Sampling(max_tokens=3000))
    stream = transform.run(model, "go", asked, mailbox=mailbox)
    assert (await anext(stream)).text == "x"
    await stream.aclose()
    await eventually(lambda: writer.stopped == [0], "it writes on")
