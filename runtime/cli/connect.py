"""One way to the verbs for every command: a running server, or models loaded into this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.client import Client
    from sprat.inprocess import Runtime


def connect(
    server: str | None,
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    token: str | None = None,
    tls_ca: str | None = None,
) -> Client | Runtime:
    """A client of ``server``, or a `Runtime` with ``models`` and ``tasks`` where it is None."""
    if server is None:
        from sprat.inprocess import Runtime

        return Runtime(models=models, tasks=tasks)
    from sprat.client import Client

    target = None if server == "default" else server
    return Client(target, token=token, tls_ca=Path(tls_ca) if tls_ca else None)


def load_configured(path: Path, server: str | None) -> Runtime:
    """A `Runtime` with all that a server's TOML file names.

    Raises
    ------
    InvalidInput
        A server was named too.
    """
    from sprat.config import load
    from sprat.inprocess import Runtime

    if server is not None:
        raise InvalidInput("--config: expected no --server beside it", field="config")
    return Runtime(config=load(path))


def task_name(task: str, server: str | None) -> str:
    """What the connection calls a task: a bundle given by path has its own name in process."""
    if server is not None:
        return task
    from sprat.store import Store

    return Store().bundle(task)[0].name


def require_server(server: str | None, option: str) -> None:
    """Refuse a named task of a generative model without the server that knows it."""
    if server is None:
        raise InvalidInput(
            f"expected {option}, or the name of a task beside --server", field="task"
        )
