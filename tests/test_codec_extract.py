"""Extract and Transform on the wire: what comes out is what went in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from sprat import codec
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.text.leaves import MOST_DEPTH, plain, read, write
from sprat.values import (
    Chunk,
    Effort,
    Extraction,
    ExtractResult,
    ExtractSpec,
    Field,
    Grammar,
    ItemError,
    Sampling,
    TierAnswer,
    Timings,
    TransformSpec,
)

VALUE = {"a": [1, 2.5, None, True, {"b": ""}, []], "c": {}, "d": 2**60 + 1, "": "\x00\ufffd😀"}


def result(value: Any) -> ExtractResult:
    extraction = Extraction(
        value=value,
        json="" if value is None else write(read(json.dumps(value))),
        fields=(Field("/a", 0.5, 0, 3, grounded=True, confidence=0.75), Field("/b", 0.25)),
        complete=value is not None,
        input_tokens=9,
        cached_tokens=5,
        output_tokens=7,
        forced_tokens=3,
        chunks=2,
        confidence=0.5,
        abstained=value is None,
        tier=1,
        escalated=True,
        degraded="overload",
        tiers=(TierAnswer(0, "", 0.25, 1.5), TierAnswer(1, "", None)),
        cpu_ms=2.5,
    )
    errors = (ItemError(1, "INVALID_INPUT", "texts[1]: is empty"),)
    return ExtractResult(
        (extraction, None), errors, "m", "v", "", Timings(1, 2, 3, 4), True, "5f0c"
    )


def travel(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@pytest.mark.parametrize("value", [VALUE, {}, {"a": {}}, {"a": []}, None])
def test_codec_extract_result_round_trips(value: Any) -> None:
    made = result(value)
    assert codec.extract_result(travel(codec.extract_response(made))) == made


def test_codec_extract_value_is_a_struct() -> None:
    (message, _) = travel(codec.extract_response(result(VALUE))).results
    assert MessageToDict(message.value) == {**VALUE, "d": float(2**60)}
    assert message.value.fields["a"].list_value.values[3].bool_value is True
    empty = travel(codec.extract_response(result({}))).results[0]
    assert empty.HasField("value")
    assert not travel(codec.extract_response(result(None))).results[0].HasField("value")


@pytest.mark.parametrize("part", ["[{}]", '{{"a":{}}}'])
def test_codec_extract_deepest_value_can_be_read(part: str) -> None:
    """Readers of protobuf accept a hundred messages within each other."""
    text = "1"
    for _ in range(MOST_DEPTH - 1):
        text = part.format(text)
    made = result(plain(read(f'{{"a":{text}}}')))
    assert codec.extract_result(travel(codec.extract_response(made))) == made


@pytest.mark.parametrize(
    "spec",
    [
        ExtractSpec("m", "{}"),
        ExtractSpec("m", '{"ü":1}', "look", require_grounding=True, max_tokens=7, adapter="a"),
    ],
)
def test_codec_extract_spec_round_trips(spec: ExtractSpec) -> None:
    request = travel(codec.extract_request(spec, ["a", "b"], ["f"], "chunk", True))
    assert codec.extract_spec(request.spec) == spec
    assert (list(request.texts), list(request.requested)) == (["a", "b"], ["f"])
    assert codec.long_input(request.long_input) == "chunk"
    assert request.partial_results


def test_codec_extract_defaults() -> None:
    assert codec.extract_spec(pb.ExtractSpec(model="m", schema="{}")) == ExtractSpec("m", "{}")
    assert codec.long_input(0) == codec.long_input(pb.LONG_INPUT_REFUSE) == "refuse"
    with pytest.raises(InvalidInput, match="long_input: unknown value 9"):
        codec.long_input(9)


@pytest.mark.parametrize(
    ("spec", "policy", "field"),
    [
        (ExtractSpec("m", "\ud800"), "refuse", "schema"),
        (ExtractSpec("m", "{}", "\ud800"), "refuse", "instructions"),
        (ExtractSpec("m", "{}", max_tokens=2**40), "refuse", "max_tokens"),
        (ExtractSpec("m", "{}"), "cut", "long_input"),
    ],
)
def test_codec_extract_request_refuses(spec: ExtractSpec, policy: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.extract_request(spec, ["a"], (), policy, False)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("requested", "field"), [("time", "requested"), (["\ud800"], "requested[0]")]
)
def test_codec_extract_request_refuses_requested(requested: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.extract_request("task", ["a"], requested, "refuse", False)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "spec",
    [
        TransformSpec("m", "{text}"),
        TransformSpec("m", "{a}{text}", Grammar("regex", "x+"), Sampling(9), lookup=False),
        TransformSpec("m", "{text}", Grammar("lark", "start: X"), adapter="a"),
        TransformSpec("m", "{text}", Grammar("json_schema", "{}")),
    ],
)
def test_codec_transform_spec_round_trips(spec: TransformSpec) -> None:
    request = travel(codec.transform_request(spec, "t", {"a": "b"}))
    assert codec.transform_spec(request.spec) == spec
    assert (request.text, dict(request.inputs)) == ("t", {"a": "b"})


def test_codec_transform_grammar_of_no_kind() -> None:
    with pytest.raises(InvalidInput, match="grammar: expected json_schema, regex or lark"):
        codec.transform_spec(pb.TransformSpec(model="m", grammar=pb.Grammar()))
    odd = TransformSpec("m", "{text}", Grammar("ebnf", "x"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="grammar: expected json_schema, regex or lark"):
        codec.transform_request(odd, "t", None)


def test_codec_transform_chunks_round_trip() -> None:
    last = Chunk(
        "x",
        "stop",
        prompt_tokens=1,
        output_tokens=2,
        complete=True,
        cached_tokens=3,
        forced_tokens=4,
        drafted_tokens=5,
        accepted_tokens=6,
        timings=Timings(1, 2, 3, 4),
        model="m",
        model_version="v",
    )
    answered = replace(
        last,
        confidence=0.5,
        calibrated=True,
        tier=1,
        escalated=True,
        degraded="overload",
        tiers=(TierAnswer(0, "", 0.25, 1.5), TierAnswer(1, "", None)),
        cpu_ms=2.5,
        task_version="t",
        request_id="5f0c",
    )
    abstained = replace(answered, text="", confidence=0.0, abstained=True, degraded=None)
    for chunk in (Chunk("ü"), last, answered, abstained):
        found = codec.transform_chunk(travel(codec.transform_response(chunk)))
        assert found == chunk
        assert found.cpu_ms == chunk.cpu_ms
        assert [said.cpu_ms for said in found.tiers] == [said.cpu_ms for said in chunk.tiers]


@pytest.mark.parametrize("effort", [Effort(), Effort(0, 0.0, 0.5), Effort(3, 1.0, 9.5)])
def test_codec_transform_effort_round_trips(effort: Effort) -> None:
    request = travel(codec.transform_request("polite", "t", None, effort))
    assert request.task == "polite"
    assert codec.effort(request) == effort


def test_codec_transform_effort_that_cannot_travel() -> None:
    with pytest.raises(InvalidInput, match="max_tier"):
        codec.transform_request("polite", "t", None, Effort(max_tier=2**31))
