"""How soon a server with one encoder is ready, and how much memory it takes."""

from __future__ import annotations

from sprat.benchmarks import bundle, data
from sprat.benchmarks.harness import Context, Outcome, figure
from sprat.benchmarks.load import Load, LoadProcess, Target
from sprat.benchmarks.process import ServerProcess
from sprat.client import Client
from sprat.errors import SetupError
from sprat.pull import pull

TEXTS = 1024
LARGE_CALL = 64


def run(context: Context) -> Outcome:
    """Start it several times; use it each time before its memory is read."""
    pull(bundle.ENCODER, context.store)
    source = data.load(context.checkout)
    ready, imports, loading, idle, used = [], [], [], [], []
    # The first start brings the files into the page cache and does not count.
    for number in range(context.rounds + 1):
        with ServerProcess(context.store.root, models=[bundle.ENCODER]) as server:
            with Client(server.address) as client:
                client.wait_until_ready(timeout_s=1.0)
            at_first = server.usage().memory
            target = Target(server.address, "embed", bundle.ENCODER, source.exactly(TEXTS))
            with LoadProcess(target) as load:
                load.run(Load(8, calls=64 if context.quick else TEXTS))
                load.run(Load(4, LARGE_CALL, calls=4 if context.quick else TEXTS // LARGE_CALL))
            at_last = server.usage().memory
        if at_first is None or at_last is None:
            raise SetupError("this system does not say how much memory a process has")
        if number == 0:
            continue
        ready.append(server.ready_s)
        imports.append(server.ready_s - server.load_s)
        loading.append(server.load_s)
        idle.append(at_first.resident / 1e6)
        used.append(at_last.resident / 1e6)
        context.say(f"round {number} of {context.rounds}: {ready[-1]:.2f} s, {used[-1]:.0f} MB")
    return Outcome(
        parameters={"model": bundle.ENCODER, "texts": source.source, "rounds": context.rounds},
        method=(
            f"`sprat serve --model {bundle.ENCODER}` on a Unix socket, from before the process "
            "starts until its health service says SERVING and it says so; files in the page "
            "cache. Memory is the resident set, in units of 10^6 bytes, before the first call and "
            f"after calls of 1 and of {LARGE_CALL} texts. Median of starts."
        ),
        figures=(
            figure("ready", "ready to serve", "s", ready, at_most=1.5),
            figure("imports", "of that, Python and imports", "s", imports),
            figure("load", "of that, loading and warming up", "s", loading),
            figure("resident_idle", "resident when ready", "MB", idle, at_most=180),
            figure("resident_used", "resident after calls", "MB", used, at_most=180),
        ),
    )
