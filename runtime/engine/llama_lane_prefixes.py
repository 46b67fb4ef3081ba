"""What prompts have in common, decoded once: kept in places of a lane and copied from there.

In a lane every sequence has cells of its own, so a copy moves all cells of a place: 9 ms for 1,024
tokens of SmolLM2-135M where decoding 300 tokens again takes a second.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from sprat.engine.llama_lane import Lane
from sprat.values import IntArray

LEAST_TOKENS = 16
"""Shorter ones are decoded again: that takes no longer than the copy."""


_Key = tuple[str, bytes]


class Sharer(Protocol):
    """A sequence whose prompt begins as others may.

    Attributes
    ----------
    prompt : int32[T]
        All of it.
    shared : int
        First tokens of it that others may share.
    position : int
        Tokens that are decoded.
    adapter : str
        What they are decoded under.
    """

    place: int
    prompt: IntArray
    shared: int
    position: int
    adapter: str


class Prefixes:
    """The kept prefixes of one lane, the least recently used given up for a new one.

    Who comes first decodes the prefix; who comes meanwhile waits for it.

    Parameters
    ----------
    lane : Lane
        With as many spare places as prefixes can be kept.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._free = list(lane.spare)
        self._kept: OrderedDict[_Key, int] = OrderedDict()
        self._makers: dict[_Key, Sharer] = {}

    def lookup(self, sharer: Sharer) -> str:
        """Give a new sequence its prefix, or have it decode or await one.

        Returns
        -------
        {"none", "taken", "make", "wait"}
            It decodes all of its prompt; ``shared`` tokens were copied for it; it is the one that
            decodes them for others (see `offer`); or another one does: ask again after a step.
        """
        if sharer.shared < LEAST_TOKENS or not self._lane.spare:
            return "none"
        key = _key(sharer)
        if key in self._kept:
            self._kept.move_to_end(key)
            self._lane.copy(self._kept[key], sharer.place)
            return "taken"
        return "make" if self._makers.setdefault(key, sharer) is sharer else "wait"

    def offer(self, maker: Sharer) -> None:
        """Keep what a sequence has decoded, when that is just the prefix that it makes."""
        if maker.position != maker.shared or self._makers.get(_key(maker)) is not maker:
            return
        del self._makers[_key(maker)]
        place = self._free.pop() if self._free else self._kept.popitem(last=False)[1]
        self._lane.copy(maker.place, place)
        self._kept[_key(maker)] = place

    def left(self, sharer: Sharer) -> None:
        """Forget a sequence that ends; who waited for it makes the prefix."""
        if sharer.shared and self._makers.get(_key(sharer)) is sharer:
            del self._makers[_key(sharer)]


def _key(sharer: Sharer) -> _Key:
    return sharer.adapter, sharer.prompt[: sharer.shared].tobytes()
