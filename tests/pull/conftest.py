"""What the tests of pull share: an empty store, a hub, a folder of wheels, small models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hf_server import Hub
from tiny_models import encoder_files

from sprat.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def files() -> dict[str, bytes]:
    """The files of a small encoder, by name."""
    return encoder_files()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks, by pip's own settings."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder
