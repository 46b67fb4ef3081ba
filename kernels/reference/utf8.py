"""Incremental UTF-8 decoding."""

from __future__ import annotations

import re

# What a well-formed sequence can start with and has not ended with (Unicode, table 3-7).
_INCOMPLETE = re.compile(
    rb"(?:[\xc2-\xdf]"
    rb"|\xe0[\xa0-\xbf]?"
    rb"|\xed[\x80-\x9f]?"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?"
    rb"|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?"
    rb"|[\xf1-\xf3](?:[\x80-\xbf][\x80-\xbf]?)?"
    rb")\Z"
)


class Utf8Stream:
    r"""Decode UTF-8 that arrives in pieces cut anywhere.

    The text of all calls together never depends on where the input was cut. Every maximal subpart
    of an ill-formed sequence becomes one U+FFFD: the same text as
    ``bytes.decode("utf-8", errors="replace")`` gives for the whole input. The start of a sequence
    at the end of a piece (3 bytes at most) is held back until the next piece or `flush`.

    References
    ----------
    The Unicode Standard, chapter 3, "U+FFFD Substitution of Maximal Subparts"; WHATWG Encoding
    Standard, "UTF-8 decoder".

    Examples
    --------
    >>> stream = Utf8Stream()
    >>> stream.feed(b"caf\xc3"), stream.feed(b"\xa9 \xe2\x82"), stream.flush()
    ('caf', 'é ', '\ufffd')
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> str:
        """Decode the next piece.

        Parameters
        ----------
        data : bytes
            Any bytes, well-formed or not; may be empty.

        Returns
        -------
        str
            The text that is certain by now.

        Raises
        ------
        TypeError
            `data` is not bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"data: expected bytes, got {type(data).__name__}")
        data = self._held + data
        incomplete = _INCOMPLETE.search(data, max(0, len(data) - 3))
        end = incomplete.start() if incomplete else len(data)
        self._held = data[end:]
        return data[:end].decode("utf-8", errors="replace")

    def flush(self) -> str:
        r"""End the input; afterwards the stream is as new.

        Returns
        -------
        str
            ``"\ufffd"`` when the input ended inside a sequence, else ``""``.
        """
        held, self._held = self._held, b""
        return held.decode("utf-8", errors="replace")
