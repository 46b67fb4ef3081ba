"""``sprat adapters`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import lora
import pytest
from servers import sprat
from tiny_models import gguf_file

from sprat.pull import pull
from sprat.store import Store


@pytest.fixture
def polite(tmp_path: Path) -> Path:
    """An adapter for ``tiny``, which is in the store."""
    (tmp_path / "tiny.gguf").write_bytes(gguf_file(tmp_path))
    pull(str(tmp_path / "tiny.gguf"), Store(tmp_path / "home"))
    return lora.write_adapter(tmp_path / "polite.gguf", lora.pairs(tmp_path / "tiny.gguf"))


def test_adapters_are_added_listed_and_removed(polite: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    done = sprat(store, "adapters", "add", str(polite), "--base", "tiny", "--licence", "MIT")
    assert done.returncode == 0, done.stderr
    version, base = store.adapter("polite")[0].version, store.model("tiny")[0]
    assert done.stdout == (
        f"polite: for tiny version {base.version}, rank 4, 0.0 MB, licence MIT, version {version}\n"
    )
    (listed,) = json.loads(sprat(store, "adapters", "--json").stdout)
    assert (listed["name"], listed["rank"], listed["fits"]) == ("polite", 4, True)
    assert listed["base"] == {"name": "tiny", "digest": base.digest}
    store.remove("tiny")
    (row,) = (r for r in sprat(store, "adapters").stdout.splitlines() if "polite" in r)
    assert row.split() == ["polite", "tiny", base.version, "no", "4", "0.0", "MB", "MIT", version]
    assert "made for another tiny; add it again" in sprat(store, "doctor", "--json").stdout
    assert sprat(store, "adapters", "remove", "polite").stdout == "removed polite\n"
    assert store.adapters() == []


def test_adapters_refusals_are_one_line_and_status_1(polite: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    for arguments, said in (
        (("add", str(polite.with_name("tiny.gguf")), "--base", "tiny", "--name", "x"), "not an"),
        (("remove", "polite"), "no adapter named 'polite'"),
    ):
        done = sprat(store, "adapters", *arguments)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
