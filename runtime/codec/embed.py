"""Embed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.codec.common import (
    checked,
    checked_all,
    item_error_messages,
    item_errors,
    timings,
    timings_message,
    truncation_number,
)
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import EmbedResult, Truncation


def embed_request(
    model: str, texts: Sequence[str], policy: Truncation, partial: bool
) -> pb.EmbedRequest:
    """An embed call as a message."""
    return pb.EmbedRequest(
        model=checked(model, "model"),
        texts=checked_all(texts, "texts"),
        truncation=truncation_number(policy),
        partial_results=partial,
    )


def embed_response(result: EmbedResult) -> pb.EmbedResponse:
    """An `EmbedResult` as a message; vectors as little-endian float32."""
    return pb.EmbedResponse(
        vectors=np.ascontiguousarray(result.vectors, "<f4").tobytes(),
        dimension=result.vectors.shape[1],
        input_tokens=result.input_tokens.tolist(),
        dropped_tokens=result.dropped_tokens.tolist(),
        errors=item_error_messages(result.errors),
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        timings=timings_message(result.timings),
    )


def embed_result(response: pb.EmbedResponse) -> EmbedResult:
    """A message as an `EmbedResult`."""
    vectors = np.frombuffer(response.vectors, "<f4").reshape(-1, response.dimension)
    return EmbedResult(
        vectors=vectors.astype(np.float32, copy=False),
        input_tokens=np.array(response.input_tokens, np.int32),
        dropped_tokens=np.array(response.dropped_tokens, np.int32),
        errors=item_errors(response.errors),
        model=response.model.name,
        model_version=response.model.version,
        timings=timings(response.timings),
    )
