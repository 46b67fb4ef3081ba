"""How many tokens one llama.cpp batch may hold, so that answers being written flow on."""

from __future__ import annotations

SLICE_TOKENS = 64
"""Most tokens of one batch: bounds how long permits are held at a stretch."""

LEAST_TOKENS = 16
"""A prompt advances by about so much in a step however slow the machine is."""

GAP_S = 0.1
"""How long a step may take while somebody reads along: with what surrounds it, the next token of
an answer comes within 150 ms."""

_WEIGHT = 0.3


class Slices:
    """Sizes the batches of one engine by what its tokens were seen to cost.

    A batch takes time in proportion to its tokens, and a token costs 1 to 10 ms by model, threads
    and machine. Only steps of `LEAST_TOKENS` and more are measured: smaller ones cost more a token.
    """

    def __init__(self) -> None:
        self._token_s = 0.0

    def size(self, *, is_writing: bool) -> int:
        """Most tokens of the next step, from `LEAST_TOKENS` to `SLICE_TOKENS`.

        Parameters
        ----------
        is_writing : bool
            Whether an answer has begun, so that its next token is awaited.
        """
        if not is_writing or not self._token_s:
            return SLICE_TOKENS
        return max(LEAST_TOKENS, min(SLICE_TOKENS, int(GAP_S / self._token_s)))

    def note(self, tokens: int, seconds: float) -> None:
        """Learn from a step of so many tokens."""
        if tokens >= LEAST_TOKENS:
            cost = seconds / tokens
            known = self._token_s or cost
            self._token_s = known + _WEIGHT * (cost - known)
