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


def test_moderate_is_compared_with_another_and_shown_on_a_page(
    store: Store, moderator: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(rows[0].read_text("utf-8").splitlines(True)[:120]), "utf-8")
    done = sprat(
        store,
        *("train", str(few), "--kind", "moderate", "--base", ENCODER, "--clean-label", "ham"),
        *("--test", str(rows[1]), "-o", str(tmp_path / "few")),
    )
    assert done.returncode == 0, done.stderr
    page = tmp_path / "report.html"
    arguments = ("eval", str(moderator), str(rows[1]), "--clean-label", "ham")
    against = ("--against", str(tmp_path / "few"))
    done = sprat(store, *arguments, *against, "--html", str(page), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    comparison = report["against"]["comparison"]
    assert comparison["micro_f1"]["first"] == pytest.approx(report["micro_f1"]["value"])
    assert comparison["rows"]["n"] == TEST_ROWS
    assert sum(each["rows"] for each in comparison["actions"]) == TEST_ROWS
    # The first one blocks, the second one flags at most.
    assert {each["second"] for each in comparison["actions"]} <= {"allow", "flag"}
    html = page.read_text("utf-8")
    assert sha256_file(rows[1])[:12] in html
    for line in rows[1].read_text("utf-8").splitlines():
        if len(text := json.loads(line)["text"]) > 20:
            assert text not in html
    shown = sprat(store, *arguments, *against)
    assert "Both act alike on" in shown.stdout
    assert "Micro-F1 differs by" in shown.stdout


def test_moderate_training_finds_labels_that_were_flipped(
    store: Store, minilm: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in rows[0].read_text("utf-8").splitlines()]
    # Every twentieth label: 5 %.
    planted = set(range(7, len(lines), 20))
    for row in planted:
        lines[row]["label"] = "ham" if lines[row]["label"] == "spam" else "spam"
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    suspects, page = tmp_path / "suspects.jsonl", tmp_path / "report.html"
    done = sprat(
        store,
        *("train", str(data), "--kind", "moderate", "--base", ENCODER, "--clean-label", "ham"),
        *("--test", str(rows[1]), "--suspects", str(suspects), "--html", str(page)),
        *("--conflicts", "keep", "--learning-curve", "-o", str(tmp_path / "spam")),
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in suspects.read_text("utf-8").splitlines()]
    top = {each["line"] - 1 for each in found[: len(lines) // 10]}
    assert len(top & planted) >= len(planted) / 2
    assert {each["category"] for each in found} == {"spam"}
    assert all(each["text"] == lines[each["line"] - 1]["text"] for each in found)
    margins = [each["confidence"] - each["suggested_confidence"] for each in found]
    assert margins == sorted(margins)
    assert "training rows may miss it or have it wrongly" in done.stdout
    assert "Mean average precision " in done.stdout
    assert "Learning curve" in page.read_text("utf-8")
    report = (tmp_path / "spam" / "report.json").read_text("utf-8")
    assert json.loads(report)["learning_curve"]["points"][-1]["rows"] == TRAIN_ROWS
    assert json.loads(report)["provenance"]["train"]["rows"] == TRAIN_ROWS


def test_moderate_thresholds_of_the_configuration_count(
    store: Store, moderator: Path, tmp_path: Path
) -> None:
    config = tmp_path / "sprat.toml"
    config.write_text(
        f'[tasks.strict]\nbundle = "{moderator}"\n'
        "thresholds.spam = { flag_at = 0.0001, block_at = 0.0002 }\n"
        f'[tasks.lenient]\nbundle = "{moderator}"\n'
        'thresholds.spam = { flag_at = 1.0, block_at = "never" }\n'
        f'[tasks.spam]\nbundle = "{moderator}"\n'
    )
    server = start_server(store, tmp_path, "--config", str(config))
    with Client(server.address) as client:
        tasks = {task.name: task for task in client.list_tasks()}
        found = {name: client.moderate(name, [SPAM]) for name in tasks}
    assert server.stop() == 0
    actions = {name: result.items[0] and result.items[0].action for name, result in found.items()}
    assert actions == {"strict": "block", "lenient": "allow", "spam": "block"}
    (strict,), (lenient,) = tasks["strict"].thresholds, tasks["lenient"].thresholds
    assert (strict.category, strict.flag_at, strict.block_at) == ("spam", 0.0001, 0.0002)
    assert (lenient.flag_at, lenient.block_at) == (1.0, None)
    assert len({task.version for task in tasks.values()}) == 3
    for name, task in tasks.items():
        assert found[name].task_version == task.version
    config.write_text(f'[tasks.m]\nbundle = "{moderator}"\nthresholds.scam.flag_at = 0.5\n')
    refused = sprat(store, "serve", "--config", str(config), "--listen", f"unix:{tmp_path}/s")
    assert refused.returncode == 1
    said = "tasks.m.thresholds.scam: the bundle has no such category; it has 'spam'"
    assert said in refused.stderr
