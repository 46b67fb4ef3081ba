"""Generate."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.codec.common import checked, checked_all, set_number, timings, timings_message
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import Chunk, FinishReason, Message, Role, Sampling, TokenChoice, TokenLogprob

_ROLE_NUMBERS: dict[Role, pb.Role] = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
}
_ROLES: dict[int, Role] = {int(number): role for role, number in _ROLE_NUMBERS.items()}
FINISH_REASON_NUMBERS: dict[FinishReason, pb.FinishReason] = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
}
FINISH_REASONS: dict[int, FinishReason] = {
    int(number): reason for reason, number in FINISH_REASON_NUMBERS.items()
}
_SAMPLING_NUMBERS = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "seed",
)


def prompt(request: pb.GenerateRequest) -> str | list[Message]:
    """The raw prompt or the chat of a request.

    Raises
    ------
    InvalidInput
        When neither is set, or a role is none of the enum's.
    """
    kind = request.WhichOneof("input")
    if kind is None:
        raise InvalidInput("input: expected prompt or chat, got neither", field="input")
    if kind == "prompt":
        return str(request.prompt)
    messages = []
    for index, message in enumerate(request.chat.messages):
        role = _ROLES.get(message.role)
        if role is None:
            field = f"chat.messages[{index}].role"
            raise InvalidInput(
                f"{field}: expected ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT, got {message.role}",
                field=field,
            )
        messages.append(Message(role, message.content))
    return messages


def sampling(request: pb.GenerateRequest | pb.TransformSpec) -> Sampling:
    """Sampling parameters; what is absent keeps the default of `Sampling`."""
    message = request.sampling
    given = {name: getattr(message, name) for name in _SAMPLING_NUMBERS if message.HasField(name)}
    return Sampling(**given, stop=tuple(message.stop))


def sampling_message(parameters: Sampling) -> pb.Sampling:
    """Sampling parameters as a message."""
    message = pb.Sampling(stop=checked_all(parameters.stop, "sampling.stop"))
    for name in _SAMPLING_NUMBERS:
        set_number(message, name, getattr(parameters, name), f"sampling.{name}")
    return message


def generate_request(
    model: str,
    given: str | Sequence[Message],
    parameters: Sampling,
    adapter: str = "",
    sequences: int = 1,
    logprobs: int | None = None,
) -> pb.GenerateRequest:
    """A generate call as a message."""
    request = pb.GenerateRequest(
        model=checked(model, "model"),
        sampling=sampling_message(parameters),
        adapter=checked(adapter, "adapter"),
    )
    set_number(request, "sequences", sequences, "sequences")
    set_number(request, "logprobs", logprobs, "logprobs")
    if isinstance(given, str):
        request.prompt = checked(given, "prompt")
        return request
    request.chat.SetInParent()
    for index, message in enumerate(given):
        where = f"chat.messages[{index}]"
        role = _ROLE_NUMBERS.get(message.role)
        if role is None:
            known = ", ".join(_ROLE_NUMBERS)
            raise InvalidInput(f"{where}.role: expected one of {known}", field=f"{where}.role")
        content = checked(message.content, f"{where}.content")
        request.chat.messages.append(pb.Message(role=role, content=content))
    return request


def generate_response(chunk: Chunk) -> pb.GenerateResponse:
    """A `Chunk` as a message; the totals only on the last one."""
    logprobs = [
        pb.TokenChoice(chosen=_logprob(each.chosen), top=map(_logprob, each.top))
        for each in chunk.logprobs
    ]
    if chunk.finish_reason is None:
        return pb.GenerateResponse(text=chunk.text, sequence=chunk.sequence, logprobs=logprobs)
    return pb.GenerateResponse(
        text=chunk.text,
        sequence=chunk.sequence,
        logprobs=logprobs,
        cached_tokens=chunk.cached_tokens,
        finish_reason=FINISH_REASON_NUMBERS[chunk.finish_reason],
        prompt_tokens=chunk.prompt_tokens,
        output_tokens=chunk.output_tokens,
        model=pb.ModelVersion(name=chunk.model, version=chunk.model_version),
        timings=timings_message(chunk.timings),
    )


def _logprob(value: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(token=value.token, logprob=value.logprob)


def _read_logprob(message: pb.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(message.token, message.logprob)


def chunk(response: pb.GenerateResponse) -> Chunk:
    """A message as a `Chunk`."""
    return Chunk(
        text=response.text,
        finish_reason=FINISH_REASONS.get(response.finish_reason),
        prompt_tokens=response.prompt_tokens,
        output_tokens=response.output_tokens,
        sequence=response.sequence,
        logprobs=tuple(
            TokenChoice(_read_logprob(each.chosen), tuple(map(_read_logprob, each.top)))
            for each in response.logprobs
        ),
        cached_tokens=response.cached_tokens,
        timings=timings(response.timings),
        model=response.model.name,
        model_version=response.model.version,
    )
