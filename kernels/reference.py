"""The specification of every kernel, in numpy and plain Python.

The native extensions do the same faster and carry these docstrings; tests run every kernel test on
both and compare results and exceptions. Kernels raise only ValueError, TypeError and MemoryError.

Dimension letters, as suffixes of array names:

=======  ==========================================
``b``    row of a batch
``t``    token position in a row, padding included
``h``    component of a hidden vector
=======  ==========================================
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import numpy.typing as npt

#: Names of the instruction-set variants that this implementation has.
VARIANTS = ("numpy",)


def pool(
    hidden_bth: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    mode: Literal["mean", "cls"],
    normalize: bool = True,
) -> npt.NDArray[np.float32]:
    """Pool the token vectors of each row into one vector.

    With n the length of row b::

        mean:  p[b] = (hidden[b, 0] + ... + hidden[b, n - 1]) / n
        cls:   p[b] = hidden[b, 0]

    and, when `normalize` is set, ``p[b] / sqrt(sum(p[b] ** 2))``. Positions from n on are never
    read. Sums over tokens run in float32 in order of position; the norm is taken in float64, so
    that it neither overflows nor vanishes for any finite float32 vector.

    Parameters
    ----------
    hidden_bth : float32[B, T, H]
        Last hidden states, C-contiguous. Read-only arrays are accepted.
    lengths_b : int32[B]
        Tokens of each row, special tokens included, in [1, T].
    mode : {"mean", "cls"}
        Average over the tokens of the row, or its first token.
    normalize : bool, default True
        Scale each row to length 1. A zero row stays zero.

    Returns
    -------
    float32[B, H]
        A new array. NaN in a token that is read gives NaN in its row, and in no other.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, a length out of range, or an unknown mode.

    References
    ----------
    Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3 (mean and CLS pooling).

    Examples
    --------
    >>> import numpy as np
    >>> hidden = np.array([[[3, 0], [3, 8], [9, 9]]], dtype=np.float32)
    >>> pool(hidden, np.array([2], dtype=np.int32), "mean")
    array([[0.6, 0.8]], dtype=float32)
    """
    _check_array("hidden_bth", hidden_bth, np.float32, 3)
    _check_array("lengths_b", lengths_b, np.int32, 1)
    if not isinstance(mode, str):
        raise TypeError(f"mode: expected str, got {type(mode).__name__}")
    if mode not in ("mean", "cls"):
        raise ValueError(f"mode: expected 'mean' or 'cls', got {mode!r}")
    if not isinstance(normalize, bool):
        raise TypeError(f"normalize: expected bool, got {type(normalize).__name__}")
    rows, tokens, width = hidden_bth.shape
    if lengths_b.shape[0] != rows:
        raise ValueError(
            f"lengths_b: expected {rows} lengths, one for each row of hidden_bth,"
            f" got {lengths_b.shape[0]}"
        )
    for row, length in enumerate(lengths_b.tolist()):
        if not 1 <= length <= tokens:
            raise ValueError(f"lengths_b[{row}]: expected a length in [1, {tokens}], got {length}")

    pooled_bh = np.empty((rows, width), dtype=np.float32)
    with np.errstate(all="ignore"):
        for row, length in enumerate(lengths_b.tolist()):
            if mode == "cls":
                pooled_bh[row] = hidden_bth[row, 0]
            else:
                total_h = np.zeros(width, dtype=np.float32)
                for hidden_h in hidden_bth[row, :length]:
                    total_h += hidden_h
                pooled_bh[row] = total_h / np.float32(length)
            if normalize:
                wide_h = pooled_bh[row].astype(np.float64)
                norm = np.sqrt(np.sum(wide_h * wide_h))
                if norm != 0:
                    pooled_bh[row] = wide_h / norm
    return pooled_bh


def _check_array(name: str, array: object, dtype: type[np.generic], ndim: int) -> None:
    expected = np.dtype(dtype)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a numpy array, got {type(array).__name__}")
    if array.dtype != expected:
        raise TypeError(f"{name}: expected dtype {expected}, got {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected ndim {ndim}, got {array.ndim}")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(
            f"{name}: expected an aligned, C-contiguous array, got strides {array.strides}"
        )


# What a well-formed sequence can start with and has not ended with (Unicode, table 3-7).
_INCOMPLETE = re.compile(
    rb"(?:[\xc2-\xdf]"
    rb"|\xe0[\xa0-\xbf]?"
    rb"|\xed[\x80-\x9f]?"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?"
    rb"|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?"
    rb"|[\xf1-\xf3](?:[\x80-\xbf][\x80-\xbf]?)?"
    rb")\Z"
)


class Utf8Stream:
    r"""Decode UTF-8 that arrives in pieces cut anywhere.

    The text of all calls together never depends on where the input was cut. Every maximal subpart
    of an ill-formed sequence becomes one U+FFFD: the same text as
    ``bytes.decode("utf-8", errors="replace")`` gives for the whole input. The start of a sequence
    at the end of a piece (3 bytes at most) is held back until the next piece or `flush`.

    References
    ----------
    The Unicode Standard, chapter 3, "U+FFFD Substitution of Maximal Subparts"; WHATWG Encoding
    Standard, "UTF-8 decoder".

    Examples
    --------
    >>> stream = Utf8Stream()
    >>> stream.feed(b"caf\xc3"), stream.feed(b"\xa9 \xe2\x82"), stream.flush()
    ('caf', 'é ', '\ufffd')
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> str:
        """Decode the next piece.

        Parameters
        ----------
        data : bytes
            Any bytes, well-formed or not; may be empty.

        Returns
        -------
        str
            The text that is certain by now.

        Raises
        ------
        TypeError
            `data` is not bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"data: expected bytes, got {type(data).__name__}")
        data = self._held + data
        incomplete = _INCOMPLETE.search(data, max(0, len(data) - 3))
        end = incomplete.start() if incomplete else len(data)
        self._held = data[end:]
        return data[:end].decode("utf-8", errors="replace")

    def flush(self) -> str:
        r"""End the input; afterwards the stream is as new.

        Returns
        -------
        str
            ``"\ufffd"`` when the input ended inside a sequence, else ``""``.
        """
        held, self._held = self._held, b""
        return held.decode("utf-8", errors="replace")
