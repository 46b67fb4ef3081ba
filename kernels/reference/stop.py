"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_CHARACTERS = 65_536


def check_stop(stop: object) -> tuple[str, ...]:
    """Return the stop strings, or refuse them.

    Raises
    ------
    TypeError
        No list or tuple of str.
    ValueError
        An empty stop string, or too many characters.
    """
    if not isinstance(stop, list | tuple):
        raise TypeError(f"stop: expected a list or tuple of str, got {type(stop).__name__}")
    stop = tuple(stop)
    for index, text in enumerate(stop):
        if not isinstance(text, str):
            raise TypeError(f"stop[{index}]: expected str, got {type(text).__name__}")
        if not text:
            raise ValueError(f"stop[{index}]: expected a stop string, got an empty one")
    characters = sum(map(len, stop))
    if characters > _MOST_CHARACTERS:
        raise ValueError(
            f"stop: expected at most {_MOST_CHARACTERS} characters in all, got {characters}"
        )
    return stop


class StopMatcher:
    """Let text through up to the first stop string, wherever the pieces are cut.

    The stop string that is complete first ends the text; of two that end together, the longer does.
    The text ends before it. An end of the input that a stop string begins with is held back until
    the next piece or `flush`: the longest such end, and no more. The output of all calls together
    never depends on where the input was cut.

    Parameters
    ----------
    stop : list of str or tuple of str
        None of them empty, 65,536 characters in all. Without any, all text goes through.

    Attributes
    ----------
    stopped : bool
        A stop string came: there is no more output.
    matched : str or None
        The stop string that came.

    Raises
    ------
    TypeError
        `stop` is no list or tuple, or holds something other than str.
    ValueError
        A stop string is empty, or they are too long together.

    References
    ----------
    Aho and Corasick, "Efficient string matching: an aid to bibliographic search", CACM 18(6), 1975:
    time linear in the text, however many stop strings there are.

    Examples
    --------
    >>> matcher = StopMatcher(["END", "stop"])
    >>> matcher.feed("so it is. EN"), matcher.feed("D of story"), matcher.matched
    ('so it is. ', '', 'END')
    """

    __slots__ = ("_held", "_longest_hold", "_matched", "_stop")

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = check_stop(stop)
        self._longest_hold = max(map(len, self._stop), default=1) - 1
        self._held = ""
        self._matched: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._matched is not None

    @property
    def matched(self) -> str | None:
        """The stop string that came."""
        return self._matched

    def feed(self, text: str) -> str:
        """Take the next piece.

        Parameters
        ----------
        text : str
            Any text, lone surrogates included; may be empty.

        Returns
        -------
        str
            The text that is certain by now; ``""`` once `stopped`.

        Raises
        ------
        TypeError
            `text` is not str.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected str, got {type(text).__name__}")
        if self._matched is not None:
            return ""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            end, cut = min(found)
            self._matched = text[cut:end]
            self._held = ""
        else:
            cut = len(text) - self._hold(text)
            self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """End the input; afterwards nothing is held, and a stop string that came stays known.

        Returns
        -------
        str
            What was held back.
        """
        held, self._held = self._held, ""
        return held

    def _hold(self, text: str) -> int:
        for length in range(min(self._longest_hold, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
