"""Every error that sprat raises on purpose.

The tree, with the gRPC status that `server.status` answers for each branch::

    SpratError                      INTERNAL
    ├── InvalidInput                INVALID_ARGUMENT      a request field that cannot be used
    │   └── InputTooLong            INVALID_ARGUMENT      more tokens than are accepted
    ├── NotFound                    NOT_FOUND             unknown task, model or decision
    ├── TaskNotSupported            FAILED_PRECONDITION   this model cannot do what was asked
    ├── Retryable                   UNAVAILABLE           try the same call again later
    │   ├── NotReady                UNAVAILABLE           loading or draining
    │   └── QueueFull               RESOURCE_EXHAUSTED    no room in an admission queue
    ├── DeadlineExceeded            DEADLINE_EXCEEDED     not enough time left to answer
    ├── Cancelled                   CANCELLED             the caller gave up
    ├── CorruptFile                 DATA_LOSS             digest mismatch, cut or malformed file
    │   ├── StaleBundle             DATA_LOSS             made with another model than the one here
    │   └── StaleAdapter            DATA_LOSS             made for another model than the one here
    ├── Unauthenticated             UNAUTHENTICATED       no or wrong credentials
    ├── PermissionDenied            PERMISSION_DENIED     credentials do not allow this
    └── SetupError                  FAILED_PRECONDITION   something here is missing or wrong
        ├── ConfigError             FAILED_PRECONDITION   a configuration value, named by its path
        ├── DataError               FAILED_PRECONDITION   a row of a data file, named by its line
        ├── DownloadError           FAILED_PRECONDITION   no source could deliver a model
        ├── EndpointError           FAILED_PRECONDITION   a remote model refuses us, or speaks oddly
        ├── StoreError              FAILED_PRECONDITION   the store cannot be read or written
        ├── UnsupportedModel        FAILED_PRECONDITION   an unknown architecture, tensor or format
        └── EngineError             INTERNAL              an execution library cannot load or run

Messages never contain input or output text: they name fields, indices, counts and limits.
Facts live in ``metadata``, which travels with the error: what `sprat.client` raises is the same
class with the same facts as what the server raised.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import ClassVar

_LONGEST_NAME = 128
_MOST_OFFERED = 10


class SpratError(Exception):
    """Base of every error raised on purpose.

    Parameters
    ----------
    message : str
        What was expected, what came, and where. Free of input text.
    metadata : mapping of str to str, optional
        Machine-readable facts (counts, limits, names) for ``google.rpc.ErrorInfo``.

    Attributes
    ----------
    reason : str
        Stable UPPER_SNAKE identifier of the class, for programs.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidInput(SpratError):
    """A request field that cannot be used.

    Parameters
    ----------
    message : str
        What was expected and what came.
    field : str
        Path of the field in the request, such as ``texts[3]``.
    """

    reason = "INVALID_INPUT"

    def __init__(
        self, message: str, *, field: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, metadata={"field": field, **(metadata or {})})

    @property
    def field(self) -> str:
        """Path of the field in the request."""
        return self.metadata.get("field", "")


class InputTooLong(InvalidInput):
    """An input of more tokens than the limit; nothing was truncated.

    Parameters
    ----------
    field : str
        Path of the field in the request.
    tokens : int
        Tokens of the input, special tokens included.
    limit : int
        Most tokens that are accepted.
    """

    reason = "INPUT_TOO_LONG"

    def __init__(self, *, field: str, tokens: int, limit: int, hint: str = "") -> None:
        super().__init__(
            f"{field}: {tokens} tokens, at most {limit} are accepted"
            + (f"; {hint}" if hint else ""),
            field=field,
            metadata={"tokens": str(tokens), "limit": str(limit)},
        )

    @property
    def tokens(self) -> int:
        """Tokens of the input."""
        return int(self.metadata["tokens"])

    @property
    def limit(self) -> int:
        """Most tokens that are accepted."""
        return int(self.metadata["limit"])


class NotFound(SpratError):
    """An unknown resource.

    Parameters
    ----------
    kind : str
        ``task``, ``model``, ``bundle``, ``tier``, ``adapter``, ``version`` or ``decision``.
    name : str
        The name that was asked for.
    known : sequence of str, optional
        Names that exist; the first ten are offered in the message.
    """

    reason = "NOT_FOUND"

    def __init__(self, kind: str, name: str, known: tuple[str, ...] = ()) -> None:
        # Errors travel in HTTP/2 trailers, which hold a few KiB; a request may ask for any name.
        if len(name) > _LONGEST_NAME:
            name = name[: _LONGEST_NAME - 3] + "..."
        offered = sorted(known)[:_MOST_OFFERED]
        offer = f"; known: {', '.join(offered)}" if known else ""
        if len(known) > _MOST_OFFERED:
            offer += f" and {len(known) - _MOST_OFFERED} more"
        super().__init__(f"no {kind} named {name!r}{offer}", metadata={"kind": kind, "name": name})
        self.known = known

    @property
    def kind(self) -> str:
        """What was asked for."""
        return self.metadata["kind"]

    @property
    def name(self) -> str:
        """The name that was asked for, cut after 128 characters."""
        return self.metadata["name"]


class TaskNotSupported(SpratError):
    """The model cannot do what was asked, and never will."""

    reason = "TASK_NOT_SUPPORTED"


class Retryable(SpratError):
    """Try the same call again later."""

    reason = "RETRYABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            message, metadata={"retry_after_s": f"{retry_after_s:.3f}", **(metadata or {})}
        )

    @property
    def retry_after_s(self) -> float:
        """Seconds after which the same call may succeed."""
        return float(self.metadata["retry_after_s"])


class NotReady(Retryable):
    """Loading or draining: the same call may succeed after ``retry_after_s`` seconds."""

    reason = "NOT_READY"


class QueueFull(Retryable):
    """No room in an admission queue: try again after ``retry_after_s`` seconds."""

    reason = "QUEUE_FULL"


class DeadlineExceeded(SpratError):
    """The work could not be finished in the time that the caller gave."""

    reason = "DEADLINE"


class Cancelled(SpratError):
    """The caller gave up before the answer was there."""

    reason = "CANCELLED"


class CorruptFile(SpratError):
    """A file whose content is not what its digest or its format says.

    Parameters
    ----------
    path : str
        The file.
    message : str
        What was expected and what is there.
    """

    reason = "CORRUPT_FILE"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}", metadata={"path": path})

    @property
    def path(self) -> str:
        """The file."""
        return self.metadata["path"]


class StaleBundle(CorruptFile):
    """A bundle that was made with another model than the one in the store."""

    reason = "STALE_BUNDLE"


class StaleAdapter(CorruptFile):
    """An adapter that was made for another model than the one in the store."""

    reason = "STALE_ADAPTER"


class Unauthenticated(SpratError):
    """No credentials came, or none that are known."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(SpratError):
    """The credentials are known but do not allow this call."""

    reason = "PERMISSION_DENIED"


class SetupError(SpratError):
    """Something on this machine is missing or wrong; the message says what to do."""

    reason = "SETUP"


class ConfigError(SetupError):
    """A configuration value that cannot be used.

    Parameters
    ----------
    path : str
        Where it stands, such as ``tasks.tickets.tiers[1].accept_at``.
    message : str
        What was expected and what came.
    """

    reason = "CONFIG"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}", metadata={"path": path})

    @property
    def path(self) -> str:
        """Where the value stands."""
        return self.metadata["path"]


class DataError(SetupError):
    """A row of a data file that cannot be used.

    Parameters
    ----------
    path : str
        The file.
    line : int
        Its line, from 1; 0 when the file as a whole is meant.
    message : str
        What was expected and what came.
    """

    reason = "DATA"

    def __init__(self, path: str, line: int, message: str) -> None:
        where = f"{path}:{line}" if line else path
        super().__init__(f"{where}: {message}", metadata={"path": path, "line": str(line)})

    @property
    def path(self) -> str:
        """The file."""
        return self.metadata["path"]

    @property
    def line(self) -> int:
        """Its line, from 1; 0 when the file as a whole is meant."""
        return int(self.metadata["line"])


class DownloadError(SetupError):
    """No source could deliver a model; the message lists each source and why."""

    reason = "DOWNLOAD"


class EndpointError(SetupError):
    """A remote model's endpoint refuses us, cannot be trusted, or does not speak the protocol."""

    reason = "ENDPOINT"


class StoreError(SetupError):
    """The store cannot be read or written (permissions, space, an unfinished change)."""

    reason = "STORE"


class UnsupportedModel(SetupError):
    """An architecture, tensor or format that sprat does not know."""

    reason = "UNSUPPORTED_MODEL"


class EngineError(SetupError):
    """An execution library cannot load or run here."""

    reason = "ENGINE"


def describe(error: BaseException) -> str:
    """An unforeseen exception for the log: its class and where it came from, innermost first.

    Without its message, which may hold input text.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{PurePath(f.filename).name}:{f.lineno} ({f.name})" for f in reversed(frames)]
    return f"{type(error).__name__} at {' < '.join(places[:8])}"
