from __future__ import annotations

import re

import pytest

from sprat.catalog import CATALOG, CatalogEntry, HubRepository, Wheel
from sprat.manifest import NAME_PATTERN

ENTRIES = pytest.mark.parametrize("entry", CATALOG.values(), ids=lambda entry: entry.name)


def test_catalog_has_the_two_default_models() -> None:
    assert {"minilm-l6", "smollm2-135m"} <= CATALOG.keys()
    assert all(name == entry.name for name, entry in CATALOG.items())


@ENTRIES
def test_catalog_entries_are_named_described_and_licensed(entry: CatalogEntry) -> None:
    assert re.fullmatch(NAME_PATTERN, entry.name)
    assert entry.summary
    assert "\n" not in entry.summary
    assert entry.licence == "Apache-2.0"


@ENTRIES
def test_catalog_entries_pin_every_file_once(entry: CatalogEntry) -> None:
    paths = [file.path for file in entry.files]
    assert len(set(paths)) == len(paths) > 0
    assert all(file.size > 0 for file in entry.files)


@ENTRIES
def test_catalog_sources_are_exact(entry: CatalogEntry) -> None:
    assert isinstance(entry.sources[0], Wheel)
    for source in entry.sources:
        if isinstance(source, Wheel):
            assert re.fullmatch(r"\d+(\.\d+)*", source.version)
        else:
            assert source.revision is not None
            assert re.fullmatch(r"[0-9a-f]{40}", source.revision), "a branch may move"


def test_catalog_sources_are_written_as_a_user_writes_them() -> None:
    assert str(Wheel("a-b", "1.0", size=1, folder="a_b")) == "pypi:a-b==1.0"
    assert str(HubRepository("org/name")) == "hf:org/name"
    assert str(HubRepository("org/name", "v1", "x.gguf")) == "hf:org/name@v1:x.gguf"
