"""LoRA in torch: the model of the file, the loss that the server's scores make, and training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import CHAT_TEMPLATE, gguf_file

from sprat.engine.llama import LlamaEngine
from sprat.errors import EngineError, InvalidInput, SetupError, UnsupportedModel
from sprat.inprocess import Runtime
from sprat.progress import Silent
from sprat.pull import pull
from sprat.quantize import gguf_lora
from sprat.store import Store
from sprat.train import agreement, loop, lora
from sprat.train.examples import Example, Examples
from sprat.train.loop import CHECKPOINT, LoopState
from sprat.train.lora import LoraSettings, fit
from sprat.train.lora_model import LoraModel
from sprat.train.packs import pack
from sprat.values import FloatArray, Label, LabelSet, TransformSpec

torch = pytest.importorskip(
    "torch", reason="needs torch: pip install 'sprat[finetune]'", exc_type=ImportError
)

RANK, ALPHA = 4, 8.0
LABELS = LabelSet("tiny", (Label("ab"), Label("abc"), Label("ax"), Label("b")))
TEXTS = [chr(ord("a") + number) * 3 for number in range(12)]
TARGETS = [number % 4 for number in range(12)]
SETTINGS = LoraSettings(rank=RANK, learning_rate=0.02, epochs=6, batch=4, patience=6)


def load(path: Path, seed: int = 0, **more: bool) -> LoraModel:
    return LoraModel(path, rank=RANK, alpha=ALPHA, seed=seed, threads=1, **more)


@pytest.fixture(scope="module")
def examples(tiny: Path) -> list[Example]:
    engine = LlamaEngine(tiny, context_length=1024, sequence_limit=1, threads=1)
    try:
        made = Examples(engine, most_tokens=1024)
        return made.classify(LABELS, TEXTS, TARGETS, lines=[*range(1, len(TEXTS) + 1)], path="rows")
    finally:
        engine.close()


@pytest.fixture
def model(tiny: Path) -> LoraModel:
    return load(tiny)


def state_of(model: LoraModel) -> dict[str, FloatArray]:
    """A copy of all matrices by their names."""
    return {name: each.detach().numpy().copy() for name, each in model.parameters.items()}


def restore(model: LoraModel, state: dict[str, FloatArray]) -> None:
    """Put matrices that `state_of` gave back in their place."""
    with torch.no_grad():
        for name, parameter in model.parameters.items():
            parameter.copy_(torch.from_numpy(state[name]))


def shaken(model: LoraModel) -> LoraModel:
    """With matrices as if it had been trained for long."""
    draw = np.random.default_rng(3)
    restore(
        model,
        {
            name: draw.normal(0, 0.3, each.shape).astype(np.float32)
            for name, each in state_of(model).items()
        },
    )
    return model


def engine_with(base: Path, model: LoraModel, folder: Path) -> Iterator[LlamaEngine]:
    gguf_lora.write(folder / "a.gguf", gguf_lora.read_base(base), model.pairs(), alpha=ALPHA)
    engine = LlamaEngine(
        base,
        context_length=1024,
        sequence_limit=1,
        threads=1,
        adapters={"a": folder / "a.gguf"},
    )
    yield engine
    engine.close()


def test_lora_loss_of_a_pack_is_that_of_each_example_alone(
    model: LoraModel, examples: list[Example]
) -> None:
    shaken(model)
    together = pack(examples, lora.shared_length(examples))
    with torch.no_grad():
        packed = model.nll(together).numpy()
        alone = np.concatenate([model.nll(pack([each], 0)).numpy() for each in examples])
    np.testing.assert_allclose(packed, alone, atol=1e-4)
    assert together.ids.size < sum(map(len, examples)) / 2


def test_lora_loss_is_what_the_server_scores(
    tiny: Path, model: LoraModel, examples: list[Example], tmp_path: Path
) -> None:
    """Through the adapter's file, a store and the Runtime, without and with it."""
    store = Store(tmp_path / "home")
    pull(str(tiny), store, name="tiny")
    shaken(model)
    path = tmp_path / "a.gguf"
    gguf_lora.write(path, gguf_lora.read_base(tiny), model.pairs(), alpha=ALPHA)
    from sprat import adapter
    from sprat.config import Config, ModelConfig

    adapter.add(path, store, base="tiny", name="a")
    config = Config(models={"tiny": ModelConfig(adapters=("a",))})
    names = [label.name for label in LABELS.labels]
    with Runtime(config=config, store=store) as runtime, torch.no_grad():
        for name, trained in (("a", model), ("", load(tiny))):
            result = runtime.choose(replace(LABELS, adapter=name), TEXTS)
            for item, example, target in zip(result.items, examples, TARGETS, strict=True):
                assert item is not None
                scores = {score.label: score.score for score in item.scores}
                nll = float(trained.nll(pack([example], 0)).sum())
                assert np.exp(-nll) == pytest.approx(scores[names[target]], abs=2e-3)


def test_lora_model_and_adapter_agree_with_llama_cpp(
    tiny: Path, model: LoraModel, examples: list[Example], tmp_path: Path
) -> None:
    prompts = [example.prompt for example in examples]
    shaken(model)
    for engine in engine_with(tiny, model, tmp_path):
        assert agreement.distance(load(tiny), engine, prompts) < 1e-3
        assert agreement.distance(model, engine, prompts, adapter="a") < 1e-2
        apart = agreement.distance(model, engine, prompts)
    assert apart > agreement.MOST_APART
    with pytest.raises(UnsupportedModel, match=r"a\.gguf: torch and llama\.cpp differ by 0\."):
        agreement.check(apart, "a.gguf")


def test_lora_agreement_notices_rows_in_another_order(
    tiny: Path, model: LoraModel, examples: list[Example], tmp_path: Path
) -> None:
    shaken(model)
    base = replace(gguf_lora.read_base(tiny), heads={})  # nothing is interleaved
    gguf_lora.write(tmp_path / "a.gguf", base, model.pairs(), alpha=ALPHA)
    engine = LlamaEngine(
        tiny,
        context_length=1024,
        sequence_limit=1,
        threads=1,
        adapters={"a": tmp_path / "a.gguf"},
    )
    try:
        prompts = [example.prompt for example in examples]
        assert agreement.distance(model, engine, prompts, adapter="a") > 0.05
    finally:
        engine.close()


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_lora_fits_other_architectures(architecture: str, tmp_path: Path) -> None:
    base = tmp_path / "base.gguf"
    base.write_bytes(
        gguf_file(
            tmp_path,
            architecture=architecture,
            context_length=1024,
            chat_template=CHAT_TEMPLATE,
        )
    )
    model = shaken(load(base))
    prompts = [np.arange(start, start + 30, dtype=np.int32) for start in (40, 60)]
    for engine in engine_with(base, model, tmp_path):
        assert agreement.distance(load(base), engine, prompts) < 1e-3
        assert agreement.distance(model, engine, prompts, adapter="a") < 1e-2
        assert agreement.distance(model, engine, prompts) > 0.05


def train(
    path: Path,
    examples: list[Example],
    folder: Path,
    settings: LoraSettings = SETTINGS,
    *,
    resume: bool = False,
    base: str = "digest",
    progress: Silent | None = None,
) -> tuple[LoopState, dict[str, FloatArray]]:
    folder.mkdir(exist_ok=True)
    model = load(path, settings.seed)
    state = fit(
        model,
        examples[:8],
        examples[:8],
        settings,
        checkpoint=folder,
        base=base,
        resume=resume,
        progress=progress or Silent(),
    )
    return state, state_of(model)


def test_lora_learns(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    state, matrices = train(tiny, examples, tmp_path / "c")
    assert len(state.losses) == SETTINGS.epochs + 1
    assert state.best == int(np.argmin(state.losses))
    assert state.losses[state.best] < 0.8 * state.losses[0]
    # What is kept is what had the least loss.
    model = load(tiny)
    restore(model, matrices)
    with torch.no_grad():
        loss = sum(float(model.nll(pack([each], 0)).sum()) for each in examples[:8]) / 8
    assert loss == pytest.approx(state.losses[state.best], abs=1e-4)


def test_lora_is_the_same_bits_for_the_same_seed(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    one, other = (train(tiny, examples, tmp_path / name)[1] for name in ("a", "b"))
    third = train(tiny, examples, tmp_path / "c", replace(SETTINGS, seed=1))[1]
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not any(np.array_equal(one[name], third[name]) for name in one)


class Killed(Exception):
    """As if somebody had pulled the plug."""


class Plug(Silent):
    """Pulls the plug when so many batches are learned."""

    def __init__(self, batches: int) -> None:
        self._left = batches

    def advance(self, size: int) -> None:
        if size == SETTINGS.batch:
            self._left -= 1
            if self._left == 0:
                raise Killed


@pytest.mark.parametrize("batches", [2, 5, 8])
def test_lora_resumed_is_what_it_would_have_been(
    batches: int,
    tiny: Path,
    examples: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    state, matrices = train(tiny, examples, tmp_path / "whole")
    with pytest.raises(Killed):
        train(tiny, examples, tmp_path / "cut", progress=Plug(batches))
    assert [file.name for file in (tmp_path / "cut").iterdir()] == [CHECKPOINT]
    steps: list[int] = []
    learn = loop._Run._learn
    monkeypatch.setattr(
        loop._Run, "_learn", lambda run, *given: (steps.append(1), learn(run, *given))
    )
    resumed, same = train(tiny, examples, tmp_path / "cut", resume=True)
    assert len(steps) == state.step - (batches - 1)
    assert (resumed.losses, resumed.best) == (state.losses, state.best)
    assert all(np.array_equal(matrices[name], same[name]) for name in matrices)


def test_lora_without_a_state_resumes_from_the_start(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    one = train(tiny, examples, tmp_path / "a", resume=True)[1]
    other = train(tiny, examples, tmp_path / "b")[1]
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_lora_refuses_to_resume_what_is_another_training(
    tiny: Path,
    examples: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    train(tiny, examples, tmp_path)
    for changed in (
        {"settings": replace(SETTINGS, learning_rate=0.01)},
        {"base": "another"},
        {"examples": examples[::-1]},
    ):
        with pytest.raises(SetupError, match="of a training with other rows, settings or another"):
            train(
                **({"path": tiny, "examples": examples, "folder": tmp_path} | changed), resume=True
            )
    (tmp_path / CHECKPOINT).write_bytes(b"\x10" + b"\0" * 20)
    with pytest.raises(SetupError, match="is damaged"):
        train(tiny, examples, tmp_path, resume=True)
    train(tiny, examples, tmp_path)


def test_lora_stops_early_and_keeps_the_best(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    # Far too fast: it only gets worse.
    settings = replace(SETTINGS, learning_rate=3.0, patience=1, epochs=50)
    state, _ = train(tiny, examples, tmp_path, settings)
    assert len(state.losses) - 1 - state.best == 1
    assert len(state.losses) < 50
    assert min(state.losses) == state.losses[state.best]


def test_lora_stops_where_the_loss_is_no_number(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="the loss is not finite at step"):
        train(tiny, examples, tmp_path, replace(SETTINGS, learning_rate=1e30, patience=50))


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 0},
        {"rank": 257},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"epochs": 0},
        {"batch": 0},
        {"patience": 0},
        {"seed": -1},
    ],
)
def test_lora_settings_name_what_is_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(InvalidInput) as error:
        replace(LoraSettings(), **change).check()  # type: ignore[arg-type]
    assert [error.value.field] == [*change]


def test_lora_in_bfloat16_learns_nearly_the_same(tiny: Path, examples: list[Example]) -> None:
    exact, rough = shaken(load(tiny)), shaken(load(tiny, bf16=True))
    both = pack(examples, lora.shared_length(examples))
    with torch.no_grad():
        one, other = exact.nll(both).numpy(), rough.nll(both).numpy()
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=0.3)


def test_lora_loss_of_free_text_is_over_the_whole_vocabulary(tiny: Path, model: LoraModel) -> None:
    engine = LlamaEngine(tiny, context_length=1024, sequence_limit=1, threads=1)
    try:
        (example,) = Examples(engine, most_tokens=1024).transform(
            TransformSpec("tiny", "{text}"), ["x"], [{}], ["yes"], lines=[1], path="rows"
        )
    finally:
        engine.close()
    whole = np.concatenate([example.prompt, example.answer])
    with torch.no_grad():
        found = model.nll(pack([example], 0)).numpy()
    for at, nll in enumerate(found):
        logits = model.logits(whole[: len(example.prompt) + at]).astype(np.float64)
        expected = np.log(np.exp(logits).sum()) - logits[example.answer[at]]
        assert nll == pytest.approx(expected, abs=1e-4)


def test_lora_trains_nothing_but_its_matrices(model: LoraModel) -> None:
    assert all(".lora_" in name for name in model.parameters)
    assert len(model.parameters) == 2 * len(gguf_lora.LINEAR)
    for (layer, name), (a, b) in model.pairs().items():
        assert layer == 0
        assert name in gguf_lora.LINEAR
        assert a.shape[0] == b.shape[1] == RANK
        assert not b.any()
