"""A route task, from labelled rows to answers: trained by the command, served by a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import ENCODER, Server, sprat, start_server

from sprat import AsyncClient, Client, Runtime
from sprat.errors import InputTooLong, InvalidInput, TaskNotSupported
from sprat.store import Store
from sprat.values import RouteResult

NAME = "dispatch"
DEFAULT = "queue://people"
ACCEPT_AT = 0.6


@pytest.fixture(scope="module")
def targets(tickets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = {json.loads(line)["label"] for line in tickets[0].read_text("utf-8").splitlines()}
    path = tmp_path_factory.mktemp("targets") / "targets.json"
    path.write_text(json.dumps({label: f"queue://{label}" for label in labels}))
    return path


@pytest.fixture(scope="module")
def dispatch(
    store: Store,
    minilm: Path,
    tickets: tuple[Path, Path],
    targets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("bundles") / NAME
    done = sprat(
        store,
        *("train", str(tickets[0]), "--kind", "route", "--base", ENCODER, "-o", str(out)),
        *("--test", str(tickets[1]), "--targets", str(targets), "--default", DEFAULT),
        *("--accept-at", str(ACCEPT_AT)),
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def routing(
    store: Store, dispatch: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = start_server(store, tmp_path_factory.mktemp("run"), "--task", str(dispatch))
    yield server
    assert server.stop() == 0


@pytest.fixture
def texts(tickets: tuple[Path, Path]) -> list[str]:
    return [json.loads(line)["text"] for line in tickets[1].read_text("utf-8").splitlines()]


def test_route_sends_held_out_tickets_to_the_queue_of_their_label(
    routing: Server, tickets: tuple[Path, Path]
) -> None:
    rows = [json.loads(line) for line in tickets[1].read_text("utf-8").splitlines()]
    with Client(routing.address) as client:
        (task,) = client.list_tasks()
        assert (task.name, task.kind) == (NAME, "route")
        assert task.accept_at == pytest.approx(ACCEPT_AT)
        result = client.route(NAME, [row["text"] for row in rows])
    assert result.calibrated
    assert (result.model, result.task_version) == (ENCODER, task.version)
    sure = right = 0
    for item, row in zip(result.items, rows, strict=True):
        assert item is not None
        best = item.classification.scores[0]
        assert item.classification.abstained == (best.score < ACCEPT_AT)
        if item.classification.abstained:
            assert (item.target, item.classification.label) == (DEFAULT, "")
        else:
            assert item.target == f"queue://{best.label}"
            sure += 1
            right += best.label == row["label"]
    assert 0 < sure < len(rows)
    # What is routed at all is routed well: that is what the threshold is for.
    assert right / sure > 0.75


def answers(result: RouteResult) -> list[tuple[str, float]]:
    """Targets and confidences; vectors depend a little on what shares their batch."""
    return [
        (item.target, round(item.classification.scores[0].score, 1))
        for item in result.items
        if item is not None
    ]


def test_route_every_way_to_ask_gives_the_same_targets(
    routing: Server, store: Store, dispatch: Path, texts: list[str]
) -> None:
    async def asked() -> RouteResult:
        async with AsyncClient(routing.address) as client:
            return await client.route(NAME, texts[:3], top_k=2)

    with Client(routing.address) as client:
        served = client.route(NAME, texts[:3], top_k=2)
    with Runtime(tasks=[str(dispatch)], store=store) as runtime:
        local = runtime.route(NAME, texts[:3], top_k=2)
    expected = [item.target for item in served.items if item]
    assert len(expected) == 3
    for result in (asyncio.run(asked()), local):
        assert [item.target for item in result.items if item] == expected
        assert all(len(item.classification.scores) == 2 for item in result.items if item)
        assert (result.model_version, result.task_version) == (
            served.model_version,
            served.task_version,
        )


def test_route_long_texts_and_wrong_verbs(routing: Server) -> None:
    long = "parcel " * 2000
    with Client(routing.address) as client:
        with pytest.raises(InputTooLong):
            client.route(NAME, [long])
        (item,) = client.route(NAME, [long], truncation="truncate").items
        assert item is not None
        assert item.classification.dropped_tokens > 1000
        with pytest.raises(TaskNotSupported, match="kind route"):
            client.classify(NAME, ["a"])
        with pytest.raises(InvalidInput):
            client.route(NAME, [])


def test_route_over_a_file_writes_targets(
    routing: Server, store: Store, texts: list[str], tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"id": i, "text": text} for i, text in enumerate([*texts[:4], "parcel " * 2000])]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = sprat(
        store,
        *("run", NAME, str(source), "-o", str(out), "--server", routing.address, "--truncate"),
    )
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["id"] for each in written] == list(range(5))
    assert all(each["target"].startswith("queue://") for each in written)
