"""`sprat eval-transform` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from servers import GENERATOR, NAMED_TASKS, Server, sprat
from typer.testing import CliRunner

from sprat.cli.evaluate_transform import evaluate_transform
from sprat.errors import SpratError
from sprat.store import Store

PROMPT = "Say it {tone}: {text}"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "no", "target": "{\\"ok\\": true}", "tone": "kindly", "id": 1}\n'
        '{"text": "yes", "target": "{\\"ok\\": false}", "tone": "coldly"}\n'
    )
    return path


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(
        '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], '
        '"additionalProperties": false}'
    )
    return path


def test_eval_transform_reports_metrics_with_intervals(
    store: Store, smollm: Path, rows: Path, schema: Path
) -> None:
    done = sprat(
        store,
        *("eval-transform", GENERATOR, str(rows), "--prompt", PROMPT, "--input", "tone"),
        *("--schema", str(schema), "--constrain", "--max-tokens", "20", "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    metrics = report["metrics"]
    assert (report["n"], report["incomplete"]) == (2, 0)
    # Whatever it answers is one of two objects: the grammar allows no other.
    assert metrics["schema_valid"]["value"] == 1
    assert len(report["wrong_lines"]) == 2 - 2 * metrics["exact_match"]["value"]
    assert 0.5 < metrics["edit_similarity"]["value"] <= 1
    for each in metrics.values():
        assert 0 <= each["low"] <= each["value"] <= each["high"] <= 1


def test_eval_transform_is_a_gate(store: Store, smollm: Path, rows: Path) -> None:
    arguments = ("eval-transform", GENERATOR, str(rows), "--prompt", "Repeat: {text}")
    done = sprat(store, *arguments, "--max-tokens", "3", "--min-exact-match", "0.9")
    assert done.returncode == 1
    assert "is below 0.9" in done.stderr
    assert "edit_similarity" in done.stdout
    assert "farthest from what was wanted: lines" in done.stdout


@pytest.mark.parametrize("served", [True, False])
def test_eval_transform_of_a_named_task(
    store: Store, server: Server, tmp_path: Path, served: bool
) -> None:
    rows, config = tmp_path / "rows.jsonl", tmp_path / "sprat.toml"
    rows.write_text('{"text": "cats", "target": "123"}\n')
    config.write_text(NAMED_TASKS)
    where = ("--server", server.address) if served else ("--config", str(config))
    done = sprat(store, "eval-transform", "digits", str(rows), *where, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["n"] == 1
    # The task's grammar is three digits.
    thirds = 3 * report["metrics"]["edit_similarity"]["value"]
    assert thirds == pytest.approx(round(thirds))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a prompt with --prompt"),
        (["--prompt", "Say"], "placeholder {text}"),
        (["--prompt", PROMPT], "nothing for {tone}"),
        (["--prompt", PROMPT, "--input", "nothing"], "nothing: missing"),
        (["--prompt", "{text}", "--adapter", "nothing"], "no adapter named 'nothing'"),
        (["--prompt", "{text}", "--constrain"], "expected --schema"),
    ],
)
def test_eval_transform_says_what_is_missing(
    store: Store, smollm: Path, rows: Path, arguments: list[str], message: str
) -> None:
    app = typer.Typer()
    app.command()(evaluate_transform)
    environment = {"SPRAT_HOME": str(store.root)}
    result = CliRunner().invoke(app, [GENERATOR, str(rows), *arguments], env=environment)
    assert isinstance(result.exception, SpratError), result.output
    assert message in result.exception.message
