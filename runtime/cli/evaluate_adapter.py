"""``sprat eval`` of a LoRA adapter: asked by llama.cpp, as a server would ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import print_json, progress
from sprat.cli.report_page import write_report
from sprat.cli.reports import show_task

if TYPE_CHECKING:
    from sprat.store import Store


def evaluate_adapter(
    name: str,
    data: Path,
    store: Store,
    *,
    limits: Limits,
    threshold: float,
    html: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Evaluate an adapter on rows like those it was trained on, and print the report."""
    from sprat.config import Config
    from sprat.inprocess import Runtime
    from sprat.train.adapter_rows import read_rows
    from sprat.train.evaluate_task import evaluate_task, summary
    from sprat.train.task_file import read_task

    manifest, folder = store.adapter(name, check=True)
    task = read_task(folder, manifest.name)
    spec = task.spec()
    rows = read_rows(data, spec)
    config = Config(tasks={manifest.name: task})
    with Runtime(config=config, store=store) as runtime, progress("eval") as bar:
        report = evaluate_task(runtime, manifest.name, spec, rows, bar, seed, threshold=threshold)
    gates = check(summary(report), limits)
    if html is not None:
        write_report(html, report, manifest, rows)
    if as_json:
        print_json({**report.model_dump(mode="json"), "gates": limits_json(gates)})
    else:
        show_task(report)
    judge(gates)
