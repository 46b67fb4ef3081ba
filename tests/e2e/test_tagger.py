"""Extract tasks of bundles: trained by the command, served by a real server, on a real encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ENCODER, Server, sprat, start_server
from tagged import make_bookings, write_rows

from sprat import AsyncClient, Client, ExtractSpec, Runtime
from sprat.errors import InputTooLong, InvalidInput, TaskNotSupported
from sprat.manifest import sha256_file
from sprat.store import Store

BOOKINGS = "bookings"
TEXT = "my name is Elsa, see you at 7 pm"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("rows")
    return (
        write_rows(folder / "train.jsonl", make_bookings(80)),
        write_rows(folder / "test.jsonl", make_bookings(40, seed=1)),
    )


@pytest.fixture(scope="module")
def trained(
    store: Store,
    minilm: Path,
    rows: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("bundles") / BOOKINGS
    train, test = rows
    done = sprat(
        store,
        *("train", str(train), "--kind", "extract", "--base", ENCODER, "--test", str(test)),
        *("-o", str(out), "--json"),
    )
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


@pytest.fixture(scope="module")
def served(
    store: Store, trained: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = start_server(store, tmp_path_factory.mktemp("run"), "--task", str(trained[0]))
    yield server
    assert server.stop() == 0


@pytest.fixture
def bookings(served: Server) -> Iterator[Client]:
    with Client(served.address) as client:
        yield client


def test_tagger_is_trained_and_evaluated_by_commands(
    store: Store, trained: tuple[Path, dict[str, Any]], rows: tuple[Path, Path]
) -> None:
    out, report = trained
    assert report["micro_f1"] > 0.9
    assert {field["label"] for field in report["fields"]} == {"name", "people", "time"}
    done = sprat(store, "eval", str(out), str(rows[1]), "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["micro_f1"] == pytest.approx(report["micro_f1"], abs=0.03)
    low, high = again["intervals"]["micro_f1"]
    assert low <= again["micro_f1"] <= high
    table = sprat(store, "eval", str(out), str(rows[1]), "--min-micro-f1", "0.5")
    assert table.returncode == 0, table.stderr
    assert "micro_f1" in table.stdout
    assert "people" in table.stdout
    missed = sprat(store, "eval", str(out), str(rows[1]), "--min-micro-f1", "1.1")
    assert missed.returncode == 1
    assert "gate failed: micro_f1 is " in missed.stderr
    for option, message in (
        (("--min-accuracy", "0.1"), "this evaluation has no accuracy; it has "),
        (("--tier", "static"), "no tier named 'static'; known: head"),
        (("--out-of-scope-label", "x"), "expected a classify or route task, not extract"),
        (("--threshold", "0.5"), "--threshold: expected a classify or route task, not extract"),
    ):
        refused = sprat(store, "eval", str(out), str(rows[1]), *option)
        assert refused.returncode == 1
        assert message in refused.stderr


def test_tagger_is_compared_with_another_and_shown_on_a_page(
    store: Store,
    bundle: Path,
    trained: tuple[Path, dict[str, Any]],
    rows: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    few = write_rows(tmp_path / "few.jsonl", make_bookings(25, seed=3))
    done = sprat(
        store,
        *("train", str(few), "--kind", "extract", "--base", ENCODER, "--test", str(rows[1])),
        *("-o", str(tmp_path / "few")),
    )
    assert done.returncode == 0, done.stderr
    page = tmp_path / "report.html"
    arguments = ("eval", str(trained[0]), str(rows[1]), "--against", str(tmp_path / "few"))
    done = sprat(store, *arguments, "--html", str(page), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    comparison = report["against"]["comparison"]
    assert comparison["micro_f1"]["first"] == pytest.approx(report["micro_f1"])
    assert [each["name"] for each in comparison["parts"]] == ["name", "people", "time"]
    assert comparison["rows"]["n"] == 40
    html = page.read_text("utf-8")
    assert sha256_file(rows[1])[:12] in html
    assert "my name is" not in html
    shown = sprat(store, *arguments)
    assert "Micro-F1 differs by" in shown.stdout
    assert "The share of rows without a mistake differs by" in shown.stdout
    other = sprat(store, "eval", str(trained[0]), str(rows[1]), "--against", str(bundle))
    assert other.returncode == 1
    assert "--against: expected a bundle of kind extract, but" in other.stderr


def test_tagger_card_says_what_it_was_made_from(
    store: Store, trained: tuple[Path, dict[str, Any]], rows: tuple[Path, Path]
) -> None:
    done = sprat(store, "inspect", str(trained[0]), "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["kind"] == "extract"
    provenance = card["report"]["provenance"]
    assert [provenance[part]["sha256"] for part in ("train", "test")] == [
        sha256_file(path) for path in rows
    ]
    assert "micro_f1" in sprat(store, "inspect", str(trained[0])).stdout


def test_tagger_is_served(bookings: Client, trained: tuple[Path, dict[str, Any]]) -> None:
    (task,) = bookings.list_tasks()
    assert (task.name, task.kind, task.calibrated) == (BOOKINGS, "extract", True)
    assert task.labels == ("name", "people", "time")
    assert task.version == trained[1]["version"]
    result = bookings.extract(BOOKINGS, [TEXT, "thanks a lot"])
    assert result.task_version == task.version
    first, second = result.items
    assert first is not None
    assert first.value == {"name": "Elsa", "time": "7 pm"}
    assert json.loads(first.json) == first.value
    places = {field.path: (field.start, field.end) for field in first.fields}
    assert places == {"/name": (11, 15), "/time": (28, 32)}
    for field in first.fields:
        assert field.grounded
        assert field.confidence is not None
        assert 0 < field.confidence <= 1
    assert second is not None
    assert (second.value, second.fields) == ({}, ())


def test_tagger_offsets_are_code_points_of_the_text_as_sent(bookings: Client) -> None:
    text = "\U0001f600\u200d e\u0301 my name is Elsa,\r\nsee you at 7 pm \U0001f37d\ufe0f"
    (item,) = bookings.extract(BOOKINGS, [text]).items
    assert item is not None
    assert item.value == {"name": "Elsa", "time": "7 pm"}
    for field in item.fields:
        assert text[field.start : field.end] == item.value[field.path[1:]]


def test_tagger_takes_what_was_requested(bookings: Client) -> None:
    for field in ("people", "time"):
        (item,) = bookings.extract(BOOKINGS, ["8"], requested=[field]).items
        assert item is not None
        assert item.value == {field: "8"}
    with pytest.raises(InvalidInput) as caught:
        bookings.extract(BOOKINGS, ["8"], requested=["time", "seat"])
    assert caught.value.field == "requested[1]"


def test_tagger_reads_long_texts_in_parts(bookings: Client) -> None:
    padding = "thanks a lot, hello there. " * 100
    text = f"{padding}my name is Elsa. {padding}"
    with pytest.raises(InputTooLong, match="long_input") as caught:
        bookings.extract(BOOKINGS, [text])
    assert caught.value.field == "texts[0]"
    (item,) = bookings.extract(BOOKINGS, [text], long_input="chunk").items
    assert item is not None
    assert item.chunks > 3
    assert item.value is not None
    assert item.value["name"] == "Elsa"
    (field,) = (f for f in item.fields if f.path == "/name")
    assert field.start == len(padding) + 11


def test_tagger_answers_good_texts_beside_bad_ones(bookings: Client) -> None:
    result = bookings.extract(BOOKINGS, [TEXT, " ", TEXT], partial=True)
    assert [item is not None for item in result.items] == [True, False, True]
    assert [error.index for error in result.errors] == [1]
    with pytest.raises(InvalidInput, match=r"texts\[1\]: holds no visible character"):
        bookings.extract(BOOKINGS, [TEXT, " "])


def test_tagger_does_nothing_else(bookings: Client) -> None:
    with pytest.raises(TaskNotSupported, match="a task of kind extract, and cannot classify"):
        bookings.classify(BOOKINGS, [TEXT])
    with pytest.raises(InvalidInput, match="requested: only tasks of bundles take it"):
        bookings.extract(ExtractSpec(ENCODER, "{}"), [TEXT], requested=["time"])


async def test_tagger_through_the_asyncio_client(served: Server) -> None:
    async with AsyncClient(served.address) as client:
        result = await client.extract(BOOKINGS, ["8"], requested=["people"])
    assert result.items[0] is not None
    assert result.items[0].value == {"people": "8"}


def test_tagger_in_process(store: Store, trained: tuple[Path, dict[str, Any]]) -> None:
    with Runtime(tasks=[str(trained[0])], store=store) as runtime:
        (item,) = runtime.extract(BOOKINGS, ["8"], requested=["time"]).items
        (states,) = runtime.token_states(ENCODER, [TEXT])
    assert item is not None
    assert item.value == {"time": "8"}
    assert len(states.ids) == len(states.spans) == len(states.states)


@pytest.mark.parametrize("is_served", [True, False])
def test_tagger_command(
    store: Store, served: Server, trained: tuple[Path, dict[str, Any]], is_served: bool
) -> None:
    task = (BOOKINGS, "--server", served.address) if is_served else (str(trained[0]),)
    done = sprat(store, "extract", task[0], "8", "--requested", "people", "--json", *task[1:])
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout)["items"]
    assert item["value"] == {"people": "8"}
    done = sprat(store, "extract", task[0], TEXT, *task[1:])
    assert "Elsa" in done.stdout
    assert "11-15" in done.stdout


def test_tagger_commands_refuse_in_one_line(
    store: Store, trained: tuple[Path, dict[str, Any]], rows: tuple[Path, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "7 pm", "spans": [{"field": "time", "start": 0, "end": 9}]}\n')
    out = str(tmp_path / "out")
    train = ("train", str(rows[0]), "--kind", "extract", "-o", out)
    for arguments, said in (
        (("train", str(bad), "--kind", "extract", "-o", out), f"{bad}:1: spans[0]: expected 0 <="),
        ((*train, "--test", str(bad)), f"{bad}:1: spans[0]: expected 0 <="),
        ((*train, "--suspects", "x.jsonl"), "--suspects: an extract task has none"),
        (("eval", str(trained[0]), str(bad)), f"{bad}:1: spans[0]: expected 0 <="),
        (("extract", str(trained[0]), "8", "--requested", "seat"), "requested[0]: no field"),
        (("extract", str(trained[0]), "8", "--instructions", "x"), "expected --schema beside it"),
        (("extract", ENCODER, "8", "--schema", str(bad), "--requested", "x"), "of no use with"),
    ):
        done = sprat(store, *arguments)
        assert done.returncode == 1, arguments
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]
