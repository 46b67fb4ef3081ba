"""Adapters in the engine: each answer is that of its own adapter, whatever ran before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lora
import numpy as np
import pytest
from llamas import run
from tiny_models import gguf_file

from sprat.engine.base import Choice, Start
from sprat.engine.llama import LlamaEngine
from sprat.errors import CorruptFile, EngineError
from sprat.values import FloatArray, IntArray, Sampling

PROMPT = np.arange(10, 34, dtype=np.int32)
OPTIONS = tuple(np.array([first, 40], np.int32) for first in (50, 60, 70))
NAMES = ("", "red", "blue")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model under the empty name, and two adapters for it."""
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "base.gguf").write_bytes(gguf_file(folder))
    found = {"": folder / "base.gguf"}
    for seed, name in enumerate(NAMES[1:]):
        pairs = lora.pairs(found[""], size=0.5, seed=seed)
        found[name] = lora.write_adapter(folder / f"{name}.gguf", pairs)
    return found


@pytest.fixture
def engine(files: dict[str, Path]) -> Iterator[LlamaEngine]:
    made = LlamaEngine(
        files[""],
        context_length=256,
        sequence_limit=3,
        choice_cells=512,
        threads=1,
        adapters={name: files[name] for name in NAMES[1:]},
    )
    yield made
    made.close()


def start(engine: LlamaEngine, number: int, adapter: str, shared: int = 0) -> None:
    sampling = Sampling(max_tokens=6)
    engine.start(Start(number, PROMPT, sampling, shared=shared, logprobs=0, adapter=adapter))


def answer(engine: LlamaEngine, adapter: str, shared: int = 0) -> tuple[list[float], int]:
    """Log-probabilities of an answer, which tell more than its bytes, and its cached tokens."""
    start(engine, 0, adapter, shared)
    progress = run(engine)[0]
    assert progress[-1].error is None
    logs = [choice.chosen.logprob for each in progress for choice in each.logprobs]
    return logs, sum(each.cached for each in progress)


def chosen(engine: LlamaEngine, adapter: str, prompt: IntArray = PROMPT) -> tuple[FloatArray, int]:
    chooser = engine.chooser()
    chooser.start(0, Choice(prompt, 20, OPTIONS, adapter=adapter))
    while True:
        for each in chooser.step(max_tokens=64, threads=1):
            assert each.error is None
            return each.probabilities, each.cached_tokens


def test_adapters_answer_as_they_do_alone(engine: LlamaEngine, files: dict[str, Path]) -> None:
    alone = {}
    for name in NAMES:
        only = {name: files[name]} if name else {}
        other = LlamaEngine(
            files[""], context_length=256, sequence_limit=3, threads=1, adapters=only
        )
        alone[name] = answer(other, name)[0]
        other.close()
    assert len({tuple(logs) for logs in alone.values()}) == 3
    for name in ("red", "", "blue", "blue", "red", ""):
        assert answer(engine, name)[0] == alone[name]


def test_adapters_never_share_a_prefix(engine: LlamaEngine) -> None:
    whole = {name: answer(engine, name)[0] for name in NAMES}
    for name in NAMES:
        logs, cached = answer(engine, name, shared=20)
        assert cached == 0
        assert logs == pytest.approx(whole[name], abs=1e-5)
        logs, cached = answer(engine, name, shared=20)
        assert cached == 20
        assert logs == pytest.approx(whole[name], abs=1e-5)


def test_adapters_are_never_live_together(engine: LlamaEngine) -> None:
    start(engine, 0, "red")
    assert engine.has_room(30, "red")
    for other in ("", "blue"):
        assert not engine.has_room(30, other)
        with pytest.raises(EngineError, match="no room"):
            start(engine, 1, other)
    start(engine, 1, "red")
    run(engine)
    assert engine.has_room(30, "blue")


def test_adapters_choose_as_they_do_alone(engine: LlamaEngine) -> None:
    first = {name: chosen(engine, name)[0] for name in NAMES}
    assert len({tuple(row.tolist()) for row in first.values()}) == 3
    for name in ("blue", "", "red"):
        probabilities, cached = chosen(engine, name)
        assert cached == 20
        np.testing.assert_allclose(probabilities, first[name], atol=1e-5)


def test_adapters_wait_for_choices_of_another(engine: LlamaEngine) -> None:
    chooser = engine.chooser()
    chooser.start(0, Choice(PROMPT, 20, OPTIONS, adapter="red"))
    assert chooser.has_room(Choice(PROMPT, 20, OPTIONS, adapter="red"))
    for other in ("", "blue"):
        assert not chooser.has_room(Choice(PROMPT, 20, OPTIONS, adapter=other))
    chooser.stop(0)
    assert chooser.has_room(Choice(PROMPT, 20, OPTIONS, adapter="blue"))


def test_adapters_that_are_not_loaded_are_errors(engine: LlamaEngine) -> None:
    with pytest.raises(EngineError, match="no adapter named 'green'"):
        start(engine, 0, "green")
    with pytest.raises(EngineError, match="no adapter named 'green'"):
        engine.chooser().start(0, Choice(PROMPT, 20, OPTIONS, adapter="green"))
    assert answer(engine, "red")[0]


def test_adapters_that_cannot_be_loaded_leave_no_engine(
    files: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(files["red"].read_bytes()[:200])
    with pytest.raises(CorruptFile, match="broken"):
        LlamaEngine(
            files[""], sequence_limit=1, threads=1, adapters={"red": files["red"], "b": broken}
        )
