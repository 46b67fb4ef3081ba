"""From token bytes to text that is safe to show: whole code points, and no half stop string."""

from __future__ import annotations

from sprat.errors import InvalidInput
from sprat.kernels import StopMatcher, Utf8Stream


class TextStream:
    """Decodes bytes and ends before the first stop string.

    Text comes out as soon as no stop string can begin in it any more. The concatenated output never
    depends on how the bytes were cut.

    Parameters
    ----------
    stop : tuple of str, default ()
        As `sprat.kernels.StopMatcher` takes them: the one that is complete first wins; of two that
        end together, the longer.

    Attributes
    ----------
    stopped : bool
        A stop string came: there is no more output.

    Raises
    ------
    InvalidInput
        A stop string is empty, or they are too long together.

    Examples
    --------
    >>> stream = TextStream(("END",))
    >>> stream.feed(b"so it is. EN"), stream.feed(b"D of story"), stream.stopped
    ('so it is. ', '', True)
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        try:
            self._matcher = StopMatcher(stop)
        except ValueError as error:
            field, _, message = str(error).partition(": ")
            raise InvalidInput(message, field=field) from error
        self._decoder = Utf8Stream()

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._matcher.stopped

    def feed(self, data: bytes) -> str:
        """Take bytes; return the text that is safe to show."""
        return self._matcher.feed(self._decoder.feed(data))

    def flush(self) -> str:
        """End the stream; return what was held back. Bytes of half a code point are U+FFFD."""
        return self._matcher.feed(self._decoder.flush()) + self._matcher.flush()
