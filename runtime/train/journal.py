"""Long runs that go on where they stopped: finished work in a file, one JSON line each."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sprat.errors import DataError, StoreError

Row = dict[str, Any]


class Journal:
    """What a run has done so far, beside the file that it will write: ``OUT.part``.

    The first line says what the run is. A later run that is the same finds the work there; a last
    line that was cut short counts as not done. The output itself is written in one piece at the
    end, by `finish`, and then the journal is gone. Use it as a context manager.

    Parameters
    ----------
    out : Path
        The output.
    run : mapping
        What the work depends on, as JSON: a run goes on only from work of an equal one.
    restart : bool
        Drop what an earlier run left.

    Attributes
    ----------
    rows : list of dict
        The work of earlier runs, in order.

    Raises
    ------
    DataError
        What is there is no journal, or of another run.
    StoreError
        It cannot be written, or another process is writing it.
    """

    def __init__(self, out: Path, run: Mapping[str, Any], *, restart: bool = False) -> None:
        self.rows: list[Row] = []
        self.path = out.with_name(out.name + ".part")
        self._file = self._open()
        try:
            if restart:
                self._file.truncate(0)
            self._read_back(dict(run))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave it to the next run; a second time does nothing."""
        self._file.close()

    def append(self, row: Row) -> None:
        """Note finished work; it is in the file when this returns."""
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None

    def finish(self, files: Mapping[Path, Iterable[Row]]) -> None:
        """Write the output files, each in one piece, and remove the journal.

        Raises
        ------
        StoreError
            One cannot be written; the journal is kept.
        """
        made: list[tuple[Path, Path]] = []
        try:
            for path, rows in files.items():
                beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
                made.append((beside, path))
                with beside.open("wb") as stream:
                    stream.writelines(map(_line, rows))
                    stream.flush()
                    os.fsync(stream.fileno())
            for beside, path in made:
                beside.replace(path)
        except OSError as error:
            raise StoreError(f"{error.filename} cannot be written: {error.strerror}") from None
        finally:
            for beside, _ in made:
                beside.unlink(missing_ok=True)
        self.path.unlink()

    def _open(self) -> IO[bytes]:
        try:
            file = self.path.open("a+b")
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise StoreError(f"{self.path}: another process is writing it") from None
        return file

    def _read_back(self, run: Row) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            row = _parse(line)
            if row is None:
                raise DataError(str(self.path), number, "is no line of a journal; use --restart")
            if number > 1:
                self.rows.append(row)
            elif row != run:
                raise DataError(str(self.path), 1, self._difference(row, run))
            end += len(line)
        self._file.truncate(end)
        if end == 0:
            self.append(run)

    @staticmethod
    def _difference(there: Row, run: Row) -> str:
        names = sorted(k for k in {*there, *run} if there.get(k) != run.get(k))
        return (
            f"is the work of another run (different: {', '.join(names)}); use --restart to drop it"
        )


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
