"""Extract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sprat.codec.common import (
    checked,
    checked_all,
    item_error_messages,
    item_errors,
    set_number,
    timings,
    timings_message,
)
from sprat.codec.tiers import fill_tiers, set_effort, tier_facts
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.text.leaves import plain, read
from sprat.values import Effort, Extraction, ExtractResult, ExtractSpec, Field, LongInput

_LONG_INPUTS: dict[int, LongInput] = {
    pb.LONG_INPUT_UNSPECIFIED: "refuse",
    pb.LONG_INPUT_REFUSE: "refuse",
    pb.LONG_INPUT_CHUNK: "chunk",
}
_LONG_INPUT_NUMBERS: dict[LongInput, pb.LongInput] = {
    "refuse": pb.LONG_INPUT_REFUSE,
    "chunk": pb.LONG_INPUT_CHUNK,
}


def long_input(value: int) -> LongInput:
    """What a request wants done with long texts.

    Raises
    ------
    InvalidInput
        For a number that the enum does not have.
    """
    if value not in _LONG_INPUTS:
        raise InvalidInput(f"long_input: unknown value {value}", field="long_input")
    return _LONG_INPUTS[value]


def extract_spec(message: pb.ExtractSpec) -> ExtractSpec:
    """The fields that a request brings itself."""
    given: dict[str, Any] = {}
    if message.HasField("max_tokens"):
        given["max_tokens"] = message.max_tokens
    return ExtractSpec(
        model=message.model,
        schema=message.schema,
        instructions=message.instructions,
        require_grounding=message.require_grounding,
        adapter=message.adapter,
        **given,
    )


def extract_request(
    spec: str | ExtractSpec,
    texts: Sequence[str],
    requested: Sequence[str],
    policy: LongInput,
    partial: bool,
    effort: Effort = Effort(),
) -> pb.ExtractRequest:
    """An extract call as a message."""
    if policy not in _LONG_INPUT_NUMBERS:
        raise InvalidInput(
            f"long_input: expected refuse or chunk, got {policy!r}", field="long_input"
        )
    request = pb.ExtractRequest(
        texts=checked_all(texts, "texts"),
        requested=checked_all(requested, "requested"),
        long_input=_LONG_INPUT_NUMBERS[policy],
        partial_results=partial,
    )
    if isinstance(spec, str):
        request.task = checked(spec, "task")
    else:
        request.spec.CopyFrom(_spec_message(spec))
    set_effort(request, effort)
    return request


def _spec_message(spec: ExtractSpec) -> pb.ExtractSpec:
    made = pb.ExtractSpec(
        model=checked(spec.model, "model"),
        schema=checked(spec.schema, "schema"),
        instructions=checked(spec.instructions, "instructions"),
        require_grounding=spec.require_grounding,
        adapter=checked(spec.adapter, "adapter"),
    )
    set_number(made, "max_tokens", spec.max_tokens, "max_tokens")
    return made


def extract_response(result: ExtractResult) -> pb.ExtractResponse:
    """An `ExtractResult` as a message."""
    message = pb.ExtractResponse(
        errors=item_error_messages(result.errors),
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        task_version=result.task_version,
        timings=timings_message(result.timings),
        calibrated=result.calibrated,
        request_id=result.request_id,
    )
    for item in result.items:
        made = message.results.add()
        if item is None:
            continue
        if item.value is not None:
            made.value.SetInParent()  # an empty object is a value, too
            made.value.update(item.value)
        made.json = item.json
        fill_tiers(made, item)
        made.complete = item.complete
        made.input_tokens = item.input_tokens
        made.cached_tokens = item.cached_tokens
        made.output_tokens = item.output_tokens
        made.forced_tokens = item.forced_tokens
        made.chunks = item.chunks
        for field in item.fields:
            made.fields.add(
                path=field.path,
                score=field.score,
                start=field.start,
                end=field.end,
                grounded=field.grounded,
                confidence=field.confidence,
            )
    return message


def extract_result(response: pb.ExtractResponse) -> ExtractResult:
    """A message as an `ExtractResult`; values are read from their JSON, which has every digit."""
    failed = {error.index for error in response.errors}
    return ExtractResult(
        items=tuple(
            None
            if index in failed
            else Extraction(
                value=plain(read(item.json)) if item.HasField("value") else None,
                json=item.json,
                fields=tuple(map(_field, item.fields)),
                complete=item.complete,
                input_tokens=item.input_tokens,
                cached_tokens=item.cached_tokens,
                output_tokens=item.output_tokens,
                forced_tokens=item.forced_tokens,
                chunks=item.chunks,
                **tier_facts(item),
            )
            for index, item in enumerate(response.results)
        ),
        errors=item_errors(response.errors),
        model=response.model.name,
        model_version=response.model.version,
        task_version=response.task_version,
        timings=timings(response.timings),
        calibrated=response.calibrated,
        request_id=response.request_id,
    )


def _field(message: pb.Field) -> Field:
    return Field(
        message.path,
        message.score,
        message.start if message.HasField("start") else None,
        message.end if message.HasField("end") else None,
        message.grounded,
        message.confidence if message.HasField("confidence") else None,
    )
