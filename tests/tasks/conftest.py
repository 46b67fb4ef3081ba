"""What tasks stand on: permits, threads, a loop, and an encoder that tests can hold up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from doubles import Encoder, encoder_model

from sprat.budget import ComputePermits
from sprat.model import EncoderModel
from sprat.scheduler import ComputePool, Mailbox


@pytest.fixture
def permits() -> ComputePermits:
    return ComputePermits(2)


@pytest.fixture
def pool(permits: ComputePermits) -> ComputePool:
    return ComputePool(permits)


@pytest.fixture
async def encoder(pool: ComputePool) -> AsyncIterator[EncoderModel]:
    # Permits of its own: a language model that a test holds in a step keeps all of them.
    made = encoder_model(Encoder(), ComputePermits(1), pool)
    yield made
    await asyncio.to_thread(made.close)
    pool.close()


@pytest.fixture
async def mailbox() -> Mailbox:
    return Mailbox(asyncio.get_running_loop())
