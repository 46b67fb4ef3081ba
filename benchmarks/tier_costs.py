"""What each tier of a bundle costs on this machine: behind ``sprat bench --tiers``.

Each tier is served alone, in this process, as a bundle of one tier: everything that it takes to
answer is in the figures, and nothing of a server. Rounds go over the tiers in turn, so that a
machine that gets slower for a while slows all of them.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from sprat import costs, measure
from sprat.benchmarks.data import Texts
from sprat.bundle import Bundle
from sprat.config import Config
from sprat.costs import Costs, TierCost
from sprat.errors import InvalidInput
from sprat.inprocess import Runtime
from sprat.manifest import Interval
from sprat.progress import Progress
from sprat.store import Store
from sprat.task_config import AnyTaskConfig, TaskConfig

ROUNDS = 7
"""From the lowest to the highest of so many, the true median lies with a probability of 98 %."""

TEXTS_PER_CALL = 64
"""Less where a tier is so slow that such a call alone would take longer than its time."""

LEAST_PER_CALL = 8
MOST_TEXTS = 1024
SINGLES = 0.3
"""Share of the time that goes into calls of one text."""

LEAST_SINGLES = 3
LEAST_MS = 1e-6

_Call = Callable[[Sequence[str]], object]


@dataclass(slots=True)
class _Tier:
    """A tier that can be asked, and what its rounds gave."""

    call: _Call
    tokens: float
    calls: list[list[str]]
    cpu_ms: list[float] = field(default_factory=list)
    texts_per_s: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)


def run(
    bundle: Bundle,
    store: Store,
    texts: Texts,
    *,
    inputs: Mapping[str, Mapping[str, str]] = {},
    seconds: float,
    progress: Progress,
) -> Costs:
    """Measure every tier that is not remote.

    Parameters
    ----------
    bundle : Bundle
        Of any kind, of models that are in the store.
    texts : Texts
        At least one; of more than 1,024, at most as many, of all lengths.
    inputs : mapping of str to mapping of str to str
        Other inputs of each text, of a transform task that has some.
    seconds : float
        How long each tier is measured, about; above 0.

    Raises
    ------
    InvalidInput
        When an argument is out of its range, or all tiers are remote.
    NotFound, CorruptFile, StaleBundle, EngineError
        When a model cannot be loaded.
    """
    if not texts.texts:
        raise InvalidInput("texts: expected 1 or more, got none", field="texts")
    if not seconds > 0:
        raise InvalidInput(f"seconds: expected more than 0, got {seconds}", field="seconds")
    manifest = bundle.manifest
    local = costs.local_tiers(manifest)
    if not local:
        raise InvalidInput(
            f"{manifest.name}: expected a tier that is not remote, found none", field="task"
        )
    chosen = even(texts.texts, MOST_TEXTS)[0]
    share_s = seconds / ROUNDS
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as folder:
        tasks: dict[str, AnyTaskConfig] = {}
        for about in local:
            path = Path(folder, about.name)
            path.mkdir()
            bundle.alone(about.name).save(path, report="{}")
            tasks[about.name] = TaskConfig(bundle=str(path))
        progress.phase("load the models")
        with Runtime(config=Config(tasks=tasks), store=store) as runtime:
            tiers = [
                _open(
                    runtime,
                    _caller(runtime, manifest.kind, about.name, inputs),
                    about.model.name,
                    chosen,
                    share_s,
                )
                for about in local
            ]
            progress.phase("measure", total=ROUNDS * len(tiers))
            for number in range(ROUNDS):
                for tier in tiers:
                    _round(tier, chosen, number, share_s)
                    progress.advance(1)
            models = {each.name: each for each in runtime.list_models()}
    machine = measure.machine()
    return Costs(
        bundle=manifest.name,
        labels=len(manifest.labels),
        measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cpu=machine["cpu"],
        threads=machine["threads"],
        versions=measure.versions(costs.PACKAGES),
        source=texts.source,
        texts=len(chosen),
        characters=sum(map(len, chosen)) / len(chosen),
        rounds=ROUNDS,
        tiers=tuple(
            TierCost(
                name=about.name,
                base=about.model,
                asked=costs.asked(manifest, about),
                engine=models[about.model.name].engine,
                quantization=models[about.model.name].quantization,
                tokens=tier.tokens,
                texts_per_call=len(tier.calls[0]),
                cpu_ms=_interval(tier.cpu_ms),
                texts_per_s=_interval(tier.texts_per_s),
                latency_ms=_interval(tier.latency_ms),
            )
            for about, tier in zip(local, tiers, strict=True)
        ),
    )


def even(texts: Sequence[str], size: int) -> list[list[str]]:
    """Parts of at most ``size`` texts, each of as many lengths as all texts together.

    Parameters
    ----------
    size : int
        From 1.
    """
    by_length = sorted(texts, key=len)
    step = -(-len(texts) // size)
    return [by_length[start::step] for start in range(step)]


def _open(runtime: Runtime, call: _Call, model: str, texts: Sequence[str], share_s: float) -> _Tier:
    """A tier, warmed up, with calls of as many texts as its share of the time allows."""
    few = even(texts, LEAST_PER_CALL)[0]
    call(few)
    started = time.perf_counter()
    call(few)
    text_s = (time.perf_counter() - started) / len(few)
    fits = int(share_s * (1 - SINGLES) / text_s)
    size = min(TEXTS_PER_CALL, max(LEAST_PER_CALL, fits))
    limit = next(each.max_tokens for each in runtime.list_models() if each.name == model)
    tokenized = runtime.tokenize(model, texts).items
    tokens = sum(min(len(each.ids), limit) for each in tokenized) / len(texts)
    return _Tier(call, max(tokens, 1.0), even(texts, size))


def _caller(
    runtime: Runtime, kind: str, task: str, inputs: Mapping[str, Mapping[str, str]]
) -> _Call:
    """What asks a task, whatever the length of the texts; to rewrite, one after the other."""

    def transform(texts: Sequence[str]) -> None:
        for text in texts:
            for _ in runtime.transform(task, text, inputs=inputs.get(text, {})):
                pass

    calls: dict[str, _Call] = {
        "classify": lambda texts: runtime.classify(task, texts, top_k=1, truncation="truncate"),
        "route": lambda texts: runtime.route(task, texts, top_k=1, truncation="truncate"),
        "moderate": lambda texts: runtime.moderate(task, texts),
        "extract": lambda texts: runtime.extract(task, texts, long_input="chunk"),
        "transform": transform,
    }
    return calls[kind]


def _round(tier: _Tier, texts: Sequence[str], number: int, share_s: float) -> None:
    """One round of a tier: calls of many texts, then calls of one."""
    done = 0
    started, cpu = time.perf_counter(), time.process_time()
    for part in itertools.cycle(tier.calls):
        tier.call(part)
        done += len(part)
        if time.perf_counter() - started >= share_s * (1 - SINGLES):
            break
    cpu, elapsed_s = time.process_time() - cpu, time.perf_counter() - started
    tier.cpu_ms.append(max(cpu / done * 1e3, LEAST_MS))
    tier.texts_per_s.append(done / elapsed_s)
    latencies: list[float] = []
    end = time.perf_counter() + share_s * SINGLES
    # Another order in each round, the same for all tiers.
    singles = random.Random(number).sample(texts, len(texts))
    for text in itertools.cycle(singles):
        sent = time.perf_counter()
        tier.call([text])
        latencies.append((time.perf_counter() - sent) * 1e3)
        if len(latencies) >= LEAST_SINGLES and time.perf_counter() >= end:
            break
    tier.latency_ms.append(measure.median(latencies))


def _interval(rounds: Sequence[float]) -> Interval:
    return Interval(value=measure.median(rounds), low=min(rounds), high=max(rounds))
