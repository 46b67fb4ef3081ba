"""Tiers without weights, opened to be asked by the very code that serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sprat.bundle_manifest import BundleManifest
from sprat.config import Config, ModelConfig
from sprat.endpoints.base import Endpoint
from sprat.errors import InvalidInput
from sprat.scheduler import LoopThread, Mailbox
from sprat.service import Service
from sprat.store import Store
from sprat.tasks import bundled
from sprat.tasks.tier import AnyTier, Part
from sprat.train.asked import Ask, OpenTier, Result
from sprat.train.asked_kinds import asked_kind


def tier_opener(
    store: Store,
    open_endpoint: Callable[[], Endpoint] | None = None,
    *,
    is_fitted: bool = False,
) -> OpenTier:
    """What asks language models of a store, and an endpoint.

    Parameters
    ----------
    open_endpoint : callable, optional
        Makes it; it is closed after the last question. Absent: remote tiers are refused.
    is_fitted : bool
        Open tiers as they are, and not as `AskedKind.unfitted` has them.
    """

    @contextmanager
    def open_tier(bundle: BundleManifest, place: int) -> Iterator[Ask]:
        kind = asked_kind(bundle)
        tier = bundle.tiers[place]
        if not is_fitted:
            tier = kind.unfitted(tier)
        # Where a router sends texts is no matter.
        alone = bundle.model_copy(update={"tiers": (tier,), "tuning": None, "route": None})
        opened = _on_endpoint if tier.remote is not None else _on_model
        loop = LoopThread()
        try:
            with opened(loop, alone) as answering:
                task = bundled.bundled_task(bundle.name, alone, [Part(0, answering, 0.0)])

                async def call(rows: Any) -> Result:
                    return await kind.call(task, rows, Mailbox(asyncio.get_running_loop()))

                yield lambda rows: loop.run(call(rows))
        finally:
            loop.close()

    @contextmanager
    def _on_model(loop: LoopThread, alone: BundleManifest) -> Iterator[AnyTier]:
        (tier,) = alone.tiers
        model = ModelConfig(adapters=tuple(ref.name for ref in alone.adapters))
        service = loop.run(Service.open(Config(models={tier.model.name: model}), store))
        try:
            yield bundled.language_tier(alone, 0, service.registry.model(tier.model.name))
        finally:
            loop.run(service.close())

    @contextmanager
    def _on_endpoint(loop: LoopThread, alone: BundleManifest) -> Iterator[AnyTier]:
        if open_endpoint is None:
            raise InvalidInput(
                f"{alone.name}: expected --endpoint for tier remote, or another --tier",
                field="endpoint",
            )
        endpoint = open_endpoint()
        try:
            yield bundled.remote_tier(alone, 0, endpoint)
        finally:
            loop.run(endpoint.aclose())

    return open_tier
