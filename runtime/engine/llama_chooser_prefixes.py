"""Beginnings of prompts that a llama.cpp context decodes once and forks.

They nest: what the prompts of a task have in common is kept for the next request; what the
questions about one text have in common stands behind it, and goes with the last of them. Cells that
nobody needs any more cost attention to everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sprat.engine.base import Choice
from sprat.values import IntArray


@dataclass(slots=True, eq=False)
class Prefix:
    """The first tokens of prompts, in a sequence of their own.

    Attributes
    ----------
    ids : int32[T]
        All of them, those of ``parent`` included.
    done : int
        How many are in the sequence.
    users : int
        Requests that need it.
    """

    ids: IntArray
    sequence: int
    parent: Prefix | None = None
    done: int = 0
    users: int = 0
    last_used: int = 0

    @property
    def own_tokens(self) -> int:
        """Tokens that its parent does not have."""
        return len(self.ids) - (len(self.parent.ids) if self.parent else 0)


_Key = tuple[str, int, bytes]
"""The adapter, how many tokens come from what is kept, and all tokens."""


@dataclass(slots=True)
class _Places:
    """Prefixes of one kind, by their tokens, and the sequences that are free for more."""

    free: list[int]
    taken: dict[_Key, Prefix] = field(default_factory=dict)

    def has_one_for(self, key: _Key | None) -> bool:
        """Whether the prefix is there, or could be."""
        is_full = not self.free and all(prefix.users for prefix in self.taken.values())
        return key is None or key in self.taken or not is_full


class Prefixes:
    """Prefixes of a context, and how many cells they take.

    Parameters
    ----------
    kept, texts : list of int
        Sequences for prefixes of a task, which are kept, and for those of a text behind them.
    forget : callable
        Removes the cells of a sequence.
    """

    def __init__(self, *, kept: list[int], texts: list[int], forget: Callable[[int], None]) -> None:
        self._kept = _Places(kept)
        self._texts = _Places(texts)
        self._forget = forget

    def has_places(self, choice: Choice) -> bool:
        """Whether there is a sequence for each prefix of a prompt; unused ones make way."""
        kept, text = _keys(choice)
        return self._kept.has_one_for(kept) and self._texts.has_one_for(text)

    def cells(self, choice: Choice) -> int:
        """Cells of all prefixes that are in use or that this prompt has."""
        kept, text = _keys(choice)
        sizes = {at: len(p.ids) for at, p in self._kept.taken.items() if p.users}
        sizes |= {at: p.own_tokens for at, p in self._texts.taken.items() if p.users}
        if kept is not None:
            sizes[kept] = choice.shared
        if text is not None:
            sizes[text] = choice.common - choice.shared
        return sum(sizes.values())

    def enter(self, choice: Choice, *, room: int, now: int) -> Prefix | None:
        """The innermost prefix of a prompt, maybe new and empty; None where it has none.

        Parameters
        ----------
        room : int
            Cells for kept prefixes that nobody uses; they are given up, the least recently used
            first, until the rest fits.
        now : int
            Time, in any unit.
        """
        kept, text = _keys(choice)
        self.drop_texts(but=text)
        spare = {at: p for at, p in self._kept.taken.items() if not p.users and at != kept}
        wants_place = kept is not None and kept not in self._kept.taken
        while sum(len(p.ids) for p in spare.values()) > room or (
            wants_place and not self._kept.free
        ):
            oldest = min(spare, key=lambda at: spare[at].last_used)
            self._drop(self._kept, oldest)
            del spare[oldest]
        prefix = None
        for places, key, length in (
            (self._kept, kept, choice.shared),
            (self._texts, text, choice.common),
        ):
            if key is not None:
                if key not in places.taken:
                    ids = choice.prompt[:length].copy()
                    places.taken[key] = Prefix(ids, places.free.pop(), prefix)
                prefix = places.taken[key]
                prefix.users += 1
                prefix.last_used = now
        return prefix

    def leave(self, prefix: Prefix | None) -> None:
        """A request needs its prefixes no more; its text's stays until `drop_texts`."""
        while prefix is not None:
            prefix.users -= 1
            prefix = prefix.parent

    def drop_texts(self, *, but: _Key | None = None) -> None:
        """Give up what texts had in common where no request needs it any more."""
        for key in [at for at, p in self._texts.taken.items() if not p.users and at != but]:
            self._drop(self._texts, key)

    def clear(self) -> None:
        """Give up everything; nothing may be in use."""
        for places in (self._kept, self._texts):
            for key in list(places.taken):
                self._drop(places, key)

    def _drop(self, places: _Places, key: _Key) -> None:
        sequence = places.taken.pop(key).sequence
        self._forget(sequence)
        places.free.append(sequence)


def _keys(choice: Choice) -> tuple[_Key | None, _Key | None]:
    """By which the kept prefix of a prompt and that of its text are found; None for none."""
    kept, text = (
        (choice.adapter, choice.shared, choice.prompt[:length].tobytes()) if length else None
        for length in (choice.shared, choice.common)
    )
    return kept, text
