"""Route: say where texts go, by targets of the request's own, with a generative model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sprat.model import GenerativeModel
from sprat.scheduler import Mailbox
from sprat.tasks import choose
from sprat.values import Label, LabelSet, RouteResult, RouteSet, Routing

GENERAL_INSTRUCTIONS = "Say where the text that the user sends belongs."


async def run(
    model: GenerativeModel,
    texts: Sequence[str],
    routes: RouteSet,
    *,
    top_k: int | None = None,
    partial: bool = False,
    deadline: float = math.inf,
    mailbox: Mailbox,
) -> RouteResult:
    """Choose a destination for each text. Parameters and errors as in `sprat.tasks.choose.run`."""
    result = await choose.run(
        model,
        texts,
        _labels(routes),
        top_k=top_k,
        partial=partial,
        deadline=deadline,
        mailbox=mailbox,
        field="destinations",
    )
    targets = {each.name: each.target or each.name for each in routes.destinations}
    return RouteResult(
        items=tuple(
            None if item is None else Routing(targets[item.label], item) for item in result.items
        ),
        errors=result.errors,
        model=result.model,
        model_version=result.model_version,
        task_version=result.task_version,
        calibrated=result.calibrated,
        timings=result.timings,
    )


def check(model: GenerativeModel, routes: RouteSet) -> None:
    """Raise what `run` would, whatever the text."""
    choose.check(model, _labels(routes), field="destinations")


def _labels(routes: RouteSet) -> LabelSet:
    return LabelSet(
        routes.model,
        tuple(Label(each.name, each.description) for each in routes.destinations),
        routes.instructions or GENERAL_INSTRUCTIONS,
        routes.scoring,
        routes.normalize_length,
        routes.correct_prior,
        routes.adapter,
    )
