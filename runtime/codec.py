"""Between proto messages and values, both ways. The only place that knows both.

Over 500 lines, because each message is read and written side by side here, by one kind of code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from google.protobuf.message import Message as Proto

from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    Chunk,
    Classification,
    ClassifyResult,
    EmbedResult,
    FinishReason,
    ItemError,
    Label,
    LabelScore,
    LabelSet,
    Message,
    ModelInfo,
    Role,
    Sampling,
    Scoring,
    TaskInfo,
    Timings,
    Tokenized,
    TokenizeResult,
    Truncation,
)

_TRUNCATIONS: dict[int, Truncation] = {
    pb.TRUNCATION_UNSPECIFIED: "refuse",
    pb.TRUNCATION_REFUSE: "refuse",
    pb.TRUNCATION_END: "truncate",
}
_TRUNCATION_NUMBERS: dict[Truncation, pb.Truncation] = {
    "refuse": pb.TRUNCATION_REFUSE,
    "truncate": pb.TRUNCATION_END,
}
_SCORINGS: dict[int, Scoring] = {
    pb.SCORING_UNSPECIFIED: "constrained",
    pb.SCORING_CONSTRAINED: "constrained",
    pb.SCORING_FULL: "full",
}
_SCORING_NUMBERS: dict[Scoring, pb.Scoring] = {
    "constrained": pb.SCORING_CONSTRAINED,
    "full": pb.SCORING_FULL,
}
_ROLE_NUMBERS: dict[Role, pb.Role] = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
}
_ROLES: dict[int, Role] = {int(number): role for role, number in _ROLE_NUMBERS.items()}
_FINISH_REASON_NUMBERS: dict[FinishReason, pb.FinishReason] = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
}
_FINISH_REASONS: dict[int, FinishReason] = {
    int(number): reason for reason, number in _FINISH_REASON_NUMBERS.items()
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


# -- requests, as the server reads them ------------------------------------------------------


def truncation(value: int) -> Truncation:
    """The policy that a request asks for.

    Raises
    ------
    InvalidInput
        For a number that the enum does not have.
    """
    try:
        return _TRUNCATIONS[value]
    except KeyError:
        raise InvalidInput(f"truncation: unknown value {value}", field="truncation") from None


def label_set(message: pb.LabelSet) -> LabelSet:
    """The labels that a request brings itself.

    Raises
    ------
    InvalidInput
        For a number that the enum of scorings does not have.
    """
    if message.scoring not in _SCORINGS:
        raise InvalidInput(
            f"label_set.scoring: unknown value {message.scoring}", field="label_set.scoring"
        )
    return LabelSet(
        model=message.model,
        labels=tuple(Label(label.name, label.description) for label in message.labels),
        instructions=message.instructions,
        scoring=_SCORINGS[message.scoring],
        normalize_length=message.normalize_length,
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


def sampling(request: pb.GenerateRequest) -> Sampling:
    """Sampling parameters; what is absent keeps the default of `Sampling`."""
    message = request.sampling
    given = {name: getattr(message, name) for name in _SAMPLING_NUMBERS if message.HasField(name)}
    return Sampling(**given, stop=tuple(message.stop))


# -- answers, as the server writes them ------------------------------------------------------


def classify_response(result: ClassifyResult) -> pb.ClassifyResponse:
    """A `ClassifyResult` as a message."""
    # Messages made in place cost half of those that are made apart and copied.
    message = pb.ClassifyResponse(
        errors=_item_errors(result.errors),
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        task_version=result.task_version,
        calibrated=result.calibrated,
        timings=_timings(result.timings),
    )
    for item in result.items:
        made = message.results.add()
        if item is None:
            continue
        made.label = item.label
        if item.confidence is not None:
            made.confidence = item.confidence
        made.abstained = item.abstained
        made.tier = item.tier
        made.escalated = item.escalated
        made.input_tokens = item.input_tokens
        made.dropped_tokens = item.dropped_tokens
        made.cached_tokens = item.cached_tokens
        made.pruned = item.pruned
        for score in item.scores:
            made.scores.add(label=score.label, score=score.score)
    return message


def embed_response(result: EmbedResult) -> pb.EmbedResponse:
    """An `EmbedResult` as a message; vectors as little-endian float32."""
    return pb.EmbedResponse(
        vectors=np.ascontiguousarray(result.vectors, "<f4").tobytes(),
        dimension=result.vectors.shape[1],
        input_tokens=result.input_tokens.tolist(),
        dropped_tokens=result.dropped_tokens.tolist(),
        errors=_item_errors(result.errors),
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        timings=_timings(result.timings),
    )


def generate_response(chunk: Chunk) -> pb.GenerateResponse:
    """A `Chunk` as a message; the totals only on the last one."""
    if chunk.finish_reason is None:
        return pb.GenerateResponse(text=chunk.text)
    return pb.GenerateResponse(
        text=chunk.text,
        finish_reason=_FINISH_REASON_NUMBERS[chunk.finish_reason],
        prompt_tokens=chunk.prompt_tokens,
        output_tokens=chunk.output_tokens,
        model=pb.ModelVersion(name=chunk.model, version=chunk.model_version),
        timings=_timings(chunk.timings),
    )


def tokenize_response(result: TokenizeResult) -> pb.TokenizeResponse:
    """A `TokenizeResult` as a message."""
    return pb.TokenizeResponse(
        results=[pb.Tokens(ids=item.ids, pieces=item.tokens) for item in result.items],
        max_tokens=result.max_tokens,
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        timings=_timings(result.timings),
    )


def list_tasks_response(tasks: Iterable[TaskInfo]) -> pb.ListTasksResponse:
    """Tasks as a message."""
    return pb.ListTasksResponse(
        tasks=[
            pb.Task(
                name=t.name,
                kind=t.kind,
                labels=t.labels,
                models=[pb.ModelVersion(name=n, version=v) for n, v in t.models],
                calibrated=t.calibrated,
                accept_at=t.accept_at,
                version=t.version,
            )
            for t in tasks
        ]
    )


def list_models_response(models: Iterable[ModelInfo]) -> pb.ListModelsResponse:
    """Models as a message."""
    return pb.ListModelsResponse(
        models=[
            pb.Model(
                name=m.name,
                kind=m.kind,
                engine=m.engine,
                version=m.version,
                architecture=m.architecture,
                quantization=m.quantization,
                tokenizer=m.tokenizer,
                max_tokens=m.max_tokens,
                dimension=m.dimension,
                licence=m.licence,
                size_bytes=m.size_bytes,
            )
            for m in models
        ]
    )


def _timings(timings: Timings) -> pb.Timings:
    return pb.Timings(
        tokenize_ns=timings.tokenize_ns,
        queue_ns=timings.queue_ns,
        infer_ns=timings.infer_ns,
        total_ns=timings.total_ns,
    )


def _item_errors(errors: Iterable[ItemError]) -> list[pb.ItemError]:
    return [pb.ItemError(index=e.index, reason=e.reason, message=e.message) for e in errors]


# -- requests, as the client writes them -----------------------------------------------------


def classify_request(
    task: str, texts: Sequence[str], top_k: int | None, policy: Truncation, partial: bool
) -> pb.ClassifyRequest:
    """A classify call as a message."""
    request = pb.ClassifyRequest(
        task=_checked(task, "task"),
        texts=_checked_all(texts, "texts"),
        truncation=_truncation_number(policy),
        partial_results=partial,
    )
    _set_number(request, "top_k", top_k, "top_k")
    return request


def choose_request(
    labels: LabelSet, texts: Sequence[str], top_k: int | None, partial: bool
) -> pb.ClassifyRequest:
    """A classify call with labels of its own as a message."""
    if labels.scoring not in _SCORING_NUMBERS:
        raise InvalidInput(
            f"scoring: expected constrained or full, got {labels.scoring!r}", field="scoring"
        )
    made = pb.LabelSet(
        model=_checked(labels.model, "model"),
        instructions=_checked(labels.instructions, "instructions"),
        scoring=_SCORING_NUMBERS[labels.scoring],
        normalize_length=labels.normalize_length,
    )
    for index, label in enumerate(labels.labels):
        field = f"labels[{index}]"
        made.labels.add(
            name=_checked(label.name, field), description=_checked(label.description, field)
        )
    request = pb.ClassifyRequest(
        texts=_checked_all(texts, "texts"), partial_results=partial, label_set=made
    )
    _set_number(request, "top_k", top_k, "top_k")
    return request


def embed_request(
    model: str, texts: Sequence[str], policy: Truncation, partial: bool
) -> pb.EmbedRequest:
    """An embed call as a message."""
    return pb.EmbedRequest(
        model=_checked(model, "model"),
        texts=_checked_all(texts, "texts"),
        truncation=_truncation_number(policy),
        partial_results=partial,
    )


def generate_request(
    model: str, given: str | Sequence[Message], parameters: Sampling
) -> pb.GenerateRequest:
    """A generate call as a message."""
    stop = _checked_all(parameters.stop, "sampling.stop")
    request = pb.GenerateRequest(model=_checked(model, "model"), sampling=pb.Sampling(stop=stop))
    for name in _SAMPLING_NUMBERS:
        _set_number(request.sampling, name, getattr(parameters, name), f"sampling.{name}")
    if isinstance(given, str):
        request.prompt = _checked(given, "prompt")
        return request
    request.chat.SetInParent()
    for index, message in enumerate(given):
        where = f"chat.messages[{index}]"
        role = _ROLE_NUMBERS.get(message.role)
        if role is None:
            known = ", ".join(_ROLE_NUMBERS)
            raise InvalidInput(f"{where}.role: expected one of {known}", field=f"{where}.role")
        content = _checked(message.content, f"{where}.content")
        request.chat.messages.append(pb.Message(role=role, content=content))
    return request


def tokenize_request(model: str, texts: Sequence[str]) -> pb.TokenizeRequest:
    """A tokenize call as a message."""
    return pb.TokenizeRequest(model=_checked(model, "model"), texts=_checked_all(texts, "texts"))


def _checked_all(texts: Sequence[str], field: str) -> list[str]:
    if isinstance(texts, str):
        raise InvalidInput(f"{field}: expected a sequence of texts, got one str", field=field)
    return [_checked(text, f"{field}[{index}]") for index, text in enumerate(texts)]


def _checked(text: str, field: str) -> str:
    """The text, if it can travel: a str without lone surrogates, which UTF-8 cannot carry."""
    if not isinstance(text, str):
        raise InvalidInput(f"{field}: expected str, got {type(text).__name__}", field=field)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{field}: lone surrogate at character {error.start}", field=field
            ) from None
    return text


def _set_number(message: Proto, name: str, value: float | None, field: str) -> None:
    """Set a field unless the value is None; refuse what its type on the wire cannot hold."""
    if value is None:
        return
    try:
        setattr(message, name, value)
    except (TypeError, ValueError):
        shown = value if isinstance(value, (int, float)) else type(value).__name__
        raise InvalidInput(f"{field}: {shown} is out of range", field=field) from None


def _truncation_number(policy: Truncation) -> pb.Truncation:
    number = _TRUNCATION_NUMBERS.get(policy)
    if number is None:
        known = " or ".join(_TRUNCATION_NUMBERS)
        raise InvalidInput(f"truncation: expected {known}", field="truncation")
    return number


# -- answers, as the client reads them -------------------------------------------------------


def classify_result(response: pb.ClassifyResponse) -> ClassifyResult:
    """A message as a `ClassifyResult`."""
    failed = {error.index for error in response.errors}
    return ClassifyResult(
        items=tuple(
            None
            if index in failed
            else Classification(
                label=item.label,
                confidence=item.confidence if item.HasField("confidence") else None,
                scores=tuple(LabelScore(s.label, s.score) for s in item.scores),
                abstained=item.abstained,
                tier=item.tier,
                escalated=item.escalated,
                input_tokens=item.input_tokens,
                dropped_tokens=item.dropped_tokens,
                cached_tokens=item.cached_tokens,
                pruned=item.pruned,
            )
            for index, item in enumerate(response.results)
        ),
        errors=_read_item_errors(response.errors),
        model=response.model.name,
        model_version=response.model.version,
        task_version=response.task_version,
        calibrated=response.calibrated,
        timings=_read_timings(response.timings),
    )


def embed_result(response: pb.EmbedResponse) -> EmbedResult:
    """A message as an `EmbedResult`."""
    vectors = np.frombuffer(response.vectors, "<f4").reshape(-1, response.dimension)
    return EmbedResult(
        vectors=vectors.astype(np.float32, copy=False),
        input_tokens=np.array(response.input_tokens, np.int32),
        dropped_tokens=np.array(response.dropped_tokens, np.int32),
        errors=_read_item_errors(response.errors),
        model=response.model.name,
        model_version=response.model.version,
        timings=_read_timings(response.timings),
    )


def chunk(response: pb.GenerateResponse) -> Chunk:
    """A message as a `Chunk`."""
    return Chunk(
        text=response.text,
        finish_reason=_FINISH_REASONS.get(response.finish_reason),
        prompt_tokens=response.prompt_tokens,
        output_tokens=response.output_tokens,
        timings=_read_timings(response.timings),
        model=response.model.name,
        model_version=response.model.version,
    )


def tokenize_result(response: pb.TokenizeResponse) -> TokenizeResult:
    """A message as a `TokenizeResult`."""
    return TokenizeResult(
        items=tuple(Tokenized(tuple(t.ids), tuple(t.pieces)) for t in response.results),
        max_tokens=response.max_tokens,
        model=response.model.name,
        model_version=response.model.version,
        timings=_read_timings(response.timings),
    )


def task_infos(response: pb.ListTasksResponse) -> tuple[TaskInfo, ...]:
    """A message as values."""
    return tuple(
        TaskInfo(
            name=t.name,
            kind=t.kind,
            labels=tuple(t.labels),
            models=tuple((m.name, m.version) for m in t.models),
            calibrated=t.calibrated,
            accept_at=t.accept_at,
            version=t.version,
        )
        for t in response.tasks
    )


def model_infos(response: pb.ListModelsResponse) -> tuple[ModelInfo, ...]:
    """A message as values."""
    return tuple(
        ModelInfo(
            name=m.name,
            kind="encoder" if m.kind == "encoder" else "generative",
            engine=m.engine,
            version=m.version,
            architecture=m.architecture,
            quantization=m.quantization,
            tokenizer=m.tokenizer,
            max_tokens=m.max_tokens,
            dimension=m.dimension,
            licence=m.licence,
            size_bytes=m.size_bytes,
        )
        for m in response.models
    )


def _read_timings(message: pb.Timings) -> Timings:
    return Timings(message.tokenize_ns, message.queue_ns, message.infer_ns, message.total_ns)


def _read_item_errors(messages: Iterable[pb.ItemError]) -> tuple[ItemError, ...]:
    return tuple(ItemError(e.index, e.reason, e.message) for e in messages)
