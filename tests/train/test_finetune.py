"""Fine-tuning an encoder: on the real one, with few rows; what is served is what was trained."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sprat.errors import InvalidInput, SetupError, StoreError, UnsupportedModel
from sprat.inprocess import Runtime
from sprat.progress import Silent
from sprat.store import Store
from sprat.tokenizer import Tokenizer
from sprat.train.data import Dataset
from sprat.train.encoder_body import EncoderBody, parts, require
from sprat.train.finetune import validation_rows
from sprat.train.finetune_tier import finetune_tier
from sprat.train.head import Embed, TrainedTier
from sprat.train.loop import LoopSettings
from sprat.train.prepare import Prepared, prepare
from sprat.train.provenance import DataSource
from sprat.train.record import TuningRecord
from sprat.values import FloatArray

ENCODER = "minilm-l6"
TUNED = "tickets-encoder"
FAST = LoopSettings(learning_rate=2e-4, epochs=2, batch=16)

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="torch is not installed: pip install 'sprat[finetune]'"
)


def own_store(store: Store, root: Path) -> Store:
    """A store with the encoder of the shared one."""
    made = Store(root)
    _, folder = store.model(ENCODER)
    (made.root / "models").mkdir(parents=True)
    (made.root / "models" / ENCODER).symlink_to(folder)
    return made


@pytest.fixture
def own(store: Store, tmp_path: Path) -> Store:
    """A store of this test's own."""
    return own_store(store, tmp_path / "store")


@pytest.fixture(scope="module")
def prepared(dataset: Callable[..., Dataset]) -> Prepared:
    return prepare(dataset(90), held_out=0.3)


def tune(store: Store, prepared: Prepared, **arguments: object) -> TrainedTier:
    @contextmanager
    def open_embed(model: str) -> Iterator[Embed]:
        with Runtime(models=[model], store=store) as runtime:

            def embed(texts: Sequence[str]) -> FloatArray:
                return runtime.embed(model, texts).vectors

            yield embed

    given: dict[str, object] = {"settings": FAST, **arguments}
    return finetune_tier(
        prepared,
        Silent(),
        store=store,
        base=ENCODER,
        name=TUNED,
        open_embed=open_embed,
        **given,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def tuned(
    store: Store, minilm: Path, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, TrainedTier]:
    """What was trained, and the store that has its encoder."""
    made = own_store(store, tmp_path_factory.mktemp("tuned") / "store")
    return made, tune(made, prepared)


@needs_torch
def test_finetune_makes_an_encoder_that_serves_what_was_trained(
    tuned: tuple[Store, TrainedTier], prepared: Prepared
) -> None:
    own, tier = tuned
    manifest, folder = own.model(TUNED, check=True)
    base, _ = own.model(ENCODER)
    assert (manifest.engine, manifest.quantization) == ("ct2", base.quantization)
    assert (manifest.pooling, manifest.max_tokens) == (base.pooling, base.max_tokens)
    assert manifest.licence == base.licence
    assert base.version in manifest.source
    assert manifest.digest != base.digest
    assert (tier.manifest.name, tier.manifest.base.digest) == ("finetune", manifest.digest)
    assert tier.manifest.calibration is not None
    assert tier.record.evaluation.accuracy > 0.6
    record = tier.record.training
    assert isinstance(record, TuningRecord)
    assert len(record.losses) == 3
    assert record.losses[-1] < record.losses[0]
    assert record.best_pass == 2
    assert record.base.digest == base.digest
    held = validation_rows(prepared.targets_n, prepared.folds_n, seed=prepared.seed)
    assert record.validation == DataSource.of(prepared.train.take(held.tolist()))
    # torch on the tuned weights and the int8 encoder agree on what a text is near to.
    source = EncoderBody(folder / "source", "mean")
    source.train(is_on=False)
    ids, _ = Tokenizer.from_file(folder / "tokenizer.json").encode_within(
        list(prepared.test.texts), 256
    )
    vectors = source.vectors(list(ids)).detach().numpy()
    with Runtime(models=[TUNED], store=own) as runtime:
        served = runtime.embed(TUNED, list(prepared.test.texts)).vectors
    assert (vectors * served).sum(axis=1).min() > 0.97


@needs_torch
def test_finetune_the_same_seed_gives_the_same_weights(
    tuned: tuple[Store, TrainedTier], own: Store, prepared: Prepared
) -> None:
    made, first = tuned
    shutil.copytree(made.model(TUNED)[1], own.root / "models" / TUNED)
    again = tune(own, prepared, replace=True)
    assert first.manifest.base == again.manifest.base
    np.testing.assert_array_equal(first.head.weight, again.head.weight)


@needs_torch
@pytest.mark.usefixtures("minilm")
def test_finetune_refuses_bad_settings(own: Store, prepared: Prepared) -> None:
    with pytest.raises(InvalidInput, match="learning_rate"):
        tune(own, prepared, settings=LoopSettings(learning_rate=-1))
    assert [manifest.name for manifest, _ in own.models()] == [ENCODER]


@needs_torch
def test_finetune_reads_only_what_transformers_can(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="transformers cannot read it"):
        EncoderBody(tmp_path, "mean")


def test_finetune_without_torch_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SetupError, match=r"pip install 'sprat\[finetune\]'"):
        require()


def test_finetune_holds_out_a_tenth_of_every_label() -> None:
    targets = np.repeat(np.arange(3, dtype=np.int32), (4, 10, 60))
    folds = np.arange(74, dtype=np.int32) % 4
    held = validation_rows(targets, folds, seed=0)
    assert (folds[held] == 0).all()
    assert np.bincount(targets[held]).tolist() == [1, 1, 6]
    np.testing.assert_array_equal(held, validation_rows(targets, folds, seed=0))
    assert held.tolist() != validation_rows(targets, folds, seed=1).tolist()


def test_finetune_parts_hold_every_row_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 50).tolist()
    made = parts(range(50), lengths, most_tokens=256)
    assert sorted(row for part in made for row in part) == list(range(50))
    assert all(len(part) * max(lengths[row] for row in part) <= 256 for part in made)
    assert parts([0], [900], most_tokens=256) == [[0]]


@pytest.mark.usefixtures("minilm")
def test_finetune_leaves_a_model_of_that_name_alone(own: Store, prepared: Prepared) -> None:
    folder = own.root / "models" / TUNED
    folder.mkdir()
    document = (own.root / "models" / ENCODER / "model.json").read_text()
    (folder / "model.json").write_text(document.replace(f'"{ENCODER}"', f'"{TUNED}"', 1))
    with pytest.raises(StoreError, match="is there already; replace it explicitly"):
        tune(own, prepared)
