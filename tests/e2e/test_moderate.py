"""Moderate through a real server, with a bundle that was trained on real messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from servers import ENCODER, Server, sprat, start_server

from sprat import AsyncClient, Client
from sprat.errors import DeadlineExceeded, InvalidInput, NotFound, TaskNotSupported
from sprat.manifest import sha256_file
from sprat.store import Store

pytestmark = pytest.mark.timeout(300)

CLEAN = "We walked along the river and talked about the garden and what to cook tonight. "
SPAM = "URGENT! You have won a 1000 pound prize, call 09061701461 now to claim your FREE award. "
TRAIN_ROWS, TEST_ROWS = 500, 300


@pytest.fixture(scope="module")
def rows(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A part of the training rows, and one of the test rows."""
    folder = tmp_path_factory.mktemp("rows")
    made = []
    for part, count in (("train", TRAIN_ROWS), ("test", TEST_ROWS)):
        lines = (shared_data / f"sms_spam.{part}.jsonl").read_text("utf-8").splitlines(True)
        made.append(folder / f"{part}.jsonl")
        made[-1].write_text("".join(lines[:count]), "utf-8")
    return made[0], made[1]


@pytest.fixture(scope="module")
def moderator(
    store: Store,
    minilm: Path,
    rows: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "spam"
    done = sprat(
        store,
        *("train", str(rows[0]), "--kind", "moderate", "--base", ENCODER, "--clean-label", "ham"),
        *("--test", str(rows[1]), "--block-precision", "spam=0.99", "--json", "-o", str(out)),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    (spam,) = figures["categories"]
    assert spam["f1"]["value"] > 0.85
    assert figures["training"]["tiers"]["head"]["ngrams"] is True
    return out


@pytest.fixture(scope="module")
def moderating(
    store: Store, moderator: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("run")
    server = start_server(store, folder, "--task", str(moderator), "--task", str(bundle))
    yield server
    assert server.stop() == 0
    log = server.log.read_text()
    assert "prize" not in log
    assert "river" not in log


@pytest.fixture
def client(moderating: Server) -> Iterator[Client]:
    with Client(moderating.address) as client:
        yield client


def test_moderate_blocks_spam_and_says_where(client: Client) -> None:
    result = client.moderate("spam", [CLEAN, SPAM, CLEAN * 2 + SPAM + CLEAN])
    clean, spam, hidden = result.items
    assert clean is not None
    assert (clean.action, clean.category) == ("allow", "")
    assert spam is not None
    assert (spam.action, spam.category, spam.chunks) == ("block", "spam", 1)
    assert hidden is not None
    assert hidden.action != "allow"
    (found,) = hidden.categories
    start, end = len(CLEAN) * 2, len(CLEAN) * 2 + len(SPAM)
    assert start - len(CLEAN) / 2 < found.start < found.end < end + len(CLEAN) / 2
    assert result.calibrated
    assert result.model == ENCODER
    assert result.timings.total_ns > result.timings.infer_ns > 0
    (task,) = [each for each in client.list_tasks() if each.kind == "moderate"]
    assert (task.labels, task.version) == (("spam",), result.task_version)


def test_moderate_scans_a_text_of_100_000_characters(client: Client) -> None:
    before = CLEAN * 700
    text = before + SPAM + CLEAN * (100_000 // len(CLEAN) - 700)
    assert len(text) > 99_000
    (item,) = client.moderate("spam", [text]).items
    assert item is not None
    assert item.action != "allow"
    assert item.chunks > 200
    (found,) = item.categories
    assert len(before) - len(CLEAN) < found.start < len(before) + len(SPAM)
    (item,) = client.moderate("spam", [CLEAN * 200]).items
    assert item is not None
    assert item.action == "allow"


def test_moderate_one_bad_text_among_good_ones(client: Client) -> None:
    with pytest.raises(InvalidInput, match=r"texts\[1\]: is empty"):
        client.moderate("spam", [SPAM, ""])
    result = client.moderate("spam", [SPAM, "", CLEAN], partial=True)
    assert [item and item.action for item in result.items] == ["block", None, "allow"]
    assert [(e.index, e.reason) for e in result.errors] == [(1, "INVALID_INPUT")]


def test_moderate_refuses_what_it_cannot_answer(client: Client) -> None:
    with pytest.raises(InvalidInput, match="texts: expected 1 to 1024 texts, got 0"):
        client.moderate("spam", [])
    with pytest.raises(NotFound, match="spam, tickets"):
        client.moderate("nothing", ["a"])
    with pytest.raises(TaskNotSupported, match="kind classify, and cannot moderate"):
        client.moderate("tickets", ["a"])
    with pytest.raises(TaskNotSupported, match="kind moderate, and cannot classify"):
        client.classify("spam", ["a"])
    with pytest.raises(InvalidInput, match="4194304"):
        client.moderate("spam", ["a" * (4 * 1024 * 1024 + 1)])


def test_moderate_calls_that_end_early_leave_the_server_free(moderating: Server) -> None:
    long = CLEAN * 12_000

    async def run() -> None:
        async with AsyncClient(moderating.address, timeout_s=1.0) as client:
            with pytest.raises(DeadlineExceeded):
                await client.moderate("spam", [long])
        async with AsyncClient(moderating.address) as client:
            calls = [asyncio.create_task(client.moderate("spam", [long])) for _ in range(3)]
            await asyncio.sleep(0.5)
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert all(
                isinstance(each, asyncio.CancelledError | grpc.aio.AioRpcError) for each in ended
            )
            (item,) = (await client.moderate("spam", [SPAM])).items
            assert item is not None
            assert item.action == "block"

    asyncio.run(run())


def test_moderate_is_the_same_with_and_without_a_server(
    store: Store, client: Client, moderator: Path, moderating: Server
) -> None:
    texts = [SPAM, CLEAN]
    served = client.moderate("spam", texts)
    command = ("moderate", str(moderator), *texts, "--json")
    alone = json.loads(sprat(store, *command).stdout)
    for item, other in zip(served.items, alone["items"], strict=True):
        assert item is not None
        assert item.action == other["action"]
        for each, found in zip(item.categories, other["categories"], strict=True):
            assert each.probability == pytest.approx(found["probability"], abs=1e-3)
    done = sprat(store, "moderate", "spam", *texts, "--server", moderating.address)
    assert done.returncode == 0
    assert "block" in done.stdout
    assert "allow" in done.stdout


def test_moderate_eval_and_run_use_the_bundle(
    store: Store, moderator: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    done = sprat(store, "eval", str(moderator), str(rows[1]), "--clean-label", "ham", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    trained = json.loads((moderator / "report.json").read_text())
    evaluation = trained["tiers"]["head"]["evaluation"]
    # The served path gives what training promised; batches move int8 scores a little.
    assert report["micro_f1"]["value"] == pytest.approx(evaluation["micro_f1"]["value"], abs=0.01)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"text": SPAM, "id": 7}) + '\n{"text": ""}\n')
    assert sprat(store, "run", str(moderator), str(source), "-o", str(out)).returncode == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert (answers[0]["id"], answers[0]["action"]) == (7, "block")
    assert "error" in answers[1]
    missed = sprat(
        store,
        *("eval", str(moderator), str(rows[1]), "--clean-label", "ham"),
        *("--min-micro-f1", "0.1", "--max-ece", "-1", "--json"),
    )
    assert missed.returncode == 1
    assert [gate["passed"] for gate in json.loads(missed.stdout)["gates"]] == [True, False]
    card = sprat(store, "inspect", str(moderator))
    assert card.returncode == 0, card.stderr
    assert sha256_file(rows[0]) in card.stdout
    wrong = sprat(store, "eval", str(moderator), str(rows[1]))
    assert wrong.returncode == 1
    assert "labels: unknown" in wrong.stderr
