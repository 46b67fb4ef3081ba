"""How long work tells its caller where it stands."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives phases and bytes; the library renders nothing itself."""

    def phase(self, text: str, total: int | None = None) -> None:
        """Begin a phase; the one before it is over.

        Parameters
        ----------
        text : str
            What happens now, for people: ``download smollm2-135m``.
        total : int or None
            Bytes that `advance` will sum up to; None: unknown, or nothing is counted.
        """
        ...

    def advance(self, size: int) -> None:
        """Count ``size`` more bytes of the phase; negative when some have to be fetched again."""
        ...


class Silent:
    """Shows nothing."""

    def phase(self, text: str, total: int | None = None) -> None:
        """Ignore it."""

    def advance(self, size: int) -> None:
        """Ignore it."""
