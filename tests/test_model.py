"""Encoders: what happens between texts and their vectors, and when those do not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import numpy as np
import pytest
from doubles import (
    ENCODER,
    GENERATOR,
    MAX_TOKENS,
    WAIT_S,
    Encoder,
    Generator,
    encoder_model,
    eventually,
    generative_model,
    ids,
    manifest,
    no_leaked_threads,
    tokenizer,
    vector,
)

from sprat import model as models
from sprat.budget import ComputePermits
from sprat.errors import (
    DeadlineExceeded,
    EngineError,
    InputTooLong,
    InvalidInput,
    NotReady,
    QueueFull,
    TaskNotSupported,
)
from sprat.model import Encoded, EncoderModel
from sprat.model.encoder import INLINE_CHARACTERS
from sprat.scheduler import ComputePool, EncodeScheduler, Mailbox
from sprat.tokenizer import Tokenizer
from sprat.values import IntArray

TOO_LONG = "a " * MAX_TOKENS
WORD_A = ids("a")[1]


@pytest.fixture
async def mailbox() -> Mailbox:
    return Mailbox(asyncio.get_running_loop())


@pytest.fixture
def permits() -> ComputePermits:
    return ComputePermits(2)


@pytest.fixture
async def pool(permits: ComputePermits) -> AsyncIterator[ComputePool]:
    with no_leaked_threads():
        made = ComputePool(permits)
        yield made
        made.close()


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


# -- encoders --------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Encoder:
    return Encoder()


@pytest.fixture
async def encoder(
    engine: Encoder, permits: ComputePermits, pool: ComputePool
) -> AsyncIterator[EncoderModel]:
    made = encoder_model(engine, permits, pool, capacity=100)
    yield made
    engine.gate.set()
    if not engine.closed:
        await asyncio.to_thread(made.close)


def has_calls(engine: Encoder, count: int) -> bool:
    return len(engine.calls) == count


async def busy(
    encoder: EncoderModel, engine: Encoder, mailbox: Mailbox
) -> list[asyncio.Task[Encoded]]:
    """Keep both workers in a pass until the gate opens."""
    engine.gate.clear()
    tasks: list[asyncio.Task[Encoded]] = []
    for number in range(1, 3):
        tasks.append(asyncio.ensure_future(encoder.encode(["a", "b"], mailbox=mailbox)))
        await eventually(partial(has_calls, engine, number), "no pass started")
    return tasks


async def test_model_encode_keeps_the_order_of_the_texts(
    encoder: EncoderModel, mailbox: Mailbox
) -> None:
    texts = ["a b c", "d", "e f g h i j", "k l", "nothing-known", "m"]
    encoded = await encoder.encode(texts, mailbox=mailbox)
    np.testing.assert_array_equal(encoded.vectors, [vector(ids(text)) for text in texts])
    assert encoded.kept == list(range(6))
    assert encoded.input_tokens == [5, 3, 8, 4, 3, 3]
    assert encoded.dropped_tokens == [0] * 6
    assert encoded.errors == ()
    assert encoded.tokenize_ns > 0
    assert encoded.queue_ns > 0
    assert encoded.infer_ns > 0


async def test_model_encode_of_long_texts_together(encoder: EncoderModel, mailbox: Mailbox) -> None:
    """More characters than are tokenized on the event loop."""
    texts = [f"{letter}" + " " * INLINE_CHARACTERS + "z" for letter in "abc"]
    encoded = await encoder.encode(texts, mailbox=mailbox)
    np.testing.assert_array_equal(encoded.vectors, [vector(ids(text)) for text in texts])


async def test_model_tokenizes_long_texts_off_the_loop_under_a_permit(
    encoder: EncoderModel, mailbox: Mailbox, permits: ComputePermits
) -> None:
    with permits.hold("other"), permits.hold("other"):
        call = asyncio.ensure_future(
            encoder.encode(["a" + " " * INLINE_CHARACTERS], mailbox=mailbox)
        )
        await asyncio.sleep(0.01)
        assert not call.done()
    assert len((await asyncio.wait_for(call, WAIT_S)).vectors) == 1


async def test_model_encode_refuses_a_long_text(encoder: EncoderModel, mailbox: Mailbox) -> None:
    with pytest.raises(InputTooLong) as caught:
        await encoder.encode(["a", TOO_LONG], mailbox=mailbox)
    error = caught.value
    assert (error.field, error.tokens, error.limit) == ("texts[1]", MAX_TOKENS + 2, MAX_TOKENS)


async def test_model_encode_truncates_only_when_asked(
    encoder: EncoderModel, mailbox: Mailbox
) -> None:
    encoded = await encoder.encode(["b", TOO_LONG], truncation="truncate", mailbox=mailbox)
    assert encoded.input_tokens == [3, MAX_TOKENS]
    assert encoded.dropped_tokens == [0, 2]
    expected = vector([1, *[WORD_A] * (MAX_TOKENS - 2), 2])
    np.testing.assert_array_equal(encoded.vectors[1], expected)


async def test_model_encode_takes_a_text_of_exactly_the_limit(
    encoder: EncoderModel, mailbox: Mailbox
) -> None:
    encoded = await encoder.encode(["a " * (MAX_TOKENS - 2)], mailbox=mailbox)
    assert encoded.input_tokens == [MAX_TOKENS]


@pytest.mark.parametrize("bad", ["", " \n", "\ud800", "a\udfff"])
async def test_model_encode_refuses_what_is_no_text(
    encoder: EncoderModel, mailbox: Mailbox, bad: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await encoder.encode(["a", "b", bad], mailbox=mailbox)
    assert caught.value.field == "texts[2]"


async def test_model_encode_partial_answers_the_good_ones(
    encoder: EncoderModel, mailbox: Mailbox
) -> None:
    texts = [TOO_LONG, "a", "", "b c", "\ud800", "d"]
    encoded = await encoder.encode(texts, partial=True, mailbox=mailbox)
    assert encoded.kept == [1, 3, 5]
    np.testing.assert_array_equal(
        encoded.vectors, [vector(ids(text)) for text in ("a", "b c", "d")]
    )
    assert [(e.index, e.reason) for e in encoded.errors] == [
        (0, "INPUT_TOO_LONG"),
        (2, "INVALID_INPUT"),
        (4, "INVALID_INPUT"),
    ]
    assert encoded.input_tokens == [0, 3, 0, 4, 0, 3]


async def test_model_encode_partial_of_nothing_good_runs_nothing(
    encoder: EncoderModel, engine: Encoder, mailbox: Mailbox
) -> None:
    encoded = await encoder.encode(["", TOO_LONG], partial=True, mailbox=mailbox)
    assert encoded.vectors.shape == (0, 4)
    assert len(encoded.errors) == 2
    assert engine.calls == []


async def test_model_encode_cancelled_while_waiting_is_never_run(
    encoder: EncoderModel, engine: Encoder, mailbox: Mailbox
) -> None:
    first = await busy(encoder, engine, mailbox)
    dropped = asyncio.ensure_future(encoder.encode(["x y z"], mailbox=mailbox))
    kept = asyncio.ensure_future(encoder.encode(["d"], mailbox=mailbox))
    await settle()
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    engine.gate.set()
    await asyncio.wait_for(asyncio.gather(*first, kept), WAIT_S)
    np.testing.assert_array_equal(kept.result().vectors, [vector(ids("d"))])
    assert ids("x y z") not in engine.rows


async def test_model_encode_raises_the_deadline(
    encoder: EncoderModel, engine: Encoder, mailbox: Mailbox
) -> None:
    first = await busy(encoder, engine, mailbox)
    late = asyncio.ensure_future(
        encoder.encode(["x"], deadline=time.monotonic() + 0.01, mailbox=mailbox)
    )
    await asyncio.sleep(0.012)
    engine.gate.set()
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(late, WAIT_S)
    await asyncio.gather(*first)
    assert ids("x") not in engine.rows


async def test_model_encode_raises_the_failure_of_the_engine(
    encoder: EncoderModel, engine: Encoder, mailbox: Mailbox
) -> None:
    engine.failure = lambda rows: RuntimeError("secret") if ids("x") in rows else None
    with pytest.raises(EngineError, match="RuntimeError"):
        await asyncio.wait_for(encoder.encode(["x"], mailbox=mailbox), WAIT_S)
    assert len((await encoder.encode(["a"], mailbox=mailbox)).vectors) == 1


class CountingTokenizer(Tokenizer):
    """Notes how many texts it was given."""

    count = 0

    def encode_within(self, texts: Sequence[str], limit: int) -> tuple[list[IntArray], list[int]]:
        self.count += len(texts)
        return super().encode_within(texts, limit)


async def test_model_overload_costs_no_tokenization(
    engine: Encoder, permits: ComputePermits, pool: ComputePool, mailbox: Mailbox
) -> None:
    counting = CountingTokenizer(tokenizer()._backend)
    scheduler = EncodeScheduler(ENCODER, engine, permits, capacity=20)
    encoder = EncoderModel(manifest(ENCODER), counting, scheduler, pool)
    first = await busy(encoder, engine, mailbox)
    waiting = asyncio.ensure_future(encoder.encode(["a b c d e f g h"], mailbox=mailbox))
    await settle()
    before = counting.count
    assert before > 0
    with pytest.raises(QueueFull):
        await encoder.encode(["i j k l m n o p"] * 8, mailbox=mailbox)
    assert counting.count == before
    engine.gate.set()
    await asyncio.wait_for(asyncio.gather(*first, waiting), WAIT_S)
    await asyncio.to_thread(encoder.close)


async def test_model_bad_input_gives_its_room_back(encoder: EncoderModel, mailbox: Mailbox) -> None:
    for text in ("", TOO_LONG):
        with pytest.raises(InvalidInput):
            await encoder.encode([text], mailbox=mailbox)
    assert encoder._scheduler._reserved == 0


async def test_model_encode_many_at_once(
    engine: Encoder, permits: ComputePermits, pool: ComputePool, mailbox: Mailbox
) -> None:
    encoder = encoder_model(engine, permits, pool)
    requests = [[f"{a} {b}", b] for a in "abcdefghij" for b in "klmnopqrst"]
    first = await busy(encoder, engine, mailbox)
    waiting = asyncio.gather(*(encoder.encode(texts, mailbox=mailbox) for texts in requests))
    await settle()
    engine.gate.set()
    await asyncio.wait_for(asyncio.gather(*first), WAIT_S)
    answers = await asyncio.wait_for(waiting, WAIT_S)
    for texts, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer.vectors, [vector(ids(text)) for text in texts])
    assert len(engine.calls) < len(requests), "nothing was batched"
    await asyncio.to_thread(encoder.close)


async def test_model_encode_after_close(
    encoder: EncoderModel, engine: Encoder, mailbox: Mailbox
) -> None:
    await asyncio.to_thread(encoder.close)
    with pytest.raises(NotReady):
        await encoder.encode(["a"], mailbox=mailbox)


async def test_model_tokenize_shows_ids_and_pieces_whatever_the_length(
    encoder: EncoderModel,
) -> None:
    short, long = await encoder.tokenize(["a z", TOO_LONG])
    assert short.ids == tuple(ids("a z"))
    assert short.tokens == ("[CLS]", "a", "z", "[SEP]")
    assert len(long.ids) == MAX_TOKENS + 2
    with pytest.raises(InvalidInput):
        await encoder.tokenize(["a", "\ud800"])


def test_model_info_says_what_the_manifest_says(encoder: EncoderModel) -> None:
    info = encoder.info
    assert (info.name, info.kind, info.max_tokens, info.dimension) == (
        ENCODER,
        "encoder",
        MAX_TOKENS,
        4,
    )
    assert info.version == encoder.manifest.version
    assert info.size_bytes == 10
    assert info.tokenizer == "tokenizers (WordLevel)"


# -- kinds -----------------------------------------------------------------------------------


async def test_model_require_names_the_model_and_its_kind(
    encoder: EncoderModel, permits: ComputePermits, pool: ComputePool
) -> None:
    generator = generative_model(Generator(), permits, pool)
    assert models.require_encoder(encoder, "embed") is encoder
    assert models.require_generative(generator, "generate") is generator
    with pytest.raises(TaskNotSupported) as caught:
        models.require_encoder(generator, "embed")
    assert caught.value.message == f"embed needs an encoder; model {GENERATOR} is generative"
    assert caught.value.metadata == {"model": GENERATOR, "kind": "generative"}
    with pytest.raises(TaskNotSupported) as caught:
        models.require_generative(encoder, "generate")
    assert caught.value.message == (
        f"generate needs a generative model; model {ENCODER} is an encoder"
    )
    await asyncio.to_thread(generator.close)
