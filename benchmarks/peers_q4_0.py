"""`sprat.benchmarks.peers` with weights of four bits."""

from __future__ import annotations

from sprat.benchmarks.harness import Context, Outcome
from sprat.benchmarks.peers import play_all


def run(context: Context) -> Outcome:
    """All matches on Q4_0, made of the published file."""
    return play_all(context, "Q4_0")
