"""Examples packed into one row of tokens: what their prompts begin with is read once for all.

The prompts of a task differ in their last few tokens only. Packed, the model reads the common part
once, then the rest of each example, which sees the common part and itself but none of the others;
its positions go on where the common part ends. It computes what it would for each example alone,
without padding, and a batch costs a third or less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.train.examples import Example
from sprat.values import IntArray

SHARED = -1
"""Owner of the tokens that all examples of a pack have."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Some examples as one row of T tokens, with S steps to learn.

    Attributes
    ----------
    ids, positions : int32[T]
        Tokens, and their places in their own example.
    owners : int32[T]
        The example of each token; `SHARED` for the common part.
    steps : int32[S]
        Tokens after which an answer goes on.
    targets : int32[S]
        The token that has to follow.
    among : tuple of tuple of int
        For each step, what it is chosen from; empty for the whole vocabulary.
    step_owners : int32[S]
        The example of each step.
    """

    ids: IntArray
    positions: IntArray
    owners: IntArray
    steps: IntArray
    targets: IntArray
    among: tuple[tuple[int, ...], ...]
    step_owners: IntArray

    def visible(self) -> npt.NDArray[np.bool_]:
        """Which tokens each token sees: bool[T, T]."""
        owner_t = self.owners
        is_own = (owner_t[None, :] == owner_t[:, None]) | (owner_t[None, :] == SHARED)
        seen: npt.NDArray[np.bool_] = np.tril(is_own)
        return seen


def pack(examples: Sequence[Example], shared: int) -> Pack:
    """Pack examples whose prompts have their first ``shared`` tokens in common."""
    ids = [examples[0].prompt[:shared]]
    positions = [np.arange(shared, dtype=np.int32)]
    owners = [np.full(shared, SHARED, np.int32)]
    steps: list[int] = []
    targets: list[int] = []
    among: list[tuple[int, ...]] = []
    step_owners: list[int] = []
    at = shared
    for index, example in enumerate(examples):
        own = np.concatenate([example.prompt[shared:], example.answer[:-1]])
        ids.append(own)
        positions.append(np.arange(shared, shared + len(own), dtype=np.int32))
        owners.append(np.full(len(own), index, np.int32))
        first = at + len(example.prompt) - shared - 1
        for step in example.steps:
            steps.append(first + step.at)
            targets.append(int(example.answer[step.at]))
            among.append(step.among)
            step_owners.append(index)
        at += len(own)
    return Pack(
        np.concatenate(ids),
        np.concatenate(positions),
        np.concatenate(owners),
        np.array(steps, np.int32),
        np.array(targets, np.int32),
        tuple(among),
        np.array(step_owners, np.int32),
    )


def cut(examples: Sequence[Example], shared: int, *, most_tokens: int) -> Iterator[list[Example]]:
    """Cut a batch into packs of at most ``most_tokens`` tokens, or of one example that has more."""
    group: list[Example] = []
    size = shared
    for example in examples:
        own = len(example) - shared
        if group and size + own > most_tokens:
            yield group
            group, size = [], shared
        group.append(example)
        size += own
    if group:
        yield group
