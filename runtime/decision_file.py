"""The decision log as its writer keeps it: sound whatever happens, private, and within its bounds.

The file is in WAL mode with ``synchronous = NORMAL``. What is committed is with the kernel, so that
killing the process at any moment loses nothing of it; a power cut may lose the last commits, but
neither older ones nor the file, since each frame of the write-ahead log has a checksum, and pages
go into the file only once the log that holds them is on the disk.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from sprat.decisions import BUSY_S, SCHEMA, check_format
from sprat.errors import DataError

log = logging.getLogger(__name__)

KEY_BYTES = 32

TRIMMED_ROWS = 5000
"""Most rows that make room at once: a much smaller bound is reached step by step."""

TRIMMED_PAGES = 1024
"""Pages given back to the file system at once, as soon as so many are free."""

KEPT_LOSSES = 1000
"""Most rows of `losses`."""

DAY_S = 86_400.0


class DecisionFile:
    """A decision log that one process appends to; others may read it, or append too.

    The file, its key and what SQLite puts beside it are 0600; a folder that is not there is made
    0700. A damaged file is set aside under another name and a new one begun. A file that was
    removed is made anew.

    Parameters
    ----------
    path : Path
        The file; its key is ``PATH.key``.
    max_rows : int
        Decisions, from 1.
    max_days : float
        Age of the oldest one.
    max_mb : int
        Size of what the file holds, in 10^6 bytes.
    """

    def __init__(self, path: Path, *, max_rows: int, max_days: float, max_mb: int) -> None:
        self.path = path.expanduser().absolute()
        self.key = b""
        self._max_rows = max_rows
        self._max_days = max_days
        self._max_bytes = max_mb * 10**6
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def open(self) -> None:
        """Open the file, or make it.

        Raises
        ------
        OSError, sqlite3.Error
            It cannot be opened.
        DataError
            It is sound, but no decision log of this format; or its key is none.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.key = _key(self.path.with_name(f"{self.path.name}.key"))
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.set_aside(error)
            self._connect()

    def _connect(self) -> None:
        # SQLite gives the files beside it the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.path.chmod(0o600)
        # Opened when the server starts, used on the writer's thread: never by two at a time.
        connection = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            is_new = not check_format(connection, self.path)
            if is_new:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise DataError(
                    str(self.path),
                    0,
                    f"expected a local disk: here SQLite has mode {mode}, not WAL",
                )
            if is_new:
                connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            # What is deleted is overwritten: a text that is too old must not linger in free pages.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA journal_size_limit = 0")
            self._inode = self.path.stat().st_ino
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def check(self) -> None:
        """Look for damage in all of the file: some 2 s for a million rows.

        Raises
        ------
        OSError, sqlite3.Error, DataError
            As `transaction`; see `is_damage`.
        """
        with self.transaction() as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done in the block, or nothing. Opens the file where it is not open.

        Raises
        ------
        OSError, sqlite3.Error, DataError
            It cannot be opened or written; the next transaction tries anew.
        """
        if self._connection is not None and not self._is_there():
            log.warning("decision log %s was removed: a new one is begun", self.path)
            self.close()
        if self._connection is None:
            self.open()
        connection = self._connection
        assert connection is not None
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # Closing rolls back. After an I/O error nothing that SQLite remembers is worth keeping.
            self.close()
            raise

    def _is_there(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Give a damaged file another name, so that the next transaction begins a new one."""
        self.close()
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = f"{self.path}.corrupt-{stamp}"
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        log.warning("decision log %s is damaged (%s): set aside as %s", self.path, error, aside)

    def trim(self) -> None:
        """Delete the oldest rows beyond the bounds, and give free pages back; a step at a time.

        Raises
        ------
        OSError, sqlite3.Error, DataError
            As `transaction`.
        """
        now = time.time()
        oldest_time = now - self._max_days * DAY_S
        with self.transaction() as connection:
            oldest, newest = connection.execute(
                "SELECT (SELECT min(id) FROM decisions), (SELECT max(id) FROM decisions)"
            ).fetchone()
            if newest is None:
                oldest, newest = 1, 0
            # Numbers ascend without gaps, but for rows of a clock that went back: never fewer rows.
            rows = newest - oldest + 1
            surplus = max(rows - self._max_rows, 0)
            used, free = self._pages(connection)
            if used > self._max_bytes:
                surplus = max(surplus, rows * (used - self._max_bytes) // used + 1)
            if surplus:
                connection.execute(
                    "DELETE FROM decisions WHERE id < ?", (oldest + min(surplus, TRIMMED_ROWS),)
                )
            connection.execute(
                "DELETE FROM decisions WHERE id IN "
                "(SELECT id FROM decisions WHERE time < ? ORDER BY time LIMIT ?)",
                (oldest_time, TRIMMED_ROWS),
            )
            connection.execute(
                "DELETE FROM losses WHERE time < ? OR rowid <= (SELECT max(rowid) FROM losses) - ?",
                (oldest_time, KEPT_LOSSES),
            )
        if free >= TRIMMED_PAGES:
            # It works by steps, of which `execute` takes one only.
            connection.executescript(f"PRAGMA incremental_vacuum({TRIMMED_PAGES})")

    @staticmethod
    def _pages(connection: sqlite3.Connection) -> tuple[int, int]:
        """Bytes in use, and free pages."""
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        return (pages - free) * size, free

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


def is_damage(error: sqlite3.Error) -> bool:
    """Whether what is in the file is wrong, rather than that it cannot be read or written now."""
    # SQLite's own CORRUPT and NOTADB are of no subclass; everything else is.
    return type(error) is sqlite3.DatabaseError


def _key(path: Path) -> bytes:
    """The key of the hashes: read, or drawn when there is none."""
    if not path.exists():
        # Whole or not at all, whoever draws one at the same time or is killed meanwhile.
        drawn = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
        try:
            with open(os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secrets.token_bytes(KEY_BYTES))
            with suppress(FileExistsError):
                os.link(drawn, path)
        finally:
            drawn.unlink(missing_ok=True)
    path.chmod(0o600)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise DataError(
            str(path),
            0,
            f"expected a key of {KEY_BYTES} bytes, found {len(key)}; if it cannot be restored, "
            "remove it: a new one is drawn, and hashes before and after differ",
        )
    return key
