"""The best sequence of tags under transition scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_lengths


def viterbi(
    emissions_btk: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    transitions_kk: npt.NDArray[np.float32],
    start_k: npt.NDArray[np.float32],
    end_k: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Find the sequence of tags with the greatest score for each row.

    The tags y of a row with n tokens score::

        start[y[0]] + emissions[0, y[0]]
        + sum over t from 1 to n - 1 of (transitions[y[t - 1], y[t]] + emissions[t, y[t]])
        + end[y[n - 1]]

    added up in float32 in the order of the tokens (transition first, then emission). A step or a
    tag with ``-inf`` is forbidden, and so is whatever comes to NaN. Of equal scores the one wins
    whose last tag is the lowest, then the last but one, and so on.

    Parameters
    ----------
    emissions_btk : float32[B, T, K]
        Score of each tag at each token, such as its log-probability. Positions from the row's
        length on are never read.
    lengths_b : int32[B]
        Tokens of each row, in [1, T].
    transitions_kk : float32[K, K]
        Score of a step from the first tag to the second: 0 and ``-inf`` for a plain constraint.
    start_k, end_k : float32[K]
        Score of a tag at the first and at the last token.

    Returns
    -------
    tags_bt : int32[B, T]
        -1 from the row's length on; -1 throughout where every sequence is forbidden.
    scores_b : float32[B]
        Score of the sequence; ``-inf`` where there is none.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, or a length out of range.

    References
    ----------
    Viterbi, "Error bounds for convolutional codes and an asymptotically optimum decoding
    algorithm", IEEE Transactions on Information Theory 13(2), 1967.

    Examples
    --------
    >>> import numpy as np
    >>> emissions = np.array([[[0, 2], [1, 0]]], dtype=np.float32)
    >>> stay = np.array([[0, -np.inf], [-np.inf, 0]], dtype=np.float32)
    >>> free = np.zeros(2, dtype=np.float32)
    >>> viterbi(emissions, np.array([2], dtype=np.int32), stay, free, free)
    (array([[1, 1]], dtype=int32), array([2.], dtype=float32))
    """
    check_array("emissions_btk", emissions_btk, np.float32, 3)
    check_array("lengths_b", lengths_b, np.int32, 1)
    check_array("transitions_kk", transitions_kk, np.float32, 2)
    check_array("start_k", start_k, np.float32, 1)
    check_array("end_k", end_k, np.float32, 1)
    rows, tokens, tags = emissions_btk.shape
    if transitions_kk.shape != (tags, tags):
        raise ValueError(
            f"transitions_kk: expected shape ({tags}, {tags}), a row and a column for each tag of"
            f" emissions_btk, got {transitions_kk.shape}"
        )
    for name, array in (("start_k", start_k), ("end_k", end_k)):
        if array.shape[0] != tags:
            raise ValueError(
                f"{name}: expected {tags} scores, one for each tag of emissions_btk,"
                f" got {array.shape[0]}"
            )
    check_lengths("lengths_b", lengths_b, "emissions_btk", rows, tokens)

    tags_bt = np.full((rows, tokens), -1, dtype=np.int32)
    scores_b = np.full(rows, -np.inf, dtype=np.float32)
    with np.errstate(all="ignore"):
        for row, length in enumerate(lengths_b.tolist()):
            score_k = start_k + emissions_btk[row, 0]
            came_from = []
            for emission_k in emissions_btk[row, 1:length]:
                best_k = np.full(tags, -np.inf, dtype=np.float32)
                from_k = np.full(tags, -1)
                for tag in range(tags):
                    candidate_k = score_k[tag] + transitions_kk[tag]
                    better_k = candidate_k > best_k
                    best_k[better_k], from_k[better_k] = candidate_k[better_k], tag
                score_k = best_k + emission_k
                came_from.append(from_k)
            tag = -1
            for last, score in enumerate(score_k + end_k):
                if score > scores_b[row]:
                    tag, scores_b[row] = last, score
            if tag >= 0:
                path = [tag]
                for from_k in reversed(came_from):
                    path.append(int(from_k[path[-1]]))
                tags_bt[row, :length] = path[::-1]
    return tags_bt, scores_b
