"""From token bytes to text that is safe to show: whole code points, and no half stop string."""

from __future__ import annotations

from sprat.kernels import Utf8Stream


class TextStream:
    """Decodes bytes and ends before the first stop string.

    What was fed so far comes out as soon as no stop string can begin in it any more. The
    concatenated output never depends on how the bytes were cut.

    Parameters
    ----------
    stop : tuple of str
        Not empty ones; the one that is complete first wins, of two that end together the longer.

    Attributes
    ----------
    stopped : bool
        A stop string came: there is no more output.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = Utf8Stream()
        self._stop = stop
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes) -> str:
        """Take bytes; return the text that is safe to show."""
        return self._take(self._decoder.feed(data))

    def flush(self) -> str:
        """End the stream; return what was held back."""
        text = self._take(self._decoder.flush()) + self._held
        self._held = ""
        return text

    def _take(self, text: str) -> str:
        shown = ""
        for character in text if self._stop else ():
            self._held += character
            shown += self._advance()
            if self.stopped:
                return shown
        return shown if self._stop else text

    def _advance(self) -> str:
        """Look at what is held after one more character; return what can be let go."""
        for stop in sorted(self._stop, key=len, reverse=True):
            if self._held.endswith(stop):
                self.stopped = True
                shown, self._held = self._held[: -len(stop)], ""
                return shown
        keep = max(
            length
            for stop in self._stop
            for length in range(min(len(stop) - 1, len(self._held)) + 1)
            if self._held.endswith(stop[:length])
        )
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown
