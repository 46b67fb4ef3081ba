"""``sprat eval`` of LoRA adapters: asked by llama.cpp, as a server would ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sprat.cli import comparisons
from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import print_json, progress
from sprat.cli.report_page import write_report
from sprat.cli.reports import show_task
from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.manifest import AdapterManifest
    from sprat.store import Store
    from sprat.train.task_file import TrainedTask


def evaluate_adapter(
    names: Sequence[str],
    data: Path,
    store: Store,
    *,
    limits: Limits,
    threshold: float | None,
    html: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Evaluate an adapter on rows like those it was trained on, and print the report.

    Parameters
    ----------
    names : sequence of str
        The adapter, and perhaps another one for the same kind of task to compare it with.
    """
    from sprat.config import Config
    from sprat.inprocess import Runtime
    from sprat.train.adapter_rows import read_rows
    from sprat.train.evaluate import SURE
    from sprat.train.evaluate_task import ask

    manifests, tasks = zip(*(_read(store, name) for name in names), strict=True)
    _check_kinds(names, tasks)
    if threshold is not None and tasks[0].kind != "classify":
        raise InvalidInput(
            f"--threshold: expected an adapter for classify, not {tasks[0].kind}",
            field="threshold",
        )
    specs = [task.spec() for task in tasks]
    # Rows that one of them cannot be asked about are found before any is.
    read = [read_rows(data, spec) for spec in specs]
    answers = []
    for manifest, task, spec, rows in zip(manifests, tasks, specs, read, strict=True):
        config = Config(tasks={manifest.name: task})
        with Runtime(config=config, store=store) as runtime, progress("eval") as bar:
            answers.append(ask(runtime, manifest.name, spec, rows, bar))
    sure = SURE if threshold is None else threshold
    reports = [each.judge(threshold=sure, seed=seed) for each in answers]
    report = reports[0]
    comparison = answers[0].compare(answers[1], seed=seed) if len(answers) > 1 else None
    gates = check(report.summary(), limits)
    if html is not None:
        write_report(html, report, manifests[0], read[0])
    if as_json:
        document = report.model_dump(mode="json")
        if comparison is not None:
            document["against"] = comparisons.as_json(manifests[1], reports[1], comparison)
        document["gates"] = limits_json(gates)
        print_json(document)
    else:
        show_task(report)
        if comparison is not None:
            comparisons.show_metrics(reports, [each.name for each in manifests])
            comparisons.show_task(comparison)
    judge(gates)


def _read(store: Store, name: str) -> tuple[AdapterManifest, TrainedTask]:
    from sprat.train.task_file import read_task

    manifest, folder = store.adapter(name, check=True)
    return manifest, read_task(folder, manifest.name)


def _check_kinds(names: Sequence[str], tasks: Sequence[TrainedTask]) -> None:
    """Refuse adapters whose answers are of another sort than those of the first."""
    for name, task in zip(names, tasks, strict=True):
        if task.kind != tasks[0].kind:
            raise InvalidInput(
                f"--against: expected an adapter for {tasks[0].kind}, but {name} is for "
                f"{task.kind}",
                field="against",
            )
