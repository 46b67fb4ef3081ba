"""Begin a bundle whose tiers all ask: that of a transform task."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sprat
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Transform
from sprat.errors import InvalidInput
from sprat.store import Store
from sprat.train.add_tier import resolve
from sprat.train.asked_rewritings import inputs_of, question
from sprat.train.rewriting_record import RewritingRecord


def begin_transform(
    store: Store,
    name: str,
    *,
    model: str,
    adapter: str | None = None,
    right_at: float = 1.0,
    **asks: Any,
) -> tuple[Bundle, RewritingRecord]:
    """A bundle without a tier yet, for `sprat.train.add_tier.add_tier` to put the first one into.

    The inputs and the grammar of its task are those of what the first tier is asked: every further
    one has to have them.

    Parameters
    ----------
    name : str
        Of the bundle.
    model, adapter, **asks
        As of the first tier: see `sprat.train.add_tier.language` and
        `sprat.train.asked_rewritings.question`.
    right_at : float
        Least edit similarity of an answer that counts as right, in (0, 1]; 1: an exact match.

    Raises
    ------
    NotFound, StaleAdapter
        See `sprat.train.add_tier.language`.
    InvalidInput
        There, too; or ``right_at`` is out of range.
    """
    if not 0 < right_at <= 1:
        raise InvalidInput(
            f"right_at: expected above 0 and at most 1, got {right_at:g}", field="right_at"
        )
    _, ref, trained = resolve(store, model, adapter)
    spec = question((), trained, adapter=ref, **asks)
    manifest = BundleManifest.model_construct(
        name=name,
        kind="transform",
        labels=(),
        tiers=(),
        transform=Transform(inputs=inputs_of(spec.prompt), grammar=spec.grammar, right_at=right_at),
        train_rows=1,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        made_by=f"sprat {sprat.__version__}",
        files=(),
    )
    return Bundle(manifest), RewritingRecord(tiers={})
