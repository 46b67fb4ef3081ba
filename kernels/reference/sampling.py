"""Choosing the next token by chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.logits import check_logits, check_mask, check_values, checked_row

GREEDY_BELOW = np.float32(1e-6)
"""A lower temperature has all its weight on the best token."""

EXP_FLOOR = -87.0
"""Tokens that weigh less than this power of e, beside the best one, are never drawn."""


def sample(
    logits_bv: npt.NDArray[np.float32],
    coins_b: npt.NDArray[np.float64],
    temperature_b: npt.NDArray[np.float32],
    top_k_b: npt.NDArray[np.int32],
    top_p_b: npt.NDArray[np.float32],
    min_p_b: npt.NDArray[np.float32],
    mask_bw: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int32]:
    """Choose a token for each row; the coins decide, so the same arguments give the same tokens.

    A row whose temperature is below 1e-6 takes its best token, as `argmax` does. In any other, with
    tokens in order of logit, greatest first, and the lower of equal ones first:

    1. The mask takes away tokens.
    2. Top-k keeps the first k.
    3. Top-p keeps the shortest prefix of these whose probability, by a softmax over these, reaches
       top-p.
    4. Min-p keeps those whose logit is at least that of the best plus log(min-p), in float32.
    5. Each token that is left weighs ``w = exp((l - max(l)) / temperature)``; below ``exp(-87)``
       that counts as 0.
    6. In order of token, the first one is chosen at which the running sum of w exceeds
       ``coin * sum(w)``.

    Parameters
    ----------
    logits_bv : float32[B, V]
        C-contiguous, at most 2**31 - 1 tokens. A token of -inf is never chosen; what the mask does
        not allow may be anything.
    coins_b : float64[B]
        In [0, 1), evenly distributed.
    temperature_b : float32[B]
        Finite and at least 0.
    top_k_b : int32[B]
        At least 0, which keeps all.
    top_p_b : float32[B]
        In (0, 1]; 1 keeps all.
    min_p_b : float32[B]
        In [0, 1]; 0 keeps all.
    mask_bw : int32[B, W], optional
        As in `mask_logits`. Absent: every token is allowed.

    Returns
    -------
    int32[B]
        The native kernel takes the exponential of x in float32, with a relative error of at most
        1e-7 (2 + abs(x)): where top-p or a coin falls within 1e-5 of a border, it may take the
        token on the other side.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, a value out of range; or an allowed logit of a row is
        NaN or +inf, or none of them is finite.

    References
    ----------
    Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020 (top-p); Nguyen et
    al., "Turning Up the Heat: Min-p Sampling", ICLR 2025. The order of the filters, temperature
    last, is that of llama.cpp.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.log(np.array([[4, 1, 3, 2]] * 3, dtype=np.float32))
    >>> coins = np.array([0, 0.5, 0.99])
    >>> one, zero = np.ones(3, dtype=np.float32), np.zeros(3, dtype=np.float32)
    >>> sample(logits, coins, one, np.full(3, 2, dtype=np.int32), one, zero)
    array([0, 0, 2], dtype=int32)
    """
    check_logits(logits_bv)
    rows = logits_bv.shape[0]
    for name, values_b, dtype in (
        ("coins_b", coins_b, np.float64),
        ("temperature_b", temperature_b, np.float32),
        ("top_k_b", top_k_b, np.int32),
        ("top_p_b", top_p_b, np.float32),
        ("min_p_b", min_p_b, np.float32),
    ):
        check_values(name, values_b, rows, "one for each row of logits_bv", dtype)
    if mask_bw is not None:
        check_mask(mask_bw, rows)
    for row in range(rows):
        for name, value, good, expected in (
            ("coins_b", float(coins_b[row]), 0 <= coins_b[row] < 1, "in [0, 1)"),
            (
                "temperature_b",
                float(temperature_b[row]),
                0 <= temperature_b[row] < np.inf,
                "finite and at least 0",
            ),
            ("top_k_b", int(top_k_b[row]), top_k_b[row] >= 0, "at least 0"),
            ("top_p_b", float(top_p_b[row]), 0 < top_p_b[row] <= 1, "in (0, 1]"),
            ("min_p_b", float(min_p_b[row]), 0 <= min_p_b[row] <= 1, "in [0, 1]"),
        ):
            if not good:
                raise ValueError(f"{name}[{row}]: expected a value {expected}, got {value}")

    chosen_b = np.empty(rows, dtype=np.int32)
    for row in range(rows):
        logits_v = checked_row(row, logits_bv[row], mask_bw)
        if temperature_b[row] < GREEDY_BELOW:
            chosen_b[row] = np.argmax(logits_v)
            continue
        order = np.argsort(-logits_v, kind="stable")
        ordered = logits_v[order].astype(np.float64)
        best = ordered[0]
        if top_k_b[row]:
            ordered = ordered[: top_k_b[row]]
        if top_p_b[row] < 1:
            probabilities = np.exp(ordered - best)
            reached = np.cumsum(probabilities / np.sum(probabilities))
            ordered = ordered[: np.searchsorted(reached, top_p_b[row]) + 1]
        if min_p_b[row]:
            ordered = ordered[ordered >= np.float32(best + np.log(min_p_b[row].astype(np.float64)))]
        # Back to the order of token.
        kept = np.sort(order[: len(ordered)])
        scaled = (logits_v[kept].astype(np.float64) - best) / temperature_b[row]
        running = np.cumsum(np.where(scaled >= EXP_FLOOR, np.exp(scaled), 0.0))
        # On equal sums the first is the one with weight.
        place = np.searchsorted(running, coins_b[row] * running[-1], side="right")
        chosen_b[row] = kept[min(place, int(np.searchsorted(running, running[-1])))]
    return chosen_b
