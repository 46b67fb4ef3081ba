"""Fixtures that many tests share: real data, real models, a home of the tests' own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sprat.pull import pull
from sprat.store import Store

ROOT = Path(__file__).resolve().parent.parent


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
def smollm(store: Store) -> Path:
    """Folder of smollm2-135m (q8_0)."""
    pull("smollm2-135m", store)
    return store.model("smollm2-135m")[1]
