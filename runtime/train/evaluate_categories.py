"""How good a moderator is on rows that it has not seen: each category, and all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import ReportSummary
from sprat.manifest import Interval
from sprat.train.categories import shown_categories
from sprat.train.compare import Findings
from sprat.train.evaluate_whole import WHOLE_ECE, WholeReport, evaluate_whole
from sprat.train.metrics import (
    Picks,
    bootstrap,
    bounds,
    calibration_error,
    calibration_noise,
    reliability,
    thinned,
)
from sprat.train.report import ReliabilityBin, ThresholdPoint

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]

_COUNTS = ("hits", "found", "there")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CategoryReport(_Part):
    """How one category fares; each figure with a 95 % bootstrap interval.

    Attributes
    ----------
    flag_at : float
        Least probability of a text that counts as found.
    support, flagged : int
        Rows that belong to the category; rows that were found.
    precision, recall, f1 : Interval
        In [0, 1]; 0 where nothing was found or nothing was there.
    average_precision : Interval
        Area under precision over recall, from the probabilities alone; 0 without such rows.
    ece : Interval
        Expected calibration error of the probabilities, in [0, 1].
    ece_noise : float
        What it would be, on average, if the probabilities were perfect.
    reliability : tuple of ReliabilityBin
        The bins of ``ece``, from the least probable rows to the most; ``accuracy`` is the share of
        a bin that belongs to the category.
    by_threshold : tuple of ThresholdPoint
        What other thresholds would do, from the highest to the lowest; at most 100.
    """

    category: str
    flag_at: float
    support: int
    flagged: int
    precision: Interval
    recall: Interval
    f1: Interval
    average_precision: Interval
    ece: Interval
    ece_noise: float
    reliability: tuple[ReliabilityBin, ...]
    by_threshold: tuple[ThresholdPoint, ...]


class ModerationReport(_Part):
    """An evaluation; plain JSON through ``model_dump(mode="json")``, without any text of the rows.

    Attributes
    ----------
    n : int
        Rows.
    clean : int
        Rows without a category.
    micro_f1 : Interval
        F1 over all pairs of a row and a category.
    macro_f1, mean_average_precision, ece : Interval
        Means over the categories.
    exact : Interval
        Share of rows with all of their categories and no other.
    categories : tuple of CategoryReport
        In the order of the bundle.
    whole : WholeReport or None
        Of the confidence that a row has all of its categories and no other, where there is one.
    """

    n: int
    clean: int
    micro_f1: Interval
    macro_f1: Interval
    mean_average_precision: Interval
    ece: Interval
    exact: Interval
    categories: tuple[CategoryReport, ...]
    whole: WholeReport | None = None

    def summary(self) -> ReportSummary:
        """What a bundle's manifest says of the evaluation."""
        names = ("micro_f1", "macro_f1", "mean_average_precision", "ece", "exact")
        figures = {name: getattr(self, name) for name in names}
        if self.whole is not None:
            figures[WHOLE_ECE] = self.whole.ece
        return ReportSummary(n=self.n, metrics=figures)


def evaluate_categories(
    probability_nk: _Floats,
    truth_nk: _Bools,
    *,
    names: Sequence[str],
    flag_at: Sequence[float],
    flagged_nk: _Bools | None = None,
    confidence_n: _Floats | None = None,
    seed: int = 0,
) -> ModerationReport:
    """Evaluate probabilities of categories against the truth.

    Parameters
    ----------
    probability_nk : float64[N, K]
        In [0, 1]; N from 1.
    truth_nk : bool[N, K]
        Whether each row belongs to each category.
    names : sequence of str
        K categories.
    flag_at : sequence of float
        Least probability of a text that counts as found, one for each category.
    flagged_nk : bool[N, K], optional
        What counts as found where not ``flag_at`` alone says so: in a cascade every tier has
        thresholds of its own.
    confidence_n : float64[N], optional
        That exactly the right categories are found, in [0, 1], where that is calibrated.
    seed : int
        Of the resampling, at least 0.
    """
    rng = np.random.default_rng(seed)
    n, k = probability_nk.shape
    found_nk = probability_nk >= np.array(flag_at) if flagged_nk is None else flagged_nk
    ranked = [_ranked(probability_nk[:, i], truth_nk[:, i]) for i in range(k)]

    def figures(picks_rn: Picks) -> dict[str, _Floats]:
        each = [
            _category_figures(probability_nk[rows, i], truth_nk[rows, i], found_nk[rows, i])
            for i, rows in enumerate(sort(picks_rn) for sort in ranked)
        ]
        of_rk = {name: np.stack([one[name] for one in each], axis=1) for name in each[0]}
        hits_r, found_r, there_r = (of_rk.pop(name).sum(axis=1) for name in _COUNTS)
        return {
            **of_rk,
            "micro_f1": 2 * hits_r / np.maximum(found_r + there_r, 1),
            "macro_f1": of_rk["f1"].mean(axis=1),
            "mean_average_precision": of_rk["average_precision"].mean(axis=1),
            "mean_ece": of_rk["ece"].mean(axis=1),
            "exact": (truth_nk == found_nk).all(axis=1)[picks_rn].mean(axis=1),
        }

    every = np.arange(n)[None, :]
    orders = [sort(every)[0] for sort in ranked]
    whole = figures(every)
    resampled = bootstrap(figures, (n,), rng)

    def interval(name: str, column: int | None = None) -> Interval:
        sample = resampled[name] if column is None else resampled[name][:, column]
        value = float(whole[name][0] if column is None else whole[name][0, column])
        if name.endswith("ece"):
            # Resamples repeat rows, which moves their calibration errors up.
            sample = np.maximum(sample + value - sample.mean(), 0)
        low, high = bounds(sample)
        return Interval(value=value, low=low, high=high)

    return ModerationReport(
        n=n,
        clean=int((~truth_nk.any(axis=1)).sum()),
        micro_f1=interval("micro_f1"),
        macro_f1=interval("macro_f1"),
        mean_average_precision=interval("mean_average_precision"),
        ece=interval("mean_ece"),
        exact=interval("exact"),
        categories=tuple(
            CategoryReport(
                category=name,
                flag_at=flag_at[i],
                support=int(truth_nk[:, i].sum()),
                flagged=int(found_nk[:, i].sum()),
                precision=interval("precision", i),
                recall=interval("recall", i),
                f1=interval("f1", i),
                average_precision=interval("average_precision", i),
                ece=interval("ece", i),
                ece_noise=calibration_noise(np.sort(probability_nk[:, i]), rng),
                reliability=reliability(probability_nk[order, i], truth_nk[order, i]),
                by_threshold=_by_threshold(probability_nk[order, i], truth_nk[order, i]),
            )
            for i, (name, order) in enumerate(zip(names, orders, strict=True))
        ),
        whole=None
        if confidence_n is None
        else evaluate_whole(confidence_n, (truth_nk == found_nk).all(axis=1), seed=seed),
    )


def _category_figures(
    probability_rn: _Floats, truth_rn: _Bools, found_rn: _Bools
) -> dict[str, _Floats]:
    """Figures of R samples of one category's rows, by ascending probability: float64[R] each."""
    hits_r = (truth_rn & found_rn).sum(axis=1)
    found_r, there_r = found_rn.sum(axis=1), truth_rn.sum(axis=1)
    return {
        "hits": hits_r,
        "found": found_r,
        "there": there_r,
        "precision": hits_r / np.maximum(found_r, 1),
        "recall": hits_r / np.maximum(there_r, 1),
        "f1": 2 * hits_r / np.maximum(found_r + there_r, 1),
        "average_precision": _average_precision(truth_rn),
        "ece": calibration_error(probability_rn - truth_rn),
    }


def _average_precision(truth_rn: _Bools) -> _Floats:
    """Areas under precision over recall of R samples, whose rows come by ascending score."""
    best_first = truth_rn[:, ::-1]
    precision_rn = best_first.cumsum(axis=1) / np.arange(1, truth_rn.shape[1] + 1)
    area_r: _Floats = (precision_rn * best_first).sum(axis=1) / np.maximum(truth_rn.sum(axis=1), 1)
    return area_r


def _ranked(score_n: _Floats, truth_n: _Bools) -> Callable[[Picks], Picks]:
    """A function that puts the rows of samples, int[R, N], in ascending order of their scores.

    Of equal scores the category's own rows come first, and so last where the best come first:
    order within a tie earns nothing.
    """
    order = np.lexsort((~truth_n, score_n))
    rank = np.argsort(order)
    return lambda picks_rn: order[np.sort(rank[picks_rn], axis=1)]


def _by_threshold(probability_n: _Floats, truth_n: _Bools) -> tuple[ThresholdPoint, ...]:
    """Of rows by ascending probability."""
    probability, truth = probability_n[::-1], truth_n[::-1]
    hits = truth.cumsum()
    # Rows of one probability are flagged together.
    last = np.append(np.flatnonzero(np.diff(probability)), len(truth) - 1)
    return tuple(
        ThresholdPoint(
            at=float(probability[i]),
            flagged=i + 1,
            precision=float(hits[i] / (i + 1)),
            recall=float(hits[i] / max(1, hits[-1])),
        )
        for i in last[thinned(len(last))].tolist()
    )


def mean_average_precision(score_nk: _Floats, truth_nk: _Bools) -> Callable[[Picks], _Floats]:
    """A function that gives the mean average precision of samples of N rows.

    Parameters
    ----------
    score_nk : float64[N, K]
        The higher, the more probable is the category; its scale does not matter.
    truth_nk : bool[N, K]
        Whether each row belongs to each category.

    Returns
    -------
    callable
        From int[R, N], indices of R samples, to float64[R] in [0, 1].
    """
    columns = range(truth_nk.shape[1])
    ranked = [_ranked(score_nk[:, i], truth_nk[:, i]) for i in columns]

    def figure(picks_rn: Picks) -> _Floats:
        each = [_average_precision(truth_nk[ranked[i](picks_rn), i]) for i in columns]
        mean_r: _Floats = np.mean(each, axis=0)
        return mean_r

    return figure


def category_findings(found_nk: _Bools, truth_nk: _Bools, names: Sequence[str]) -> Findings:
    """What a moderator flags, to be compared with what another one does.

    Parameters
    ----------
    found_nk, truth_nk : bool[N, K]
        Whether each row was flagged for each category; whether it belongs there.
    names : sequence of str
        K categories.
    """
    return Findings(
        names=tuple(names),
        shown=tuple(
            shown_categories(name for name, flagged in zip(names, row, strict=True) if flagged)
            for row in found_nk.tolist()
        ),
        counts=np.stack([found_nk & truth_nk, found_nk, truth_nk], axis=2).astype(np.int64),
    )
