"""How far traffic has drifted, as a page: the figures, and where rows lie now and lay before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from sprat.drift import COLUMNS, VERDICTS, Counts, cells
from sprat.train.page_parts import document, section, table
from sprat.tuning_manifest import TierTraffic, Traffic
from sprat.values import Drift

MOST_LABELS = 30

_FIGURES = (
    "PSI is the population stability index; what few rows add to it by chance stands beside it and "
    "is taken off before it counts. From 0.1 on a figure is to be watched, from 0.25 on it has "
    "drifted, if chance is no explanation."
)
_BINS = "Share of the rows that reached the tier, by confidence."
_LABELS = "Shares of the answers; those that moved most."


def drift_page(
    drift: Drift,
    *,
    title: str,
    facts: Mapping[str, str],
    counted: tuple[Traffic, Counts] | None = None,
) -> str:
    """The page, without a text of any row.

    Parameters
    ----------
    facts : mapping of str to str
        Where the figures come from.
    counted : (Traffic, Counts), optional
        What was compared with what; absent: nothing but the figures is known.
    """
    verdict = VERDICTS[drift.verdict] + (f": {drift.note}" if drift.note else "")
    rows = [cells(each) for each in drift.figures]
    parts = [section("Figures", _FIGURES, table(COLUMNS, rows, right=(1, 2, 4, 5, 6, 7)))]
    if counted is not None:
        traffic, counts = counted
        parts += [
            section(f"Confidence of {tier.name}", _BINS, _bins(tier, bins))
            for tier, bins in zip(traffic.tiers, counts.bins, strict=True)
        ]
        if traffic.labels:
            parts.append(section("Labels", _LABELS, _labels(traffic, counts)))
    return document(parts, title=f"{title}: drift", facts={"Verdict": verdict, **facts})


def _bins(tier: TierTraffic, bins: Sequence[int]) -> str:
    ends = (0.0, *tier.edges, 1.0)
    rows = [
        (f"{low:.4f} to {high:.4f}", *_shares(before, tier.rows, now, sum(bins)))
        for (low, high), before, now in zip(pairwise(ends), tier.counts, bins, strict=True)
    ]
    return table(("confidence", "reference", "now", "difference"), rows, right=(1, 2, 3))


def _labels(traffic: Traffic, counts: Counts) -> str:
    before, now = sum(traffic.labels.values()), counts.labels.total()
    moved = sorted(
        {*traffic.labels, *counts.labels},
        key=lambda name: (
            -abs(counts.labels[name] / max(1, now) - traffic.labels.get(name, 0) / max(1, before))
        ),
    )
    rows = [
        (name or "(none)", *_shares(traffic.labels.get(name, 0), before, counts.labels[name], now))
        for name in moved[:MOST_LABELS]
    ]
    return table(("label", "reference", "now", "difference"), rows, right=(1, 2, 3))


def _shares(before: int, of: int, now: int, of_now: int) -> tuple[str, str, str]:
    first, second = before / max(1, of), now / max(1, of_now)
    return f"{first:.1%}", f"{second:.1%}", f"{100 * (second - first):+.1f} points"
