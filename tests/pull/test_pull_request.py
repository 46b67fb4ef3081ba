from __future__ import annotations

from pathlib import Path

import pytest
from pulling import (
    assert_nothing_there,
)
from tiny_models import (
    write_files,
)

from sprat.errors import (
    InvalidInput,
    NotFound,
)
from sprat.pull import pull
from sprat.store import Store


def test_pull_unknown_name_lists_the_catalog(store: Store) -> None:
    for spec in ("minilm", "./nowhere", "/nowhere/model.gguf", "org/name"):
        with pytest.raises(NotFound, match="known: minilm-l6, smollm2-135m"):
            pull(spec, store)


@pytest.mark.parametrize("spec", ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:a b/c", "hf:a/b:"])
def test_pull_malformed_hub_spec(store: Store, spec: str) -> None:
    with pytest.raises(InvalidInput, match="expected hf:org/name"):
        pull(spec, store)


@pytest.mark.parametrize("name", ["../m", "A", "a/b", ""])
def test_pull_refuses_a_name_for_the_store(
    store: Store, tmp_path: Path, files: dict[str, bytes], name: str
) -> None:
    source = write_files(tmp_path / "m", files)
    if name:
        with pytest.raises(InvalidInput, match="cannot be a name"):
            pull(str(source), store, name=name)
    else:
        assert pull(str(source), store, name=name).name == "m"


def test_pull_refuses_a_quantization_before_anything_else(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    for spec in ("minilm-l6", str(write_files(tmp_path / "m", files))):
        for quantization in ("int4", "q8_0", "int8 "):
            with pytest.raises(InvalidInput, match="int8 or float32"):
                pull(spec, store, quantization=quantization)
    with pytest.raises(
        InvalidInput, match="expected q8_0, or the type it was published in, for a GGUF file; got"
    ):
        pull("smollm2-135m", store, quantization="int8")
    assert_nothing_there(store)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("All-MiniLM L6", "all-minilm-l6"), ("__x__", "x"), ("模型", "model"), ("x" * 99, "x" * 48)],
)
def test_pull_makes_a_name_of_a_path(
    store: Store, tmp_path: Path, files: dict[str, bytes], folder: str, name: str
) -> None:
    assert pull(str(write_files(tmp_path / folder, files)), store).name == name
