"""Tasks of a generative model that a configuration names, through a real server process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import GENERATOR, TASK, Server, sprat

from sprat import Client, Destination, RouteSet
from sprat.errors import InvalidInput, NotFound, TaskNotSupported
from sprat.store import Store
from sprat.values import TaskInfo

TEXT = "The grass is green. Order 17 is late!"


def info(client: Client, name: str) -> TaskInfo:
    return next(task for task in client.list_tasks() if task.name == name)


def test_named_classify_task(client: Client) -> None:
    result = client.classify("colours", [TEXT, ""], top_k=1, partial=True)
    assert (result.model, result.calibrated) == (GENERATOR, False)
    assert result.task_version == info(client, "colours").version
    first, second = result.items
    assert first is not None
    assert first.label in info(client, "colours").labels
    assert len(first.scores) == 1
    assert second is None
    again = client.classify("colours", [TEXT]).items[0]
    assert again is not None
    assert again.cached_tokens > 0
    with pytest.raises(InvalidInput, match="never cut"):
        client.classify("colours", [TEXT], truncation="truncate")


def test_named_route_task_answers_as_its_spec_would(client: Client) -> None:
    (item,) = client.route("teams", [TEXT]).items
    spec = RouteSet(
        GENERATOR, (Destination("money", target="queue://billing"), Destination("other"))
    )
    inline = client.route(spec, [TEXT])
    assert item is not None
    assert inline.items[0] is not None
    assert item.target in ("queue://billing", "other")
    assert item.classification.scores[0].score == pytest.approx(
        inline.items[0].classification.scores[0].score, abs=0.05
    )
    assert inline.task_version == ""


def test_named_decide_task(client: Client) -> None:
    result = client.decide("triage", [TEXT])
    assert result.task_version == info(client, "triage").version
    assert result.items[0] is not None
    assert [each.question for each in result.items[0].answers] == ["urgent", "mood"]
    assert info(client, "triage").labels == ("urgent", "mood")


def test_named_extract_task(client: Client) -> None:
    result = client.extract("orders", [TEXT])
    assert result.task_version == info(client, "orders").version
    assert result.items[0] is not None
    assert result.items[0].value in ({"urgent": True}, {"urgent": False})


def test_named_transform_task(client: Client) -> None:
    chunks = list(client.transform("digits", TEXT))
    answer = "".join(chunk.text for chunk in chunks)
    assert len(answer) == 3
    assert answer.isdigit()
    assert chunks[-1].task_version == info(client, "digits").version
    assert chunks[-1].complete


CALLS: dict[str, Callable[[Client, str], object]] = {
    "classify": lambda client, name: client.classify(name, [TEXT]),
    "route": lambda client, name: client.route(name, [TEXT]),
    "decide": lambda client, name: client.decide(name, [TEXT]),
    "extract": lambda client, name: client.extract(name, [TEXT]),
    "transform": lambda client, name: list(client.transform(name, TEXT)),
}


@pytest.mark.parametrize("verb", CALLS)
def test_named_task_of_another_kind_or_none(client: Client, verb: str) -> None:
    other = "triage" if verb != "decide" else TASK
    with pytest.raises(TaskNotSupported, match=f"cannot {verb}"):
        CALLS[verb](client, other)
    with pytest.raises(NotFound, match="triage"):
        CALLS[verb](client, "nothing")


def test_named_tasks_have_a_health(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(
            health_pb2.HealthCheckRequest(service="sprat.task.triage"), timeout=10
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_named_tasks_from_the_command_line(store: Store, server: Server, tmp_path: Path) -> None:
    done = sprat(store, "decide", "triage", TEXT, "--server", server.address, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["items"][0]["answers"]) == 2
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"text": TEXT}) + "\n{}\n")
    for task, key in (("teams", "target"), ("orders", "value")):
        done = sprat(
            store, "run", task, str(source), "-o", str(out), "--restart", "--server", server.address
        )
        assert done.returncode == 0, done.stderr
        first, second = map(json.loads, out.read_text().splitlines())
        assert key in first
        assert "error" in second
    done = sprat(store, "decide", GENERATOR, TEXT)
    assert done.returncode == 1
    assert "--ask" in done.stderr


def test_named_task_that_cannot_be_keeps_the_server_from_starting(
    store: Store, smollm: Path, tmp_path: Path
) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(
        f'[tasks.t]\nkind = "transform"\nmodel = "{GENERATOR}"\nprompt = "{{text}}"\n'
        'grammar = { regex = "(" }\n'
    )
    done = sprat(store, "serve", "--config", str(config), "--listen", f"unix:{tmp_path}/s.sock")
    assert done.returncode == 1
    assert "error: tasks.t.grammar: " in done.stderr
