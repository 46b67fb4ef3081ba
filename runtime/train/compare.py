"""Two bundles or adapters on the same rows: whether one is better, or only luckier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.manifest import Interval
from sprat.train import metrics
from sprat.train.metrics import Floats, Picks

SIGNIFICANT = 0.05
RIGHT = "right"
"""An answer that is as wanted, where naming it would show what a text says."""
WRONG = "wrong"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Disagreement(_Part):
    """A row that the two answer differently.

    Attributes
    ----------
    line : int
        In the data file.
    label, first, second : str
        The right label and both answers. Of values and rewritten texts `RIGHT`, and what is wrong.
    """

    line: int
    label: str
    first: str
    second: str


class Comparison(_Part):
    """The first of two classifiers beside the second.

    Attributes
    ----------
    n : int
        Rows.
    both_right, only_first, only_second, both_wrong : int
        Rows by who answers them rightly.
    difference : Interval
        Accuracy of the first less that of the second, with its 95 % interval over resamples of the
        rows, the same ones for both.
    p_value : float
        Of the exact McNemar test, two-sided: the chance of as uneven a split of the rows that only
        one gets right, if both were equally good.
    disagreements : tuple of Disagreement
        In the order of the file; also where both are wrong.
    """

    n: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    difference: Interval
    p_value: float
    disagreements: tuple[Disagreement, ...]

    def message(self) -> str:
        """Which one is better, for people."""
        if self.p_value >= SIGNIFICANT:
            return f"No significant difference (p = {self.p_value:.3g})."
        better = "first" if self.difference.value > 0 else "second"
        return f"The {better} one is significantly more accurate (p = {self.p_value:.3g})."


def compare(
    labels: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    *,
    lines: Sequence[int],
    seed: int = 0,
) -> Comparison:
    """Compare two classifiers on the same rows.

    Parameters
    ----------
    labels, first, second : sequence of str
        Right label and both answers of each row, N from 1.
    lines : sequence of int
        Of the rows in their file.
    seed : int
        Of the resampling; at least 0.
    """
    right = [np.array([a == b for a, b in zip(labels, by, strict=True)]) for by in (first, second)]
    # 1 where only the first is right, -1 where only the second is.
    sign_n = right[0].astype(np.int8) - right[1].astype(np.int8)
    only_first, only_second = int((sign_n > 0).sum()), int((sign_n < 0).sum())
    both_right = int((right[0] & right[1]).sum())

    def statistics(picks_rn: Picks) -> dict[str, Floats]:
        return {"difference": sign_n[picks_rn].mean(axis=1)}

    samples = metrics.bootstrap(statistics, (len(labels),), np.random.default_rng(seed))
    low, high = metrics.bounds(samples["difference"])
    return Comparison(
        n=len(labels),
        both_right=both_right,
        only_first=only_first,
        only_second=only_second,
        both_wrong=len(labels) - both_right - only_first - only_second,
        difference=Interval(value=float(sign_n.mean()), low=low, high=high),
        p_value=mcnemar(only_first, only_second),
        disagreements=tuple(
            Disagreement(line=line, label=label, first=a, second=b)
            for line, label, a, b in zip(lines, labels, first, second, strict=True)
            if a != b
        ),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of the exact McNemar test (McNemar, 1947).

    Twice the chance that a fair coin, thrown once for each row that only one of the two gets right,
    shows the rarer side so few times; at most 1.
    """
    throws = only_first + only_second
    fewest = min(only_first, only_second)
    term = tail = 1
    for i in range(fewest):
        term = term * (throws - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**throws) if throws else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What one of the two finds in N texts that may hold several things, or nothing.

    Attributes
    ----------
    names : tuple of str
        K categories or fields.
    shown : tuple of str
        All that is found in each text, as one name; the same for the same findings.
    counts : int64[N, K, 3]
        Of each text and name: how much of what was found is right, how much was found, and how
        much there is to find.
    """

    names: tuple[str, ...]
    shown: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    def f1(self, names: Sequence[str], weights_rn: npt.NDArray[np.int64]) -> Floats:
        """F1 over everything, then of each of ``names``, for R samples: float64[R, 1 + names].

        Parameters
        ----------
        weights_rn : int64[R, N]
            How often each text is in each sample.
        """
        n, k, _ = self.counts.shape
        sums_rk3 = (weights_rn @ self.counts.reshape(n, -1)).reshape(-1, k, 3)
        chosen = [self.names.index(name) for name in names]
        sums = np.concatenate([sums_rk3.sum(axis=1, keepdims=True), sums_rk3[:, chosen]], axis=1)
        f1: Floats = 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)
        return f1


class PartComparison(_Part):
    """A figure of both, and that of the first less that of the second with its 95 % interval."""

    name: str
    first: float
    second: float
    difference: Interval


class FindingsComparison(_Part):
    """The first of two bundles of kind moderate or extract, or adapters, beside the second.

    Attributes
    ----------
    rows : Comparison
        A text counts as right where everything in it is found, and nothing else.
    micro_f1 : PartComparison
        Over all categories or fields of each.
    parts : tuple of PartComparison
        Of each category or field that both have, in the order of the first.
    """

    rows: Comparison
    micro_f1: PartComparison
    parts: tuple[PartComparison, ...]

    def message(self) -> str:
        """Which one is better, for people."""
        low, high = self.micro_f1.difference.low, self.micro_f1.difference.high
        if low <= 0 <= high:
            return "No significant difference in micro-F1: its interval holds 0."
        better = "first" if low > 0 else "second"
        return f"The {better} one has the significantly higher micro-F1: its interval is beyond 0."


def compare_findings(
    wanted: Sequence[str],
    first: Findings,
    second: Findings,
    *,
    lines: Sequence[int],
    seed: int = 0,
) -> FindingsComparison:
    """Compare two bundles on the same texts: as wholes, and by a paired bootstrap of F1.

    Parameters
    ----------
    wanted : sequence of str
        What there is to find in each text, named as in `Findings`; N from 1.
    lines : sequence of int
        Of the texts in their file.
    seed : int
        Of the resampling; at least 0.
    """
    shared = [name for name in first.names if name in second.names]
    sides = (first, second)
    whole = [each.f1(shared, np.ones((1, len(wanted)), np.int64))[0].tolist() for each in sides]
    samples = np.concatenate(
        [
            first.f1(shared, weights_rn) - second.f1(shared, weights_rn)
            for weights_rn in metrics.weights(len(wanted), np.random.default_rng(seed))
        ]
    )
    parts = [
        PartComparison(
            name=name,
            first=one,
            second=other,
            difference=metrics.interval(one - other, samples[:, column]),
        )
        for column, (name, one, other) in enumerate(zip(("micro_f1", *shared), *whole, strict=True))
    ]
    return FindingsComparison(
        rows=compare(wanted, first.shown, second.shown, lines=lines, seed=seed),
        micro_f1=parts[0],
        parts=tuple(parts[1:]),
    )


class RewritingComparison(_Part):
    """The first of two adapters of kind transform beside the second.

    Attributes
    ----------
    rows : Comparison
        An answer is right where it is as wanted.
    parts : tuple of PartComparison
        Means over the rows of the other figures that both have: ``edit_similarity`` and
        ``schema_valid``.
    """

    rows: Comparison
    parts: tuple[PartComparison, ...]

    def message(self) -> str:
        """Which one is better, for people."""
        return self.rows.message()


def compare_rewriting(
    first: Mapping[str, Floats],
    second: Mapping[str, Floats],
    *,
    lines: Sequence[int],
    seed: int = 0,
) -> RewritingComparison:
    """Compare two adapters that rewrite the same texts, by a paired bootstrap over the rows.

    Parameters
    ----------
    first, second : mapping of str to float64[N]
        See `sprat.train.evaluate_transform.score_rows`; N from 1.
    lines : sequence of int
        Of the rows in their file.
    seed : int
        Of the resampling; at least 0.
    """
    exact = "exact_match"
    shown = [[RIGHT if each else WRONG for each in side[exact]] for side in (first, second)]
    names = [name for name in first if name in second and name != exact]
    gaps = {name: first[name] - second[name] for name in names}
    samples = metrics.bootstrap(
        lambda picks_rn: {name: gap_n[picks_rn].mean(axis=1) for name, gap_n in gaps.items()},
        (len(lines),),
        np.random.default_rng(seed),
    )
    return RewritingComparison(
        rows=compare([RIGHT] * len(lines), *shown, lines=lines, seed=seed),
        parts=tuple(
            PartComparison(
                name=name,
                first=float(first[name].mean()),
                second=float(second[name].mean()),
                difference=metrics.interval(float(gap_n.mean()), samples[name]),
            )
            for name, gap_n in gaps.items()
        ),
    )
