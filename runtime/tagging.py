"""Tags of tokens as spans: which tag may follow which in the BIO and BIOES schemes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.errors import InvalidInput
from sprat.values import FloatArray

OUTSIDE = "O"

_SCHEMES = (frozenset("BI"), frozenset("BIES"))


def constraints(tags: Sequence[str]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What `sprat.kernels.viterbi` needs to give well-formed spans only.

    In BIO a span is ``B-x`` and any number of ``I-x``; in BIOES it is ``S-x`` alone, or ``B-x``,
    any number of ``I-x`` and ``E-x`` (Ratinov and Roth, CoNLL 2009, section 3).

    Parameters
    ----------
    tags : sequence of str
        K tags: ``O``, and for each label x either ``B-x`` and ``I-x`` or also ``E-x`` and ``S-x``,
        in any order; the same scheme for all labels.

    Returns
    -------
    transitions : float32[K, K]
        0 where the second tag may follow the first, else ``-inf``.
    start, end : float32[K]
        0 where a sequence may start or end with the tag, else ``-inf``.

    Raises
    ------
    InvalidInput
        A tag that is no such string or stands there twice, a label without one of its tags, or
        labels in different schemes.

    Examples
    --------
    >>> transitions, start, end = constraints(["O", "B-city", "I-city"])
    >>> transitions.tolist(), start.tolist(), end.tolist()
    ([[0.0, 0.0, -inf], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [0.0, 0.0, -inf], [0.0, 0.0, 0.0])
    """
    split = [_split(tag) for tag in tags]
    prefixes: dict[str, set[str]] = {}
    for tag, (prefix, label) in zip(tags, split, strict=True):
        seen = prefixes.setdefault(label, set())
        if prefix in seen:
            raise InvalidInput(f"tags: {tag!r} stands there twice", field="tags")
        seen.add(prefix)
    if OUTSIDE not in prefixes.pop("", ()):
        raise InvalidInput(f"tags: expected {OUTSIDE!r} among them", field="tags")
    scheme = max(prefixes.values(), key=len, default=set(_SCHEMES[0]))
    for label, seen in prefixes.items():
        if seen != scheme or seen not in _SCHEMES:
            raise InvalidInput(
                f"tags: label {label!r} has {', '.join(sorted(seen))}; expected B and I, or B, I, "
                "E and S, the same for every label",
                field="tags",
            )
    closes = "E" in scheme

    def begins(prefix: str) -> bool:
        return prefix in ("O", "B", "S")

    def ends(prefix: str) -> bool:
        return not closes or prefix in ("O", "E", "S")

    def follows(before: tuple[str, str], after: tuple[str, str]) -> bool:
        if begins(after[0]):
            return ends(before[0])
        return before[0] in ("B", "I") and before[1] == after[1]

    def cost(allowed: list[bool]) -> FloatArray:
        return np.where(allowed, np.float32(0), np.float32(-np.inf))

    transitions = np.array([cost([follows(one, other) for other in split]) for one in split])
    start = cost([begins(prefix) for prefix, _ in split])
    return transitions, start, cost([ends(prefix) for prefix, _ in split])


def _split(tag: str) -> tuple[str, str]:
    """Prefix and label; no label for ``O``."""
    prefix, dash, label = tag.partition("-")
    if tag != OUTSIDE and not (prefix in ("B", "I", "E", "S") and dash and label):
        raise InvalidInput(
            f"tags: expected {OUTSIDE!r} or B-, I-, E- or S- and a label, got {tag!r}", field="tags"
        )
    return prefix, label
