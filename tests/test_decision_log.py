"""What becomes of answers and feedback: rows, or losses that are counted; no wait, no text."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles import (
    ENCODER,
    GENERATOR,
    LABELS,
    TASK,
    WAIT_S,
    Encoder,
    Generator,
    bundle,
    classify_task,
    eventually,
    moderate_task,
    moderator,
    no_leaked_threads,
    serving,
)
from writer import Writer

from sprat import decision_log
from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import Route
from sprat.config import LogConfig
from sprat.decision_file import DecisionFile
from sprat.decision_log import DecisionLog, queue_size
from sprat.decision_rows import COMPLETE, Result, hash_text
from sprat.decisions import ALLOW, Decision, TierRecord, read_decisions, summarize
from sprat.errors import ConfigError, InvalidInput, NotFound, NotReady, QueueFull
from sprat.model import require_encoder, require_generative
from sprat.scheduler import Mailbox
from sprat.tasks import named
from sprat.tasks.cascade import Part
from sprat.tasks.category_heads_tier import CategoryHeadsTier
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.route import RouteTask
from sprat.values import (
    CategoryScore,
    Chunk,
    Classification,
    ClassifyResult,
    Destination,
    Extraction,
    ExtractResult,
    ExtractSpec,
    Field,
    Label,
    LabelScore,
    LabelSet,
    LogUse,
    ModerateResult,
    Moderation,
    Question,
    QuestionSet,
    RouteResult,
    RouteSet,
    Routing,
    TaskInfo,
    TierAnswer,
    TierInfo,
    Timings,
    TransformResult,
    TransformSpec,
)

TEXT = "where is my very private parcel"
VERSION = "0123456789ab"


def task(name: str, kind: str, *labels: str, tiers: tuple[str, ...] = ()) -> TaskInfo:
    return TaskInfo(
        name=name,
        kind=kind,
        labels=labels,
        models=tuple((f"model-{place}", VERSION) for place in range(max(1, len(tiers)))),
        calibrated=True,
        accept_at=0.0,
        version=VERSION,
        tiers=tuple(TierInfo(tier, 0.9) for tier in tiers),
    )


TASKS = (
    task("tickets", "classify", "refund", "bug", tiers=("static", "head")),
    task("teams", "route", "money", "other"),
    task("safety", "moderate", "insult", "threat", tiers=("hash", "body")),
    task("orders", "extract"),
    task("polite", "transform", tiers=("small", "large")),
)


def classification(label: str = "refund", confidence: float | None = 0.75) -> Classification:
    return Classification(label, confidence, (LabelScore(label, 0.75),), input_tokens=7)


def classified(*items: Classification | None) -> ClassifyResult:
    return ClassifyResult(items, (), "model-0", VERSION, VERSION, True, Timings())


@asynccontextmanager
async def logging_to(
    path: Path, learn: Callable[[Decision], None] | None = None, **settings: Any
) -> AsyncIterator[DecisionLog]:
    config = LogConfig(path=str(path), **settings)
    with no_leaked_threads():
        made = DecisionLog(config, TASKS, Mailbox(asyncio.get_running_loop()), learn)
        try:
            yield made
        finally:
            await asyncio.to_thread(made.close)


async def last(chunks: AsyncIterator[Chunk]) -> Chunk:
    """The last chunk of an answer."""
    return [chunk async for chunk in chunks][-1]


async def logged(path: Path, name: str, *items: tuple[str, Any]) -> list[Decision]:
    """What the log has of one call with these texts and answers."""
    texts = [text for text, _ in items]
    answers = tuple(item for _, item in items)
    common = ((), "model-0", VERSION, VERSION)
    kinds: dict[str, Any] = {
        "tickets": lambda: ClassifyResult(answers, *common, True, Timings()),
        "teams": lambda: RouteResult(answers, *common, True, Timings()),
        "safety": lambda: ModerateResult(answers, *common, True, Timings()),
        "orders": lambda: ExtractResult(answers, *common, Timings()),
        "polite": lambda: TransformResult(answers, *common, True, Timings()),
    }
    async with logging_to(path) as log:
        log.put(name, texts, kinds[name]())
    return list(read_decisions(path, task=name))


def content(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(path.parent.iterdir()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.db"


# -- rows ------------------------------------------------------------------------------------


async def test_decision_log_row_of_a_cascade(path: Path) -> None:
    heard = (TierAnswer(0, "bug", 0.5, 0.1), TierAnswer(1, "refund", 0.8, 2.0))
    item = replace(
        classification(), confidence=0.8, tier=1, escalated=True, degraded="overload", tiers=heard
    )
    before = time.time()
    (row,) = await logged(path, "tickets", (TEXT, item))
    assert before <= row.time <= time.time()
    assert (row.task, row.kind, row.task_version, row.item) == ("tickets", "classify", VERSION, 0)
    assert (row.label, row.confidence, row.abstained, row.input_tokens) == ("refund", 0.8, False, 7)
    assert (row.tier, row.escalated, row.degraded, row.text) == (1, True, "overload", None)
    assert row.tiers == (TierRecord(0, "static", "bug", 0.5), TierRecord(1, "head", "refund", 0.8))
    key = path.with_name("decisions.db.key").read_bytes()
    assert row.text_hash == hash_text(TEXT, key)


async def test_decision_log_row_of_one_tier_keeps_what_it_abstained_from(path: Path) -> None:
    item = replace(classification("other", 0.3), label="", abstained=True)
    (row,) = await logged(path, "teams", (TEXT, Routing("queue://default", item)))
    assert (row.kind, row.label, row.abstained, row.confidence) == ("route", "", True, 0.3)
    assert row.tiers == (TierRecord(0, "model-0", "other", 0.3),)


async def test_decision_log_rows_of_moderation(path: Path) -> None:
    scores = (
        CategoryScore("insult", 0.25, "allow", 0, 5),
        CategoryScore("threat", 0.9, "block", 0, 5),
    )
    block = Moderation("block", "threat", scores, input_tokens=9, confidence=0.75)
    heard = (TierAnswer(0, "insult", 0.5), TierAnswer(1, ALLOW, 0.875))
    rows = await logged(
        path,
        "safety",
        (TEXT, block),
        (TEXT, replace(block, action="allow", category="", confidence=None)),
        (TEXT, replace(block, action="flag", category="", abstained=True, confidence=0.25)),
        (TEXT, replace(block, action="allow", category="", tier=1, escalated=True, tiers=heard)),
    )
    assert [(row.label, row.confidence, row.abstained, row.tier) for row in rows] == [
        ("threat", 0.75, False, 0),
        (ALLOW, None, False, 0),
        ("", 0.25, True, 0),
        (ALLOW, 0.75, False, 1),
    ]
    assert rows[0].tiers == (TierRecord(0, "hash", "threat", 0.75),)
    assert rows[3].tiers == (
        TierRecord(0, "hash", "insult", 0.5),
        TierRecord(1, "body", ALLOW, 0.875),
    )
    assert rows[2].tiers == (TierRecord(0, "hash", "threat", 0.25),), "what it was not sure of"
    assert {row.flagged for row in rows} == {("threat",)}
    assert {row.input_tokens for row in rows} == {9}
    assert len({row.text_hash for row in rows}) == 1


async def test_decision_log_rows_of_extraction_have_no_values(path: Path) -> None:
    fields = (Field("/name", 0.9, confidence=0.8), Field("/size", 0.9, confidence=0.6))
    value = {"name": "Elly Zlaten", "size": 8}
    whole = Extraction(value, '{"name":"Elly Zlaten","size":8}', fields, confidence=0.5)
    rows = await logged(
        path,
        "orders",
        (TEXT, whole),
        (TEXT, replace(whole, confidence=None)),
        (TEXT, replace(whole, value=None, json="", abstained=True)),
        (TEXT, Extraction(None, "", (), complete=False)),
        (TEXT, Extraction({}, "{}", ())),
    )
    assert [(row.label, row.confidence, row.abstained) for row in rows] == [
        ("2", 0.5, False),
        ("2", None, False),
        ("", 0.5, True),
        ("", None, True),
        ("0", None, False),
    ]
    assert {said.label for row in rows for said in row.tiers} == {""}
    assert b"Zlaten" not in content(path)


async def test_decision_log_rows_of_rewriting_have_no_text(path: Path) -> None:
    heard = (TierAnswer(0, "", 0.25), TierAnswer(1, "", 0.5))
    whole = Chunk(
        "Dear Elly Zlaten",
        "stop",
        complete=True,
        prompt_tokens=9,
        confidence=0.5,
        tier=1,
        tiers=heard,
    )
    rows = await logged(
        path,
        "polite",
        (TEXT, whole),
        (TEXT, replace(whole, text="", abstained=True, degraded="no_time")),
        (TEXT, replace(whole, complete=False, finish_reason="length", confidence=0.0)),
        (TEXT, Chunk("Dear Elly Zlaten", "stop", complete=True)),
    )
    assert [(row.label, row.confidence, row.abstained, row.degraded) for row in rows] == [
        (COMPLETE, 0.5, False, None),
        ("", 0.5, True, "no_time"),
        ("", 0.0, True, None),
        (COMPLETE, None, False, None),
    ]
    assert rows[0].tiers == (TierRecord(0, "small", "", 0.25), TierRecord(1, "large", "", 0.5))
    assert rows[3].tiers == (TierRecord(0, "small", "", None),)
    assert [row.input_tokens for row in rows] == [9, 9, 9, 0]
    assert b"Zlaten" not in content(path)


async def test_decision_log_leaves_out_texts_that_failed(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", ["a", "b", "c"], classified(None, classification(), None))
        await log.feedback(request, "bug", 1)
        with pytest.raises(NotFound):
            await log.feedback(request, "bug", 0)
        assert log.use("tickets") == LogUse(1, 0)
    (row,) = read_decisions(path, task="tickets")
    assert (row.item, row.feedback) == (1, "bug")


async def test_decision_log_commits_without_another_call(path: Path) -> None:
    async with logging_to(path) as log:
        log.put("tickets", [TEXT], classified(classification()))
        await eventually(lambda: log.use("tickets").written == 1, "nothing was written")
        assert len(list(read_decisions(path, task="tickets"))) == 1
    assert decision_log.GATHER_S <= 0.1


async def test_decision_log_takes_odd_texts(path: Path) -> None:
    texts = ["", "\0", "\ud800", "𝄞" * 1000, "a" * 100_000, "'; DROP TABLE decisions; --"]
    async with logging_to(path, store_text=True) as log:
        log.put("tickets", texts, classified(*(classification("b\ud800ug") for _ in texts)))
    rows = list(read_decisions(path, task="tickets"))
    assert [row.text for row in rows] == ["", "\0", "?", *texts[3:]]
    assert {row.label for row in rows} == {"b?ug"}
    assert len({row.text_hash for row in rows}) == len(texts)


async def test_decision_log_is_not_changed_by_what_callers_do_with_their_list(path: Path) -> None:
    texts = ["first"]
    async with logging_to(path, store_text=True) as log:
        log.put("tickets", texts, classified(classification()))
        texts[0] = "second"
    assert [row.text for row in read_decisions(path, task=None)] == ["first"]


# -- privacy ---------------------------------------------------------------------------------


async def test_decision_log_has_no_text_unless_it_is_told_to(path: Path) -> None:
    async with logging_to(path) as log:
        log.put("tickets", [TEXT], classified(classification()))
        await eventually(lambda: log.use("tickets").written == 1, "nothing was written")
        assert b"private" not in content(path)
    assert b"private" not in content(path)
    async with logging_to(path, store_text=True) as log:
        log.put("tickets", [TEXT], classified(classification()))
    assert TEXT.encode() in content(path)


async def test_decision_log_hashes_differ_between_keys(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "other"):
        path = tmp_path / name / "decisions.db"
        rows = await logged(path, "tickets", *((TEXT, classification()) for _ in range(2)))
        assert rows[0].text_hash == rows[1].text_hash
        hashes.add(rows[0].text_hash)
    assert len(hashes) == 2
    assert {len(each) for each in hashes} == {16}
    assert hash_text(TEXT, b"") not in hashes


# -- feedback --------------------------------------------------------------------------------


async def test_decision_log_feedback_finds_rows_that_are_not_written_yet(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "GATHER_S", 100 * WAIT_S)
    async with logging_to(path) as log:
        request = log.put("tickets", ["a", "b"], classified(*[classification()] * 2))
        assert log.use("tickets") == LogUse(0, 0)
        await asyncio.wait_for(log.feedback(request, "bug", 1), WAIT_S)
        assert log.use("tickets") == LogUse(2, 0)
        found = [row.feedback for row in read_decisions(path, task="tickets")]
    assert found == [None, "bug"]


async def test_decision_log_feedback_last_word_counts(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
        for label in ("bug", "refund", "bug", "refund"):
            await log.feedback(request, label, 0)
    assert [row.feedback for row in read_decisions(path, task=None)] == ["refund"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (1,)


async def test_decision_log_feedback_on_rows_of_an_earlier_server(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
    async with logging_to(path) as log:
        await log.feedback(request, "bug", 0)
    assert [row.feedback for row in read_decisions(path, task=None)] == ["bug"]


@pytest.mark.parametrize("odd", ["nope", "0" * 16, "x" * 10_000, "\0", "\ud800", "' OR 1 --", "é"])
async def test_decision_log_feedback_on_what_is_not_there(odd: str, path: Path) -> None:
    async with logging_to(path) as log:
        log.put("tickets", [TEXT], classified(classification()))
        with pytest.raises(NotFound, match="no decision named") as caught:
            await log.feedback(odd, "bug", 0)
    assert caught.value.kind == "decision"
    assert len(caught.value.message) < 300


async def test_decision_log_feedback_on_texts_that_are_not_there(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
        for item in (1, 2**31 - 1, 2**31, 2**70):
            with pytest.raises(NotFound, match=rf"'{request}\[{item}\]'"):
                await log.feedback(request, "bug", item)
        with pytest.raises(InvalidInput, match="item: expected 0 or more, got -1"):
            await log.feedback(request, "bug", -1)
        with pytest.raises(InvalidInput, match="request_id: expected that of a reply"):
            await log.feedback("", "bug", 0)
        await log.feedback(request, "bug", 0)


@pytest.mark.parametrize(
    ("name", "item", "right", "wrong"),
    [
        ("tickets", classification(), ("refund", "bug"), ("allow", "", "BUG")),
        ("teams", Routing("t", classification("money")), ("money", "other"), ("t", "refund")),
        ("safety", Moderation("allow", "", (CategoryScore("insult", 0.1, "allow", 0, 1),)),
         ("insult", "threat", "allow", "right", "wrong"), ("flag", "")),
        ("orders", Extraction({}, "{}", ()), ("right", "wrong"), ("0", "{}")),
    ],
)  # fmt: skip
async def test_decision_log_feedback_labels(
    name: str, item: Any, right: tuple[str, ...], wrong: tuple[str, ...], path: Path
) -> None:
    result: Result = replace(classified(), items=(item,))
    async with logging_to(path) as log:
        request = log.put(name, [TEXT], result)
        for label in right:
            await log.feedback(request, label, 0)
        for label in wrong:
            with pytest.raises(InvalidInput, match=rf"label: expected one of \d of task {name}"):
                await log.feedback(request, label, 0)
    assert [row.feedback for row in read_decisions(path, task=None)] == [right[-1]]


async def test_decision_log_feedback_for_a_task_that_is_gone(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
        await log.feedback(request, "bug", 0)
    mailbox = Mailbox(asyncio.get_running_loop())
    log = DecisionLog(LogConfig(path=str(path)), TASKS[1:], mailbox)
    with pytest.raises(
        NotFound, match="no task named 'tickets'; known: orders, polite, safety, teams"
    ):
        await log.feedback(request, "bug", 0)
    await asyncio.to_thread(log.close)


async def test_decision_log_feedback_given_up_is_written_all_the_same(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
        waiting = asyncio.ensure_future(log.feedback(request, "bug", 0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert [row.feedback for row in read_decisions(path, task=None)] == ["bug"]


async def test_decision_log_shadow_belongs_to_its_decision(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", [TEXT] * 2, classified(*[classification()] * 2))
        log.put_shadow("tickets", request, 1, TierAnswer(1, "bug", 0.9))
        # One whose decision is not there is nothing.
        log.put_shadow("tickets", "unknown", 0, TierAnswer(1, "bug", 0.9))
    first, second = read_decisions(path, task="tickets")
    assert first.shadow is None
    assert second.shadow == TierRecord(1, "head", "bug", 0.9)


# -- what became known -----------------------------------------------------------------------


async def test_decision_log_tells_what_became_known(path: Path) -> None:
    """Before who gave the feedback hears of it, and as the file has it."""
    known: list[Decision] = []
    async with logging_to(path, known.append) as log:
        request = log.put("tickets", [TEXT] * 2, classified(*[classification()] * 2))
        await log.feedback(request, "bug", 1)
        assert [(each.item, each.feedback, each.shadow) for each in known] == [(1, "bug", None)]
        log.put_shadow("tickets", request, 1, TierAnswer(1, "bug", 0.9))
        await eventually(lambda: len(known) == 2, "the shadow is not told")
        await log.feedback(request, "refund", 1)
        assert known[2] == list(read_decisions(path, task=None))[1]
    assert [each.feedback for each in known] == ["bug", "bug", "refund"]
    assert known[2].shadow == TierRecord(1, "head", "bug", 0.9)
    assert {each.task_version for each in known} == {VERSION}


async def test_decision_log_tells_nothing_of_what_is_not_there(path: Path) -> None:
    known: list[Decision] = []
    async with logging_to(path, known.append) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
        log.put_shadow("tickets", "unknown", 0, TierAnswer(1, "bug", 0.9))
        for odd in (("unknown", "bug", 0), (request, "bug", 1), (request, "BUG", 0)):
            with pytest.raises((NotFound, InvalidInput)):
                await log.feedback(*odd)
    assert known == []


async def test_decision_log_tells_nothing_that_was_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[Decision] = []
    async with logging_to(path, known.append) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
        await eventually(lambda: log.use("tickets").written == 1, "nothing was written")

        @contextmanager
        def full(file: DecisionFile) -> Iterator[sqlite3.Connection]:
            with transaction(file) as connection:
                yield connection
                raise sqlite3.OperationalError("database or disk is full")

        transaction = DecisionFile.transaction
        monkeypatch.setattr(DecisionFile, "transaction", full)
        with pytest.raises(NotReady, match="disk is full"):
            await log.feedback(request, "bug", 0)
        assert known == []
        monkeypatch.undo()
        await log.feedback(request, "bug", 0)
        assert [each.feedback for each in known] == ["bug"]


async def test_decision_log_tells_nothing_of_rows_that_are_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "QUEUE_BYTES", queue_size([TEXT], TASKS[0]) + 1)
    monkeypatch.setattr(decision_log, "GATHER_S", 100 * WAIT_S)
    known: list[Decision] = []
    async with logging_to(path, known.append) as log:
        log.put("tickets", [TEXT], classified(classification()))
        lost = log.put("tickets", [TEXT], classified(classification()))
        assert log.use("tickets").lost == 1
        log.put_shadow("tickets", lost, 0, TierAnswer(1, "bug", 0.9))
        with pytest.raises(QueueFull):
            await log.feedback(lost, "bug", 0)
    async with logging_to(path, known.append) as log:
        with pytest.raises(NotFound, match="no decision named"):
            await log.feedback(lost, "bug", 0)
    assert known == []


async def test_decision_log_recalls_what_it_has(path: Path) -> None:
    async with logging_to(path) as log:
        request = log.put("tickets", [TEXT], classified(classification()))
        await log.feedback(request, "bug", 0)
    async with logging_to(path) as log:
        found = log.recall()
    assert found is not None
    assert found.newest == found.known == list(read_decisions(path, task=None))
    assert list(found.answered) == [("tickets", VERSION)]


async def test_decision_log_with_a_row_that_is_none_recalls_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with logging_to(path) as log:
        log.put("tickets", [TEXT], classified(classification()))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE decisions SET tiers = '{private'")
        connection.commit()
    async with logging_to(path) as log:
        with caplog.at_level(logging.WARNING, "sprat"):
            assert log.recall() is None
    assert "decision log: nothing is remembered: " in caplog.text
    assert "private" not in caplog.text


async def test_decision_log_that_cannot_be_read_recalls_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with logging_to(path) as log:
        path.unlink()
        with caplog.at_level(logging.WARNING, "sprat"):
            assert log.recall() is None
    assert "decision log: nothing is remembered: " in caplog.text


# -- faults ----------------------------------------------------------------------------------


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[DecisionFile], None]]:
    """What is done to the file before each transaction, on the writer's thread."""
    found: list[Callable[[DecisionFile], None]] = []
    transaction = DecisionFile.transaction

    @contextmanager
    def faulty(file: DecisionFile) -> Iterator[sqlite3.Connection]:
        for fault in found:
            fault(file)
        with transaction(file) as connection:
            yield connection

    monkeypatch.setattr(DecisionFile, "transaction", faulty)
    return found


async def test_decision_log_full_queue_loses_rows_and_does_not_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # One byte for the check of the file, which may still wait.
    room = 5 * queue_size([TEXT], TASKS[0]) + 1
    monkeypatch.setattr(decision_log, "QUEUE_BYTES", room)
    monkeypatch.setattr(decision_log, "GATHER_S", 100 * WAIT_S)
    with caplog.at_level(logging.WARNING, "sprat"):
        async with logging_to(path) as log:
            for _ in range(8):
                log.put("tickets", [TEXT], classified(classification()))
            assert log.use("tickets").lost == 3
            with pytest.raises(QueueFull):
                await log.feedback("0" * 16, "bug", 0)
    assert "3 rows are lost (queue full)" in caplog.text
    assert TEXT not in caplog.text
    assert len(list(read_decisions(path, task="tickets"))) == 5


async def test_decision_log_full_disk_is_counted_reported_and_passes(
    path: Path, faults: list[Callable[[DecisionFile], None]], caplog: pytest.LogCaptureFixture
) -> None:
    def fill(file: DecisionFile) -> None:
        if file._connection is None:
            file.open()
        assert file._connection is not None
        file._connection.execute("PRAGMA max_page_count = 1")

    many = classified(*[classification()] * 200)
    with caplog.at_level(logging.WARNING, "sprat"):
        async with logging_to(path) as log:
            first = log.put("tickets", ["kept"], classified(classification()))
            await log.feedback(first, "bug", 0)
            faults.append(fill)
            for round in (1, 2, 3):
                log.put("tickets", [TEXT] * 200, many)
                await eventually(lambda n=round: log.use("tickets").lost == 200 * n, "no loss")
            with pytest.raises(NotReady, match="cannot be written: database or disk is full"):
                log.put("tickets", [TEXT] * 200, many)
                await log.feedback(first, "refund", 0)
            faults.clear()
            again = log.put("tickets", ["kept too"], classified(classification()))
            await log.feedback(again, "bug", 0)
            assert log.use("tickets") == LogUse(2, 800)
    rows = list(read_decisions(path, task="tickets"))
    assert [row.request_id for row in rows] == [first, again]
    (_, (loss,)) = summarize(path)
    assert (loss.rows, loss.reason) == (800, "database or disk is full")
    reports = [record.getMessage() for record in caplog.records]
    # The first at once, the others together at the end: no minute has passed.
    assert reports == [
        "decision log: 200 rows are lost (database or disk is full)",
        "decision log: 600 rows are lost (database or disk is full)",
    ]


async def test_decision_log_full_disk_at_the_start_is_no_reason_not_to_serve(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = DecisionFile.open

    def full(file: DecisionFile) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(DecisionFile, "open", full)
    async with logging_to(path) as log:
        log.put("tickets", [TEXT], classified(classification()))
        await eventually(lambda: log.use("tickets").lost == 1, "no loss")
        monkeypatch.setattr(DecisionFile, "open", opens)
        log.put("tickets", [TEXT], classified(classification()))
        await eventually(lambda: log.use("tickets").written == 1, "nothing was written")


async def test_decision_log_locked_by_somebody_is_a_loss_after_a_while(path: Path) -> None:
    async with logging_to(path) as log:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            log.put("tickets", [TEXT], classified(classification()))
            await eventually(lambda: log.use("tickets").lost == 1, "no loss")
            other.execute("ROLLBACK")
        request = log.put("tickets", [TEXT], classified(classification()))
        await log.feedback(request, "bug", 0)
    assert len(list(read_decisions(path, task="tickets"))) == 1


async def test_decision_log_damaged_while_it_is_written_begins_anew(
    path: Path, faults: list[Callable[[DecisionFile], None]]
) -> None:
    def damage(file: DecisionFile) -> None:
        faults.clear()
        file.close()
        path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * 100_000)

    async with logging_to(path) as log:
        for _ in range(50):
            log.put("tickets", [TEXT] * 20, classified(*[classification()] * 20))
        await eventually(lambda: log.use("tickets").written == 1000, "nothing was written")
        faults.append(damage)
        request = log.put("tickets", [TEXT], classified(classification()))
        await log.feedback(request, "bug", 0)
        assert log.use("tickets") == LogUse(1001, 0)
    (row,) = read_decisions(path, task="tickets")
    assert row.request_id == request
    assert len(list(path.parent.glob("decisions.db.corrupt-*"))) == 1


@pytest.mark.parametrize("upkeep", ["check", "trim"])
async def test_decision_log_found_damaged_by_its_upkeep_begins_anew(
    upkeep: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await logged(path, "tickets", (TEXT, classification()))

    def fail(file: DecisionFile) -> None:
        monkeypatch.undo()
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(DecisionFile, upkeep, fail)
    async with logging_to(path) as log:
        await eventually(lambda: list(path.parent.glob("*.corrupt-*")), "it was not set aside")
        request = log.put("tickets", [TEXT], classified(classification()))
        await log.feedback(request, "bug", 0)
    assert [row.request_id for row in read_decisions(path, task=None)] == [request]


async def test_decision_log_of_somebody_else_is_refused(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(ConfigError, match=r"^log.path: .*decisions.db: .* another SQLite database"):
        async with logging_to(path):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^log.path: .*/file cannot be used: File exists"):
        async with logging_to(tmp_path / "file" / "decisions.db"):
            pass
    with pytest.raises(ConfigError, match=r"^log.path: .* cannot be used: Is a directory"):
        async with logging_to(tmp_path):
            pass


async def test_decision_log_reads_well_beside_the_writer(path: Path) -> None:
    stop, failures, most = threading.Event(), [], [0]

    def read() -> None:
        try:
            while not stop.is_set():
                seen = [row.id for row in read_decisions(path, task=None)]
                assert seen == sorted(seen)
                assert len(seen) >= most[0]
                most[0] = len(seen)
        except BaseException as error:
            failures.append(error)

    async with logging_to(path) as log:
        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(40):
            for _ in range(5):
                log.put("tickets", [TEXT] * 10, classified(*[classification()] * 10))
            await asyncio.sleep(0.005)
        await eventually(lambda: log.use("tickets") == LogUse(2000, 0), "not all was written")
        stop.set()
        await asyncio.to_thread(reader.join, WAIT_S)
    assert failures == []
    assert len(list(read_decisions(path, task="tickets"))) == 2000


async def test_decision_log_is_kept_within_its_bounds(path: Path) -> None:
    async with logging_to(path, max_rows=25) as log:
        for number in range(10):
            request = log.put("tickets", ["a"] * 10, classified(*[classification()] * 10))
            await log.feedback(request, "bug", number)
    rows = list(read_decisions(path, task="tickets"))
    assert len(rows) == 25
    assert rows[-1].request_id == request


# -- from the service ------------------------------------------------------------------------


async def test_decision_log_of_a_service(path: Path) -> None:
    async with serving(Encoder(), Generator()) as service:
        assert (await service.classify(TASK, ["a"])).request_id == ""
        assert service.list_tasks()[0].log is None
        with pytest.raises(ConfigError, match=r"log\.path: empty"):
            await service.feedback("0" * 16, "first", 0)
        await service.keep_decisions(LogConfig(path=str(path)), ComputePermits(2))
        result = await service.classify(TASK, ["a", "b " * 10_000, "c"], partial=True)
        label = service.list_tasks()[0].labels[0]
        await service.feedback(result.request_id, label, 2)
        assert service.list_tasks()[0].log == LogUse(2, 0)
        again = await service.classify(TASK, ["a"])
    assert again.request_id != result.request_id
    rows = list(read_decisions(path, task=TASK))
    assert [(row.request_id, row.item) for row in rows] == [
        (result.request_id, 0),
        (result.request_id, 2),
        (again.request_id, 0),
    ]
    assert rows[1].feedback == label
    first = result.items[0]
    assert first is not None
    assert (rows[0].label, rows[0].confidence) == (first.label, first.confidence)


async def test_decision_log_of_every_kind_of_task(path: Path) -> None:
    labels = LabelSet(GENERATOR, (Label("red"), Label("blue")))
    routes = RouteSet(GENERATOR, (Destination("red", target="queue://1"), Destination("blue")))
    fields = ExtractSpec(GENERATOR, '{"type": "object", "properties": {"a": {"type": "integer"}}}')
    rewriting = TransformSpec(GENERATOR, "{text}")
    asked = QuestionSet(
        GENERATOR,
        (
            Question("colour", "Which?", "choice", (Label("red"), Label("blue"))),
            Question("urgent", "Is it?", "yes_no"),
        ),
    )
    async with serving(Encoder(), Writer(answer=lambda text: '{"a":7}')) as service:
        tasks = service.registry.tasks
        encoder = require_encoder(service.registry.model(ENCODER), "moderate")
        generator = require_generative(service.registry.model(GENERATOR), "classify")
        specs = {"colours": labels, "queues": routes, "orders": fields, "digits": rewriting}
        for name, spec in {**specs, "triage": asked}.items():
            tasks[name] = named.load(name, spec, generator)
        judge = moderator(encoder.manifest, thresholds=[{"flag_at": 0.5}] * 2)
        tasks["safety"] = moderate_task("safety", judge, encoder, service._pool)
        targets = Route(targets={label: f"queue://{label}" for label in LABELS})
        made = bundle(encoder.manifest)
        manifest = made.manifest.model_copy(update={"kind": "route", "route": targets})
        tasks["teams"] = RouteTask(
            classify_task("teams", Bundle(manifest, made.heads), encoder), targets
        )
        # What a request asks by itself is nobody's task.
        await service.keep_decisions(LogConfig(path=str(path)), ComputePermits(2))
        for own in (
            await service.choose(labels, ["red"]),
            await service.route(routes, ["red"]),
            await service.extract(fields, ["red"]),
            await service.decide(asked, ["red"]),
            await last(service.transform(rewriting, "red")),
        ):
            assert own.request_id == ""
        answers = {
            "colours": await service.classify("colours", ["red", "blue"]),
            "queues": await service.route("queues", ["red", "blue"]),
            "teams": await service.route("teams", ["a", "b"]),
            "safety": await service.moderate("safety", ["a z", "b"]),
            "orders": await service.extract("orders", ["red", "blue"]),
            "triage": await service.decide("triage", ["red", "blue"]),
        }
        answer = await last(service.transform("digits", "red"))
        await service.feedback(answer.request_id, "right", 0)
        with pytest.raises(InvalidInput, match="expected one of 2 of task digits: right, wrong"):
            await service.feedback(answer.request_id, "red", 0)
        right = {"safety": "allow", "orders": "wrong", "teams": LABELS[0], "triage": "right"}
        for name, result in answers.items():
            await service.feedback(result.request_id, right.get(name, "red"), 1)
        counts = {info.name: info.log for info in service.list_tasks()}
    assert counts == {
        TASK: LogUse(0, 0),
        "digits": LogUse(1, 0),
        **dict.fromkeys(answers, LogUse(2, 0)),
    }
    (rewritten,) = read_decisions(path, task="digits")
    assert (rewritten.request_id, rewritten.kind) == (answer.request_id, "transform")
    assert (rewritten.label, rewritten.feedback) == (COMPLETE, "right")
    assert rewritten.task_version == answer.task_version
    rows = {name: list(read_decisions(path, task=name)) for name in answers}
    assert {name: found[0].kind for name, found in rows.items()} == {
        "colours": "classify",
        "queues": "route",
        "teams": "route",
        "safety": "moderate",
        "orders": "extract",
        "triage": "decide",
    }
    for name, result in answers.items():
        assert [row.request_id for row in rows[name]] == [result.request_id] * 2
        assert {row.task_version for row in rows[name]} == {result.task_version}
        assert [row.feedback for row in rows[name]] == [None, right.get(name, "red")]
    assert [row.label for row in rows["colours"]] == ["red", "blue"]
    assert [row.label for row in rows["queues"]] == ["red", "blue"]
    assert [row.label for row in rows["safety"]] == ["zed", ALLOW]
    assert [row.label for row in rows["orders"]] == ["1", "1"]
    assert [json.loads(row.label) for row in rows["triage"]] == [
        {answer.question: answer.option for answer in item.answers}
        for item in answers["triage"].items
    ]
    assert rows["triage"][0].tiers == (TierRecord(0, GENERATOR, rows["triage"][0].label, None),)
    assert {row.confidence for row in rows["colours"] + rows["orders"] + rows["triage"]} == {None}


async def test_decision_log_shadows_of_a_moderator(path: Path) -> None:
    """Tiers that say the same: the shadow is what the answer would have been."""
    async with serving(Encoder(), Generator()) as service:
        encoder = require_encoder(service.registry.model(ENCODER), "moderate")
        one = moderator(encoder.manifest, thresholds=[{"flag_at": 0.5}] * 2)
        (tier,) = one.manifest.tiers
        first = tier.model_copy(update={"name": "first", "weights": "first.safetensors"})
        made = one.manifest.model_copy(update={"tiers": (first, tier)})
        both = Bundle(made, one.heads * 2)
        parts = [
            Part(at, CategoryHeadsTier.of(both, at, encoder, service._pool), least)
            for at, least in enumerate((0.9, 0.0))
        ]
        service.registry.tasks["safety"] = ModerateTask("safety", made, parts)
        config = LogConfig(path=str(path), shadow_share=1.0)
        await service.keep_decisions(config, ComputePermits(2))
        result = await service.moderate("safety", ["a z", "a b"])
        assert [item and item.tier for item in result.items] == [0, 0]

        def shadows() -> list[TierRecord | None]:
            return [row.shadow for row in read_decisions(path, task=None)]

        await service.feedback(result.request_id, "zed", 0)
        await eventually(lambda: None not in shadows(), "there is no shadow")
        found = [each and (each.tier, each.name, each.label) for each in shadows()]
        assert found == [(1, "head", "zed"), (1, "head", ALLOW)]
        task = service.registry.task("safety").info
        assert [tier.asked for tier in task.tiers] == [2, 0]
