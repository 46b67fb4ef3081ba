"""The commands as a user runs them: a process, its output, its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from servers import ENCODER, GENERATOR, TASK, Server, sprat

from sprat.store import Store

COMMANDS = (
    *("pull", "models", "remove", "quantize", "static", "adapters"),
    *("train", "eval", "eval-transform", "inspect", "label", "synthesize", "add-tier", "tune"),
    *("serve", "token", "bench", "classify", "route", "explain", "moderate", "decide"),
    *("extract", "transform", "embed", "generate", "run", "doctor"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_command(store: Store, command: str) -> None:
    done = sprat(store, command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_help_lists_every_command(store: Store) -> None:
    done = sprat(store, "--help")
    assert all(command in done.stdout for command in COMMANDS)


def test_unknown_model_is_one_line_and_status_1(store: Store) -> None:
    done = sprat(store, "embed", "nothing", "text")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no model named 'nothing'")
    assert len(done.stderr.splitlines()) == 1


def test_wrong_usage_is_status_2(store: Store) -> None:
    assert sprat(store, "serve").returncode == 2
    assert sprat(store, "classify").returncode == 2


def test_pull_of_what_is_there_returns_at_once(store: Store, minilm: Path) -> None:
    done = sprat(store, "pull", ENCODER, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["quantization"] == "int8"


def test_models_lists_what_is_there(store: Store, minilm: Path, smollm: Path) -> None:
    report = json.loads(sprat(store, "models", "--json").stdout)
    tokenizers = {m["name"]: m["tokenizer"] for m in report["models"]}
    assert (tokenizers[ENCODER], tokenizers[GENERATOR]) == ("sprat (WordPiece)", "llama.cpp")
    table = sprat(store, "models", "--known").stdout
    assert "Apache-2.0" in table
    assert "sprat (WordPiece)" in table


def test_train_and_eval_report_held_out_figures(
    store: Store, bundle: Path, tickets: tuple[Path, Path]
) -> None:
    done = sprat(store, "eval", str(bundle), str(tickets[1]), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["n"] == 60
    assert 0.6 < report["accuracy"] <= 1
    assert 0.6 < report["macro_f1"] <= 1
    assert 0 <= report["ece"] < 0.3
    low, high = report["intervals"]["accuracy"]
    assert low < report["accuracy"] < high
    assert "macro_f1" in sprat(store, "eval", str(bundle), str(tickets[1])).stdout


def test_train_refuses_bad_rows_by_line(store: Store, minilm: Path, tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text('{"text": "fine", "label": "a"}\n{"text": 7, "label": "a"}\n')
    done = sprat(store, "train", str(data), "-o", str(tmp_path / "b"))
    assert done.returncode == 1
    assert "bad.jsonl:2" in done.stderr
    assert not (tmp_path / "b").exists()


def test_train_into_the_store_and_remove(
    store: Store, tickets: tuple[Path, Path], minilm: Path
) -> None:
    arguments = ("train", str(tickets[0]), "-o", "from-test", "--replace", "--json")
    assert sprat(store, *arguments).returncode == 0
    assert store.bundle("from-test")[0].name == "from-test"
    assert sprat(store, "remove", "from-test").returncode == 0
    assert sprat(store, "classify", "from-test", "x").returncode == 1


@pytest.mark.parametrize("served", [True, False])
def test_classify_with_and_without_a_server(
    store: Store, bundle: Path, server: Server, served: bool
) -> None:
    task = TASK if served else str(bundle)
    where = ("--server", server.address) if served else ()
    done = sprat(store, "classify", task, "where is my parcel?", "--json", *where)
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout)["items"]
    assert item["label"] == "shipping"


def test_classify_reads_lines_from_stdin(store: Store, server: Server) -> None:
    done = sprat(
        store, "classify", TASK, "--server", server.address, input="refund me\n\nit crashes\n"
    )
    assert done.returncode == 0, done.stderr
    assert "confidence" in done.stdout


@pytest.mark.parametrize("served", [True, False])
def test_classify_by_labels_with_and_without_a_server(
    store: Store, smollm: Path, server: Server, served: bool
) -> None:
    where = ("--server", server.address) if served else ()
    arguments = ("classify", GENERATOR, "--labels", "billing, bug,praise", "It crashes.", *where)
    done = sprat(store, *arguments, "--json", "--instructions", "Sort what customers write.")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (item,) = report["items"]
    assert {score["label"] for score in item["scores"]} == {"billing", "bug", "praise"}
    assert (item["confidence"], report["calibrated"]) == (None, False)


def test_classify_by_labels_shows_scores(store: Store, server: Server) -> None:
    arguments = ("classify", GENERATOR, "--labels", "yes,no", "--server", server.address)
    done = sprat(store, *arguments, "Is it?", "--top-k", "1")
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout
    assert "confidence" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "yes,no", "--truncate"), "--truncate"),
        (("--labels", "yes"), "expected 2 to 256, got 1"),
        (("--labels", "yes,,no"), "labels[1]"),
        (("--instructions", "Sort."), "--instructions: expected --labels"),
    ],
)
def test_classify_by_labels_refuses(
    store: Store, server: Server, arguments: tuple[str, ...], message: str
) -> None:
    done = sprat(store, "classify", GENERATOR, "x", *arguments, "--server", server.address)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_embed_writes_vectors(store: Store, server: Server, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    arguments = ("embed", ENCODER, "a", "b", "-o", str(out), "--server", server.address)
    assert sprat(store, *arguments).returncode == 0
    assert np.load(out).shape == (2, 384)


def test_generate_streams_to_stdout(store: Store, server: Server) -> None:
    arguments = ("generate", GENERATOR, "Say hello.", "--max-tokens", "8")
    done = sprat(store, *arguments, "--server", server.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    report = json.loads(sprat(store, *arguments, "--json", "--server", server.address).stdout)
    assert report["text"].strip() == done.stdout.strip()
    assert report["output_tokens"] <= 8


def test_doctor_reports_and_finds_nothing_wrong(store: Store, minilm: Path) -> None:
    done = sprat(store, "doctor", "--verify", "--json")
    assert done.returncode == 0, done.stdout
    findings = {f["part"]: f for f in json.loads(done.stdout)}
    assert findings["kernels"]["state"] == "ok"
    assert findings[f"model {ENCODER}"]["state"] == "ok"


def test_run_answers_every_line_and_goes_on(store: Store, server: Server, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows: list[object] = [{"id": f"t{i}", "text": f"parcel {i} is late"} for i in range(150)]
    rows[3] = {"text": ""}
    rows[5] = ["no object"]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    arguments = ("run", TASK, str(source), "-o", str(out), "--server", server.address)
    done = sprat(store, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"lines": 151, "resumed_at": 0, "failed": 3}
    whole = out.read_text()
    answers = [json.loads(line) for line in whole.splitlines()]
    assert [a["line"] for a in answers] == list(range(1, 152))
    assert answers[0]["id"] == "t0"
    assert answers[0]["label"]
    assert all("error" in answers[i] for i in (3, 5, 150))

    # Killed in the middle of a line: what is whole stays, the rest is done again.
    out.write_text(whole[: whole.index('"line": 90') + 20])
    again = json.loads(sprat(store, *arguments, "--json").stdout)
    assert again["resumed_at"] == 89
    assert [json.loads(line)["line"] for line in out.read_text().splitlines()] == [
        a["line"] for a in answers
    ]


def test_run_refuses_to_go_on_in_a_foreign_file(
    store: Store, server: Server, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "x y"}\n')
    out.write_text('{"precious": true}\n')
    done = sprat(store, "run", TASK, str(source), "-o", str(out), "--server", server.address)
    assert done.returncode == 1
    assert out.read_text() == '{"precious": true}\n'


def test_bench_sizes_a_task(store: Store, bundle: Path, smollm: Path) -> None:
    done = sprat(
        store,
        *("bench", "--task", str(bundle), "--concurrency", "1,2", "--seconds", "0.5", "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["rows"]) == 2
    assert all(row["requests_per_s"] > 0 for row in report["rows"])
