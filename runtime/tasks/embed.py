"""Embed: texts to L2-normalized sentence vectors."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from sprat.model import EmbeddingModel
from sprat.scheduler import Mailbox
from sprat.values import EmbedResult, Timings, Truncation


async def run(
    model: EmbeddingModel,
    texts: Sequence[str],
    *,
    truncation: Truncation = "refuse",
    partial: bool = False,
    deadline: float = math.inf,
    mailbox: Mailbox,
) -> EmbedResult:
    """Embed texts. See `sprat.model.EncoderModel.encode` for parameters and errors."""
    started = time.perf_counter_ns()
    encoded = await model.encode(
        texts, truncation=truncation, partial=partial, deadline=deadline, mailbox=mailbox
    )
    vectors = encoded.vectors
    if len(encoded.kept) < len(texts):
        vectors = np.full((len(texts), model.info.dimension), np.nan, np.float32)
        vectors[encoded.kept] = encoded.vectors
    return EmbedResult(
        vectors=vectors,
        input_tokens=np.array(encoded.input_tokens, np.int32),
        dropped_tokens=np.array(encoded.dropped_tokens, np.int32),
        errors=encoded.errors,
        model=model.info.name,
        model_version=model.info.version,
        timings=Timings(
            encoded.tokenize_ns,
            encoded.queue_ns,
            encoded.infer_ns,
            time.perf_counter_ns() - started,
        ),
    )
