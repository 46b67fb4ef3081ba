"""Classify through gRPC, against CTranslate2 alone in this process on the same texts.

Each served figure is taken right after its own ceiling, in rounds, and compared within the round:
a machine that gets slower for a while slows both.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sprat import measure
from sprat.benchmarks import answers, bundle, ceiling, data
from sprat.benchmarks.ceiling import Ceiling
from sprat.benchmarks.harness import Context, Figure, Outcome, figure
from sprat.benchmarks.load import Load, LoadProcess, LoadResult, Target
from sprat.benchmarks.process import EmptyServerProcess, ListeningProcess, ServerProcess
from sprat.budget import detect
from sprat.client import Client
from sprat.errors import SetupError
from sprat.inprocess import Runtime
from sprat.tokenizer import Tokenizer
from sprat.values import IntArray

TEXTS = 3072
"""A multiple of the texts in a call, so that both sides do exactly the same work."""
ALONE_TEXTS = 768
CHECKED_TEXTS = 256
SIZES = (4, 8, 16, 32)
LARGE_CALL = 64
LARGE_CALLS_IN_FLIGHT = 4
SMALL_CALLS_IN_FLIGHT = 8


class Bench:
    """The measurements; each method takes one round of one comparison.

    Parameters
    ----------
    texts, rows : sequence of str, sequence of int32[T_i]
        The same texts, as ids too.
    size : int
        Texts a batch of the ceiling.
    threads : int
        Compute threads of both sides.

    Attributes
    ----------
    rounds : dict of str to list of float
        What the rounds gave, by name of the figure.
    server_ms : dict of str to list of dict
        By kind of call, medians of the server's own timings in each round.
    """

    def __init__(
        self,
        server: ServerProcess,
        load: LoadProcess,
        empty: EmptyServerProcess,
        empty_load: LoadProcess,
        forward: Ceiling,
        texts: Sequence[str],
        rows: Sequence[IntArray],
        *,
        size: int,
        threads: int,
    ) -> None:
        self._server = server
        self._load = load
        self._empty = empty
        self._empty_load = empty_load
        self._threads = threads
        self._forward = forward
        self._count = len(texts)
        self._sorted = ceiling.batches(ceiling.by_length(rows), size)
        self._as_sent = ceiling.batches(rows, _shared_batch(threads))
        self._one_by_one = ceiling.batches(rows[:ALONE_TEXTS], 1)
        self._large = Load(LARGE_CALLS_IN_FLIGHT, LARGE_CALL, calls=self._count // LARGE_CALL)
        self._small = Load(SMALL_CALLS_IN_FLIGHT, calls=self._count)
        self._alone = Load(1, calls=len(self._one_by_one))
        self.rounds: defaultdict[str, list[float]] = defaultdict(list)
        self.server_ms: defaultdict[str, list[dict[str, float]]] = defaultdict(list)

    def warm_up(self) -> None:
        """Every kind of call and pass, a little."""
        for each in (self._large, self._small, self._alone):
            short = Load(each.concurrency, each.texts_per_call, calls=8 * each.concurrency)
            self._load.run(short)
            self._empty_load.run(short)
        self._forward.throughput(self._sorted[:16])
        for threads in {1, self._threads}:
            self._forward.latencies_ms(self._one_by_one[:16], threads=threads)

    def large(self) -> None:
        """Many texts a call: share of the ceiling."""
        peak = self._peak()
        result = self._served("large", self._large)
        self.rounds["large"].append(result.texts_per_s)
        self.rounds["large_ratio"].append(result.texts_per_s / peak)

    def small(self) -> None:
        """One text a call, several in flight: share of the ceiling, and CPU a call."""
        peak = self._peak()
        result, server_ms = self._cpu_of(self._server, lambda: self._served("small", self._small))
        _, empty_ms = self._cpu_of(self._empty, lambda: self._empty_load.run(self._small))
        forward_ms = self._forward.throughput(self._as_sent).cpu_s / self._count * 1e3
        self.rounds["small"].append(result.texts_per_s)
        self.rounds["small_ratio"].append(result.texts_per_s / peak)
        self.rounds["client_cpu"].append(result.cpu_s / result.calls * 1e3)
        self.rounds["forward_cpu"].append(forward_ms)
        self.rounds["empty_cpu"].append(empty_ms)
        self.rounds["server_cpu"].append(server_ms)
        self.rounds["server_cpu_beyond"].append(server_ms - forward_ms)

    def alone(self) -> None:
        """One call at a time: its latency beyond that of the forward pass.

        That takes one thread or all, whichever is faster: so does the server.
        """
        forward_ms = min(
            measure.percentiles(self._forward.latencies_ms(self._one_by_one, threads=threads)).p50
            for threads in {1, self._threads}
        )
        served_ms = measure.percentiles(self._served("alone", self._alone).latencies_ms).p50
        empty_ms = measure.percentiles(self._empty_load.run(self._alone).latencies_ms).p50
        self.rounds["alone_forward"].append(forward_ms)
        self.rounds["alone_empty"].append(empty_ms)
        self.rounds["alone"].append(served_ms)
        self.rounds["alone_beyond"].append(served_ms - forward_ms)

    @staticmethod
    def _cpu_of(
        process: ListeningProcess, run: Callable[[], LoadResult]
    ) -> tuple[LoadResult, float]:
        """The result of a load, and the CPU milliseconds a call that the process used for it."""
        before = process.usage().cpu_s
        result = run()
        after = process.usage().cpu_s
        if before is None or after is None:
            raise SetupError("this system does not say how much CPU time a process has used")
        return result, (after - before) / result.calls * 1e3

    def _peak(self) -> float:
        """Texts/s of the ceiling, now."""
        rate = self._count / self._forward.throughput(self._sorted).seconds
        self.rounds["ceiling"].append(rate)
        return rate

    def _served(self, kind: str, amount: Load) -> LoadResult:
        result = self._load.run(amount)
        if result.refused:
            raise SetupError(f"{result.refused} calls were refused")
        self.server_ms[kind].append(result.server_ms)
        return result


def run(context: Context) -> Outcome:
    """Check the answers, then measure."""
    threads = detect().threads
    source = data.load(context.checkout)
    texts = source.exactly(2 * LARGE_CALL if context.quick else TEXTS)
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as folder:
        context.say("training the task")
        task = bundle.train(context.store, Path(folder))
        manifest, model_folder = context.store.model(bundle.ENCODER)
        rows = Tokenizer.from_file(model_folder / "tokenizer.json").encode_batch(texts)
        forward = Ceiling(model_folder / manifest.weights, threads)
        models = [bundle.ENCODER]
        with ServerProcess(context.store.root, tasks=[task], models=models) as server:
            context.say("checking the answers")
            with (
                Runtime(models=models, tasks=[task], store=context.store) as runtime,
                Client(server.address) as client,
            ):
                differences = answers.check(
                    *(client, runtime, forward, texts[:CHECKED_TEXTS], rows[:CHECKED_TEXTS]),
                    texts_per_call=LARGE_CALL,
                )
            by_size = _rates_by_size(forward, rows, SIZES[:1] if context.quick else SIZES)
            size = max(by_size, key=lambda each: by_size[each])
            context.say(f"ceiling: batches of {size} are best")
            with (
                EmptyServerProcess() as empty,
                LoadProcess(Target(server.address, "classify", bundle.TASK, texts)) as load,
                LoadProcess(Target(empty.address, "classify", bundle.TASK, texts)) as empty_load,
            ):
                bench = Bench(
                    *(server, load, empty, empty_load, forward, texts, rows),
                    size=size,
                    threads=threads,
                )
                _take_rounds(context, bench)
        labels = len(context.store.bundle(task)[0].labels)
    shared = _shared_batch(threads)
    return Outcome(
        parameters={
            "texts": source.source,
            "text_count": len(texts),
            "tokens": sum(map(len, rows)),
            "labels": labels,
            "threads": threads,
            "rounds": context.rounds,
            "ceiling_batch": size,
            "forward_cpu_batch": shared,
            "large_call": {"texts": LARGE_CALL, "in_flight": LARGE_CALLS_IN_FLIGHT},
            "small_call": {"texts": 1, "in_flight": SMALL_CALLS_IN_FLIGHT},
            "alone_texts": min(len(texts), ALONE_TEXTS),
        },
        method=(
            f"{bundle.ENCODER} int8, {source.source} texts, {labels} labels; the client is another "
            "process on the same cores, over a Unix socket. The ceiling is CTranslate2 alone: ids "
            "ready, length-sorted, one submitter a worker, the best of a few batch sizes, without "
            "tokenizing, pooling and head. CPU of the forward pass: the same, with the texts as "
            f"sent in batches of {shared}. The call that computes nothing is answered by a bare "
            "grpc.aio server with the same answer always. Median of rounds, each comparison within "
            "one round."
        ),
        figures=_figures(bench.rounds),
        raw={
            "rounds": bench.rounds,
            "server_ms": bench.server_ms,
            "ceiling_texts_per_s_by_batch": {str(key): by_size[key] for key in by_size},
            "largest_differences": differences,
        },
    )


def _take_rounds(context: Context, bench: Bench) -> None:
    bench.warm_up()
    for number in range(1, context.rounds + 1):
        bench.large()
        bench.small()
        bench.alone()
        latest = {name: values[-1] for name, values in bench.rounds.items()}
        context.say(
            f"round {number} of {context.rounds}: {latest['large_ratio']:.3f} and "
            f"{latest['small_ratio']:.3f} of {latest['ceiling']:.0f} texts/s"
        )


def _shared_batch(threads: int) -> int:
    """Texts a batch when the small calls in flight are shared out over the workers."""
    return -(-SMALL_CALLS_IN_FLIGHT // threads)


def _rates_by_size(
    forward: Ceiling, rows: Sequence[IntArray], sizes: Sequence[int]
) -> dict[int, float]:
    """Texts/s of the ceiling for each batch size; a pass before them warms up."""
    ordered = ceiling.by_length(rows)
    work = {size: ceiling.batches(ordered, size) for size in sizes}
    forward.throughput(work[sizes[0]])
    return {size: len(rows) / forward.throughput(work[size]).seconds for size in sizes}


def _figures(rounds: Mapping[str, Sequence[float]]) -> tuple[Figure, ...]:
    large = f"{LARGE_CALL} texts a call, {LARGE_CALLS_IN_FLIGHT} calls in flight"
    small = f"1 text a call, {SMALL_CALLS_IN_FLIGHT} calls in flight"
    alone = "1 text a call, 1 call in flight"

    def take(
        name: str,
        title: str,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Figure:
        return figure(name, title, unit, rounds[name], at_least=at_least, at_most=at_most)

    return (
        take("ceiling", "CTranslate2 alone: the ceiling", "texts/s"),
        take("large", large, "texts/s"),
        take("large_ratio", f"{large}: share of the ceiling", "", at_least=0.90),
        take("small", small, "texts/s"),
        take("small_ratio", f"{small}: share of the ceiling", "", at_least=0.65),
        take("server_cpu", f"{small}: server CPU a call", "ms"),
        take(
            "server_cpu_beyond",
            f"{small}: server CPU a call beyond the forward pass",
            "ms",
            at_most=0.45,
        ),
        take("empty_cpu", f"{small}: server CPU of a call that computes nothing", "ms"),
        take("client_cpu", f"{small}: client CPU a call", "ms"),
        take("alone", f"{alone}: p50", "ms"),
        take("alone_empty", f"{alone}: p50 of a call that computes nothing", "ms"),
        take(
            "alone_beyond",
            f"{alone}: p50 beyond that of the forward pass",
            "ms",
            at_most=0.8,
        ),
    )
