"""Route: say where texts go, by a bundle, or by targets of the request's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sprat.bundle_manifest import Route
from sprat.model import GenerativeModel
from sprat.scheduler import Mailbox
from sprat.tasks import choose
from sprat.tasks.classify import ClassifyTask
from sprat.values import (
    ClassifyResult,
    Effort,
    Label,
    LabelSet,
    RouteResult,
    RouteSet,
    Routing,
    TaskInfo,
    Truncation,
)

GENERAL_INSTRUCTIONS = "Say where the text that the user sends belongs."


class RouteTask:
    """A classifier whose labels have targets; `classifier` is there to be asked alone.

    Parameters
    ----------
    classifier : ClassifyTask
        Of a bundle of kind route.
    route : Route
        Its targets.
    """

    def __init__(self, classifier: ClassifyTask, route: Route) -> None:
        self.classifier = classifier
        self._route = route

    @property
    def info(self) -> TaskInfo:
        """That of the classifier."""
        return self.classifier.info

    async def run(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> RouteResult:
        """Route texts. Parameters and errors as in `ClassifyTask.run`."""
        result = await self.classifier.run(
            texts,
            top_k=top_k,
            truncation=truncation,
            partial=partial,
            effort=effort,
            deadline=deadline,
            mailbox=mailbox,
        )
        return _routed(result, self._route.targets, self._route.default_target)


async def run(
    model: GenerativeModel,
    texts: Sequence[str],
    routes: RouteSet,
    *,
    top_k: int | None = None,
    truncation: Truncation = "refuse",
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
        truncation=truncation,
        partial=partial,
        deadline=deadline,
        mailbox=mailbox,
        field="destinations",
    )
    targets = {each.name: each.target or each.name for each in routes.destinations}
    return _routed(result, targets)


def check(model: GenerativeModel, routes: RouteSet) -> None:
    """Raise what `run` would, whatever the text."""
    choose.check(model, _labels(routes), field="destinations")


def _routed(
    result: ClassifyResult, targets: Mapping[str, str], default_target: str = ""
) -> RouteResult:
    return RouteResult(
        items=tuple(
            None
            if item is None
            else Routing(default_target if item.abstained else targets[item.label], item)
            for item in result.items
        ),
        errors=result.errors,
        model=result.model,
        model_version=result.model_version,
        task_version=result.task_version,
        calibrated=result.calibrated,
        timings=result.timings,
    )


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
