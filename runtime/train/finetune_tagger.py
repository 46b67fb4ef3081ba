"""The tier ``finetune`` of an extract task: an encoder of its own, tuned, converted, and tagged.

The tagger is fitted on states of the int8 encoder that will serve, not of what torch trained. That
encoder knows the rows that it was tuned on too well: the tagger is chosen and calibrated on others.
"""

from __future__ import annotations

import numpy as np

from sprat.manifest import ModelRef
from sprat.progress import Progress
from sprat.store import Store
from sprat.tokenizer import Tokenizer
from sprat.train.encoder_body import EncoderBody
from sprat.train.finetune_tags import tagged_texts, tune_for_tags, validation_texts
from sprat.train.finetune_tier import add_tuned, check_free, published
from sprat.train.loop import LoopSettings
from sprat.train.prepare_spans import PreparedSpans
from sprat.train.provenance import DataSource
from sprat.train.record import Tuning, tuning_facts
from sprat.train.tagger import OpenStates, TrainedTagger, train_tagger_tier


def finetune_tagger_tier(
    prepared: PreparedSpans,
    progress: Progress,
    *,
    store: Store,
    base: str,
    name: str,
    open_states: OpenStates,
    settings: LoopSettings,
    accept_at: float = 0.0,
    resume: bool = False,
    replace: bool = False,
) -> TrainedTagger:
    """Fine-tune an encoder for the spans of a task, add it to the store, fit a tagger on it.

    Parameters
    ----------
    base : str
        The encoder in the store to start from.
    name : str
        Of the tuned encoder.
    open_states : callable
        See `OpenStates`; it is asked for ``name``.
    settings, accept_at, resume, replace
        See `sprat.train.finetune_tier.finetune_tier`, also for what is raised.

    Raises
    ------
    DataError
        When there is a threshold, but no span to calibrate with.
    """
    check_free(store, name, replace=replace)
    manifest, folder = store.model(base, check=True)
    source = published(manifest, folder)
    assert manifest.pooling is not None
    tokenizer = folder / "tokenizer.json"
    train = prepared.train
    texts = tagged_texts(
        train,
        Tokenizer.from_file(tokenizer),
        prepared.fields,
        max_tokens=manifest.max_tokens,
    )
    validation = validation_texts(train, texts, seed=prepared.seed)
    body = EncoderBody(source, manifest.pooling)
    state = tune_for_tags(
        body,
        texts,
        validation,
        settings,
        fields=prepared.fields,
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
    folds_n = np.full(len(train), -1, np.int32)
    folds_n[validation] = 0
    with open_states(name) as states:
        return train_tagger_tier(
            prepared,
            progress,
            name="finetune",
            base=ModelRef(name=made.name, digest=made.digest),
            states=states,
            folds_n=folds_n,
            tuning=Tuning(
                **tuning_facts(
                    settings,
                    state,
                    base=ModelRef(name=manifest.name, digest=manifest.digest),
                    validation=DataSource.of(train.take(list(validation))),
                )
            ),
            accept_at=accept_at,
        )
