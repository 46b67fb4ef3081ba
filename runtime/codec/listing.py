"""Tokenize, and the lists of what is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import get_args

from sprat.codec.common import checked, checked_all, timings, timings_message
from sprat.codec.drift import drift, drift_message
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    BreakerState,
    CategoryThresholds,
    EndpointInfo,
    LogUse,
    ModelInfo,
    PrefixUse,
    TaskInfo,
    TierInfo,
    Tokenized,
    TokenizeResult,
)


def tokenize_request(model: str, texts: Sequence[str]) -> pb.TokenizeRequest:
    """A tokenize call as a message."""
    return pb.TokenizeRequest(model=checked(model, "model"), texts=checked_all(texts, "texts"))


def tokenize_response(result: TokenizeResult) -> pb.TokenizeResponse:
    """A `TokenizeResult` as a message."""
    return pb.TokenizeResponse(
        results=[pb.Tokens(ids=item.ids, pieces=item.tokens) for item in result.items],
        max_tokens=result.max_tokens,
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        timings=timings_message(result.timings),
    )


def tokenize_result(response: pb.TokenizeResponse) -> TokenizeResult:
    """A message as a `TokenizeResult`."""
    return TokenizeResult(
        items=tuple(Tokenized(tuple(t.ids), tuple(t.pieces)) for t in response.results),
        max_tokens=response.max_tokens,
        model=response.model.name,
        model_version=response.model.version,
        timings=timings(response.timings),
    )


def list_tasks_response(tasks: Iterable[TaskInfo]) -> pb.ListTasksResponse:
    """Tasks as a message."""
    return pb.ListTasksResponse(
        tasks=[
            pb.Task(
                name=t.name,
                kind=t.kind,
                labels=t.labels,
                models=[pb.ModelVersion(name=n, version=v) for n, v in t.models],
                calibrated=t.calibrated,
                accept_at=t.accept_at,
                version=t.version,
                thresholds=[
                    pb.CategoryThresholds(
                        category=each.category, flag_at=each.flag_at, block_at=each.block_at
                    )
                    for each in t.thresholds
                ],
                tiers=[
                    pb.Tier(
                        name=tier.name,
                        accept_at=tier.accept_at,
                        asked=tier.asked,
                        answered=tier.answered,
                        missed=tier.missed,
                        endpoint=_endpoint_message(tier.endpoint),
                    )
                    for tier in t.tiers
                ],
                unconfigured=t.unconfigured,
                log=None if t.log is None else pb.LogUse(written=t.log.written, lost=t.log.lost),
                drift=None if t.drift is None else drift_message(t.drift),
            )
            for t in tasks
        ]
    )


def task_infos(response: pb.ListTasksResponse) -> tuple[TaskInfo, ...]:
    """A message as values."""
    return tuple(
        TaskInfo(
            name=t.name,
            kind=t.kind,
            labels=tuple(t.labels),
            models=tuple((m.name, m.version) for m in t.models),
            calibrated=t.calibrated,
            accept_at=t.accept_at,
            version=t.version,
            thresholds=tuple(
                CategoryThresholds(
                    each.category,
                    each.flag_at,
                    each.block_at if each.HasField("block_at") else None,
                )
                for each in t.thresholds
            ),
            tiers=tuple(
                TierInfo(
                    tier.name,
                    tier.accept_at,
                    tier.asked,
                    tier.answered,
                    tier.missed,
                    _endpoint(tier),
                )
                for tier in t.tiers
            ),
            unconfigured=tuple(t.unconfigured),
            log=LogUse(t.log.written, t.log.lost) if t.HasField("log") else None,
            drift=drift(t.drift) if t.HasField("drift") else None,
        )
        for t in response.tasks
    )


def list_models_response(models: Iterable[ModelInfo]) -> pb.ListModelsResponse:
    """Models as a message."""
    return pb.ListModelsResponse(
        models=[
            pb.Model(
                name=m.name,
                kind=m.kind,
                engine=m.engine,
                version=m.version,
                architecture=m.architecture,
                quantization=m.quantization,
                tokenizer=m.tokenizer,
                max_tokens=m.max_tokens,
                dimension=m.dimension,
                licence=m.licence,
                size_bytes=m.size_bytes,
                prefix_use=_prefix_use_message(m.prefix_use),
            )
            for m in models
        ]
    )


def model_infos(response: pb.ListModelsResponse) -> tuple[ModelInfo, ...]:
    """A message as values."""
    return tuple(
        ModelInfo(
            name=m.name,
            kind="encoder" if m.kind == "encoder" else "generative",
            engine=m.engine,
            version=m.version,
            architecture=m.architecture,
            quantization=m.quantization,
            tokenizer=m.tokenizer,
            max_tokens=m.max_tokens,
            dimension=m.dimension,
            licence=m.licence,
            size_bytes=m.size_bytes,
            prefix_use=_prefix_use(m),
        )
        for m in response.models
    )


_STATES: tuple[BreakerState, ...] = get_args(BreakerState)


def _endpoint_message(info: EndpointInfo | None) -> pb.Endpoint | None:
    return None if info is None else pb.Endpoint(**asdict(info))


def _endpoint(tier: pb.Tier) -> EndpointInfo | None:
    if not tier.HasField("endpoint"):
        return None
    info = tier.endpoint
    # Of a newer server there may be another.
    state: BreakerState = next((each for each in _STATES if each == info.state), "open")
    return EndpointInfo(info.name, state, info.requests_today, info.tokens_today, info.spent_today)


def _prefix_use_message(use: PrefixUse | None) -> pb.PrefixUse | None:
    if use is None:
        return None
    return pb.PrefixUse(requests=use.requests, hits=use.hits, saved_tokens=use.saved_tokens)


def _prefix_use(model: pb.Model) -> PrefixUse | None:
    if not model.HasField("prefix_use"):
        return None
    use = model.prefix_use
    return PrefixUse(use.requests, use.hits, use.saved_tokens)
