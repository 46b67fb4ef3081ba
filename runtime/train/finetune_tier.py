"""The tier ``finetune`` of a classifier: an encoder of its own, tuned, converted, and judged.

What is evaluated is the int8 encoder that will serve, not what torch trained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sprat import build
from sprat.errors import StoreError, UnsupportedModel
from sprat.head import Head
from sprat.manifest import ModelManifest, ModelRef
from sprat.progress import Progress
from sprat.store import Store
from sprat.tokenizer import Tokenizer
from sprat.train.calibrate import fit_calibration
from sprat.train.encoder_body import EncoderBody
from sprat.train.finetune import Tuned, tune_for_labels, validation_rows
from sprat.train.head import OpenEmbed, TrainedTier, embed_texts, judge_tier
from sprat.train.loop import LoopSettings
from sprat.train.prepare import Prepared
from sprat.train.provenance import DataSource
from sprat.train.record import TuningRecord, tuning_facts
from sprat.values import FloatArray, IntArray


def finetune_tier(
    prepared: Prepared,
    progress: Progress,
    *,
    store: Store,
    base: str,
    name: str,
    open_embed: OpenEmbed,
    settings: LoopSettings,
    accept_at: float = 0.0,
    resume: bool = False,
    replace: bool = False,
) -> TrainedTier:
    """Fine-tune an encoder for the labels of a classifier and add it to the store.

    Parameters
    ----------
    base : str
        The encoder in the store to start from.
    name : str
        Of the tuned encoder.
    open_embed : callable
        See `OpenEmbed`; it is asked for ``name``.
    settings : LoopSettings
        How to train.
    accept_at : float
        Least confidence of an answer, in [0, 1].
    resume : bool
        Go on where an interrupted training of the same rows and settings ended.
    replace : bool
        Overwrite a model of that name.

    Raises
    ------
    SetupError
        torch is not installed, or there is another training to resume.
    InvalidInput
        A setting is out of range.
    NotFound, CorruptFile, UnsupportedModel, StoreError
        The base is not here or cannot be trained, or the store cannot be written.
    """
    check_free(store, name, replace=replace)
    manifest, folder = store.model(base, check=True)
    train = prepared.train
    validation = validation_rows(prepared.targets_n, prepared.folds_n, seed=prepared.seed)
    source = published(manifest, folder)
    tokenizer = folder / "tokenizer.json"
    rows, _ = Tokenizer.from_file(tokenizer).encode_within(train.texts, manifest.max_tokens)
    assert manifest.pooling is not None
    pooling = manifest.pooling
    body, tuned = tune_for_labels(
        lambda: EncoderBody(source, pooling),
        rows,
        prepared.targets_n,
        validation,
        settings,
        base=manifest.digest,
        checkpoint=store.partial_downloads(name),
        resume=resume,
        progress=progress,
    )
    made = add_tuned(
        body,
        store,
        name=name,
        base=manifest,
        tokenizer=tokenizer,
        replace=replace,
        progress=progress,
    )
    with open_embed(name) as embed:
        progress.phase(f"embed {len(prepared.test) + len(validation)} texts")
        vectors = embed_texts(
            embed, (*(train.texts[row] for row in validation), *prepared.test.texts)
        )
    held, vectors_md = vectors[: len(validation)], vectors[len(validation) :]
    return _judge(
        prepared, tuned, held, vectors_md, validation, manifest, made, settings, accept_at
    )


def check_free(store: Store, name: str, *, replace: bool) -> None:
    """Raise StoreError where a model of this name is there and is not to be replaced."""
    if not replace and name in {manifest.name for manifest, _ in store.models()}:
        raise StoreError(f"model {name} is there already; replace it explicitly")


def published(manifest: ModelManifest, folder: Path) -> Path:
    """The folder of an encoder's published weights.

    Raises
    ------
    UnsupportedModel
        They were not kept, or it is no encoder of layers.
    """
    if manifest.source_weights is None or manifest.engine != "ct2":
        raise UnsupportedModel(
            f"{manifest.name}: expected an encoder with its published weights, found a "
            f"{manifest.engine} model; pull one, such as minilm-l6"
        )
    return (folder / manifest.source_weights).parent


def add_tuned(
    body: EncoderBody,
    store: Store,
    *,
    name: str,
    base: ModelManifest,
    tokenizer: Path,
    replace: bool,
    progress: Progress,
) -> ModelManifest:
    """Convert a tuned encoder and add it to the store: all of it, or nothing."""

    def make(out: Path) -> None:
        source = out / "source"
        source.mkdir()
        body.save(source, tokenizer=tokenizer, max_tokens=base.max_tokens)
        origin = build.Origin(
            name, base.licence, f"{base.name} {base.version}, fine-tuned by sprat"
        )
        build.encoder(out, origin, base.quantization, progress)

    return store.add_model(name, make, replace=replace)[0]


def _judge(
    prepared: Prepared,
    tuned: Tuned,
    held: FloatArray,
    vectors_md: FloatArray,
    validation: IntArray,
    base: ModelManifest,
    made: ModelManifest,
    settings: LoopSettings,
    accept_at: float,
) -> TrainedTier:
    bias = np.zeros(len(tuned.weight), np.float32)
    targets = prepared.targets_n[validation]
    logits = tuned.held_logits
    if logits is None:
        logits = Head(tuned.weight, bias).logits(held)
    fit = fit_calibration(logits, targets, seed=prepared.seed)
    return judge_tier(
        prepared,
        vectors_md,
        name="finetune",
        base=ModelRef(name=made.name, digest=made.digest),
        head=Head(tuned.weight, bias, fit.calibration.temperature),
        calibration=fit,
        training=TuningRecord(
            **tuning_facts(
                settings,
                tuned.state,
                base=ModelRef(name=base.name, digest=base.digest),
                validation=DataSource.of(prepared.train.take(validation.tolist())),
            ),
            calibration=fit,
        ),
        accept_at=accept_at,
        refits=None,
    )
