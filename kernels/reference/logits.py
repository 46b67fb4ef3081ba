"""Logits of the next token: what is allowed, weakened, best, and how probable."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_ids, check_offsets

WORD_BITS = 32
MOST_TOKENS = 2**31 - 1


def mask_logits(
    logits_bv: npt.NDArray[np.float32],
    mask_bw: npt.NDArray[np.int32],
) -> None:
    """Put -inf, in place, where a bit mask does not allow a token.

    Token v of row b is allowed when bit ``v % 32`` of ``mask[b, v // 32]`` is set, the lowest bit
    being bit 0. That is the form in which llguidance hands masks out. Tokens beyond the mask are
    not allowed; bits beyond the vocabulary are ignored.

    Parameters
    ----------
    logits_bv : float32[B, V]
        C-contiguous and writable. Any values.
    mask_bw : int32[B, W]
        C-contiguous. Mostly ``W = ceil(V / 32)``, but any width will do.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, or logits that are read-only.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[3, 1, 2]], dtype=np.float32)
    >>> mask_logits(logits, np.array([[0b110]], dtype=np.int32))
    >>> logits
    array([[-inf,   1.,   2.]], dtype=float32)
    """
    check_logits(logits_bv, writable=True)
    check_mask(mask_bw, logits_bv.shape[0])
    for logits_v, mask_w in zip(logits_bv, mask_bw, strict=True):
        logits_v[~allowed(mask_w, len(logits_v))] = -np.inf


def bias_logits(
    logits_bv: npt.NDArray[np.float32],
    ids_n: npt.NDArray[np.int32],
    biases_n: npt.NDArray[np.float32],
    offsets: npt.NDArray[np.int64],
) -> None:
    """Add to the logits of some tokens, in place.

    Row b takes the pairs n from ``offsets[b]`` to ``offsets[b + 1] - 1``, one after the other:
    ``logits[b, ids[n]] += biases[n]``.

    Parameters
    ----------
    logits_bv : float32[B, V]
        C-contiguous and writable. Any values.
    ids_n : int32[N]
        Tokens, in [0, V). One that comes twice in a row takes both biases.
    biases_n : float32[N]
        Finite, or -inf to forbid a token.
    offsets : int64[B + 1]
        From 0 to N, ascending.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, logits that are read-only, or a value out of range.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[3, 1, 2]], dtype=np.float32)
    >>> ids, offsets = np.array([1, 2], dtype=np.int32), np.array([0, 2])
    >>> bias_logits(logits, ids, np.array([4, -1], dtype=np.float32), offsets)
    >>> logits
    array([[3., 5., 1.]], dtype=float32)
    """
    check_logits(logits_bv, writable=True)
    _check_ragged(ids_n, offsets, logits_bv)
    check_values("biases_n", biases_n, ids_n.shape[0], "one for each of ids_n")
    for index, bias in enumerate(biases_n.tolist()):
        if not bias < np.inf:
            raise ValueError(f"biases_n[{index}]: expected a finite bias or -inf, got {bias}")
    with np.errstate(all="ignore"):
        for row, (begin, end) in enumerate(pairwise(offsets)):
            np.add.at(logits_bv[row], ids_n[begin:end], biases_n[begin:end])


def penalize_logits(
    logits_bv: npt.NDArray[np.float32],
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    repeat_b: npt.NDArray[np.float32],
    frequency_b: npt.NDArray[np.float32],
    presence_b: npt.NDArray[np.float32],
) -> None:
    """Weaken recent tokens, in place.

    The recent tokens of row b are ``ids[offsets[b]:offsets[b + 1]]``. For each token v that comes
    c > 0 times among them, in float32::

        l = l / repeat      if l > 0, else  l * repeat
        l = l - (c * frequency + presence)

    Parameters
    ----------
    logits_bv : float32[B, V]
        C-contiguous and writable. Any values.
    ids_n : int32[N]
        Tokens, in [0, V), in any order.
    offsets : int64[B + 1]
        From 0 to N, ascending.
    repeat_b : float32[B]
        Finite and above 0; 1 is off, more than 1 weakens.
    frequency_b, presence_b : float32[B]
        Finite; 0 is off, more than 0 weakens.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, logits that are read-only, or a value out of range.

    References
    ----------
    Keskar et al., "CTRL", 2019, section 4.1 (the divisor); `llama_sampler_init_penalties` of
    llama.cpp (the product for logits below 0, and the order).

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[3, -1, 2]], dtype=np.float32)
    >>> one = np.ones(1, dtype=np.float32)
    >>> ids, offsets = np.array([1, 0, 0], dtype=np.int32), np.array([0, 3])
    >>> penalize_logits(logits, ids, offsets, 2 * one, 0.25 * one, 0 * one)
    >>> logits
    array([[ 1.  , -2.25,  2.  ]], dtype=float32)
    """
    check_logits(logits_bv, writable=True)
    _check_ragged(ids_n, offsets, logits_bv)
    rows = logits_bv.shape[0]
    for name, values_b, low, expected in (
        ("repeat_b", repeat_b, 0.0, "a finite number above 0"),
        ("frequency_b", frequency_b, -np.inf, "a finite number"),
        ("presence_b", presence_b, -np.inf, "a finite number"),
    ):
        check_values(name, values_b, rows, "one for each row of logits_bv")
        for row, value in enumerate(values_b.tolist()):
            if not low < value < np.inf:
                raise ValueError(f"{name}[{row}]: expected {expected}, got {value}")
    with np.errstate(all="ignore"):
        for row in range(rows):
            recent = Counter(ids_n[offsets[row] : offsets[row + 1]].tolist())
            for token, count in recent.items():
                logit = logits_bv[row, token]
                logit = logit / repeat_b[row] if logit > 0 else logit * repeat_b[row]
                logit -= np.float32(count) * frequency_b[row] + presence_b[row]
                logits_bv[row, token] = logit


def argmax(
    logits_bv: npt.NDArray[np.float32],
    mask_bw: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int32]:
    """Find the best token of each row, among those that a mask allows.

    Parameters
    ----------
    logits_bv : float32[B, V]
        C-contiguous, at most 2**31 - 1 tokens. -inf is never the best; what the mask does not
        allow may be anything.
    mask_bw : int32[B, W], optional
        As in `mask_logits`. Absent: every token is allowed.

    Returns
    -------
    int32[B]
        The lowest of the tokens with the greatest logit.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout; or an allowed logit of a row is NaN or +inf, or none
        of them is finite.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[3, 1, 2, 2]], dtype=np.float32)
    >>> argmax(logits, np.array([[0b1110]], dtype=np.int32))
    array([2], dtype=int32)
    """
    check_logits(logits_bv)
    if mask_bw is not None:
        check_mask(mask_bw, logits_bv.shape[0])
    best_b = np.empty(logits_bv.shape[0], dtype=np.int32)
    for row, logits_v in enumerate(logits_bv):
        best_b[row] = np.argmax(checked_row(row, logits_v, mask_bw))
    return best_b


def log_softmax(
    logits_bv: npt.NDArray[np.float32],
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Compute the log-probabilities of some tokens of each row.

    Token n is one of row b when ``offsets[b] <= n < offsets[b + 1]``; without `offsets`, when n is
    b. With l the logits of its row::

        p[n] = l[ids[n]] - log(exp(l[0]) + ... + exp(l[V - 1]))

    Parameters
    ----------
    logits_bv : float32[B, V]
        C-contiguous, at most 2**31 - 1 tokens.
    ids_n : int32[N]
        Tokens, in [0, V).
    offsets : int64[B + 1], optional
        From 0 to N, ascending. Absent: one token for each row, so N is B.

    Returns
    -------
    float32[N]
        At most 0, but for rounding; -inf for a token whose logit is that. The native kernel takes
        the exponential of x in float32, with a relative error of at most 1e-7 (2 + abs(x)), and 0
        for it below x = -87: results are within 1e-5, absolute and relative, of these.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, a value out of range; or a logit of a row is NaN or
        +inf, or none is finite. Rows without a token are checked alike.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.log(np.array([[1, 1, 2], [8, 1, 1]], dtype=np.float32))
    >>> ids, offsets = np.array([0, 2, 0], dtype=np.int32), np.array([0, 2, 3])
    >>> np.exp(log_softmax(logits, ids, offsets)).round(3)
    array([0.25, 0.5 , 0.8 ], dtype=float32)
    """
    check_logits(logits_bv)
    rows = logits_bv.shape[0]
    if offsets is None:
        check_array("ids_n", ids_n, np.int32, 1)
        if ids_n.shape[0] != rows:
            raise ValueError(
                f"ids_n: expected {rows} values, one for each row of logits_bv,"
                f" got {ids_n.shape[0]}"
            )
        check_ids("ids_n", ids_n, logits_bv.shape[1])
        offsets = np.arange(rows + 1)
    else:
        _check_ragged(ids_n, offsets, logits_bv)
    found_n = np.empty(ids_n.shape[0], dtype=np.float32)
    for row, logits_v in enumerate(logits_bv):
        wide_v = checked_row(row, logits_v).astype(np.float64)
        wide_v -= wide_v.max()
        span = slice(offsets[row], offsets[row + 1])
        found_n[span] = wide_v[ids_n[span]] - np.log(np.sum(np.exp(wide_v)))
    return found_n


def check_logits(logits_bv: object, *, writable: bool = False) -> None:
    """Refuse what is not a float32[B, V] of at most 2**31 - 1 tokens a row.

    Raises
    ------
    TypeError
        No array, or one of another dtype.
    ValueError
        Another shape or layout, or read-only where it must not be.
    """
    check_array("logits_bv", logits_bv, np.float32, 2)
    assert isinstance(logits_bv, np.ndarray)
    if logits_bv.shape[1] > MOST_TOKENS:
        raise ValueError(
            f"logits_bv: expected at most {MOST_TOKENS} tokens a row, got {logits_bv.shape[1]}"
        )
    if writable and not logits_bv.flags.writeable:
        raise ValueError("logits_bv: expected a writable array, got a read-only one")


def check_mask(mask_bw: object, rows: int) -> None:
    """Refuse what is not an int32[B, W] with so many rows.

    Raises
    ------
    TypeError
        No array, or one of another dtype.
    ValueError
        Another shape or layout.
    """
    check_array("mask_bw", mask_bw, np.int32, 2)
    assert isinstance(mask_bw, np.ndarray)
    if mask_bw.shape[0] != rows:
        raise ValueError(
            f"mask_bw: expected {rows} rows, one for each row of logits_bv, got {mask_bw.shape[0]}"
        )


def check_values(
    name: str, values: object, count: int, meaning: str, dtype: type[np.generic] = np.float32
) -> None:
    """Refuse what is not a vector of so many numbers.

    Raises
    ------
    TypeError
        No array, or one of another dtype.
    ValueError
        Another shape or layout.
    """
    check_array(name, values, dtype, 1)
    assert isinstance(values, np.ndarray)
    if values.shape[0] != count:
        raise ValueError(f"{name}: expected {count} values, {meaning}, got {values.shape[0]}")


def _check_ragged(ids_n: object, offsets: object, logits_bv: npt.NDArray[np.float32]) -> None:
    check_array("ids_n", ids_n, np.int32, 1)
    assert isinstance(ids_n, np.ndarray)
    check_offsets("offsets", offsets, ids_n.shape[0])
    assert isinstance(offsets, np.ndarray)
    rows, tokens = logits_bv.shape
    if offsets.shape[0] != rows + 1:
        raise ValueError(
            f"offsets: expected {rows + 1} values, one more than rows of logits_bv,"
            f" got {offsets.shape[0]}"
        )
    check_ids("ids_n", ids_n, tokens)


def allowed(mask_w: npt.NDArray[np.int32], tokens: int) -> npt.NDArray[np.bool_]:
    """Spread the bits of a row of a mask over its tokens."""
    bits_wi = mask_w[:, None] >> np.arange(WORD_BITS, dtype=np.int32) & 1
    allowed_v = np.zeros(tokens, dtype=np.bool_)
    covered = min(tokens, bits_wi.size)
    allowed_v[:covered] = bits_wi.ravel()[:covered]
    return allowed_v


def checked_row(
    row: int, logits_v: npt.NDArray[np.float32], mask_bw: npt.NDArray[np.int32] | None = None
) -> npt.NDArray[np.float32]:
    """Return the logits of a row, with -inf for what the mask does not allow.

    Raises
    ------
    ValueError
        An allowed logit is NaN or +inf, or none of them is finite.
    """
    if mask_bw is not None:
        logits_v = np.where(allowed(mask_bw[row], len(logits_v)), logits_v, np.float32(-np.inf))
    if np.isnan(logits_v).any():
        raise ValueError(f"logits_bv[{row}]: expected numbers below infinity, got nan")
    if (logits_v == np.inf).any():
        raise ValueError(f"logits_bv[{row}]: expected numbers below infinity, got inf")
    if not np.isfinite(logits_v).any():
        raise ValueError(f"logits_bv[{row}]: expected an allowed token of finite logit, got none")
    return logits_v
