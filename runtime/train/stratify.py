"""Deal rows with any number of labels over parts, each label evenly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sprat.values import IntArray


def stratify(
    truth_nk: npt.NDArray[np.bool_],
    groups_n: IntArray,
    shares: Sequence[float],
    *,
    seed: int,
) -> IntArray:
    """A part for each row, every label in all parts in about the same shares.

    Iterative stratification (Sechidis et al., 2011): labels are dealt from the rarest to the most
    common, each row to the part that lacks most of its label. Rows without a label come last.

    Parameters
    ----------
    truth_nk : bool[N, K]
        The labels of each row.
    groups_n : int32[N]
        Rows of one group stay together; numbered from 0 without gaps.
    shares : sequence of float
        Of each part, above 0; they sum up to 1.
    seed : int
        At least 0; the same seed deals the same rows in the same way.

    Returns
    -------
    int32[N]
        From 0. A part may miss a label that has fewer groups than there are parts.
    """
    rng = np.random.default_rng(seed)
    sizes_g = np.bincount(groups_n)
    counts_gk = np.zeros((len(sizes_g), truth_nk.shape[1] + 1), np.int64)
    np.add.at(counts_gk, groups_n, np.column_stack([truth_nk, np.ones(len(groups_n), np.bool_)]))
    # Rows that each part still lacks, of each label and, in the last column, altogether.
    lacking_pk = np.outer(shares, counts_gk.sum(axis=0)).astype(np.float64)
    part_g = np.full(len(sizes_g), -1, np.int32)
    shuffled = rng.permutation(len(sizes_g))
    columns = [*np.argsort(counts_gk[:, :-1].sum(axis=0), kind="stable").tolist(), -1]
    for column in columns:
        has_label = (counts_gk[shuffled, column] > 0) & (part_g[shuffled] < 0)
        for group in shuffled[has_label].tolist():
            lack = lacking_pk[:, column]
            tied = np.flatnonzero(lack >= lack.max() - 1e-9)
            part = int(tied[lacking_pk[tied, -1].argmax()])
            part_g[group] = part
            lacking_pk[part] -= counts_gk[group]
    return part_g[groups_n]
