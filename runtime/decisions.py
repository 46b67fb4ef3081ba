"""The decision log as a file: what was decided, in SQLite, readable while a server writes it.

`decisions` has a row for each text that a task answered; `shadows` what the last tier of its
cascade would have said, and `feedback` what was right, which go with their decision as old ones
make room; `losses` how many rows could not be written. The columns of `decisions`:

=================  =============================================================================
column             meaning
=================  =============================================================================
request_id, item   the call, as its reply says, and which of its texts, from 0
time               when it was answered, in seconds since 1970
task, kind         name of the task, and ``classify``, ``route``, ``moderate``, ``decide``,
                   ``extract`` or ``transform``
task_version       as in the reply: another one means other weights or thresholds
text_hash          16 bytes: keyed BLAKE2b over the text as UTF-8 (`sprat.decision_rows`)
text               the text itself; NULL unless the server was told to store it
label              what was answered; empty where the task abstained. Of a route, the destination's
                   name; of a moderation, the category that it is due to, or ``allow``; of a decide
                   task, a JSON object with the option of each question; of an extraction, how many
                   fields were found; of a rewriting, ``complete``
confidence         calibrated probability that the answer is right; NULL where nothing is calibrated
abstained          1 where the confidence did not suffice, or an extraction or a rewriting did not
                   come to an end
tier, escalated    which tier answered, from 0; 1 where an earlier one was not sure enough
degraded           why a better tier was not heard; NULL where none was needed
tiers              JSON: ``[{"tier", "name", "label", "confidence"}]`` of every tier that was heard,
                   sure or not; of an extraction or a rewriting, the label is empty. The last one
                   of a moderation has ``flagged``, too: all categories that it flags or blocks
input_tokens       tokens that the model read
=================  =============================================================================
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.errors import CorruptFile, DataError

APPLICATION_ID = 0x53505254
"""In the header of the file: tells a decision log from any other SQLite file."""

FORMAT = 1
"""``user_version`` of the file. Another number is another layout, and refused."""

BUSY_S = 1.0
"""How long to wait for another process that holds the file."""

PAGE_ROWS = 1000
"""Rows that are read at once: a read that stays open would keep the write-ahead log growing."""

SCHEMA = f"""
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY,
  request_id TEXT NOT NULL,
  item INTEGER NOT NULL,
  time REAL NOT NULL,
  task TEXT NOT NULL,
  task_version TEXT NOT NULL,
  kind TEXT NOT NULL,
  text_hash BLOB NOT NULL,
  text TEXT,
  label TEXT NOT NULL,
  confidence REAL,
  abstained INTEGER NOT NULL,
  tier INTEGER NOT NULL,
  escalated INTEGER NOT NULL,
  degraded TEXT,
  tiers TEXT NOT NULL,
  input_tokens INTEGER NOT NULL,
  UNIQUE (request_id, item)
);
CREATE INDEX decisions_by_time ON decisions (time);
CREATE TABLE shadows (
  decision INTEGER PRIMARY KEY REFERENCES decisions (id) ON DELETE CASCADE,
  tier INTEGER NOT NULL,
  name TEXT NOT NULL,
  label TEXT NOT NULL,
  confidence REAL,
  time REAL NOT NULL
);
CREATE TABLE feedback (
  request_id TEXT NOT NULL,
  item INTEGER NOT NULL,
  label TEXT NOT NULL,
  time REAL NOT NULL,
  PRIMARY KEY (request_id, item),
  FOREIGN KEY (request_id, item) REFERENCES decisions (request_id, item) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE losses (
  time REAL NOT NULL,
  rows INTEGER NOT NULL,
  reason TEXT NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""

ALLOW = "allow"
"""Label of a text that no category of a moderate task applies to."""

RIGHT_OR_WRONG = ("right", "wrong")
"""What feedback says of an answer that is more than a label."""

_WHOLE = """
SELECT d.id, d.request_id, d.item, d.time, d.task, d.task_version, d.kind, d.text_hash, d.text,
  d.label, d.confidence, d.abstained, d.tier, d.escalated, d.degraded, d.tiers, d.input_tokens,
  s.tier, s.name, s.label, s.confidence, f.label
FROM {table}
LEFT JOIN shadows AS s ON s.decision = d.id
LEFT JOIN feedback AS f ON f.request_id = d.request_id AND f.item = d.item
"""

_PAGE = (
    _WHOLE.format(table="decisions AS d")
    + """
WHERE (d.time, d.id) > (?1, ?2) AND (?3 IS NULL OR d.task = ?3)
ORDER BY d.time, d.id
LIMIT ?4
"""
)

_ONE = _WHOLE.format(table="decisions AS d") + "WHERE d.request_id = ? AND d.item = ?"

_NEWEST = (
    _WHOLE.format(table="(SELECT * FROM decisions ORDER BY time DESC, id DESC LIMIT ?) AS d")
    + "ORDER BY d.time, d.id"
)

_KNOWN = (
    _WHOLE.format(
        table="""(
  SELECT x.id AS decision, y.time AS learned
  FROM (SELECT * FROM feedback ORDER BY time DESC LIMIT ?1) AS y
  JOIN decisions AS x ON x.request_id = y.request_id AND x.item = y.item
  UNION ALL
  SELECT decision, learned
  FROM (SELECT decision, time AS learned FROM shadows ORDER BY time DESC LIMIT ?1)
) AS k
JOIN decisions AS d ON d.id = k.decision"""
    )
    + "ORDER BY k.learned, d.id"
)

HOUR_S = 3600

_ANSWERED = f"""
SELECT task, task_version, CAST(time / {HOUR_S} AS INTEGER) AS hour, count(*)
FROM decisions
WHERE NOT abstained AND degraded IS NULL
GROUP BY task, task_version, hour
"""


@dataclass(frozen=True, slots=True)
class TierRecord:
    """What a tier said of a text.

    Attributes
    ----------
    tier : int
        Which one, from 0.
    name : str
        The tier's name in its bundle; of a task without tiers, the model's.
    label : str
        Its most probable label, whether it was accepted or not.
    confidence : float or None
        Calibrated probability, in [0, 1], that ``label`` is right; None without calibration.
    """

    tier: int
    name: str
    label: str
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of a decision log; see the module for what is not said here.

    Attributes
    ----------
    tiers : tuple of TierRecord
        Every tier that was heard, in order.
    shadow : TierRecord or None
        What the last tier said, where it was asked only to learn that.
    feedback : str or None
        What is right, where somebody said so.
    flagged : tuple of str or None
        Of a moderation, all categories that the last one of ``tiers`` flags or blocks, also where
        the task abstained; None of other kinds, and from before this was kept.
    """

    id: int
    request_id: str
    item: int
    time: float
    task: str
    task_version: str
    kind: str
    text_hash: bytes
    text: str | None
    label: str
    confidence: float | None
    abstained: bool
    tier: int
    escalated: bool
    degraded: str | None
    tiers: tuple[TierRecord, ...]
    input_tokens: int
    shadow: TierRecord | None = None
    feedback: str | None = None
    flagged: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a decision log has from before a start, of all tasks.

    Attributes
    ----------
    newest : list of Decision
        The newest ones, from the oldest of them on.
    known : list of Decision
        Those with feedback or a shadow, by when that came; one with both comes twice.
    answered : dict of (str, str) to dict of int to int
        By task and version: all answers that were not withheld, by the hour since 1970.
    """

    newest: list[Decision]
    known: list[Decision]
    answered: dict[tuple[str, str], dict[int, int]]


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What a decision log holds of one task.

    Attributes
    ----------
    rows, abstained, escalated, degraded, shadows, feedback : int
        Decisions, and how many of them are such, or have such.
    first, last : float
        Times of the oldest and the newest, in seconds since 1970.
    """

    task: str
    kind: str
    rows: int
    abstained: int
    escalated: int
    degraded: int
    shadows: int
    feedback: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that were not written.

    Attributes
    ----------
    time : float
        When writing went on, in seconds since 1970.
    """

    time: float
    rows: int
    reason: str


def read_decisions(
    path: Path, *, task: str | None, since: float | None = None
) -> Iterator[Decision]:
    """Decisions of a log, from the oldest on; what is written meanwhile may come too.

    Parameters
    ----------
    task : str or None
        Name of a task; None: of all.
    since : float, optional
        Seconds since 1970; absent: all that there are.

    Raises
    ------
    DataError
        No file, no decision log, one of another format, or without this task.
    CorruptFile
        The file is damaged; also while reading on.
    """
    with _reading(path) as connection:
        if task is not None:
            _require_task(connection, path, task)
    return _pages(path, task, -1e300 if since is None else since)


def read_decision(connection: sqlite3.Connection, request_id: str, item: int) -> Decision | None:
    """A decision by an open connection; None where there is no such one, or it is none."""
    row = connection.execute(_ONE, (request_id, item)).fetchone()
    try:
        return None if row is None else _decision(row)
    except (ValueError, LookupError, TypeError):
        return None


def recall(path: Path, *, most: int) -> Recalled:
    """What a log has, the newest of it.

    Parameters
    ----------
    most : int
        Decisions of each sort that are read, of all tasks together; and so much feedback, and so
        many shadows.

    Raises
    ------
    DataError, CorruptFile
        As `read_decisions`.
    """
    with _reading(path) as connection:
        newest, known = (
            [_decision(row) for row in connection.execute(query, (most,))]
            for query in (_NEWEST, _KNOWN)
        )
        answered: dict[tuple[str, str], dict[int, int]] = {}
        for task, version, hour, count in connection.execute(_ANSWERED):
            answered.setdefault((task, version), {})[hour] = count
    return Recalled(newest, known, answered)


def summarize(path: Path) -> tuple[list[TaskSummary], list[Loss]]:
    """What a log holds: each task by name, and what was lost. Raises as `read_decisions`."""
    with _reading(path) as connection:
        tasks = connection.execute(
            "SELECT d.task, d.kind, count(*), sum(d.abstained), sum(d.escalated), "
            "count(d.degraded), count(s.decision), count(f.label), min(d.time), max(d.time) "
            "FROM decisions AS d LEFT JOIN shadows AS s ON s.decision = d.id "
            "LEFT JOIN feedback AS f ON f.request_id = d.request_id AND f.item = d.item "
            "GROUP BY d.task, d.kind ORDER BY d.task, d.kind"
        ).fetchall()
        losses = connection.execute("SELECT time, rows, reason FROM losses ORDER BY time")
        return [TaskSummary(*row) for row in tasks], [Loss(*row) for row in losses]


def check_format(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether a file is a decision log that this version knows; False: it holds nothing yet.

    Raises
    ------
    DataError
        It is something else.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application == 0 and version == 0 and objects == 0:
        return False
    if application != APPLICATION_ID:
        raise DataError(str(path), 0, "expected a decision log, found another SQLite database")
    if version != FORMAT:
        raise DataError(
            str(path), 0, f"expected a decision log of format {FORMAT}, found format {version}"
        )
    return True


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, to a decision log; errors of SQLite become ours."""
    if not path.is_file():
        raise DataError(str(path), 0, "expected a decision log, found no file")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as connection:
            if not check_format(connection, path):
                raise DataError(str(path), 0, "expected a decision log, found an empty database")
            yield connection
    except sqlite3.OperationalError as error:
        raise DataError(str(path), 0, f"cannot be read: {error}") from None
    except sqlite3.DatabaseError as error:
        raise CorruptFile(str(path), f"expected a decision log, found damage: {error}") from None


def _require_task(connection: sqlite3.Connection, path: Path, task: str) -> None:
    query = "SELECT 1 FROM decisions WHERE task = ? LIMIT 1"
    if connection.execute(query, (task,)).fetchone() is not None:
        return
    rows = connection.execute("SELECT DISTINCT task FROM decisions ORDER BY task LIMIT 11")
    known = [name for (name,) in rows]
    there = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    found = f"only {there}" if known else "no decisions at all"
    raise DataError(str(path), 0, f"expected decisions of task {task}, found {found}")


def _pages(path: Path, task: str | None, since: float) -> Iterator[Decision]:
    with _reading(path) as connection:
        after: tuple[float, int] = (since, -1)
        while rows := connection.execute(_PAGE, (*after, task, PAGE_ROWS)).fetchall():
            after = (rows[-1][3], rows[-1][0])
            yield from map(_decision, rows)


def _decision(row: tuple[Any, ...]) -> Decision:
    names = Decision.__dataclass_fields__.keys()
    values = dict(zip(names, row[:17], strict=False))
    for name in ("abstained", "escalated"):
        values[name] = bool(values[name])
    heard = json.loads(values["tiers"])
    values["tiers"] = tuple(
        TierRecord(said["tier"], said["name"], said["label"], said["confidence"]) for said in heard
    )
    flagged = heard[-1].get("flagged") if heard else None
    if flagged is not None:
        values["flagged"] = tuple(flagged)
    shadow = None if row[17] is None else TierRecord(*row[17:21])
    return Decision(**values, shadow=shadow, feedback=row[21])
