"""Transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from sprat.codec.common import checked, timings, timings_message
from sprat.codec.generate import FINISH_REASON_NUMBERS, FINISH_REASONS, sampling, sampling_message
from sprat.codec.tiers import fill_tiers, set_effort, tier_facts
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import Chunk, Effort, Grammar, GrammarKind, TransformSpec


def grammar(message: pb.Grammar) -> Grammar:
    """What an answer must look like.

    Raises
    ------
    InvalidInput
        When it is of no kind.
    """
    kind: GrammarKind | None = message.WhichOneof("kind")
    if kind is None:
        raise InvalidInput(
            "grammar: expected json_schema, regex or lark, got none", field="grammar"
        )
    return Grammar(kind, getattr(message, kind))


def transform_spec(message: pb.TransformSpec) -> TransformSpec:
    """The rewriting that a request brings itself."""
    given: dict[str, Any] = {}
    if message.HasField("lookup"):
        given["lookup"] = message.lookup
    return TransformSpec(
        model=message.model,
        prompt=message.prompt,
        grammar=grammar(message.grammar) if message.HasField("grammar") else None,
        sampling=sampling(message),
        adapter=message.adapter,
        **given,
    )


def transform_request(
    spec: str | TransformSpec,
    text: str,
    inputs: Mapping[str, str] | None,
    effort: Effort = Effort(),
) -> pb.TransformRequest:
    """A transform call as a message."""
    request = pb.TransformRequest(
        text=checked(text, "text"),
        inputs={
            checked(name, "inputs"): checked(value, "inputs")
            for name, value in (inputs or {}).items()
        },
    )
    if isinstance(spec, str):
        request.task = checked(spec, "task")
    else:
        request.spec.CopyFrom(_spec_message(spec))
    set_effort(request, effort)
    return request


def _spec_message(spec: TransformSpec) -> pb.TransformSpec:
    made = pb.TransformSpec(
        model=checked(spec.model, "model"),
        prompt=checked(spec.prompt, "prompt"),
        sampling=sampling_message(spec.sampling),
        lookup=spec.lookup,
        adapter=checked(spec.adapter, "adapter"),
    )
    if spec.grammar is not None:
        if spec.grammar.kind not in get_args(GrammarKind):
            raise InvalidInput(
                f"grammar: expected json_schema, regex or lark, got {spec.grammar.kind!r}",
                field="grammar",
            )
        setattr(made.grammar, spec.grammar.kind, checked(spec.grammar.source, "grammar"))
    return made


def transform_response(chunk: Chunk) -> pb.TransformResponse:
    """A `Chunk` as a message; the totals only on the last one."""
    if chunk.finish_reason is None:
        return pb.TransformResponse(text=chunk.text)
    made = pb.TransformResponse(
        text=chunk.text,
        finish_reason=FINISH_REASON_NUMBERS[chunk.finish_reason],
        complete=chunk.complete,
        prompt_tokens=chunk.prompt_tokens,
        cached_tokens=chunk.cached_tokens,
        output_tokens=chunk.output_tokens,
        forced_tokens=chunk.forced_tokens,
        drafted_tokens=chunk.drafted_tokens,
        accepted_tokens=chunk.accepted_tokens,
        model=pb.ModelVersion(name=chunk.model, version=chunk.model_version),
        task_version=chunk.task_version,
        timings=timings_message(chunk.timings),
        calibrated=chunk.calibrated,
        request_id=chunk.request_id,
    )
    fill_tiers(made, chunk)
    return made


def transform_chunk(response: pb.TransformResponse) -> Chunk:
    """A message as a `Chunk`."""
    return Chunk(
        text=response.text,
        finish_reason=FINISH_REASONS.get(response.finish_reason),
        complete=response.complete,
        prompt_tokens=response.prompt_tokens,
        cached_tokens=response.cached_tokens,
        output_tokens=response.output_tokens,
        forced_tokens=response.forced_tokens,
        drafted_tokens=response.drafted_tokens,
        accepted_tokens=response.accepted_tokens,
        timings=timings(response.timings),
        model=response.model.name,
        model_version=response.model.version,
        task_version=response.task_version,
        calibrated=response.calibrated,
        request_id=response.request_id,
        **tier_facts(response),
    )
