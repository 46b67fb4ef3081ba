"""Fixtures that many tests share: real data, real models, a real server process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import hypothesis
import pytest
from servers import ENCODER, GENERATOR, NAMED_TASKS, TASK, Server, sprat, start_server
from tiny_models import CHAT_TEMPLATE, gguf_file

from sprat.build_static import distilled
from sprat.client import Client
from sprat.pull import pull
from sprat.store import Store

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("sprat", deadline=None)
hypothesis.settings.load_profile("sprat")


def pytest_configure() -> None:
    """Tests never touch the user's own store, and never dial out but for `pip download`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the public data sets (`SPRAT_TEST_DATA`, or ``../shared/data``)."""
    folder = Path(os.environ.get("SPRAT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "banking77.test.jsonl").is_file():
        pytest.skip(f"no public data sets in {folder}; set SPRAT_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def store() -> Store:
    """A store with the catalog's models, pulled once and kept between runs in ``.test-home``."""
    return Store(ROOT / ".test-home")


@pytest.fixture(scope="session")
def minilm(store: Store) -> Path:
    """Folder of minilm-l6 (int8)."""
    pull("minilm-l6", store)
    return store.model("minilm-l6")[1]


@pytest.fixture(scope="session")
def minilm_static(store: Store, minilm: Path) -> str:
    """Name of minilm-l6 as a static model: the one that `sprat train` finds, or makes in 14 s."""
    return distilled("minilm-l6", "minilm-l6-static", store).name


@pytest.fixture(scope="session")
def smollm(store: Store) -> Path:
    """Folder of smollm2-135m (q8_0)."""
    pull("smollm2-135m", store)
    return store.model("smollm2-135m")[1]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random llama that takes chats: for tests to which an answer's content is nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    path = folder / "tiny.gguf"
    path.write_bytes(gguf_file(folder, context_length=4096, chat_template=CHAT_TEMPLATE))
    return path


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
    """A server with the classifier, its encoder, the generator and a task of it of each kind."""
    folder = tmp_path_factory.mktemp("run")
    config = folder / "sprat.toml"
    config.write_text(NAMED_TASKS)
    server = start_server(
        store, folder, *("--task", str(bundle), "--model", GENERATOR, "--config", str(config))
    )
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the shared server."""
    with Client(server.address) as client:
        yield client
