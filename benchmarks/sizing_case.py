"""The table that ``sprat bench`` prints, for the benchmark's own task."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sprat.benchmarks import bundle, data, sizing
from sprat.benchmarks.harness import Context, Outcome, Table

CONCURRENCY = (1, 2, 4, 8, 16)
SECONDS = 10.0


def run(context: Context) -> Outcome:
    """Classify with one text a call."""
    source = data.load(context.checkout)
    levels = CONCURRENCY[:2] if context.quick else CONCURRENCY
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as folder:
        context.say("training the task")
        task = bundle.train(context.store, Path(folder))
        report = sizing.run(
            task,
            None,
            store=context.store,
            texts=source.texts,
            concurrency=levels,
            texts_per_call=1,
            seconds=0.5 if context.quick else SECONDS,
            progress=lambda: context.say("a row is measured"),
        )
    columns, rows = report.table()
    return Outcome(
        parameters={"texts": source.source, "seconds": report.seconds, "concurrency": list(levels)},
        method=(
            f"`sprat bench --task {bundle.TASK}` with {source.source} texts, one text a call, on "
            f"{bundle.ENCODER} int8; the client is another process on the same cores. CPU is that "
            "of the server, for each request; RSS is its memory, cgroup that of its control group."
        ),
        figures=(),
        table=Table(columns=columns, rows=tuple(rows)),
        raw=report.to_json(),
    )
