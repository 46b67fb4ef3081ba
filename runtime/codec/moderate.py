"""Moderate, by a task."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.codec.common import (
    checked,
    checked_all,
    item_error_messages,
    item_errors,
    timings,
    timings_message,
)
from sprat.codec.tiers import fill_tiers, set_effort, tier_facts
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import Action, CategoryScore, Effort, ModerateResult, Moderation

_NUMBERS: dict[Action, pb.Action] = {
    "allow": pb.ACTION_ALLOW,
    "flag": pb.ACTION_FLAG,
    "block": pb.ACTION_BLOCK,
}
_ACTIONS: dict[int, Action] = {number: action for action, number in _NUMBERS.items()}


def moderate_response(result: ModerateResult) -> pb.ModerateResponse:
    """A `ModerateResult` as a message."""
    message = pb.ModerateResponse(
        errors=item_error_messages(result.errors),
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        task_version=result.task_version,
        calibrated=result.calibrated,
        timings=timings_message(result.timings),
        request_id=result.request_id,
    )
    for item in result.items:
        made = message.results.add()
        if item is None:
            continue
        fill_tiers(made, item)
        made.action = _NUMBERS[item.action]
        made.category = item.category
        made.chunks = item.chunks
        made.input_tokens = item.input_tokens
        for each in item.categories:
            made.categories.add(
                category=each.category,
                probability=each.probability,
                action=_NUMBERS[each.action],
                start=each.start,
                end=each.end,
            )
    return message


def moderate_request(
    task: str, texts: Sequence[str], partial: bool, effort: Effort = Effort()
) -> pb.ModerateRequest:
    """A moderate call as a message."""
    request = pb.ModerateRequest(
        task=checked(task, "task"), texts=checked_all(texts, "texts"), partial_results=partial
    )
    set_effort(request, effort)
    return request


def moderate_result(response: pb.ModerateResponse) -> ModerateResult:
    """A message as a `ModerateResult`."""
    failed = {error.index for error in response.errors}
    return ModerateResult(
        items=tuple(
            None if index in failed else _moderation(item)
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


def _moderation(message: pb.Moderation) -> Moderation:
    return Moderation(
        action=_ACTIONS[message.action],
        category=message.category,
        categories=tuple(
            CategoryScore(
                each.category, each.probability, _ACTIONS[each.action], each.start, each.end
            )
            for each in message.categories
        ),
        chunks=message.chunks,
        input_tokens=message.input_tokens,
        **tier_facts(message),
    )
