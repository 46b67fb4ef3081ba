from __future__ import annotations

from pathlib import Path

import pytest

from sprat.benchmarks import data
from sprat.benchmarks.data import Texts


def test_data_exactly_repeats_from_the_start() -> None:
    texts = Texts("ours", ("a", "b", "c"))
    assert texts.exactly(2) == ("a", "b")
    assert texts.exactly(7) == ("a", "b", "c", "a", "b", "c", "a")


def test_data_tickets_come_with_sprat() -> None:
    texts = data.tickets()
    assert texts.source == "sprat demo tickets"
    assert len(texts.texts) >= 360
    assert all(text.strip() for text in texts.texts)


def test_data_public_texts_are_preferred(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAT_TEST_DATA", str(shared_data))
    texts = data.load(None)
    assert texts.source == "BANKING77 test"
    assert len(texts.texts) == 3080


def test_data_public_texts_are_found_beside_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPRAT_TEST_DATA", raising=False)
    folder = tmp_path / "shared" / "data"
    folder.mkdir(parents=True)
    (folder / data.PUBLIC).write_text('{"text": "one", "label": "x"}\n{"text": "two"}\n')
    assert data.load(tmp_path / "checkout").texts == ("one", "two")
    assert data.public(tmp_path / "checkout") is None  # nothing to train on
    (folder / data.TRAIN).write_text("")
    found = folder / data.TRAIN, folder / data.PUBLIC
    assert data.public(tmp_path / "checkout") == found


def test_data_falls_back_to_the_tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRAT_TEST_DATA", str(tmp_path))
    assert data.load(None) == data.tickets()
    monkeypatch.delenv("SPRAT_TEST_DATA")
    assert data.load(None) == data.tickets()
    assert data.load(tmp_path / "checkout") == data.tickets()
