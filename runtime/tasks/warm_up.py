"""What prompts of tasks begin with, read before the first request comes.

A generative model keeps a few such beginnings (`GenerativeModel.choice_prefixes`,
``answer_prefixes``): instructions, labels, a schema. Without this the first request of each task
would read them, and the first of all would take the memory for choices.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from sprat.model import GenerativeModel, Model, require_generative
from sprat.scheduler import Mailbox
from sprat.tasks.cascade import Escalation
from sprat.tasks.named import NamedTask
from sprat.tasks.named import warm_up as warm_up_named
from sprat.tasks.route import RouteTask
from sprat.tasks.tier import Prompted

log = logging.getLogger(__name__)

_Reading = tuple[GenerativeModel, bool, Callable[[Mailbox], Awaitable[None]]]
"""A model, whether it writes answers, and what has it read."""


async def warm_up(
    tasks: Iterable[Escalation[Any, Any] | RouteTask | NamedTask],
    models: Mapping[str, Model],
    mailbox: Mailbox,
) -> None:
    """Ask the models of tasks about a text that says nothing, as their tasks would.

    Of a model no more is read than it keeps: what the first tasks ask. Tiers that ask an endpoint
    are left alone.

    Parameters
    ----------
    tasks : iterable
        In the order of their importance.
    models : mapping
        Loaded models, by name.

    Raises
    ------
    EngineError
        A model cannot answer, such as for want of memory.
    """
    started = time.perf_counter()
    room: dict[tuple[str, bool], int] = {}
    count = 0
    for task in tasks:
        for model, writes, read in _readings(task, models):
            kept = model.answer_prefixes if writes else model.choice_prefixes
            left = room.setdefault((model.info.name, writes), kept)
            if left:
                room[model.info.name, writes] = left - 1
                count += 1
                await read(mailbox)
    if count:
        elapsed = time.perf_counter() - started
        log.info("read what the prompts of %d tasks begin with in %.2f s", count, elapsed)


def _readings(
    task: Escalation[Any, Any] | RouteTask | NamedTask, models: Mapping[str, Model]
) -> Iterator[_Reading]:
    if isinstance(task, NamedTask):
        model = require_generative(models[task.spec.model], task.info.kind)
        yield model, task.writes, partial(warm_up_named, task.spec, model)
        return
    cascade = task.classifier if isinstance(task, RouteTask) else task
    for tier in cascade.tiers:
        if isinstance(tier, Prompted):
            yield tier.model, tier.writes, tier.warm_up
