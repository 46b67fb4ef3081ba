"""How good extracted values are: field by field, as wholes, and whether they stand in the text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import ReportSummary
from sprat.manifest import Interval
from sprat.text.leaves import leaves, pointer, read
from sprat.train import metrics
from sprat.train.compare import RIGHT, Findings
from sprat.train.evaluate_whole import WholeReport
from sprat.values import Extraction

MOST_LISTED = 20
"""Lines of wrong values in a report; the counts cover all."""

Leaves = Counter[tuple[str, str]]
"""Places and what stands there, as JSON; items of an array stand at ``-``, in any order."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldReport(_Part):
    """How one field fares.

    Attributes
    ----------
    field : str
        JSON Pointer, with ``-`` for any item of an array.
    precision, recall, f1 : float
        In [0, 1]; 0 where nothing was found or nothing was there.
    support, predicted : int
        How often it was there; how often it was found.
    """

    field: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class ExtractReport(_Part):
    """An evaluation, without any text of the rows.

    Attributes
    ----------
    n : int
        Rows.
    incomplete : int
        Values that did not come to an end.
    abstained : int
        Values that were withheld: a string in them does not stand in the text.
    strings, grounded : int
        Strings in the values that were not withheld, and how many of them stand in the text.
    metrics : dict of str to Interval
        All in [0, 1], with 95 % bootstrap intervals over the rows. ``micro_f1``, ``precision`` and
        ``recall`` count fields that say exactly what they should; ``exact_match`` whole values.
    fields : tuple of FieldReport
        Sorted by field.
    wrong_lines : tuple of int
        Rows whose value is not right, at most 20.
    whole : WholeReport or None
        Of the confidences in whole values; None where there are none, as of an adapter. Its
        ``ece`` is among the metrics.
    """

    n: int
    incomplete: int
    abstained: int
    strings: int
    grounded: int
    metrics: dict[str, Interval]
    fields: tuple[FieldReport, ...]
    wrong_lines: tuple[int, ...]
    whole: WholeReport | None = None

    def summary(self) -> ReportSummary:
        """The figures with their intervals."""
        return ReportSummary(n=self.n, metrics=self.metrics)


def evaluate_extract(
    found: Sequence[Extraction | None],
    wanted: Sequence[str],
    *,
    lines: Sequence[int],
    needs_value: bool = False,
    seed: int = 0,
) -> ExtractReport:
    """Compare values with those that were wanted.

    Parameters
    ----------
    found : sequence of Extraction or None
        One for each row; None counts as nothing found.
    wanted : sequence of str
        JSON of each row.
    lines : sequence of int
        Line of each row in its file.
    needs_value : bool
        Whether an answer without a value is wrong even where nothing is wanted: a tier that is not
        sure has not said that nothing is there.
    seed : int
        Of the resampling; at least 0.
    """
    given = ["" if each is None else each.json for each in found]
    findings = value_findings(given, wanted, needs_value=needs_value)
    right_n = np.array([each == RIGHT for each in findings.shown], np.bool_)
    strings = [
        field
        for each in found
        if each is not None and each.json
        for field, (_, leaf) in zip(each.fields, leaves(read(each.json)), strict=True)
        if isinstance(leaf.value, str)
    ]
    return ExtractReport(
        n=len(found),
        incomplete=sum(each is None or not each.complete for each in found),
        abstained=sum(each is not None and each.abstained for each in found),
        strings=len(strings),
        grounded=sum(field.grounded for field in strings),
        metrics=extract_figures(findings, right_n, seed=seed),
        fields=field_reports(findings),
        wrong_lines=wrong_lines(right_n, lines),
    )


def extract_figures(
    findings: Findings, right_n: npt.NDArray[np.bool_], *, seed: int
) -> dict[str, Interval]:
    """``micro_f1``, ``precision``, ``recall`` and ``exact_match``; see `ExtractReport`.

    Parameters
    ----------
    right_n : bool[N]
        Which answers are right as a whole.
    """
    counts_n3 = findings.counts.sum(axis=1).astype(np.float64)

    def figures_of(picks_rn: metrics.Picks) -> dict[str, metrics.Floats]:
        return {
            **_rates(counts_n3[picks_rn].sum(axis=1).T),
            "exact_match": right_n[picks_rn].mean(axis=1),
        }

    return metrics.intervals(figures_of, (len(right_n),), np.random.default_rng(seed))


def field_reports(findings: Findings) -> tuple[FieldReport, ...]:
    """How each field fares, in the order of the findings."""
    sums_k3 = findings.counts.sum(axis=0)
    rates = _rates(sums_k3.T.astype(np.float64))
    return tuple(
        FieldReport(
            field=name,
            precision=float(rates["precision"][at]),
            recall=float(rates["recall"][at]),
            f1=float(rates["micro_f1"][at]),
            support=int(sums_k3[at, 2]),
            predicted=int(sums_k3[at, 1]),
        )
        for at, name in enumerate(findings.names)
    )


def wrong_lines(right_n: npt.NDArray[np.bool_], lines: Sequence[int]) -> tuple[int, ...]:
    """The first lines that are not right, `MOST_LISTED` of them."""
    return tuple(lines[row] for row in np.flatnonzero(~right_n)[:MOST_LISTED])


def value_findings(
    found: Sequence[str], wanted: Sequence[str], *, needs_value: bool = False
) -> Findings:
    """What was found, to be compared with what another one finds.

    Parameters
    ----------
    found, wanted : sequence of str
        JSON of each row; empty where there is no value. The fields are those that occur in either.
        A row is shown as `sprat.train.compare.RIGHT`, or by the fields of which something is wrong.
    needs_value : bool
        As in `evaluate_extract`.
    """
    pairs = list(zip(map(_leaves, found), map(_leaves, wanted), strict=True))
    names = sorted({field for pair in pairs for each in pair for field, _ in each})
    column = {field: index for index, field in enumerate(names)}
    counts = np.zeros((len(pairs), len(names), 3), np.int64)
    shown = []
    for row, (one, other) in enumerate(pairs):
        for kind, each in enumerate((one & other, one, other)):
            for (field, _), count in each.items():
                counts[row, column[field], kind] += count
        wrong = sorted({field for field, _ in (one - other) + (other - one)})
        missing = "no value" if needs_value and not found[row] else ""
        shown.append(f"wrong: {', '.join(wrong) or missing}" if wrong or missing else RIGHT)
    return Findings(tuple(names), tuple(shown), counts)


def _leaves(source: str) -> Leaves:
    if not source:
        return Counter()
    return Counter(
        (
            pointer(tuple("-" if isinstance(step, int) else step for step in path)),
            json.dumps(leaf.value, ensure_ascii=False),
        )
        for path, leaf in leaves(read(source))
    )


def _rates(counts_3: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """Precision, recall and F1 from hits, what was found and what was there."""
    hits, predicted, support = counts_3
    return {
        "micro_f1": 2 * hits / np.maximum(predicted + support, 1),
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
    }
