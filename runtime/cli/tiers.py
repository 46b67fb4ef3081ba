"""What commands have in common about tiers: how far a request may go, and who answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from sprat.errors import InvalidInput
from sprat.values import Chunk, Classification, Effort, Extraction, Moderation

Answer = Classification | Moderation | Extraction | Chunk

MaxTier = Annotated[
    int | None,
    typer.Option(
        "--max-tier",
        min=0,
        help="The last tier of a cascade that may answer, from 0, the cheapest.",
    ),
]
AcceptAt = Annotated[
    float | None,
    typer.Option(
        "--accept-at",
        min=0,
        max=1,
        help="Least confidence of an answer, instead of the thresholds of the task.",
    ),
]
BudgetMs = Annotated[
    float | None,
    typer.Option(
        "--budget-ms",
        help="Milliseconds within which the answer is wanted: further tiers of a cascade are asked "
        "only if they can answer in time.",
    ),
]


def refuse(effort: Effort, option: str) -> None:
    """Refuse an effort beside an option that asks a generative model.

    Raises
    ------
    InvalidInput
        When there is one.
    """
    if effort != Effort():
        raise InvalidInput(
            f"--max-tier, --accept-at, --budget-ms: expected none beside {option}", field="effort"
        )


def with_tiers(
    columns: list[str], rows: list[tuple[object, ...]], items: Sequence[Answer]
) -> tuple[list[str], list[tuple[object, ...]]]:
    """The same table, with a column that says which tier answered where there is a cascade.

    Parameters
    ----------
    items : sequence of Classification, Moderation or Extraction
        What each row is about.
    """
    if not any(item.tiers for item in items):
        return columns, rows
    cells = [f"{item.tier}{f' ({item.degraded})' if item.degraded else ''}" for item in items]
    return [*columns, "tier"], [(*row, cell) for row, cell in zip(rows, cells, strict=True)]


def with_confidence(
    columns: list[str], rows: list[tuple[object, ...]], items: Sequence[Answer]
) -> tuple[list[str], list[tuple[object, ...]]]:
    """The same table, with the confidence in whole answers where there is one, and `with_tiers`."""
    if any(item.confidence is not None for item in items):
        sure = ["" if item.confidence is None else item.confidence for item in items]
        columns = [*columns, "confidence"]
        rows = [(*row, cell) for row, cell in zip(rows, sure, strict=True)]
    return with_tiers(columns, rows, items)
