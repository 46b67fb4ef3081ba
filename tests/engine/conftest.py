"""The llama.cpp engine on a real model: Q8_0 as served, F16 where results must be exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from choosers import check_nothing_is_left
from llamas import CONTEXT, STORIES, generate

from sprat.benchmarks.exactness import Oracle
from sprat.engine import llama_lib
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_chooser import Chooser
from sprat.manifest import MODEL_MANIFEST, ModelManifest, read


@pytest.fixture(scope="session")
def q8(smollm: Path) -> Path:
    return smollm / read(smollm / MODEL_MANIFEST, ModelManifest).weights


@pytest.fixture(scope="session")
def f16(q8: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same weights in F16: there the logits of a row do not depend on its neighbours."""
    library = llama_lib.load()
    params = library.llama_model_quantize_default_params()
    params.ftype = library.LLAMA_FTYPE_MOSTLY_F16
    params.allow_requantize = True
    path = tmp_path_factory.mktemp("gguf") / "f16.gguf"
    assert library.llama_model_quantize(str(q8).encode(), str(path).encode(), params) == 0
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def exact_engine(f16: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(f16, context_length=CONTEXT, threads=2)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def q8_engine(q8: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(q8, context_length=CONTEXT, threads=2)
    yield engine
    engine.close()


@pytest.fixture
def exact(exact_engine: LlamaEngine) -> Iterator[LlamaEngine]:
    yield exact_engine
    assert not exact_engine.busy()


@pytest.fixture
def engine(q8_engine: LlamaEngine) -> Iterator[LlamaEngine]:
    yield q8_engine
    for number in list(q8_engine._live):
        q8_engine.stop(number)


@pytest.fixture(scope="session")
def choice_engine(f16: Path) -> Iterator[LlamaEngine]:
    made = LlamaEngine(f16, context_length=1024, sequence_limit=2, choice_cells=4096, threads=2)
    yield made
    made.close()


@pytest.fixture
def chooser(choice_engine: LlamaEngine) -> Iterator[Chooser]:
    made = choice_engine.chooser()
    yield made
    check_nothing_is_left(made)


@pytest.fixture(scope="session")
def oracle(choice_engine: LlamaEngine) -> Iterator[Oracle]:
    made = Oracle(choice_engine)
    yield made
    made.close()


@pytest.fixture(scope="session")
def alone(exact_engine: LlamaEngine) -> list[str]:
    """The answers to the stories, one by one."""
    return [generate(exact_engine, story)[0] for story in STORIES]
