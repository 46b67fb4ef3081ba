"""Classify, by a task and by labels of the request."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.codec.common import (
    checked,
    checked_all,
    item_error_messages,
    item_errors,
    set_number,
    timings,
    timings_message,
    truncation_number,
)
from sprat.codec.tiers import fill_tiers, set_effort, tier_facts
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    Classification,
    ClassifyResult,
    Effort,
    Label,
    LabelScore,
    LabelSet,
    Scoring,
    Truncation,
)

_SCORINGS: dict[int, Scoring] = {
    pb.SCORING_UNSPECIFIED: "constrained",
    pb.SCORING_CONSTRAINED: "constrained",
    pb.SCORING_FULL: "full",
}
_SCORING_NUMBERS: dict[Scoring, pb.Scoring] = {
    "constrained": pb.SCORING_CONSTRAINED,
    "full": pb.SCORING_FULL,
}


def label_set(message: pb.LabelSet) -> LabelSet:
    """The labels that a request brings itself.

    Raises
    ------
    InvalidInput
        For a number that the enum of scorings does not have.
    """
    return LabelSet(
        model=message.model,
        labels=tuple(Label(label.name, label.description) for label in message.labels),
        instructions=message.instructions,
        scoring=scoring(message.scoring, "label_set.scoring"),
        normalize_length=message.normalize_length,
        correct_prior=message.correct_prior,
        adapter=message.adapter,
    )


def scoring(value: int, field: str) -> Scoring:
    """The scoring that a request asks for; InvalidInput for a number that the enum has not."""
    if value not in _SCORINGS:
        raise InvalidInput(f"{field}: unknown value {value}", field=field)
    return _SCORINGS[value]


def scoring_number(scoring: Scoring) -> pb.Scoring:
    """The number of a scoring on the wire."""
    if scoring not in _SCORING_NUMBERS:
        raise InvalidInput(
            f"scoring: expected constrained or full, got {scoring!r}", field="scoring"
        )
    return _SCORING_NUMBERS[scoring]


def classify_response(result: ClassifyResult) -> pb.ClassifyResponse:
    """A `ClassifyResult` as a message."""
    # Messages made in place cost half of those that are made apart and copied.
    message = pb.ClassifyResponse(
        errors=item_error_messages(result.errors),
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        task_version=result.task_version,
        calibrated=result.calibrated,
        timings=timings_message(result.timings),
        request_id=result.request_id,
    )
    for item in result.items:
        made = message.results.add()
        if item is not None:
            fill_classification(made, item)
    return message


def fill_classification(made: pb.Classification, item: Classification) -> None:
    """Put an answer into an empty message."""
    made.label = item.label
    fill_tiers(made, item)
    made.input_tokens = item.input_tokens
    made.dropped_tokens = item.dropped_tokens
    made.cached_tokens = item.cached_tokens
    made.pruned = item.pruned
    for score in item.scores:
        made.scores.add(label=score.label, score=score.score)


def classify_request(
    task: str,
    texts: Sequence[str],
    top_k: int | None,
    policy: Truncation,
    partial: bool,
    effort: Effort = Effort(),
) -> pb.ClassifyRequest:
    """A classify call as a message."""
    request = pb.ClassifyRequest(
        task=checked(task, "task"),
        texts=checked_all(texts, "texts"),
        truncation=truncation_number(policy),
        partial_results=partial,
    )
    set_number(request, "top_k", top_k, "top_k")
    set_effort(request, effort)
    return request


def choose_request(
    labels: LabelSet, texts: Sequence[str], top_k: int | None, partial: bool
) -> pb.ClassifyRequest:
    """A classify call with labels of its own as a message."""
    made = pb.LabelSet(
        model=checked(labels.model, "model"),
        instructions=checked(labels.instructions, "instructions"),
        scoring=scoring_number(labels.scoring),
        normalize_length=labels.normalize_length,
        correct_prior=labels.correct_prior,
        adapter=checked(labels.adapter, "adapter"),
    )
    for index, label in enumerate(labels.labels):
        field = f"labels[{index}]"
        made.labels.add(
            name=checked(label.name, field), description=checked(label.description, field)
        )
    request = pb.ClassifyRequest(
        texts=checked_all(texts, "texts"), partial_results=partial, label_set=made
    )
    set_number(request, "top_k", top_k, "top_k")
    return request


def classify_result(response: pb.ClassifyResponse) -> ClassifyResult:
    """A message as a `ClassifyResult`."""
    failed = {error.index for error in response.errors}
    return ClassifyResult(
        items=tuple(
            None if index in failed else classification(item)
            for index, item in enumerate(response.results)
        ),
        errors=item_errors(response.errors),
        model=response.model.name,
        model_version=response.model.version,
        task_version=response.task_version,
        calibrated=response.calibrated,
        timings=timings(response.timings),
        request_id=response.request_id,
    )


def classification(message: pb.Classification) -> Classification:
    """A message as a `Classification`."""
    return Classification(
        label=message.label,
        scores=tuple(LabelScore(s.label, s.score) for s in message.scores),
        input_tokens=message.input_tokens,
        dropped_tokens=message.dropped_tokens,
        cached_tokens=message.cached_tokens,
        pruned=message.pruned,
        **tier_facts(message),
    )
