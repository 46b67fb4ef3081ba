"""Fine-tuning an encoder for spans: on a tiny random one; what serves is what was tuned."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tagged import make_bookings, write_encoder

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.errors import InputTooLong, InvalidInput, StoreError
from sprat.inprocess import Runtime
from sprat.manifest import ModelRef
from sprat.progress import Progress, Silent
from sprat.pull import pull
from sprat.store import Store
from sprat.tokenizer import Tokenizer
from sprat.train.assess_spans import assess_tagger
from sprat.train.encoder_body import EncoderBody
from sprat.train.finetune_tagger import finetune_tagger_tier
from sprat.train.finetune_tags import (
    UNCOUNTED,
    TaggedText,
    _Tags,
    tagged_texts,
    validation_texts,
)
from sprat.train.finetune_tier import published
from sprat.train.fit_tagger import align
from sprat.train.loop import LoopSettings
from sprat.train.prepare_spans import PreparedSpans, prepare_spans
from sprat.train.spans import GoldSpan, SpanDataset
from sprat.train.tagger import (
    ExtractRecord,
    States,
    TrainedTagger,
    train_tagger,
    train_tagger_tier,
)

ENCODER, TUNED = "tiny", "bookings-encoder"
FIELDS = ("name", "people", "time")
FAST = LoopSettings(learning_rate=3e-3, epochs=6, batch=16)
PADDING = "thanks a lot, hello there. " * 6

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="torch is not installed: pip install 'sprat[finetune]'"
)


def long_row(name: str) -> SpanDataset:
    """A name and a time in a text of many more tokens than the encoder takes."""
    text = f"{PADDING}my name is {name}, see you at 7 pm. {PADDING}"
    spans = [(text.index(name), name, "name"), (text.index("7 pm"), "7 pm", "time")]
    gold = tuple(GoldSpan(at, at + len(stands), field) for at, stands, field in spans)
    return SpanDataset((text,), (gold,), ((),), (1,), "long.jsonl")


def joined(*parts: SpanDataset) -> SpanDataset:
    texts, spans, requested = (
        tuple(row for part in parts for row in getattr(part, name))
        for name in ("texts", "spans", "requested")
    )
    return SpanDataset(texts, spans, requested, tuple(range(1, len(texts) + 1)), "rows.jsonl")


DATA = joined(make_bookings(120), long_row("Ada"), long_row("Bea"))
TEST = joined(make_bookings(40, seed=1), long_row("Cleo"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the encoder."""
    folder = tmp_path_factory.mktemp("base")
    made = Store(folder / "home")
    pull(str(write_encoder(folder / ENCODER)), made)
    return made


def own_store(base: Store, root: Path) -> Store:
    """A store of a test's own, with the same encoder."""
    (root / "models").mkdir(parents=True)
    (root / "models" / ENCODER).symlink_to(base.model(ENCODER)[1])
    return Store(root)


@pytest.fixture
def own(base: Store, tmp_path: Path) -> Store:
    return own_store(base, tmp_path / "home")


@contextmanager
def open_states(model: str, *, store: Store) -> Iterator[States]:
    with Runtime(models=[model], store=store) as runtime:
        yield lambda texts: runtime.token_states(model, texts)


def tune(
    prepared: PreparedSpans, progress: Progress | None = None, *, store: Store, **options: Any
) -> TrainedTagger:
    given: dict[str, Any] = {"settings": FAST, **options}
    return finetune_tagger_tier(
        prepared,
        progress or Silent(),
        store=store,
        base=ENCODER,
        name=TUNED,
        open_states=functools.partial(open_states, store=store),
        **given,
    )


@dataclass(frozen=True)
class Made:
    """A bundle with both tiers, and the store that has their encoders."""

    store: Store
    folder: Path
    manifest: BundleManifest
    record: ExtractRecord


@pytest.fixture(scope="module")
def trained(base: Store, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("trained")
    store = own_store(base, root / "home")
    folder = root / "bookings"
    folder.mkdir()
    model, _ = store.model(ENCODER)
    with open_states(ENCODER, store=store) as states:
        head = functools.partial(
            train_tagger_tier,
            name="head",
            base=ModelRef(name=model.name, digest=model.digest),
            states=states,
        )
        manifest, record = train_tagger(
            prepare_spans(DATA, test=TEST),
            [head, functools.partial(tune, store=store)],
            name="bookings",
            out=folder,
        )
    return Made(store, folder, manifest, record)


@needs_torch
def test_finetune_tagger_learns_spans_and_adds_an_encoder(trained: Made) -> None:
    base, _ = trained.store.model(ENCODER)
    tuned, _ = trained.store.model(TUNED, check=True)
    assert (tuned.engine, tuned.quantization) == (base.engine, base.quantization)
    assert (tuned.pooling, tuned.max_tokens) == (base.pooling, base.max_tokens)
    assert tuned.digest != base.digest
    head, last = trained.manifest.tiers
    assert (head.name, last.name) == ("head", "finetune")
    assert (head.base.digest, last.base.digest) == (base.digest, tuned.digest)
    assert (head.weights, last.weights) == ("head.safetensors", "finetune.safetensors")
    assert last.calibration is not None
    assert trained.record.evaluation == trained.record.tiers["finetune"].evaluation
    assert trained.record.evaluation.micro_f1 > 0.9
    training = trained.record.tiers["finetune"].training
    assert training.folds == 1
    tuning = training.tuning
    assert tuning is not None
    assert tuning.losses[tuning.best_pass] == min(tuning.losses) < tuning.losses[0] / 4
    assert 0 < tuning.validation.rows < len(DATA) / 4
    assert tuning.settings["epochs"] == FAST.epochs
    assert trained.record.tiers["head"].training.tuning is None
    assert training.calibration_spans < trained.record.tiers["head"].training.calibration_spans


@needs_torch
def test_finetune_tagger_bundle_is_read_back_and_its_last_tier_answers(trained: Made) -> None:
    bases = {name: trained.store.model(name)[0] for name in (ENCODER, TUNED)}
    bundle = Bundle.load(trained.folder, bases=bases)
    assert len(bundle.taggers) == 2
    written = (trained.folder / "report.json").read_text()
    assert ExtractRecord.model_validate_json(written) == trained.record
    assert "table for" not in written
    with open_states(TUNED, store=trained.store) as states:
        again = assess_tagger(bundle, TEST, states=states).report
    # Other batches round states otherwise.
    assert again.micro_f1 == pytest.approx(trained.record.evaluation.micro_f1, abs=0.02)


@needs_torch
def test_finetune_tagger_serves_fields_requests_and_long_texts(trained: Made) -> None:
    (row,) = long_row("Dora").texts
    with Runtime(tasks=[str(trained.folder)], store=trained.store) as runtime:
        (task,) = runtime.list_tasks()
        assert [name for name, _ in task.models] == [TUNED]
        assert [model.name for model in runtime.list_models()] == [TUNED]
        (item,) = runtime.extract("bookings", ["my name is Elsa, see you at 7 pm"]).items
        assert item is not None
        assert item.value == {"name": "Elsa", "time": "7 pm"}
        assert all(field.confidence is not None for field in item.fields)
        for field in ("people", "time"):
            (item,) = runtime.extract("bookings", ["8"], requested=[field]).items
            assert item is not None
            assert item.value == {field: "8"}
        with pytest.raises(InputTooLong, match="long_input"):
            runtime.extract("bookings", [row])
        (item,) = runtime.extract("bookings", [row], long_input="chunk").items
        assert item is not None
        assert item.chunks > 2
        assert item.value == {"name": "Dora", "time": "7 pm"}


class Interrupted(Silent):
    """A `Progress` that ends the program where the third pass begins."""

    def phase(self, text: str, total: int | None = None) -> None:
        if text.startswith("pass 3"):
            raise KeyboardInterrupt


@needs_torch
def test_finetune_tagger_goes_on_to_the_same_weights(
    own: Store, base: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare_spans(DATA, test=TEST)
    settings = replace(FAST, epochs=3)
    whole = tune(prepared, store=own, settings=settings)
    monkeypatch.setattr("sprat.train.loop.SAVE_EVERY_S", 0.0)
    other = own_store(base, tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        tune(prepared, Interrupted(), store=other, settings=settings)
    assert [manifest.name for manifest, _ in other.models()] == [ENCODER]
    resumed = tune(prepared, store=other, settings=settings, resume=True)
    assert resumed.manifest == whole.manifest
    assert resumed.record == whole.record
    for name in ("states", "indicators", "transitions", "bias"):
        np.testing.assert_array_equal(
            getattr(resumed.tagger, name), getattr(whole.tagger, name), err_msg=name
        )


@needs_torch
def test_finetune_tagger_refuses_bad_settings_and_names_that_are_taken(own: Store) -> None:
    prepared = prepare_spans(DATA, test=TEST)
    with pytest.raises(InvalidInput, match="learning_rate"):
        tune(prepared, store=own, settings=LoopSettings(learning_rate=-1))
    assert [manifest.name for manifest, _ in own.models()] == [ENCODER]
    with pytest.raises(StoreError, match="is there already; replace it explicitly"):
        finetune_tagger_tier(
            prepared,
            Silent(),
            store=own,
            base=ENCODER,
            name=ENCODER,
            open_states=functools.partial(open_states, store=own),
            settings=FAST,
        )


@pytest.fixture
def read(base: Store) -> Callable[[SpanDataset], list[TaggedText]]:
    """How the encoder reads rows."""
    manifest, folder = base.model(ENCODER)
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    return lambda data: tagged_texts(data, tokenizer, FIELDS, max_tokens=manifest.max_tokens)


def test_finetune_tagger_counts_every_token_of_a_long_text_once(
    base: Store, read: Callable[[SpanDataset], list[TaggedText]]
) -> None:
    data = long_row("Ada")
    (parts,) = read(data)
    manifest, _ = base.model(ENCODER)
    assert len(parts) > 2
    assert max(len(part.ids) for part in parts) <= manifest.max_tokens
    assert all((part.tags[[0, -1]] == UNCOUNTED).all() for part in parts)
    with open_states(ENCODER, store=base) as states:
        (served,) = states(data.texts)
    counted = [part.tags != UNCOUNTED for part in parts]
    ids = np.concatenate([part.ids[which] for part, which in zip(parts, counted, strict=True)])
    tags = np.concatenate([part.tags[which] for part, which in zip(parts, counted, strict=True)])
    np.testing.assert_array_equal(ids, served.ids)
    np.testing.assert_array_equal(tags, align(*data.texts, *data.spans, served.spans, FIELDS)[0])
    assert len(np.unique(tags)) > 3


@needs_torch
def test_finetune_tagger_trains_the_states_that_are_served(
    base: Store, read: Callable[[SpanDataset], list[TaggedText]]
) -> None:
    data = joined(make_bookings(6), long_row("Ada"))
    manifest, folder = base.model(ENCODER)
    assert manifest.pooling is not None
    body = EncoderBody(published(manifest, folder), manifest.pooling)
    body.train(is_on=False)
    with open_states(ENCODER, store=base) as states:
        served = np.concatenate([each.states for each in states(data.texts)])
    parts = [part for text in read(data) for part in text]
    made, _ = body.states([part.ids for part in parts])
    trained = np.concatenate(
        [
            row[: len(part.ids)][part.tags != UNCOUNTED]
            for row, part in zip(made.detach().numpy(), parts, strict=True)
        ]
    )
    lengths = np.linalg.norm(trained, axis=1) * np.linalg.norm(served, axis=1)
    assert ((trained * served).sum(axis=1) / lengths).min() > 0.97


@needs_torch
def test_finetune_tagger_adds_up_what_was_requested(
    base: Store, read: Callable[[SpanDataset], list[TaggedText]]
) -> None:
    import torch

    text, none = "8 please", ()
    asked = (("people", "time"), none, ("time",))
    data = SpanDataset((text,) * 3, (none,) * 3, asked, (1, 2, 3), "rows.jsonl")
    texts = read(data)
    assert [part.asked.tolist() for (part,) in texts] == [[1, 2], [3], [2]]
    manifest, folder = base.model(ENCODER)
    assert manifest.pooling is not None
    body = EncoderBody(published(manifest, folder), manifest.pooling)
    task = _Tags(body, [], texts, fields=FIELDS)
    with torch.no_grad():
        vectors = task.parameters["head.asked"]
        vectors.copy_(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]).expand_as(vectors))
    logits, targets = task._held_logits()
    assert (targets == 0).all()
    # Two tokens a text.
    np.testing.assert_array_equal(logits[:, 0], [110, 110, 1000, 1000, 100, 100])


def test_finetune_tagger_holds_out_a_tenth_of_every_field(
    read: Callable[[SpanDataset], list[TaggedText]],
) -> None:
    rows = make_bookings(300)
    texts = read(rows)
    held = validation_texts(rows, texts, seed=0).tolist()
    kept = sorted(set(range(300)) - set(held))
    assert not {rows.texts[row] for row in held} & {rows.texts[row] for row in kept}
    for field in FIELDS:
        # Different texts: the same ones are drawn again and again.
        those, all_ = (
            {rows.texts[row] for row in part if field in {s.field for s in rows.spans[row]}}
            for part in (held, range(300))
        )
        assert 0.03 < len(those) / len(all_) < 0.25
    assert held == validation_texts(rows, texts, seed=0).tolist()
    assert held != validation_texts(rows, texts, seed=1).tolist()


def test_finetune_tagger_holds_out_a_text_with_a_span_where_there_are_few(
    read: Callable[[SpanDataset], list[TaggedText]],
) -> None:
    spans = ((GoldSpan(0, 3, "name"),), (), (), ())
    data = SpanDataset(
        ("Ada", "\u00ad", "hello", "thanks"), spans, ((),) * 4, (1, 2, 3, 4), "rows.jsonl"
    )
    texts = read(data)
    assert [len(part.ids) for (part,) in texts] == [3, 2, 3, 3]
    assert validation_texts(data, texts, seed=0).tolist() == [0]
