"""From token bytes to text that is safe to show: whole code points, and no half stop string."""

from __future__ import annotations

from sprat.errors import InvalidInput
from sprat.kernels import Utf8Stream


class TextStream:
    """Decodes bytes and ends before the first stop string.

    Text comes out as soon as no stop string can begin in it any more. The concatenated output never
    depends on how the bytes were cut.

    Parameters
    ----------
    stop : tuple of str, default ()
        The one that is complete first wins; of two that end together, the longer.

    Attributes
    ----------
    stopped : bool
        A stop string came: there is no more output.

    Raises
    ------
    InvalidInput
        A stop string is empty.

    Examples
    --------
    >>> stream = TextStream(("END",))
    >>> stream.feed(b"so it is. EN"), stream.feed(b"D of story"), stream.stopped
    ('so it is. ', '', True)
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        for index, text in enumerate(stop):
            if not text:
                raise InvalidInput(
                    "expected a stop string, got an empty one", field=f"stop[{index}]"
                )
        self.stopped = False
        self._stop = stop
        self._decoder = Utf8Stream()
        self._held = ""
        self._longest_hold = max(map(len, stop), default=1) - 1

    def feed(self, data: bytes) -> str:
        """Take bytes; return the text that is safe to show."""
        return self._take(self._decoder.feed(data))

    def flush(self) -> str:
        """End the stream; return what was held back. Bytes of half a code point are U+FFFD."""
        shown = self._take(self._decoder.flush())
        shown, self._held = shown + self._held, ""
        return shown

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        matches = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if matches:
            self.stopped = True
            _, cut = min(matches)
            self._held = ""
        else:
            cut = len(text) - self._hold(text)
            self._held = text[cut:]
        return text[:cut]

    def _hold(self, text: str) -> int:
        """Length of the longest end of ``text`` that a stop string begins with."""
        for length in range(min(self._longest_hold, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
