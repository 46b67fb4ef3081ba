from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sprat.benchmarks import sizing
from sprat.errors import InvalidInput, NotFound, SetupError
from sprat.store import Store

TEXTS = ["Where is my parcel?", "The invoice is wrong.", "I cannot log in."]


def run(store: Store, task: str | None, model: str | None, **change: Any) -> sizing.SizingReport:
    arguments: dict[str, Any] = {
        "texts": TEXTS,
        "concurrency": [1],
        "texts_per_call": 1,
        "seconds": 0.3,
        "progress": lambda: None,
        **change,
    }
    return sizing.run(task, model, store=store, **arguments)


def test_sizing_classify_through_a_real_server(store: Store, bundle: Path) -> None:
    done: list[int] = []
    report = run(
        store,
        str(bundle),
        None,
        concurrency=[1, 4],
        texts_per_call=2,
        progress=lambda: done.append(1),
    )
    assert len(done) == 2
    assert (report.verb, report.name, report.model) == ("classify", "tickets", "minilm-l6")
    assert [row.concurrency for row in report.rows] == [1, 4]
    for row in report.rows:
        assert row.requests_per_s > 0
        assert row.texts_per_s == pytest.approx(2 * row.requests_per_s)
        assert 0 < row.p50_ms <= row.p95_ms <= row.p99_ms
        assert row.server_cpu_ms is not None
        assert row.server_cpu_ms > 0
        assert row.client_cpu_ms > 0
        assert row.resident_mb is not None
        assert row.resident_mb > 20
        assert row.refused == 0
        assert row.output_tokens_per_s == 0
    document = json.loads(json.dumps(report.to_json()))
    assert document["rows"][1]["concurrency"] == 4
    assert document["machine"]["threads"] >= 1
    assert document["ready_s"] > 0
    columns, rows = report.table()
    assert "texts/s" in columns
    assert [len(row) for row in rows] == [len(columns)] * 2
    # The command aligns columns by name, and separates the names with spaces.
    assert not any(" " in column for column in columns)


def test_sizing_embed_with_the_tickets_of_the_demo(store: Store, minilm: Path) -> None:
    report = run(store, None, "minilm-l6", texts=None)
    assert (report.verb, report.name, report.model) == ("embed", "minilm-l6", "minilm-l6")
    assert report.texts == "sprat demo tickets"
    assert report.rows[0].texts_per_s > 0


def test_sizing_generate_counts_tokens(store: Store, smollm: Path) -> None:
    report = run(store, None, "smollm2-135m", texts=["Once upon a time"], concurrency=[2])
    assert report.verb == "generate"
    assert report.rows[0].output_tokens_per_s > report.rows[0].requests_per_s
    columns, _ = report.table()
    assert "tokens/s" in columns
    with pytest.raises(InvalidInput, match="texts_per_call: expected 1 for a generative model"):
        run(store, None, "smollm2-135m", texts_per_call=2)


def test_sizing_names_the_call_that_failed(store: Store, minilm: Path) -> None:
    with pytest.raises(SetupError, match="a call failed under load: INPUT_TOO_LONG: texts"):
        run(store, None, "minilm-l6", texts=["herring " * 1000])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": []}, "texts: expected 1 or more, got none"),
        ({"concurrency": []}, r"concurrency: expected numbers from 1, got \[\]"),
        ({"concurrency": [4, 0]}, r"concurrency: expected numbers from 1, got \[4, 0\]"),
        ({"texts_per_call": 0}, "texts_per_call: expected 1 or more, got 0"),
        ({"seconds": 0.0}, "seconds: expected more than 0, got 0"),
        ({"seconds": float("nan")}, "seconds: expected more than 0, got nan"),
    ],
)
def test_sizing_refuses_arguments_out_of_range(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(Store(tmp_path), "tickets", None, **change)


@pytest.mark.parametrize(("task", "model"), [(None, None), ("tickets", "minilm-l6")])
def test_sizing_measures_one_thing(tmp_path: Path, task: str | None, model: str | None) -> None:
    with pytest.raises(InvalidInput, match="task, model: expected one of them"):
        run(Store(tmp_path), task, model)


def test_sizing_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no bundle named 'tickets'"):
        run(Store(tmp_path), "tickets", None)
    with pytest.raises(NotFound, match="no model named 'minilm-l6'"):
        run(Store(tmp_path), None, "minilm-l6")


def test_sizing_loads_without_psutil_and_engines() -> None:
    code = (
        "import sys; sys.modules['psutil'] = None; import sprat.benchmarks.sizing; "
        "print([m for m in ('ctranslate2', 'llama_cpp', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
