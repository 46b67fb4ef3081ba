"""A real server with real models, started once: `sprat serve` in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from servers import ENCODER, GENERATOR, TASK, Server, sprat, start_server
from sprat.client import Client
from sprat.store import Store


@pytest.fixture(scope="session")
def tickets() -> tuple[Path, Path]:
    """Train and test file of the demo tickets."""
    folder = Path(str(files("sprat.demo")))
    return folder / "tickets.train.jsonl", folder / "tickets.test.jsonl"


@pytest.fixture(scope="session")
def bundle(
    store: Store, minilm: Path, tickets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle trained by the command that the README names."""
    out = tmp_path_factory.mktemp("bundles") / TASK
    train, test = tickets
    done = sprat(
        store,
        *("train", str(train), "--kind", "classify", "--base", ENCODER),
        *("--test", str(test), "-o", str(out)),
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def server(
    store: Store, bundle: Path, smollm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with the classifier, its encoder and the generator."""
    socket = tmp_path_factory.mktemp("run") / "s.sock"
    server = start_server(
        store, "--task", str(bundle), "--model", GENERATOR, "--listen", f"unix:{socket}"
    )
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the shared server."""
    with Client(server.address) as client:
        yield client
