"""What an endpoint says of labelled rows, asked as a cascade would ask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from sprat.asked_manifest import Remote
from sprat.endpoints.base import Endpoint, Said
from sprat.errors import SpratError
from sprat.scheduler import LoopThread
from sprat.train.asked import Ask
from sprat.values import Classification, ClassifyResult, ItemError, LabelScore, Timings

OpenRemote = Callable[[Remote], AbstractContextManager[Ask]]
"""Connects to the endpoint of a remote tier, for as long as it is asked."""

ATTEMPTS = 5
"""Least attempts for a text: what was asked before it is paid for."""


def remote_opener(open_endpoint: Callable[[], Endpoint]) -> OpenRemote:
    """What asks an endpoint.

    Parameters
    ----------
    open_endpoint : callable
        Makes it; it is closed after the last question.
    """

    @contextmanager
    def open_remote(asked: Remote) -> Iterator[Ask]:
        endpoint, loop = open_endpoint(), LoopThread()
        try:
            question = endpoint.question(asked)
            yield lambda texts: _result(asked, loop.run(question.ask(texts, deadline=math.inf)))
        finally:
            loop.run(endpoint.aclose())
            loop.close()

    return open_remote


def _result(asked: Remote, heard: Sequence[Said | SpratError]) -> ClassifyResult:
    errors = [
        ItemError(at, each.reason, each.message)
        for at, each in enumerate(heard)
        if isinstance(each, SpratError)
    ]
    return ClassifyResult(
        items=tuple(_item(each) if isinstance(each, Said) else None for each in heard),
        errors=tuple(errors),
        model=asked.model,
        model_version=asked.task_version,
        task_version="",
        calibrated=False,
        timings=Timings(0, 0, 0, 0),
    )


def _item(said: Said) -> Classification:
    scores = (LabelScore(said.label, said.confidence),) if said.label else ()
    return Classification(
        label=said.label, confidence=None, scores=scores, input_tokens=said.input_tokens
    )
