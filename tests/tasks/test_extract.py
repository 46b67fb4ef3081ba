"""Extract: what becomes of a model's answer, and of texts and schemas that cannot be used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from doubles import WAIT_S, eventually, generative_model
from writer import CHANCE, Writer, last_message, said

from sprat.budget import ComputePermits
from sprat.errors import (
    DeadlineExceeded,
    EngineError,
    InputTooLong,
    InvalidInput,
    QueueFull,
)
from sprat.model import GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks import extract
from sprat.text.leaves import MOST_DEPTH
from sprat.text.schema import Schema
from sprat.values import Extraction, ExtractSpec, Field

NAMES = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


def spec(schema: object = NAMES, **fields: Any) -> ExtractSpec:
    return ExtractSpec("gen", schema if isinstance(schema, str) else json.dumps(schema), **fields)


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
async def model(writer: Writer) -> AsyncIterator[GenerativeModel]:
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    made = generative_model(writer, permits, pool, capacity=20_000)
    yield made
    writer.gate.set()
    await asyncio.to_thread(made.close)
    pool.close()


async def one(model: GenerativeModel, mailbox: Mailbox, text: str, spec: ExtractSpec) -> Extraction:
    """What comes of one text."""
    (item,) = (await extract.run(model, [text], spec, mailbox=mailbox)).items
    assert item is not None
    return item


# -- answers ---------------------------------------------------------------------------------


async def test_extract_finds_values_scores_and_places(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    answer = '{"name":"Zoë","age":7}'
    writer.answer = lambda text: answer
    result = await extract.run(model, ["zoë is 7"], spec(), mailbox=mailbox)
    (item,) = result.items
    assert item == Extraction(
        value={"name": "Zoë", "age": 7},
        json=answer,
        fields=(
            Field("/name", pytest.approx(CHANCE**5), 0, 3, grounded=True),
            Field("/age", pytest.approx(CHANCE**2), 7, 8, grounded=False),
        ),
        input_tokens=len(writer.starts[0].prompt),
        cached_tokens=writer.starts[0].shared,
        output_tokens=len(answer),
        forced_tokens=8,
    )
    assert (result.model, result.model_version) == (model.info.name, model.info.version)
    assert (result.errors, result.task_version) == ((), "")
    assert result.timings.total_ns >= result.timings.infer_ns > 0


async def test_extract_tells_the_model_what_to_do(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    asked = spec(json.dumps(NAMES, indent=2), instructions="Who is it?", max_tokens=99)
    await one(model, mailbox, "Anna", asked)
    (start,) = writer.starts
    compact = json.dumps(NAMES, separators=(",", ":"))
    assert said(start) == (
        "<system>Who is it?\nAnswer with JSON that fits this schema, and nothing else:\n"
        f"{compact}<user>Anna"
    )
    assert start.shared == len(start.prompt) - len("Anna")
    assert (start.sampling.max_tokens, start.sampling.temperature) == (99, 0)
    assert start.logprobs == 0
    assert start.grammar is writer.grammars[0]
    assert writer.grammars[0].kind == "json_schema"
    assert json.loads(writer.grammars[0].source) == {**NAMES, "additionalProperties": False}
    general = extract.prompt(spec(), Schema(spec().schema))
    assert general.startswith(extract.GENERAL_INSTRUCTIONS)


async def test_extract_answers_texts_side_by_side_in_order(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.answer = lambda text: json.dumps({"name": text * (9 - int(text))})
    texts = [str(n) for n in range(9)]
    result = await extract.run(model, texts, spec(), mailbox=mailbox)
    assert [item and item.value for item in result.items] == [
        {"name": text * (9 - int(text))} for text in texts
    ]


async def test_extract_of_many_texts_does_not_fill_the_queue(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    """All of them together would be far more than may wait."""
    result = await extract.run(model, ["Anna"] * 200, spec(), mailbox=mailbox)
    assert len(writer.starts) == 200
    assert all(item is not None for item in result.items)


async def test_extract_answer_that_was_cut_is_no_value(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.answer = lambda text: '{"name":"Anna"}'
    item = await one(model, mailbox, "Anna", spec(max_tokens=14))
    assert (item.value, item.json, item.fields, item.complete) == (None, "", (), False)
    assert item.output_tokens == 14
    assert (await one(model, mailbox, "Anna", spec(max_tokens=15))).complete


@pytest.mark.parametrize(
    "value",
    [
        "1e999",
        "9" * 400,
        "9" * 5000,
        "[" * MOST_DEPTH + "]" * MOST_DEPTH,
        '{"a":' * 40 + "1" + "}" * 40,
    ],
)
async def test_extract_answer_that_no_struct_holds_is_not_complete(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox, value: str
) -> None:
    writer.context_length = 9000
    writer.answer = lambda text: f'{{"name":{value}}}'
    item = await one(model, mailbox, "Anna", spec(max_tokens=8000))
    assert (item.value, item.json, item.complete) == (None, "", False)


async def test_extract_repeated_values_stand_one_after_the_other(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.answer = lambda text: '{"name":["Tom","tom"],"age":[2,2]}'
    item = await one(model, mailbox, "2 Toms: Tom, Tom (2)", spec())
    assert [(f.path, f.start, f.end) for f in item.fields] == [
        ("/name/0", 8, 11),
        ("/name/1", 13, 16),
        ("/age/0", 0, 1),
        ("/age/1", 18, 19),
    ]


# -- grounding -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "abstained"),
    [
        ('{"name":"Anna"}', False),
        ('{"name":"ANNA"}', False),
        ('{"name":"Hanna"}', True),
        ('{"name":""}', False),
        ('{"age":77}', False),
        ('{"colour":"red"}', False),
        ('{"colour":"green"}', True),
        ('{"kind":"booking"}', False),
        ('{"name":"Anna","list":["Anna","Tom"]}', True),
    ],
)
async def test_extract_withholds_what_the_text_does_not_say(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox, answer: str, abstained: bool
) -> None:
    writer.answer = lambda text: answer
    colour = {"anyOf": [{"$ref": "#/$defs/colour"}, {"type": "string"}]}
    schema = {
        "type": "object",
        "properties": {**NAMES["properties"], "colour": colour, "kind": {"const": "booking"}},  # type: ignore[dict-item]
        "$defs": {"colour": {"enum": ["red", "blue"]}},
    }
    item = await one(model, mailbox, "It is Anna.", spec(schema, require_grounding=True))
    assert (item.complete, item.abstained) == (True, abstained)
    assert (item.value is None, item.json == "") == (abstained, abstained)
    assert len(item.fields) == len([*_leaves(json.loads(answer))])
    lenient = await one(model, mailbox, "It is Anna.", spec(schema))
    assert (lenient.abstained, lenient.value) == (False, json.loads(answer))


def _leaves(value: Any) -> list[Any]:
    if not isinstance(value, (dict, list)):
        return [value]
    return [
        leaf for v in (value.values() if isinstance(value, dict) else value) for leaf in _leaves(v)
    ]


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (spec("no json"), "schema"),
        (spec('{"type":"array"}'), "schema"),
        (spec(json.dumps({"type": "object", "title": "x" * 70_000})), "schema"),
        (spec(max_tokens=0), "max_tokens"),
        (spec(max_tokens=2**20 + 1), "max_tokens"),
        (spec(instructions="\ud800"), "instructions"),
        (spec(instructions=" "), "instructions"),
    ],
)
async def test_extract_refuses_before_anything_runs(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox, bad: ExtractSpec, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await extract.run(model, ["Anna"], bad, partial=True, mailbox=mailbox)
    assert caught.value.field == field
    assert (writer.starts, writer.grammars) == ([], [])


async def test_extract_refuses_unknown_policies(model: GenerativeModel, mailbox: Mailbox) -> None:
    with pytest.raises(InvalidInput) as caught:
        await extract.run(model, ["a"], spec(), long_input="cut", mailbox=mailbox)  # type: ignore[arg-type]
    assert caught.value.field == "long_input"


async def test_extract_schema_that_no_grammar_follows(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.refusal = "unsupported keyword"
    with pytest.raises(InvalidInput, match="schema: unsupported keyword") as caught:
        await extract.run(model, ["Anna"], spec(), partial=True, mailbox=mailbox)
    assert caught.value.field == "schema"


async def test_extract_bad_text_fails_the_call_before_anything_runs(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await extract.run(model, ["Anna", "\ud800"], spec(), mailbox=mailbox)
    assert caught.value.field == "texts[1]"
    assert writer.starts == []


async def test_extract_bad_text_fails_alone_with_partial(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.broken = "poison"
    texts = ["Anna", "x" * 5000, "poison", " ", "Tom"]
    result = await extract.run(model, texts, spec(), partial=True, mailbox=mailbox)
    assert [item is not None for item in result.items] == [True, False, False, False, True]
    assert [(error.index, error.reason) for error in result.errors] == [
        (1, "INPUT_TOO_LONG"),
        (2, "ENGINE"),
        (3, "INVALID_INPUT"),
    ]


async def test_extract_failure_of_one_text_stops_the_others(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.broken = "poison"
    writer.answer = lambda text: "{" * 3000
    texts = ["Anna", "poison", "Tom"]
    call = extract.run(model, texts, spec(max_tokens=3000), mailbox=mailbox)
    with pytest.raises(EngineError):
        await asyncio.wait_for(call, WAIT_S)
    scheduler = model._scheduler
    await eventually(lambda: not (scheduler._waiting or writer.live), "the others go on")
    # All but the broken one, as far as they had begun.
    assert len(writer.stopped) == len(writer.starts) - 1


async def test_extract_caller_that_gives_up_stops_all(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.gate.clear()
    call = asyncio.ensure_future(extract.run(model, ["Anna"] * 30, spec(), mailbox=mailbox))
    await eventually(lambda: writer.starts, "nothing was started")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, WAIT_S)
    writer.gate.set()
    await eventually(lambda: not writer.live, "sequences live on")
    result = await extract.run(model, ["Tom"], spec(), mailbox=mailbox)
    assert result.items[0] is not None
    assert len(writer.starts) < 30


async def test_extract_without_time_left(model: GenerativeModel, mailbox: Mailbox) -> None:
    with pytest.raises(DeadlineExceeded):
        await extract.run(model, ["a", "b"], spec(), partial=True, deadline=0.0, mailbox=mailbox)


async def test_extract_into_a_full_queue_fails_as_a_whole(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.sequence_limit = 1
    writer.answer = lambda text: "{" * 3500
    with pytest.raises(QueueFull):
        await extract.run(model, ["a"] * 8, spec(max_tokens=3500), partial=True, mailbox=mailbox)
    await eventually(lambda: not writer.live, "sequences live on")


# -- long texts ------------------------------------------------------------------------------

GUESTS = {
    "type": "object",
    "properties": {"guests": {"type": "array", "items": {"type": "string"}}, "host": {}},
}
LONG = " ".join(f"Guest{n} came at noon and left again late." for n in range(60))


def guests(text: str) -> str:
    """What the writer says of a part: who is in it, and a host, who is in none."""
    names = [word for word in text.split() if word.startswith("Guest")]
    return json.dumps({"guests": names, "host": "Guest40" if "Guest40" in names else "Nobody"})


async def test_extract_long_text_is_refused_with_counts_and_a_hint(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.context_length = 1000
    model.info = replace(model.info, max_tokens=1000)
    with pytest.raises(InputTooLong, match=r"texts\[0\]: .*long_input") as caught:
        await extract.run(model, [LONG], spec(GUESTS, max_tokens=300), mailbox=mailbox)
    assert caught.value.field == "texts[0]"
    assert caught.value.tokens > len(LONG)
    assert caught.value.limit == 700


async def test_extract_long_text_in_parts(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.context_length = 1000
    model.info = replace(model.info, max_tokens=1000)
    writer.answer = guests
    asked = spec(GUESTS, max_tokens=300, require_grounding=True)
    result = await extract.run(model, [LONG], asked, long_input="chunk", mailbox=mailbox)
    (item,) = result.items
    assert item is not None
    assert item.value == {"guests": [f"Guest{n}" for n in range(60)], "host": "Guest40"}
    assert json.loads(item.json) == item.value
    for field, name in zip(item.fields, [*item.value["guests"], "Guest40"], strict=True):
        assert LONG[field.start : field.end] == name
    assert item.chunks == len(writer.starts) > 5
    assert item.input_tokens == sum(len(start.prompt) for start in writer.starts)
    assert item.cached_tokens == sum(start.shared for start in writer.starts)
    parts = sorted((last_message(start) for start in writer.starts), key=LONG.index)
    assert all(part.rstrip().endswith("again late.") for part in parts)
    assert all(len(start.prompt) < 700 for start in writer.starts)


async def test_extract_long_text_with_a_part_that_was_cut_is_no_value(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.context_length = 1000
    model.info = replace(model.info, max_tokens=1000)
    writer.answer = lambda text: '{"host":"' + "x" * 400 if "Guest40" in text else "{}"
    asked = spec(GUESTS, max_tokens=300)
    result = await extract.run(model, [LONG], asked, long_input="chunk", mailbox=mailbox)
    (item,) = result.items
    assert item is not None
    assert (item.value, item.complete) == (None, False)
    assert item.chunks > 5


async def test_extract_text_that_leaves_too_little_room_is_too_long(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    writer.context_length = 1000
    model.info = replace(model.info, max_tokens=1000)
    writer.answer = lambda text: json.dumps({"host": "x" * 150})
    text = "word " * 120
    with pytest.raises(InputTooLong):
        await extract.run(model, [text], spec(GUESTS, max_tokens=300), mailbox=mailbox)
    whole = extract.run(
        model, [text], spec(GUESTS, max_tokens=300), long_input="chunk", mailbox=mailbox
    )
    (item,) = (await whole).items
    assert item is not None
    assert item.complete
    assert item.chunks > 1
    # An answer without an end is the model's fault, not that of a short text.
    writer.answer = lambda text: '{"host":"' + "x" * 2000
    short = await one(model, mailbox, "word", spec(GUESTS, max_tokens=900))
    assert not short.complete


@pytest.mark.parametrize("partial", [True, False])
async def test_extract_schema_that_leaves_no_room_is_what_is_refused(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox, partial: bool
) -> None:
    schema = {"type": "object", "properties": {f"name{n}": {} for n in range(400)}}
    with pytest.raises(InputTooLong, match="no room is left") as caught:
        await extract.run(
            model, ["Anna"], spec(schema), long_input="chunk", partial=partial, mailbox=mailbox
        )
    assert caught.value.field == "schema"
