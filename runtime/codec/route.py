"""Route, by a task or by targets of the request."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.codec.classify import classification, fill_classification, scoring, scoring_number
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
from sprat.codec.tiers import set_effort
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import Destination, Effort, RouteResult, RouteSet, Routing, Truncation


def route_set(message: pb.RouteSet) -> RouteSet:
    """The targets that a request brings itself.

    Raises
    ------
    InvalidInput
        For a number that the enum of scorings does not have.
    """
    return RouteSet(
        model=message.model,
        destinations=tuple(
            Destination(each.name, each.description, each.target) for each in message.destinations
        ),
        instructions=message.instructions,
        scoring=scoring(message.scoring, "route_set.scoring"),
        normalize_length=message.normalize_length,
        correct_prior=message.correct_prior,
        adapter=message.adapter,
    )


def route_response(result: RouteResult) -> pb.RouteResponse:
    """A `RouteResult` as a message."""
    message = pb.RouteResponse(
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
            made.target = item.target
            fill_classification(made.classification, item.classification)
    return message


def route_request(
    routes: str | RouteSet,
    texts: Sequence[str],
    top_k: int | None,
    policy: Truncation,
    partial: bool,
    effort: Effort = Effort(),
) -> pb.RouteRequest:
    """A route call as a message."""
    request = pb.RouteRequest(
        texts=checked_all(texts, "texts"),
        truncation=truncation_number(policy),
        partial_results=partial,
    )
    set_number(request, "top_k", top_k, "top_k")
    set_effort(request, effort)
    if isinstance(routes, str):
        request.task = checked(routes, "task")
    else:
        request.route_set.CopyFrom(_route_set_message(routes))
    return request


def _route_set_message(routes: RouteSet) -> pb.RouteSet:
    made = pb.RouteSet(
        model=checked(routes.model, "model"),
        instructions=checked(routes.instructions, "instructions"),
        scoring=scoring_number(routes.scoring),
        normalize_length=routes.normalize_length,
        correct_prior=routes.correct_prior,
        adapter=checked(routes.adapter, "adapter"),
    )
    for index, each in enumerate(routes.destinations):
        field = f"destinations[{index}]"
        made.destinations.add(
            name=checked(each.name, field),
            description=checked(each.description, field),
            target=checked(each.target, field),
        )
    return made


def route_result(response: pb.RouteResponse) -> RouteResult:
    """A message as a `RouteResult`."""
    failed = {error.index for error in response.errors}
    return RouteResult(
        items=tuple(
            None if index in failed else Routing(item.target, classification(item.classification))
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
