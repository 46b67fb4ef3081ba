"""Classify through gRPC, against CTranslate2 alone in this process on the same texts.

Each served figure is taken right after its own ceiling, in rounds, and compared within the round:
a machine that gets slower for a while slows both.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sprat import measure
from sprat.benchmarks import bundle, ceiling, data
from sprat.benchmarks.ceiling import Ceiling
from sprat.benchmarks.harness import Context, Figure, Outcome, figure
from sprat.benchmarks.load import Load, LoadProcess, LoadResult, Target
from sprat.benchmarks.process import ServerProcess
from sprat.budget import detect
from sprat.client import Client
from sprat.errors import SetupError
from sprat.inprocess import Runtime
from sprat.tokenizer import Tokenizer
from sprat.values import Classification, FloatArray, IntArray

TEXTS = 3072
"""A multiple of the texts in a call, so that both sides do exactly the same work."""
TEXTS_ALONE = 768
SIZES = (4, 8, 16, 32)
LARGE_CALL = 64
LARGE_CALLS_IN_FLIGHT = 4
SMALL_CALLS_IN_FLIGHT = 8
TOLERANCE = 1e-4
"""Most that a score, or an element of a vector of norm 1, may differ between equal batches."""


@dataclass(slots=True)
class Rounds:
    """What the rounds gave; each list has one value a round."""

    ceiling: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)
    large_ratio: list[float] = field(default_factory=list)
    small: list[float] = field(default_factory=list)
    small_ratio: list[float] = field(default_factory=list)
    server_cpu_ms: list[float] = field(default_factory=list)
    forward_cpu_ms: list[float] = field(default_factory=list)
    beyond_ms: list[float] = field(default_factory=list)
    client_cpu_ms: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)
    alone_forward_ms: list[float] = field(default_factory=list)
    alone_beyond_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Work:
    """The same texts, prepared for each measurement.

    Attributes
    ----------
    texts, alone : tuple of str
        For calls side by side; for one call at a time.
    rows, alone_rows : list of int32[T_i]
        Their token ids.
    """

    texts: tuple[str, ...]
    alone: tuple[str, ...]
    rows: list[IntArray]
    alone_rows: list[IntArray]


def run(context: Context) -> Outcome:
    """Check, then measure; see the module."""
    threads = detect().threads
    source = data.load(context.checkout)
    texts = source.exactly(2 * LARGE_CALL if context.quick else TEXTS)
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as folder:
        context.say("training the task")
        task = bundle.train(context.store, Path(folder))
        manifest, model_folder = context.store.model(bundle.ENCODER)
        tokenizer = Tokenizer.from_file(model_folder / "tokenizer.json")
        rows = tokenizer.encode_batch(texts)
        work = Work(texts, texts[:TEXTS_ALONE], rows, rows[:TEXTS_ALONE])
        forward = Ceiling(model_folder / manifest.weights, threads)
        context.say("checking the answers")
        with ServerProcess(context.store.root, tasks=[task], models=[bundle.ENCODER]) as server:
            differences = _check(context, server, task, work, forward)
            by_size = _rates_by_size(context, forward, rows)
            size = max(by_size, key=lambda each: by_size[each])
            context.say(f"ceiling: batches of {size} are best")
            target = Target(server.address, "classify", bundle.TASK, work.texts)
            with LoadProcess(target) as load:
                rounds, server_ms = _measure(context, server, load, forward, work, size)
        labels = len(context.store.bundle(task)[0].labels)
    return Outcome(
        parameters={
            "texts": source.source,
            "text_count": len(texts),
            "tokens": sum(map(len, rows)),
            "labels": labels,
            "threads": threads,
            "rounds": context.rounds,
            "ceiling_batch": size,
            "large_call": {"texts": LARGE_CALL, "in_flight": LARGE_CALLS_IN_FLIGHT},
            "small_call": {"texts": 1, "in_flight": SMALL_CALLS_IN_FLIGHT},
            "forward_batch": _forward_batch(threads),
            "alone_texts": len(work.alone),
        },
        method=(
            f"{bundle.ENCODER} int8, {source.source} texts, {labels} labels; the client is another "
            "process on the same cores, over a Unix socket. The ceiling is CTranslate2 alone: ids "
            "ready, length-sorted, one submitter a worker, the best of a few batch sizes, without "
            "tokenizing, pooling and head. Median of rounds, each ratio within one round."
        ),
        figures=_figures(rounds),
        raw={
            "ceiling_texts_per_s_by_batch": {str(key): by_size[key] for key in by_size},
            "largest_differences": differences,
            "server_ms": server_ms,
        },
    )


def _forward_batch(threads: int) -> int:
    """Texts a batch when the small calls in flight are spread over the workers."""
    return -(-SMALL_CALLS_IN_FLIGHT // threads)


def _check(
    context: Context, server: ServerProcess, task: str, work: Work, forward: Ceiling
) -> dict[str, float]:
    """Compare answers through gRPC with those of a `Runtime`, and its vectors with CTranslate2's.

    Call by call, one at a time: quantized weights make a result depend on the batch that a text
    happens to be in, so only equal batches have equal results.
    """
    texts = work.texts[: 2 * LARGE_CALL]
    single = [[text] for text in texts[: LARGE_CALL // 2]]
    large = [texts[start : start + LARGE_CALL] for start in range(0, len(texts), LARGE_CALL)]
    vectors: list[FloatArray] = []
    differences = {"served_vectors": 0.0, "served_scores": 0.0, "ceiling_vectors": 0.0}

    def note(name: str, found: float) -> None:
        differences[name] = max(differences[name], found)

    with (
        Runtime(models=[bundle.ENCODER], tasks=[task], store=context.store) as runtime,
        Client(server.address) as client,
    ):
        for call in (*single, *large):
            here = runtime.embed(bundle.ENCODER, call).vectors
            vectors.append(here)
            note("served_vectors", _largest(here, client.embed(bundle.ENCODER, call).vectors))
            expected = runtime.classify(bundle.TASK, call).items
            found = client.classify(bundle.TASK, call).items
            for mine, other in zip(expected, found, strict=True):
                note("served_scores", _compare(mine, other))
    alone = np.concatenate(vectors[: len(single)])
    note("ceiling_vectors", _largest(alone, forward.vectors(work.rows[: len(single)])))
    for name, value in differences.items():
        if not value <= TOLERANCE:
            raise SetupError(f"{name}: differ by {value:.2g}, at most {TOLERANCE:g} is expected")
    return differences


def _largest(left: FloatArray, right: FloatArray) -> float:
    return float(np.abs(left - right).max())


def _compare(mine: Classification | None, other: Classification | None) -> float:
    """The largest difference between the scores of two answers, which must have one label."""
    if mine is None or other is None or mine.label != other.label:
        raise SetupError("a label through gRPC is not that of the runtime")
    scores = {each.label: each.score for each in other.scores}
    return max(abs(each.score - scores[each.label]) for each in mine.scores)


def _rates_by_size(context: Context, forward: Ceiling, rows: list[IntArray]) -> dict[int, float]:
    """Texts/s of the ceiling for each batch size; the first pass warms up."""
    ordered = ceiling.by_length(rows)
    sizes = SIZES[:1] if context.quick else SIZES
    work = {size: ceiling.batches(ordered, size) for size in sizes}
    forward.throughput(work[sizes[0]])
    return {size: len(rows) / forward.throughput(work[size]).seconds for size in sizes}


def _measure(
    context: Context,
    server: ServerProcess,
    load: LoadProcess,
    forward: Ceiling,
    work: Work,
    size: int,
) -> tuple[Rounds, dict[str, list[dict[str, float]]]]:
    """The rounds, and for each kind of call the server's own timings of each round."""
    count = len(work.texts)
    ordered = ceiling.batches(ceiling.by_length(work.rows), size)
    as_sent = ceiling.batches(work.rows, _forward_batch(detect().threads))
    one_by_one = ceiling.batches(work.alone_rows, 1)
    large = Load(LARGE_CALLS_IN_FLIGHT, LARGE_CALL, calls=count // LARGE_CALL)
    small = Load(SMALL_CALLS_IN_FLIGHT, calls=count)
    alone = Load(1, calls=len(work.alone))
    rounds = Rounds()
    server_ms: dict[str, list[dict[str, float]]] = {"large": [], "small": [], "alone": []}

    def served(kind: str, amount: Load) -> LoadResult:
        result = load.run(amount)
        if result.refused:
            raise SetupError(f"{result.refused} calls were refused")
        server_ms[kind].append(result.server_ms)
        return result

    for warm_up in (large, small, alone):
        load.run(Load(warm_up.concurrency, warm_up.texts_per_call, calls=warm_up.concurrency * 8))
    forward.latencies_ms(one_by_one[:16])
    for number in range(context.rounds):
        peak = count / forward.throughput(ordered).seconds
        result = served("large", large)
        rounds.large.append(result.texts_per_s)
        rounds.large_ratio.append(result.texts_per_s / peak)

        second = count / forward.throughput(ordered).seconds
        rounds.ceiling += [peak, second]
        before = server.usage().cpu_s
        result = served("small", small)
        after = server.usage().cpu_s
        rounds.small.append(result.texts_per_s)
        rounds.small_ratio.append(result.texts_per_s / second)
        rounds.client_cpu_ms.append(result.cpu_s / result.calls * 1e3)
        forward_cpu_ms = forward.throughput(as_sent).cpu_s / count * 1e3
        rounds.forward_cpu_ms.append(forward_cpu_ms)
        if before is not None and after is not None:
            server_cpu_ms = (after - before) / result.calls * 1e3
            rounds.server_cpu_ms.append(server_cpu_ms)
            rounds.beyond_ms.append(server_cpu_ms - forward_cpu_ms)

        forward_ms = measure.percentiles(forward.latencies_ms(one_by_one)).p50
        alone_ms = measure.percentiles(served("alone", alone).latencies_ms).p50
        rounds.alone_forward_ms.append(forward_ms)
        rounds.alone_ms.append(alone_ms)
        rounds.alone_beyond_ms.append(alone_ms - forward_ms)
        context.say(
            f"round {number + 1} of {context.rounds}: {rounds.large_ratio[-1]:.3f} and "
            f"{rounds.small_ratio[-1]:.3f} of {second:.0f} texts/s"
        )
    return rounds, server_ms


def _figures(rounds: Rounds) -> tuple[Figure, ...]:
    large = f"{LARGE_CALL} texts a call, {LARGE_CALLS_IN_FLIGHT} calls in flight"
    small = f"1 text a call, {SMALL_CALLS_IN_FLIGHT} calls in flight"
    figures = [
        figure("ceiling", "CTranslate2 alone: the ceiling", "texts/s", rounds.ceiling),
        figure("large", large, "texts/s", rounds.large),
        figure(
            "large_ratio", f"{large}: share of the ceiling", "", rounds.large_ratio, at_least=0.90
        ),
        figure("small", small, "texts/s", rounds.small),
        figure(
            "small_ratio", f"{small}: share of the ceiling", "", rounds.small_ratio, at_least=0.65
        ),
    ]
    if rounds.beyond_ms:
        figures += [
            figure("server_cpu", "the same: server CPU a call", "ms", rounds.server_cpu_ms),
            figure(
                "server_cpu_beyond",
                "the same: server CPU a call beyond the forward pass",
                "ms",
                rounds.beyond_ms,
                at_most=0.45,
            ),
        ]
    return (
        *figures,
        figure("client_cpu", "the same: client CPU a call", "ms", rounds.client_cpu_ms),
        figure("alone", "1 call at a time: p50", "ms", rounds.alone_ms),
        figure(
            "alone_beyond",
            "1 call at a time: p50 beyond that of the forward pass on as many threads",
            "ms",
            rounds.alone_beyond_ms,
            at_most=0.8,
        ),
    )
