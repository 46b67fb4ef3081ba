"""Overlapping windows of a long text, for answers that any part of it may decide."""

from __future__ import annotations

import numpy as np

from sprat.kernels import chunk


def windows(text: str, room: int, overlap: int) -> list[tuple[int, int]]:
    """Windows of whole sentences and words where it goes: see `sprat.kernels.chunk`.

    They are measured in characters, so that they are the same for every model. How many tokens a
    window has is for the caller to watch.

    Parameters
    ----------
    text : str
        Not empty.
    room : int
        Most characters of a window, from 1.
    overlap : int
        Most characters that neighbours share, in [0, room - 1].

    Returns
    -------
    list of (int, int)
        Start of each window and the character after its end. A text that is short enough is one.
    """
    if len(text) <= room:
        return [(0, len(text))]
    edges = np.arange(len(text) + 1, dtype=np.int32)
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    return [(start, end) for start, end in chunk(text, spans, room, overlap)[1].tolist()]


def halved(length: int) -> tuple[int, int]:
    """Room and overlap of the windows over one that has too many tokens for a model.

    Parameters
    ----------
    length : int
        Of that one, in characters, from 2.
    """
    half = (length + 1) // 2
    return half, half // 4
