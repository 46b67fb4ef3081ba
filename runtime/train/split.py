"""Cut rows into parts that share no text: held-out rows, and folds."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sprat.errors import DataError, InvalidInput
from sprat.train.data import Dataset
from sprat.values import IntArray

MOST_FOLDS = 5
LEAST_TEXTS = 2
"""Different texts that the training rows of a label need: one is scored by a head fitted on the
other."""
MAX_SHOWN_LABELS = 10
"""A message names at most so many labels with too few texts; the rest are counted."""


def same_texts(texts: Sequence[str]) -> IntArray:
    """A number for each text; texts that differ only in case, white space or form share theirs.

    Such rows in two parts would be a test on what was learned by heart.

    Returns
    -------
    int32[N]
        From 0, in the order of first occurrence.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text_key(t), len(numbers)) for t in texts], np.int32)


def text_key(text: str) -> str:
    """What texts that differ only in case, white space or Unicode form have in common."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split(data: Dataset, held_out: float, *, seed: int) -> tuple[Dataset, Dataset]:
    """Training rows and held-out rows, every label in both in about the same shares.

    Parameters
    ----------
    held_out : float
        Share of the rows that is held out; above 0, below 1. At least one row of each label is.
    seed : int
        At least 0; the same seed cuts the same rows in the same way.

    Raises
    ------
    DataError
        When there are fewer than two labels, or a label has fewer than three different texts.
    InvalidInput
        When ``held_out`` is out of range.
    """
    if not 0 < held_out < 1:
        raise InvalidInput(
            f"held_out: expected above 0 and below 1, got {held_out}", field="held_out"
        )
    groups_n = same_texts(data.texts)
    by_label = _by_label(data, groups_n, least_texts=LEAST_TEXTS + 1)
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups_n)
    is_held = np.zeros(len(sizes), np.bool_)
    for members in by_label:
        goal = held_out * sizes[members].sum()
        shuffled = rng.permutation(members)
        chosen: list[int] = []
        taken = 0
        for group in shuffled.tolist():
            if len(chosen) == len(members) - LEAST_TEXTS:
                break
            # Half a group over the goal is as near to it as half a group under.
            if taken + sizes[group] / 2 <= goal:
                chosen.append(group)
                taken += sizes[group]
        is_held[chosen or [shuffled[sizes[shuffled].argmin()]]] = True
    held_n = is_held[groups_n]
    return data.take(np.flatnonzero(~held_n).tolist()), data.take(np.flatnonzero(held_n).tolist())


def split_texts(
    texts: Sequence[str], held_out: float, *, seed: int, path: str
) -> tuple[list[int], list[int]]:
    """Rows to keep and rows to hold out, of rows without labels; the same texts stay together.

    Parameters
    ----------
    held_out : float
        Share of the different texts that is held out, above 0 and below 1: at least one, not all.
    seed : int
        At least 0.
    path : str
        The file, for messages.

    Raises
    ------
    DataError
        There is one text only.
    """
    groups_n = same_texts(texts)
    count = int(groups_n.max()) + 1
    if count < 2:
        raise DataError(path, 0, f"expected 2 or more different texts, found {count}")
    wanted = min(max(1, round(held_out * count)), count - 1)
    chosen = np.random.default_rng(seed).permutation(count)[:wanted]
    is_held_n = np.isin(groups_n, chosen)
    return np.flatnonzero(~is_held_n).tolist(), np.flatnonzero(is_held_n).tolist()


def fold_texts(
    texts: Sequence[str], *, seed: int, kinds_n: npt.NDArray[np.integer] | None = None
) -> IntArray:
    """A fold of five for each row without a label; the same texts share theirs: int32[N], from 0.

    Parameters
    ----------
    seed : int
        At least 0.
    kinds_n : int[N], optional
        Texts of each kind are dealt evenly over the folds; of the same texts the first one counts.
    """
    groups_n = same_texts(texts)
    fold_of = np.arange(int(groups_n.max()) + 1, dtype=np.int32) % MOST_FOLDS
    rng = np.random.default_rng(seed)
    if kinds_n is None:
        folds_n: IntArray = rng.permutation(fold_of)[groups_n]
        return folds_n
    _, first = np.unique(groups_n, return_index=True)
    order = rng.permutation(len(first))
    dealt = np.empty_like(fold_of)
    dealt[order[np.argsort(kinds_n[first[order]], kind="stable")]] = fold_of
    return dealt[groups_n]


def assign_folds(data: Dataset, *, seed: int) -> IntArray:
    """A fold for each row: five of about equal size, every label dealt evenly over them.

    Where a label has fewer than five different texts there are only as many folds as it has, so
    that each row is scored by a head that knows its label.

    Parameters
    ----------
    seed : int
        At least 0.

    Returns
    -------
    int32[N]
        From 0.

    Raises
    ------
    DataError
        When there are fewer than two labels, or a label has fewer than two different texts.
    """
    groups_n = same_texts(data.texts)
    by_label = _by_label(data, groups_n, least_texts=LEAST_TEXTS)
    folds = min(MOST_FOLDS, min(map(len, by_label)))
    rng = np.random.default_rng(seed)
    dealt = np.concatenate([rng.permutation(members) for members in by_label])
    fold_of_group = np.empty(len(dealt), np.int32)
    fold_of_group[dealt] = np.arange(len(dealt)) % folds
    return fold_of_group[groups_n]


def _by_label(
    data: Dataset, groups_n: IntArray, *, least_texts: int
) -> list[npt.NDArray[np.int64]]:
    """The groups of each label, sorted by label; a group counts for the label of its first row.

    Raises
    ------
    DataError
        When there are fewer than two labels, or a label has fewer than ``least_texts`` groups.
    """
    _, first = np.unique(groups_n, return_index=True)
    members: dict[str, list[int]] = {label: [] for label in sorted(set(data.labels))}
    if len(members) < 2:
        raise DataError(data.path, 0, f"expected 2 or more labels, found {len(members)}")
    for group, row in enumerate(first.tolist()):
        members[data.labels[row]].append(group)
    few = [f"{label!r} ({len(m)})" for label, m in members.items() if len(m) < least_texts]
    if few:
        more = f" and {len(few) - MAX_SHOWN_LABELS} more" if len(few) > MAX_SHOWN_LABELS else ""
        raise DataError(
            data.path,
            0,
            f"expected {least_texts} or more different texts of each label, found fewer of "
            + ", ".join(few[:MAX_SHOWN_LABELS])
            + more,
        )
    return [np.array(groups, np.int64) for groups in members.values()]
