"""Embed: vectors in the order of the texts, and honest gaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from doubles import ENCODER, Encoder, encoder_model, ids, vector

from sprat.budget import ComputePermits
from sprat.errors import InvalidInput
from sprat.model import EncoderModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks import embed


@pytest.fixture
async def model() -> AsyncIterator[EncoderModel]:
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    made = encoder_model(Encoder(), permits, pool)
    yield made
    await asyncio.to_thread(made.close)
    pool.close()


async def test_embed_gives_one_vector_a_text_in_order(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    texts = ["a b c d", "e", "f g", "e"]
    result = await embed.run(model, texts, mailbox=mailbox)
    np.testing.assert_array_equal(result.vectors, [vector(ids(text)) for text in texts])
    assert result.vectors.dtype == np.float32
    assert result.input_tokens.tolist() == [6, 3, 4, 3]
    assert result.input_tokens.dtype == np.int32
    assert result.dropped_tokens.tolist() == [0, 0, 0, 0]
    assert (result.model, result.model_version) == (ENCODER, model.info.version)
    assert result.errors == ()
    assert result.timings.total_ns >= result.timings.infer_ns > 0


async def test_embed_partial_leaves_rows_of_nan(model: EncoderModel, mailbox: Mailbox) -> None:
    with pytest.raises(InvalidInput):
        await embed.run(model, ["a", ""], mailbox=mailbox)
    result = await embed.run(model, ["", "a", "z " * 99, "b"], partial=True, mailbox=mailbox)
    assert np.isnan(result.vectors).all(axis=1).tolist() == [True, False, True, False]
    np.testing.assert_array_equal(result.vectors[[1, 3]], [vector(ids("a")), vector(ids("b"))])
    assert [error.index for error in result.errors] == [0, 2]
    assert result.input_tokens.tolist() == [0, 3, 0, 3]


async def test_embed_partial_of_nothing_good(model: EncoderModel, mailbox: Mailbox) -> None:
    result = await embed.run(model, ["", " "], partial=True, mailbox=mailbox)
    assert result.vectors.shape == (2, 4)
    assert np.isnan(result.vectors).all()


async def test_embed_truncation_is_reported(model: EncoderModel, mailbox: Mailbox) -> None:
    result = await embed.run(model, ["a " * 20, "b"], truncation="truncate", mailbox=mailbox)
    assert result.input_tokens.tolist() == [16, 3]
    assert result.dropped_tokens.tolist() == [6, 0]
