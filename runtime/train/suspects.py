"""Training rows whose label is probably wrong, and labels that are hard to tell apart.

Both are read from out-of-fold probabilities: what heads say of rows that they have not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.train.categories import CategoryData
from sprat.train.data import Dataset
from sprat.values import IntArray

MOST_PAIRS = 20

_Floats = npt.NDArray[np.float64]


class ConfusingPair(BaseModel):
    """Two labels that are taken for each other.

    Attributes
    ----------
    a, b : str
    a_as_b, b_as_a : int
        Rows of ``a`` that were answered with ``b``, and the other way round.
    share : float
        Both, of all rows of the two labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    a: str
    b: str
    a_as_b: int
    b_as_a: int
    share: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A training row that probably has a wrong label.

    Attributes
    ----------
    line : int
        In its file.
    label, suggested : str
        What the row says, and what heads that have not seen it say.
    confidence : float
        Out-of-fold probability of ``label``, in [0, 1].
    suggested_confidence : float
        The same of ``suggested``.
    text : str
    """

    line: int
    label: str
    suggested: str
    confidence: float
    suggested_confidence: float
    text: str


def rank_rows(probabilities_nk: _Floats, targets_n: IntArray) -> npt.NDArray[np.int64]:
    """All rows, the most probable label errors first.

    They are ordered by the probability of their own label less that of the best other one: the
    normalized margin of confident learning (Northcutt et al., 2021).

    Parameters
    ----------
    probabilities_nk : float64[N, K]
        Out-of-fold.
    targets_n : int32[N]
        Labels that the rows have.

    Returns
    -------
    int64[N]
        Indices of rows.
    """
    own_n, best_n, _ = _rivals(probabilities_nk, targets_n)
    order: npt.NDArray[np.int64] = np.argsort(own_n - best_n, kind="stable")
    return order


def find_suspects(
    data: Dataset, probabilities_nk: _Floats, targets_n: IntArray, labels: Sequence[str]
) -> tuple[Suspect, ...]:
    """Rows that heads confidently give another label than they have, the worst first.

    Confident learning (Northcutt et al., 2021): a label is confident for a row where its
    probability reaches the mean that it has over the rows of that label. A row whose most probable
    confident label is not its own is a suspect.

    Parameters
    ----------
    data : Dataset
        N rows.
    probabilities_nk : float64[N, K]
        Out-of-fold.
    targets_n : int32[N]
        Labels that the rows have, as indices into ``labels``; each label occurs.
    """
    every = np.arange(len(targets_n))
    own_n, best_n, rival_n = _rivals(probabilities_nk, targets_n)
    counts_k = np.bincount(targets_n, minlength=len(labels))
    threshold_k = np.bincount(targets_n, own_n, minlength=len(labels)) / counts_k
    confident_n = probabilities_nk[every, rival_n] >= threshold_k[rival_n]
    is_suspect_n = confident_n & (best_n > own_n)
    return tuple(
        Suspect(
            line=data.lines[row],
            label=data.labels[row],
            suggested=labels[rival_n[row]],
            confidence=float(own_n[row]),
            suggested_confidence=float(best_n[row]),
            text=data.texts[row],
        )
        for row in rank_rows(probabilities_nk, targets_n).tolist()
        if is_suspect_n[row]
    )


def category_suspects(
    data: CategoryData, probabilities_nk: _Floats, names: Sequence[str]
) -> dict[str, tuple[Suspect, ...]]:
    """Rows that probably miss a category, or have it wrongly, for each category.

    Each is a question of its own: `find_suspects` with the two labels ``NAME`` and ``not NAME``.

    Parameters
    ----------
    data : CategoryData
        N rows; each category has some and is not of all.
    probabilities_nk : float64[N, K]
        Out-of-fold, that a row belongs to a category.
    names : sequence of str
        K categories.
    """
    truth_nk = data.truth(names)
    found = {}
    for i, name in enumerate(names):
        labels = (f"not {name}", name)
        targets_n = truth_nk[:, i].astype(np.int32)
        rows = Dataset(data.texts, tuple(labels[t] for t in targets_n), data.lines, data.path)
        both_n2 = np.column_stack([1 - probabilities_nk[:, i], probabilities_nk[:, i]])
        found[name] = find_suspects(rows, both_n2, targets_n, labels)
    return found


def _rivals(
    probabilities_nk: _Floats, targets_n: IntArray
) -> tuple[_Floats, _Floats, npt.NDArray[np.int64]]:
    """Of each row, the probability of its label, that of the best other one, and which this is."""
    every = np.arange(len(targets_n))
    others_nk = probabilities_nk.copy()
    others_nk[every, targets_n] = -1
    rival_n = others_nk.argmax(axis=1)
    return probabilities_nk[every, targets_n], others_nk[every, rival_n], rival_n


def confusing_pairs(
    probabilities_nk: _Floats, targets_n: IntArray, labels: Sequence[str]
) -> tuple[ConfusingPair, ...]:
    """The pairs of labels with the most mistakes between them, at most 20.

    Parameters
    ----------
    probabilities_nk : float64[N, K]
        Out-of-fold.
    targets_n : int32[N]
        Labels that the rows have.
    """
    k = len(labels)
    counts_kk = np.bincount(targets_n * k + probabilities_nk.argmax(axis=1), minlength=k * k)
    counts_kk = counts_kk.reshape(k, k)
    rows_k = counts_kk.sum(axis=1)
    mistakes_kk = np.triu(counts_kk + counts_kk.T, 1)
    ranked = np.argsort(-mistakes_kk, axis=None, kind="stable")[:MOST_PAIRS]
    return tuple(
        ConfusingPair(
            a=labels[i],
            b=labels[j],
            a_as_b=int(counts_kk[i, j]),
            b_as_a=int(counts_kk[j, i]),
            share=float(mistakes_kk[i, j] / (rows_k[i] + rows_k[j])),
        )
        for i, j in (divmod(int(flat), k) for flat in ranked)
        if mistakes_kk[i, j]
    )
