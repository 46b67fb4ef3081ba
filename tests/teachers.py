"""Teachers for tests: an endpoint on loopback, asked through the real client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from chat_server import ChatServer

from sprat.remote import ChatEndpoint
from sprat.scheduler import LoopThread
from sprat.train.teacher import RemoteLabeller, RemoteWriter
from sprat.values import Label


@contextmanager
def connected(chat: ChatServer, **options: Any) -> Iterator[tuple[ChatEndpoint, LoopThread]]:
    """A client of the endpoint, and its loop."""
    loop = LoopThread()
    endpoint = ChatEndpoint(chat.url, "big", **options)
    try:
        yield endpoint, loop
    finally:
        loop.run(endpoint.aclose())
        loop.close()


@contextmanager
def labeller(
    chat: ChatServer, labels: Sequence[str | Label], *, votes: int = 1, **options: Any
) -> Iterator[RemoteLabeller]:
    made = [each if isinstance(each, Label) else Label(each) for each in labels]
    with connected(chat, **options) as (endpoint, loop):
        yield RemoteLabeller(endpoint, made, votes=votes, run=loop.run)


@contextmanager
def writer(chat: ChatServer, **options: Any) -> Iterator[RemoteWriter]:
    with connected(chat, **options) as (endpoint, loop):
        yield RemoteWriter(endpoint, run=loop.run)
