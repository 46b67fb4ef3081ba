"""Static models: what happens between texts and their vectors, without a queue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from doubles import no_leaked_threads
from static_models import DIMENSION, save, static_model, unigram

from sprat import model as models
from sprat.budget import ComputePermits
from sprat.build import Origin
from sprat.build_static import published
from sprat.config import ModelConfig
from sprat.errors import DeadlineExceeded, InputTooLong, InvalidInput, TaskNotSupported
from sprat.manifest import MODEL_MANIFEST, ModelManifest, read
from sprat.model import StaticModel
from sprat.model.encoder import INLINE_CHARACTERS
from sprat.progress import Silent
from sprat.scheduler import ComputePool, Mailbox

LIMIT = 6


def folder_of(folder: Path, **options: object) -> Path:
    """A store's folder of a model of the library."""
    (folder / "source").mkdir(parents=True)
    save(static_model(**options), folder / "source")  # type: ignore[arg-type]
    published(folder, Origin("static", "MIT", "test"), None, Silent())
    return folder


@pytest.fixture
async def mailbox() -> Mailbox:
    return Mailbox(asyncio.get_running_loop())


@pytest.fixture
async def pool() -> AsyncIterator[ComputePool]:
    with no_leaked_threads():
        made = ComputePool(ComputePermits(1))
        yield made
        made.close()


def load(folder: Path, pool: ComputePool) -> StaticModel:
    manifest = read(folder / MODEL_MANIFEST, ModelManifest)
    loaded = models.load(
        manifest, folder, ModelConfig(), permits=ComputePermits(1), pool=pool, queue_tokens=10
    )
    assert isinstance(loaded, StaticModel)
    return loaded


@pytest.fixture
def model(tmp_path: Path, pool: ComputePool) -> StaticModel:
    return load(folder_of(tmp_path / "m", normalize=True, max_length=LIMIT), pool)


async def test_static_model_says_what_it_is(model: StaticModel) -> None:
    info = model.info
    assert (info.kind, info.engine, info.architecture) == ("encoder", "static", "model2vec")
    assert (info.quantization, info.dimension, info.max_tokens) == ("float32", DIMENSION, LIMIT)
    assert info.tokenizer == "sprat (WordPiece)"
    assert models.require_encoder(model, "embed") is model
    with pytest.raises(TaskNotSupported, match="generate needs a generative model"):
        models.require_generative(model, "generate")


async def test_static_model_encodes(model: StaticModel, mailbox: Mailbox) -> None:
    encoded = await model.encode(["my parcel", "refunds!", "late late"], mailbox=mailbox)
    assert encoded.vectors.shape == (3, DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-6)
    assert encoded.kept == [0, 1, 2]
    assert encoded.input_tokens == [2, 3, 2]
    assert encoded.dropped_tokens == [0, 0, 0]
    assert encoded.errors == ()
    assert encoded.infer_ns > 0
    assert sum(encoded.cpu_ns) == pytest.approx(encoded.infer_ns, abs=3)
    assert encoded.cpu_ns[0] == encoded.cpu_ns[2] > encoded.cpu_ns[1] > 0, "shared by characters"
    alone = await model.encode(["late"], mailbox=mailbox)
    np.testing.assert_allclose(alone.vectors[0], encoded.vectors[2], atol=1e-6)


async def test_static_model_of_unknown_words_is_zero(model: StaticModel, mailbox: Mailbox) -> None:
    encoded = await model.encode(["魚", "my 魚"], mailbox=mailbox)
    assert encoded.input_tokens == [0, 1]
    assert not encoded.vectors[0].any()


async def test_static_model_refuses_bad_texts(model: StaticModel, mailbox: Mailbox) -> None:
    with pytest.raises(InvalidInput, match=r"texts\[1\]: is empty"):
        await model.encode(["my", ""], mailbox=mailbox)
    with pytest.raises(
        InputTooLong, match=r"texts\[0\]: 7 tokens, at most 6 are accepted"
    ) as caught:
        await model.encode(["my " * 7], mailbox=mailbox)
    assert (caught.value.tokens, caught.value.limit) == (7, LIMIT)


async def test_static_model_partial_keeps_the_good_texts(
    model: StaticModel, mailbox: Mailbox
) -> None:
    texts = ["my " * 9, "my", "", "late", "\ud800"]
    encoded = await model.encode(texts, partial=True, mailbox=mailbox)
    assert encoded.kept == [1, 3]
    assert encoded.vectors.shape == (2, DIMENSION)
    assert [(e.index, e.reason) for e in encoded.errors] == [
        (0, "INPUT_TOO_LONG"),
        (2, "INVALID_INPUT"),
        (4, "INVALID_INPUT"),
    ]
    assert encoded.input_tokens == [0, 1, 0, 1, 0]
    alone = await model.encode(["late"], mailbox=mailbox)
    np.testing.assert_array_equal(encoded.vectors[1], alone.vectors[0])
    nothing = await model.encode([""], partial=True, mailbox=mailbox)
    assert nothing.vectors.shape == (0, DIMENSION)


async def test_static_model_truncates_when_asked(model: StaticModel, mailbox: Mailbox) -> None:
    texts = ["my late " * 3, "my late " * 3 + "parcel parcel"]
    encoded = await model.encode(texts, truncation="truncate", mailbox=mailbox)
    assert encoded.input_tokens == [LIMIT, LIMIT]
    assert encoded.dropped_tokens == [0, 2]
    np.testing.assert_array_equal(encoded.vectors[0], encoded.vectors[1])


@pytest.mark.parametrize("tokenizer", [None, unigram])
async def test_static_model_encodes_long_calls_in_the_pool(
    tokenizer: object, tmp_path: Path, pool: ComputePool, mailbox: Mailbox
) -> None:
    options = {} if tokenizer is None else {"tokenizer": unigram()}
    model = load(folder_of(tmp_path / "m", **options), pool)
    threads: list[str] = []
    engine_encode = model._engine.encode

    def watched(texts: list[str]) -> object:
        threads.append(threading.current_thread().name)
        return engine_encode(texts)

    model._engine.encode = watched  # type: ignore[method-assign, assignment]
    short = ["my parcel"] * 4
    many = short * (INLINE_CHARACTERS // 9)
    few = await model.encode(short, mailbox=mailbox)
    all_of_them = await model.encode(many, mailbox=mailbox)
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("sprat-pool")
    np.testing.assert_allclose(all_of_them.vectors, np.tile(few.vectors[0], (len(many), 1)))


async def test_static_model_drops_what_is_too_late(model: StaticModel, mailbox: Mailbox) -> None:
    for texts in (["my"], ["my"] * INLINE_CHARACTERS):
        with pytest.raises(DeadlineExceeded):
            await model.encode(texts, deadline=time.monotonic() - 1, mailbox=mailbox)
        await model.encode(texts, deadline=time.monotonic() + 60, mailbox=mailbox)


async def test_static_model_tokenizes(model: StaticModel) -> None:
    long, odd = await model.tokenize(["my " * 9, "refunds 魚"])
    assert long.ids == (9,) * 9
    assert odd.tokens == ("refund", "##s", "[UNK]")
    with pytest.raises(InvalidInput, match=r"texts\[0\]"):
        await model.tokenize([" "])
    model.close()
