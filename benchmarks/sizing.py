"""What a task or a model does on this machine: behind ``sprat bench``.

A real server in one process, a client in another on the same cores, as on a machine where both
run; with the client elsewhere there is more left for the server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sprat import measure
from sprat.benchmarks import data
from sprat.benchmarks.load import Load, LoadProcess, Target, Verb
from sprat.benchmarks.process import ServerProcess
from sprat.errors import InvalidInput, SetupError
from sprat.store import Store

OUTPUT_TOKENS = 64
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class SizingRow:
    """One load.

    Attributes
    ----------
    concurrency : int
        Calls in flight.
    requests_per_s, texts_per_s : float
        Answered; a prompt is a text.
    output_tokens_per_s : float
        Generated; 0 for other verbs.
    p50_ms, p95_ms, p99_ms : float
        From the client's call to its answer.
    server_cpu_ms, client_cpu_ms : float or None
        CPU time a request.
    resident_mb, peak_mb, cgroup_mb : float or None
        Of the server after the load, and the most so far; of its control group, which counts
        everything else in a container and cached files. Units of 10^6 bytes.
    refused : int
        Calls that the server was too busy for.
    """

    concurrency: int
    requests_per_s: float
    texts_per_s: float
    output_tokens_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    server_cpu_ms: float | None
    client_cpu_ms: float
    resident_mb: float | None
    peak_mb: float | None
    cgroup_mb: float | None
    refused: int


@dataclass(frozen=True, slots=True)
class SizingReport:
    """A sizing table and what it holds for.

    Attributes
    ----------
    verb, name, model : str
        What was called: ``classify`` and a task, ``embed`` or ``generate`` and a model.
    texts : str
        Where the texts are from.
    ready_s : float
        Seconds from the start of the server process until it was ready.
    """

    verb: Verb
    name: str
    model: str
    texts: str
    texts_per_call: int
    seconds: float
    ready_s: float
    rows: tuple[SizingRow, ...]
    machine: dict[str, Any]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Columns and rows for people."""
        generates = self.verb == "generate"
        work = "tokens/s" if generates else "texts/s"
        columns = (
            *("in-flight", "requests/s", work, "p50-ms", "p95-ms", "p99-ms"),
            *("CPU-ms", "RSS-MB", "cgroup-MB", "refused"),
        )
        rows: list[tuple[str, ...]] = [
            (
                str(row.concurrency),
                _text(row.requests_per_s),
                _text(row.output_tokens_per_s if generates else row.texts_per_s),
                _text(row.p50_ms),
                _text(row.p95_ms),
                _text(row.p99_ms),
                _text(row.server_cpu_ms),
                _text(row.resident_mb),
                _text(row.cgroup_mb),
                str(row.refused),
            )
            for row in self.rows
        ]
        return columns, rows


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def run(
    task: str | None,
    model: str | None,
    *,
    store: Store,
    texts: Sequence[str] | None,
    concurrency: Sequence[int],
    texts_per_call: int,
    seconds: float,
    progress: Callable[[], None],
) -> SizingReport:
    """Measure one task or one model.

    Parameters
    ----------
    task : str or None
        A bundle, by name or path: measures Classify.
    model : str or None
        A model in the store: measures Embed or Generate, up to 64 tokens an answer.
    texts : sequence of str or None
        What is sent, again and again; None: the tickets of the demo.
    concurrency : sequence of int
        One row each, from 1.
    texts_per_call : int
        From 1; 1 for a generative model.
    seconds : float
        How long each row is measured, after a warm-up; above 0.
    progress : callable
        Called after each row.

    Raises
    ------
    InvalidInput
        When an argument is out of its range.
    NotFound
        When the task or the model is not in the store.
    SetupError
        When the server does not start, or a call fails.
    """
    _check(task, model, texts, concurrency, texts_per_call, seconds)
    source = data.tickets() if texts is None else data.Texts("given", tuple(texts))
    verb, name, model_name = _subject(task, model, store)
    if verb == "generate" and texts_per_call != 1:
        raise InvalidInput(
            f"texts_per_call: expected 1 for a generative model, got {texts_per_call}",
            field="texts_per_call",
        )
    tasks = [task] if task is not None else []
    models = [model] if model is not None else []
    with ServerProcess(store.root, tasks=tasks, models=models) as server:
        target = Target(server.address, verb, name, source.texts, OUTPUT_TOKENS)
        rows = []
        with LoadProcess(target) as load:
            for level in concurrency:
                load.run(Load(level, texts_per_call, seconds=min(WARM_UP_S, seconds)))
                rows.append(_row(server, load, Load(level, texts_per_call, seconds=seconds)))
                progress()
    return SizingReport(
        verb=verb,
        name=name,
        model=model_name,
        texts=source.source,
        texts_per_call=texts_per_call,
        seconds=seconds,
        ready_s=server.ready_s,
        rows=tuple(rows),
        machine=measure.machine(),
        versions=measure.versions(),
    )


def _check(
    task: str | None,
    model: str | None,
    texts: Sequence[str] | None,
    concurrency: Sequence[int],
    texts_per_call: int,
    seconds: float,
) -> None:
    if (task is None) == (model is None):
        raise InvalidInput("task, model: expected one of them", field="task")
    if texts is not None and not texts:
        raise InvalidInput("texts: expected 1 or more, got none", field="texts")
    if not concurrency or min(concurrency) < 1:
        raise InvalidInput(
            f"concurrency: expected numbers from 1, got {list(concurrency)}", field="concurrency"
        )
    if texts_per_call < 1:
        raise InvalidInput(
            f"texts_per_call: expected 1 or more, got {texts_per_call}", field="texts_per_call"
        )
    if not seconds > 0:
        raise InvalidInput(f"seconds: expected more than 0, got {seconds}", field="seconds")


def _subject(task: str | None, model: str | None, store: Store) -> tuple[Verb, str, str]:
    """The verb, what it is called with, and the model behind it."""
    if task is not None:
        bundle, _ = store.bundle(task)
        return "classify", bundle.name, bundle.bases[-1].name
    assert model is not None
    manifest, _ = store.model(model)
    return "embed" if manifest.kind == "encoder" else "generate", model, model


def _row(server: ServerProcess, load: LoadProcess, amount: Load) -> SizingRow:
    before = server.usage()
    result = load.run(amount)
    after = server.usage()
    if not result.calls:
        raise SetupError(
            f"no call of {amount.texts_per_call} texts was answered with {amount.concurrency} in "
            f"flight; {result.refused} were refused: the server is too busy"
        )
    latency = measure.percentiles(result.latencies_ms)
    memory = after.memory
    peak = None if memory is None else memory.peak
    return SizingRow(
        concurrency=amount.concurrency,
        requests_per_s=result.calls_per_s,
        texts_per_s=result.texts_per_s,
        output_tokens_per_s=result.output_tokens / result.elapsed_s,
        p50_ms=latency.p50,
        p95_ms=latency.p95,
        p99_ms=latency.p99,
        server_cpu_ms=(
            None
            if before.cpu_s is None or after.cpu_s is None
            else (after.cpu_s - before.cpu_s) / result.calls * 1e3
        ),
        client_cpu_ms=result.cpu_s / result.calls * 1e3,
        resident_mb=None if memory is None else memory.resident / 1e6,
        peak_mb=None if peak is None else peak / 1e6,
        cgroup_mb=None if after.cgroup_bytes is None else after.cgroup_bytes / 1e6,
        refused=result.refused,
    )
