"""The decision log of real servers: what is in it, through whatever happens to them."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cascades import TEXTS, task_config, trained
from doubles import WAIT_S, until
from servers import TASK, Server, sprat, start_server

from sprat import Client, Runtime
from sprat.config import Config
from sprat.decisions import read_decisions, summarize
from sprat.errors import ConfigError, InvalidInput, NotFound, SpratError
from sprat.store import Store
from sprat.values import LogUse

KILLS = 3
SECRET = "my very private refund"


@dataclass(frozen=True)
class Made:
    """A store with a trained cascade."""

    store: Store
    bundle: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(*trained(tmp_path_factory.mktemp("cascade")))


def start(made: Made, folder: Path, *, settings: str = "", **options: str) -> Server:
    config = folder / "sprat.toml"
    config.write_text(f'{task_config(made.bundle)}\n[log]\npath = "{folder}/log.db"\n{settings}')
    return start_server(made.store, folder, "--config", str(config))


@contextmanager
def running(made: Made, folder: Path, *, settings: str = "") -> Iterator[tuple[Server, Client]]:
    server = start(made, folder, settings=settings)
    try:
        with Client(server.address) as client:
            yield server, client
    finally:
        assert server.stop() == 0


def use(client: Client) -> LogUse:
    (task,) = client.list_tasks()
    assert task.log is not None
    return task.log


def content(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.glob("log.db*"))


def test_decision_log_of_a_server_from_answer_to_export(made: Made, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with running(made, tmp_path) as (server, client):
        result = client.classify(TASK, [*TEXTS, SECRET])
        assert len(result.request_id) == 16
        # Not flushed, perhaps: the answer is found all the same.
        client.feedback(result.request_id, "money", item=1)
        client.feedback(result.request_id, "delivery", item=1)
        with pytest.raises(InvalidInput, match="label: expected one of 2 of task tickets: "):
            client.feedback(result.request_id, "parcel")
        with pytest.raises(NotFound) as caught:
            client.feedback("0000", "money")
        assert (caught.value.kind, caught.value.name) == ("decision", "0000[0]")
        assert use(client) == LogUse(len(TEXTS) + 1, 0)
        rows = list(read_decisions(log, task=TASK))
        where = ("--server", server.address)
        done = sprat(made.store, "feedback", result.request_id, "money", "--item", "2", *where)
        assert (done.returncode, done.stdout) == (0, "1 of 1 taken\n"), done.stderr
        done = sprat(made.store, "feedback", result.request_id, "parcel", *where)
        assert done.returncode == 1
        assert done.stderr.startswith("error: label: expected one of 2 of task tickets")
        shown = sprat(made.store, "classify", TASK, "refund", *where).stdout.splitlines()[-1]
        # While the server has it open.
        done = sprat(made.store, "log", "export", str(log), "--task", TASK, "--since", "1h")
        assert done.returncode == 0, done.stderr
        exported = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row.item, row.label, row.tier) for row in rows] == [
        (index, item.label, item.tier) for index, item in enumerate(result.items) if item
    ]
    assert {row.tier for row in rows} == {0, 1}
    assert {row.task_version for row in rows} == {result.task_version}
    for row, item in zip(rows, result.items, strict=True):
        assert item is not None
        assert [said.label for said in row.tiers] == [said.label for said in item.tiers]
        assert [said.name for said in row.tiers] == ["static", "head"][: len(item.tiers)]
        assert row.confidence == pytest.approx(item.confidence)
    assert [row["feedback"] for row in exported[:4]] == [None, "delivery", "money", None]
    assert exported[1]["text_hash"] == rows[1].text_hash.hex()
    assert shown == f"request {exported[-1]['request_id']}"
    assert b"private" not in content(tmp_path)
    assert "private" not in server.log.read_text()


def test_decision_log_from_the_command_line(made: Made, tmp_path: Path) -> None:
    log, source, answers = tmp_path / "log.db", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    with running(made, tmp_path, settings="store_text = true") as (server, _):
        where = ("--server", server.address)
        done = sprat(made.store, "run", TASK, str(source), "-o", str(answers), *where)
        assert done.returncode == 0, done.stderr
        reviewed = tmp_path / "reviewed.jsonl"
        lines = [json.loads(line) for line in answers.read_text().splitlines()]
        rows = [
            {"request_id": line["request_id"], "item": line["item"], "label": "money"}
            for line in lines
        ]
        rows[3]["label"], rows[5]["request_id"] = "parcel", "gone"
        reviewed.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = sprat(made.store, "feedback", "--file", str(reviewed), *where)
        assert done.returncode == 1
        assert done.stdout == f"{len(TEXTS) - 2} of {len(TEXTS)} taken\n"
        first, second = done.stderr.splitlines()
        assert first.startswith(f"{reviewed}:4: label: expected one of 2 of task tickets")
        assert second.startswith(f"{reviewed}:6: no decision named 'gone[5]'")
        done = sprat(made.store, "feedback", "--file", str(reviewed), *where, "--json")
        assert [each["line"] for each in json.loads(done.stdout)["refused"]] == [4, 6]
        done = sprat(made.store, "log", "stats", str(log), "--json")
        (task,) = json.loads(done.stdout)["tasks"]
        assert (task["task"], task["rows"]) == (TASK, len(TEXTS))
        assert task["feedback"] == len(TEXTS) - 2
        assert "feedback" in sprat(made.store, "log", "stats", str(log)).stdout
    out = tmp_path / "export.jsonl"
    done = sprat(made.store, "log", "export", str(log), "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == TEXTS
    assert out.stat().st_mode & 0o777 == 0o600


def test_decision_log_export_as_parquet(made: Made, tmp_path: Path) -> None:
    log, out = tmp_path / "log.db", tmp_path / "export.parquet"
    config = Config.model_validate({"log": {"path": str(log)}})
    with Runtime(tasks=[str(made.bundle)], config=config, store=made.store) as runtime:
        request = runtime.classify(TASK, TEXTS).request_id
        runtime.feedback(request, "money", item=2)
    try:
        from pyarrow import parquet
    except ImportError:
        done = sprat(made.store, "log", "export", str(log), "-o", str(out))
        assert done.returncode == 1
        assert "pip install 'sprat[parquet]'" in done.stderr
        assert list(tmp_path.glob("*parquet*")) == []
        return
    done = sprat(made.store, "log", "export", str(log), "-o", str(out))
    assert done.returncode == 0, done.stderr
    rows = parquet.read_table(out).to_pylist()
    kept = list(read_decisions(log, task=TASK))
    assert [row["label"] for row in rows] == [row.label for row in kept]
    assert [row["confidence"] for row in rows] == [row.confidence for row in kept]
    assert rows[2]["feedback"] == "money"
    assert [said["label"] for said in rows[0]["tiers"]] == [said.label for said in kept[0].tiers]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("log", "export", "LOG", "--task", "other"), "expected decisions of task other, found"),
        (("log", "export", "LOG", "--since", "soon"), "--since: expected 7d, 12h, 30m or a date"),
        (("log", "export", "LOG", "-o", "x.csv"), "--out: expected .jsonl or .parquet, got x.csv"),
        (("log", "export", "LOG", "-o", "no/x.jsonl"), "no/x.jsonl: No such file or directory"),
        (("log", "stats", "nowhere"), "nowhere: expected a decision log, found no file"),
        (("feedback",), "expected REQUEST_ID and LABEL, or --file"),
        (("feedback", "--file", "nowhere.jsonl"), "nowhere.jsonl: cannot be read"),
        (("feedback", "--file", "BAD"), ":2: item: expected a whole number from 0"),
        (("feedback", "--file", "EMPTY"), "expected rows, found none"),
    ],
)  # fmt: skip
def test_decision_log_commands_say_what_is_wrong(
    arguments: tuple[str, ...], message: str, made: Made, tmp_path: Path
) -> None:
    log = tmp_path / "log.db"
    (tmp_path / "bad").write_text(
        '{"request_id": "a", "label": "b"}\n{"request_id": "a", "label": "b", "item": -1}\n'
    )
    (tmp_path / "empty").touch()
    config = Config.model_validate({"log": {"path": str(log)}})
    with Runtime(tasks=[str(made.bundle)], config=config, store=made.store) as runtime:
        runtime.classify(TASK, ["refund"])
    named = {"LOG": str(log), "BAD": f"{tmp_path}/bad", "EMPTY": f"{tmp_path}/empty"}
    done = sprat(made.store, *(named.get(each, each) for each in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_decision_log_learns_from_shadows(made: Made, tmp_path: Path) -> None:
    log = tmp_path / "log.db"

    def shadows() -> int:
        return sum(row.shadow is not None for row in read_decisions(log, task=TASK))

    with running(made, tmp_path, settings="shadow_share = 1") as (_, client):
        result = client.classify(TASK, TEXTS)
        early = {i for i, item in enumerate(result.items) if item and item.tier == 0}
        assert 0 < len(early) < len(TEXTS)
        before = client.list_tasks()[0].tiers
        client.classify(TASK, TEXTS, accept_at=0)
        client.feedback(result.request_id, "money")
        until(lambda: shadows() == len(early), "not every early answer got a shadow")
        alone = client.classify(TASK, TEXTS, accept_at=1)
        rows = [
            row
            for row in read_decisions(log, task=TASK)
            if row.request_id == result.request_id and row.item in early
        ]
        after = client.list_tasks()[0].tiers
    for row in rows:
        item = alone.items[row.item]
        assert item is not None
        assert row.shadow is not None
        assert (row.shadow.tier, row.shadow.name) == (1, "head")
        assert row.shadow.label == item.tiers[1].label
        assert row.shadow.confidence == pytest.approx(item.tiers[1].confidence, abs=1e-3)
    # Shadows are no traffic: the last tier was asked by the calls alone.
    assert after[1].asked - before[1].asked == len(TEXTS)
    assert shadows() == len(early), "only where the task's own threshold decided"


def test_decision_log_survives_kills(made: Made, tmp_path: Path) -> None:
    """What a client has seen to be committed is there, and the file is sound, whenever it ends."""
    log = tmp_path / "log.db"
    acknowledged: list[str] = []
    committed = 0
    for kill in range(KILLS):
        server = start(made, tmp_path)
        sent: list[str] = []
        stop = threading.Event()

        def traffic(address: str, sent: list[str], stop: threading.Event) -> None:
            with Client(address) as client:
                while not stop.is_set():
                    try:
                        sent.append(client.classify(TASK, TEXTS).request_id)
                    except SpratError:
                        return

        thread = threading.Thread(target=traffic, args=(server.address, sent, stop))
        thread.start()
        with Client(server.address) as client:
            until(lambda c=client, k=kill: use(c).written > 200 * (k + 1), "nothing is written")
            # Rows are committed in the order of their calls.
            committed = use(client).written // len(TEXTS)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(WAIT_S)
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        acknowledged += sent[:committed]
        # A reader needs no writer to come back first.
        assert len(list(read_decisions(log, task=TASK))) >= committed * len(TEXTS)
        with closing(sqlite3.connect(log)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            counts = dict(
                connection.execute("SELECT request_id, count(*) FROM decisions GROUP BY request_id")
            )
        assert acknowledged, "nothing was committed before the kill"
        assert set(acknowledged) <= counts.keys()
        assert set(counts.values()) == {len(TEXTS)}, "a call is there whole, or not at all"
    with running(made, tmp_path) as (_, client):
        client.feedback(acknowledged[0], "money")
    assert list(tmp_path.glob("log.db.corrupt-*")) == []


def test_decision_log_on_a_full_disk(made: Made, tmp_path: Path) -> None:
    """The kernel refuses to let files grow, and later lets them: serving never stops."""
    log = tmp_path / "log.db"
    with running(made, tmp_path) as (server, client):
        client.feedback(client.classify(TASK, TEXTS).request_id, "money")
        pid = server.process.pid
        free = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        size = max(log.stat().st_size, log.with_name("log.db-wal").stat().st_size)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, free[1]))

        def lost() -> bool:
            assert all(item is not None for item in client.classify(TASK, TEXTS).items)
            return use(client).lost > 3 * len(TEXTS)

        until(lost, "no loss although no file may grow")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, free)
        before = use(client)

        def written() -> bool:
            client.classify(TASK, TEXTS)
            return use(client).written > before.written

        until(written, "writing does not go on")
        request = client.classify(TASK, TEXTS).request_id
        client.feedback(request, "money")
        after = use(client)
    assert after.lost >= before.lost
    assert len(list(read_decisions(log, task=TASK))) == after.written
    _, losses = summarize(log)
    assert sum(loss.rows for loss in losses) == after.lost
    assert "rows are lost (" in server.log.read_text()
    assert not any(text in server.log.read_text() for text in TEXTS if len(text) > 12)


def test_decision_log_damaged_before_the_start_is_set_aside(made: Made, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with running(made, tmp_path) as (_, client):
        old = client.classify(TASK, TEXTS).request_id
    with log.open("r+b") as stream:
        stream.seek(100)
        stream.write(os.urandom(12_000))
    with running(made, tmp_path) as (server, client):
        request = client.classify(TASK, TEXTS).request_id
        client.feedback(request, "money")
        with pytest.raises(NotFound):
            client.feedback(old, "money")
    assert f"decision log {log} is damaged" in server.log.read_text()
    assert {row.request_id for row in read_decisions(log, task=TASK)} == {request}
    assert len(list(tmp_path.glob("log.db.corrupt-*"))) >= 1


def test_decision_log_that_is_none_is_refused_before_anything_is_served(
    made: Made, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE accounts (name)")
    done = sprat(
        made.store,
        *("serve", "--task", str(made.bundle), "--log", str(other)),
        *("--listen", f"unix:{tmp_path}/s.sock"),
    )
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"error: log.path: {other}: expected a decision log, found another SQLite database\n"
    )


def test_decision_log_off_says_so(made: Made, tmp_path: Path) -> None:
    server = start_server(made.store, tmp_path, "--task", str(made.bundle))
    with Client(server.address) as client:
        assert client.classify(TASK, ["refund"]).request_id == ""
        assert client.list_tasks()[0].log is None
        with pytest.raises(ConfigError, match=r"^log\.path: empty: no decision log is kept"):
            client.feedback("5f0c9a7be21d4e63", "money")
    assert server.stop() == 0
