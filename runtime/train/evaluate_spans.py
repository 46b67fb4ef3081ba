"""How good a tagger is on rows that it has not seen: exact spans, by field, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import ReportSummary
from sprat.tagger import Span, Tagger
from sprat.train.compare import Findings
from sprat.train.evaluate_whole import WHOLE_ECE, WholeReport, evaluate_whole
from sprat.train.metrics import RESAMPLES, calibration_error, reliability, weights
from sprat.train.report import Figures, ReliabilityBin
from sprat.train.spans import GoldSpan, SpanDataset

METRICS = ("micro_f1", "precision", "recall", "whole_rows", "ece")

_Floats = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]


class FieldReport(BaseModel):
    """How one field fares.

    Attributes
    ----------
    precision, recall, f1 : float
        In [0, 1]; 0 where nothing was found or nothing was there.
    support, predicted : int
        Spans of the field that the rows have; that were found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class SpanReport(Figures):
    """An evaluation; plain JSON through ``model_dump(mode="json")``, without any text of the rows.

    A span counts as found where field, start and end are right, to the character.

    Attributes
    ----------
    n : int
        Rows.
    spans, predicted, right : int
        Spans that the rows have; that were found; that were found and are right.
    micro_f1, precision, recall : float
        Over all spans; 0 where there are none.
    whole_rows : float
        Share of rows of which everything was found and nothing else.
    ece : float
        Expected calibration error of the confidence of found spans, in [0, 1], over 15 bins with
        equal numbers of them; 0 where none was found.
    ece_noise : float
        What ``ece`` would be, on average, if the confidences were perfect.
    intervals : dict of str to (float, float)
        95 % bootstrap interval of each of the five.
    fields : tuple of FieldReport
        In the order of the bundle; ``support`` and ``predicted`` count spans.
    misplaced : int
        Found spans of the right field that overlap a span of it without being the same.
    misnamed : int
        Found spans at the right place under another field.
    reliability : tuple of ReliabilityBin
        The bins of ``ece``, from the least confident spans to the most.
    whole : WholeReport or None
        Of the confidence that everything was found and nothing else, where there is one.
    """

    spans: int
    predicted: int
    right: int
    micro_f1: float
    precision: float
    recall: float
    whole_rows: float
    ece: float
    ece_noise: float
    fields: tuple[FieldReport, ...]
    misplaced: int
    misnamed: int
    reliability: tuple[ReliabilityBin, ...]
    whole: WholeReport | None = None

    def summary(self) -> ReportSummary:
        """What a bundle's manifest says of the evaluation."""
        own = super().summary()
        if self.whole is None:
            return own
        return ReportSummary(n=own.n, metrics={**own.metrics, WHOLE_ECE: self.whole.ece})


def evaluate_spans(
    found: Sequence[Sequence[Span]],
    data: SpanDataset,
    tagger: Tagger,
    *,
    confidence_n: _Floats | None = None,
    seed: int = 0,
) -> SpanReport:
    """Compare the spans that were found with those that the rows have.

    Intervals run from the 2.5th to the 97.5th percentile over 1,000 resamples of the rows with
    replacement (Efron, 1979). That of the calibration error is shifted so that its mean is the
    figure, as `sprat.train.evaluate.evaluate` does.

    Parameters
    ----------
    found : sequence of sequence of Span
        Per row.
    tagger : Tagger
        What found them: its fields and its confidences.
    confidence_n : float64[N], optional
        That all spans of a row are found and nothing else, in [0, 1], where that is calibrated.
    seed : int
        Of the resampling, at least 0.
    """
    rng = np.random.default_rng(seed)
    matched = _matched(found, data)
    counts = np.array(
        [
            (sum(hits), len(hits), len(gold), all(hits) and len(hits) == len(gold))
            for hits, gold in zip(matched, data.spans, strict=True)
        ],
        np.int64,
    )
    gaps = [
        np.array([tagger.confidence(span.score) - hit for span, hit in zip(*row, strict=True)])
        for row in zip(found, matched, strict=True)
    ]
    confidence = np.array([tagger.confidence(span.score) for spans in found for span in spans])
    right = np.array([hit for hits in matched for hit in hits], np.bool_)
    order = np.argsort(confidence, kind="stable")
    figures = _statistics(counts.sum(axis=0)[None], len(counts))[0]
    ece = _ece(confidence, np.concatenate(gaps))
    resamples, eces = _bootstrap(counts, confidence, gaps, rng)
    eces = np.maximum(eces + ece - eces.mean(), 0)
    bounds = np.percentile(np.column_stack([resamples, eces]), [2.5, 97.5], axis=0).T
    noise = [
        _ece(confidence, confidence - (rng.random(len(confidence)) < confidence))
        for _ in range(RESAMPLES)
    ]
    return SpanReport(
        n=len(counts),
        spans=int(counts[:, 2].sum()),
        predicted=len(confidence),
        right=int(counts[:, 0].sum()),
        **dict(zip(METRICS, [*figures.tolist(), ece], strict=True)),
        ece_noise=float(np.mean(noise)),
        intervals={m: (low, high) for m, (low, high) in zip(METRICS, bounds.tolist(), strict=True)},
        fields=_per_field(found, matched, data, tagger.fields),
        misplaced=sum(map(_misplaced, found, data.spans)),
        misnamed=sum(map(_misnamed, found, data.spans)),
        reliability=reliability(confidence[order], right[order]),
        whole=None
        if confidence_n is None
        else evaluate_whole(confidence_n, counts[:, 3].astype(np.bool_), seed=seed),
    )


def span_findings(
    found: Sequence[Sequence[Span] | None], data: SpanDataset, fields: Sequence[str]
) -> Findings:
    """What a tagger finds, to be compared with what another one does.

    Parameters
    ----------
    found : sequence of (sequence of Span) or None
        Per row; None where there is no answer, which is never right.
    fields : sequence of str
        K fields that the tagger knows; the rows have no others.
    """
    counts = np.zeros((len(data), len(fields), 3), np.int64)
    column = {field: index for index, field in enumerate(fields)}
    given = [each or () for each in found]
    for row, (spans, hits, gold) in enumerate(
        zip(given, _matched(given, data), data.spans, strict=True)
    ):
        for span, hit in zip(spans, hits, strict=True):
            counts[row, column[span.field], :2] += (hit, 1)
        for true in gold:
            counts[row, column[true.field], 2] += 1
    shown = ("(no answer)" if each is None else shown_spans(each) for each in found)
    return Findings(tuple(fields), tuple(shown), counts)


def shown_spans(spans: Sequence[Span] | Sequence[GoldSpan]) -> str:
    """The spans of a text as one name for people: fields and characters."""
    found = sorted((span.start, span.end, span.field) for span in spans)
    return ", ".join(f"{field} {start}-{end}" for start, end, field in found) or "(nothing)"


def _matched(found: Sequence[Sequence[Span]], data: SpanDataset) -> list[list[bool]]:
    """Whether each span that was found is one that its row has."""
    return [
        [GoldSpan(span.start, span.end, span.field) in gold for span in spans]
        for spans, gold in zip(found, data.spans, strict=True)
    ]


def _statistics(sums_r4: _Counts, rows: int) -> _Floats:
    """All of `METRICS` but the last, from sums of right, predicted, true spans and whole rows."""
    right, predicted, true, whole = sums_r4.T
    return np.column_stack(
        [
            2 * right / np.maximum(predicted + true, 1),
            right / np.maximum(predicted, 1),
            right / np.maximum(true, 1),
            whole / rows,
        ]
    )


def _bootstrap(
    counts: _Counts, confidence: _Floats, gaps: Sequence[_Floats], rng: np.random.Generator
) -> tuple[_Floats, _Floats]:
    """`_statistics` and calibration error of every resample."""
    n = len(counts)
    row_of_span = np.repeat(np.arange(n), [len(gap) for gap in gaps])
    gap = np.concatenate(gaps)
    order = np.argsort(confidence, kind="stable")
    row_of_span, gap = row_of_span[order], gap[order]
    statistics, eces = [], []
    for weights_rn in weights(n, rng):
        statistics.append(_statistics(weights_rn @ counts, n))
        eces += [_ordered_ece(np.repeat(gap, weight[row_of_span])) for weight in weights_rn]
    return np.concatenate(statistics), np.array(eces)


def _ece(confidence: _Floats, gap: _Floats) -> float:
    """Calibration error, from confidence minus right (0 or 1) of each span."""
    return _ordered_ece(gap[np.argsort(confidence, kind="stable")])


def _ordered_ece(gap: _Floats) -> float:
    return float(calibration_error(gap[None])[0]) if len(gap) else 0.0


def _per_field(
    found: Sequence[Sequence[Span]],
    matched: Sequence[Sequence[bool]],
    data: SpanDataset,
    fields: Sequence[str],
) -> tuple[FieldReport, ...]:
    support = Counter(span.field for spans in data.spans for span in spans)
    predicted = Counter(span.field for spans in found for span in spans)
    right = Counter(
        span.field
        for spans, hits in zip(found, matched, strict=True)
        for span, hit in zip(spans, hits, strict=True)
        if hit
    )
    return tuple(
        FieldReport(
            label=field,
            precision=right[field] / max(1, predicted[field]),
            recall=right[field] / max(1, support[field]),
            f1=2 * right[field] / max(1, support[field] + predicted[field]),
            support=support[field],
            predicted=predicted[field],
        )
        for field in fields
    )


def _misplaced(found: Sequence[Span], gold: Sequence[GoldSpan]) -> int:
    return sum(
        any(
            span.field == true.field
            and span.start < true.end
            and true.start < span.end
            and (span.start, span.end) != (true.start, true.end)
            for true in gold
        )
        for span in found
    )


def _misnamed(found: Sequence[Span], gold: Sequence[GoldSpan]) -> int:
    places = {(true.start, true.end): true.field for true in gold}
    return sum(places.get((s.start, s.end), s.field) != s.field for s in found)
