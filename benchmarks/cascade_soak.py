"""A cascade under steady traffic, easy and hard, whose last tier fails now and then.

Three real tiers on BANKING77: a head on a static model, one on MiniLM-L6, and a remote one, a chat
endpoint that fails 20 % of its calls by a script. One server, three tasks, one for each of
``on_failure``; every reply is checked against what each tier had said before.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.request import urlopen

import numpy as np

from sprat import measure
from sprat.asked_manifest import Remote
from sprat.benchmarks import bundle
from sprat.benchmarks.harness import Context, Outcome, Table, figure
from sprat.benchmarks.process import ScriptedChatProcess, ServerProcess
from sprat.benchmarks.scripted_chat import FAILING, WAYS
from sprat.benchmarks.soak import Opinion, Subject, Tally, plan, soak
from sprat.benchmarks.workbench import Row, Workbench, banking_rows, draw
from sprat.bundle import Bundle
from sprat.bundle_manifest import Calibration, ReportSummary, TierManifest
from sprat.config import Config
from sprat.errors import SetupError
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.task_config import TaskConfig, TierConfig
from sprat.values import Classification, Label, OnFailure

RATE = 200.0
SECONDS = 60.0
ROWS_PER_LABEL = 10
SEED = 11
BATCH = 32

ANSWERED = (0.6, 0.6)
"""Share of what each of the first tiers sees that it is to answer."""

SURE, UNSURE = -0.1, -0.5
"""Log-probability of the last tier's answers; one of five is unsure."""

LAST_ACCEPTS = 0.8
QUICK_LABELS = 12
QUICK_ROWS_PER_LABEL = 5


@dataclass(frozen=True, slots=True)
class Soak:
    """How much: calls a second, for how many seconds."""

    rate: float
    seconds: float


def run(context: Context) -> Outcome:
    """Train, learn what each tier says, then send calls."""
    train, test = (banking_rows(context, part) for part in ("train", "test"))
    load, per_label = Soak(RATE, SECONDS), ROWS_PER_LABEL
    if context.quick:
        labels = sorted({row["label"] for row in train})[:QUICK_LABELS]
        train, test = ([r for r in rows if r["label"] in labels] for rows in (train, test))
        load, per_label = Soak(RATE / 4, 3.0), QUICK_ROWS_PER_LABEL
    pull(bundle.ENCODER, context.store)
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as name:
        work = Workbench(Path(name), context.store.root)
        chosen = draw([row["label"] for row in train], per_label, SEED)
        rows = work.write("train", (train[at] for at in chosen))
        local = work.folder / "bench-soak"
        context.say(f"training on {len(chosen)} rows")
        work.sprat(
            *("train", str(rows), "--base", bundle.ENCODER, "--tiers", "static,head"),
            *("-o", str(local)),
        )
        tally, subject, counts = measure_soak(context, work, local, test, load)
    return _outcome(load, len(chosen), tally, subject, counts)


def measure_soak(
    context: Context, work: Workbench, local: Path, rows: Sequence[Row], load: Soak
) -> tuple[Tally, Subject, dict[str, int]]:
    """Soak a bundle of two tiers with a scripted one behind them.

    Parameters
    ----------
    local : Path
        The bundle.
    rows : sequence of dict
        What is sent, with the labels that the last tier answers.

    Returns
    -------
    tally : Tally
    subject : Subject
    counts : dict of str to int
        What the last tier did.
    """
    texts = sorted({row["text"]: row["label"] for row in rows}.items())
    script = {
        text: (label, UNSURE if number % 5 == 0 else SURE)
        for number, (text, label) in enumerate(texts)
    }
    answers = work.folder / "answers.json"
    answers.write_text(json.dumps(script), encoding="utf-8")
    subject = _subject(local, context.store, script)
    task = work.folder / "bench-soak-remote"
    task.mkdir()
    _with_remote(Bundle.load(local)).save(task, report="{}")
    config = work.folder / "sprat.toml"
    with ScriptedChatProcess(answers) as endpoint:
        config.write_text(_config(subject, task, endpoint.address), encoding="utf-8")
        with ServerProcess(context.store.root, config=config) as server:
            calls = plan(subject, round(load.rate * load.seconds), seed=SEED)
            context.say(f"{len(calls)} calls, {load.rate:g} a second")
            tally = asyncio.run(soak(server.address, subject, calls, rate=load.rate))
        with urlopen(f"{endpoint.address}/counts", timeout=10) as reply:
            counts: dict[str, int] = json.load(reply)
    for fault in tally.faults:
        context.say(fault)
    return tally, subject, counts


def _with_remote(local: Bundle) -> Bundle:
    """The same with a tier behind the others that asks an endpoint."""
    manifest = local.manifest
    remote = TierManifest(
        name="remote",
        remote=Remote(model="scripted", labels=tuple(map(Label, manifest.labels))),
        calibration=Calibration(temperature=1.0),
        accept_at=LAST_ACCEPTS,
        evaluation=ReportSummary(n=1, metrics={}),
    )
    tiers = (*manifest.tiers, remote)
    return Bundle(manifest.model_copy(update={"tiers": tiers}), local.heads)


def _subject(local: Path, store: Store, script: dict[str, tuple[str, float]]) -> Subject:
    """What each tier says of each text, alone in this process, and thresholds to suit."""
    manifest = Bundle.load(local).manifest
    first = manifest.tiers[0].name
    # With any threshold the first tier takes part; the calls bring their own.
    task = TaskConfig(bundle=str(local), tiers={first: TierConfig(accept_at=0.5)})
    texts = tuple(script)
    with Runtime(config=Config(tasks={"soak": task}), store=store) as runtime:
        heard = [
            _opinions(_ask(runtime, texts, tier, accept_at))
            for tier, accept_at in enumerate((0.0, 1.0))
        ]
        engines = [
            next(each.engine for each in runtime.list_models() if each.name == tier.model.name)
            for tier in manifest.tiers
        ]
    scripted = [
        Opinion({label: math.exp(logprob)}, math.exp(logprob)) for label, logprob in script.values()
    ]
    opinions = list(zip(*heard, scripted, strict=True))
    thresholds = []
    left = list(range(len(texts)))
    for tier, share in enumerate(ANSWERED):
        confidence_n = np.array([opinions[at][tier].confidence for at in left], np.float64)
        least = float(np.clip(np.quantile(confidence_n, 1 - share), 0.01, 0.99))
        thresholds.append(round(least, 4))
        left = [at for at, sure in zip(left, confidence_n, strict=True) if sure < least]
    policies: tuple[OnFailure, ...] = get_args(OnFailure)
    return Subject(
        tasks={f"soak-{policy}": policy for policy in policies},
        accept_at=(*thresholds, LAST_ACCEPTS),
        engines=(*engines, "remote"),
        texts=texts,
        opinions=opinions,
    )


def _ask(
    runtime: Runtime, texts: Sequence[str], tier: int, accept_at: float
) -> list[Classification]:
    """Answers of one tier: what comes after it is not asked, what comes before is not sure."""
    order = random.Random(SEED).sample(range(len(texts)), len(texts))
    answers: dict[int, Classification] = {}
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        result = runtime.classify(
            "soak", [texts[at] for at in part], max_tier=tier, accept_at=accept_at
        )
        for at, item in zip(part, result.items, strict=True):
            if item is None or item.tier != tier:
                raise SetupError(f"tier {tier} did not answer a text")
            answers[at] = item
    return [answers[at] for at in range(len(texts))]


def _opinions(items: Sequence[Classification]) -> list[Opinion]:
    return [
        Opinion(
            {score.label: score.score for score in item.scores},
            item.confidence,
            item.input_tokens,
        )
        for item in items
    ]


def _config(subject: Subject, task: Path, url: str) -> str:
    """The server's configuration."""
    first, second, _ = subject.accept_at
    tasks = "".join(
        f'[tasks.{name}]\nbundle = "{task}"\non_failure = "{policy}"\n'
        f"tiers.static.accept_at = {first}\ntiers.head.accept_at = {second}\n"
        f'tiers.remote.endpoint = "scripted"\n\n'
        for name, policy in subject.tasks.items()
    )
    return (
        f'[endpoints.scripted]\nurl = "{url}"\nmodel = "scripted"\nattempts = 1\n'
        f"timeout_s = 2.0\nconcurrency = 32\n\n{tasks}"
    )


def _outcome(
    load: Soak, rows: int, tally: Tally, subject: Subject, counts: dict[str, int]
) -> Outcome:
    latency = measure.percentiles(tally.latencies_ms)
    failures = sum(counts.get(way, 0) for way in WAYS)
    requests = counts.get("requests", 0)
    names = ("static", "head", "remote")
    answered = max(1, tally.answered)
    return Outcome(
        parameters={
            "encoder": bundle.ENCODER,
            "train_rows": rows,
            "rate": load.rate,
            "seconds": load.seconds,
            "accept_at": list(subject.accept_at),
            "calls": tally.calls,
            "texts": tally.texts,
            "failing": FAILING,
        },
        method=(
            f"{load.rate:g} calls a second for {load.seconds:g} s through gRPC, at random times, "
            "whether or not earlier ones are answered, of 1 to 8 BANKING77 test texts, over four "
            "channels from a client on the same cores, to three tasks in turn, one for each "
            "on_failure; half of them with partial results, one of eight with a budget of 40 ms. "
            f"Heads on the static model and MiniLM-L6 int8, trained on {rows} rows; the last tier "
            f"is a chat endpoint over HTTP that fails {FAILING:.0%} of its requests by a script "
            "(status 500 and 503, cut connection, no JSON, no answer), takes 300 ms for 2 % and is "
            "asked once. Every reply is checked: that all are there and in order, that what each "
            "tier said is what it had said before (scores of the encoder within 0.1), that it went "
            "on exactly where it was not sure, and that missed tiers end as on_failure says. "
            "Latencies from when a call was to be sent."
        ),
        figures=(
            figure("lost", "calls without a reply", "", [tally.lost], at_most=0),
            figure(
                "wrong", "texts with an answer that is not theirs", "", [tally.wrong], at_most=0
            ),
            figure(
                "broken", "texts not answered as the policy says", "", [tally.broken], at_most=0
            ),
            figure("calls", "calls that were answered", "", [tally.calls - tally.lost]),
            figure("p50", "p50 of a call", "ms", [latency.p50]),
            figure("p99", "p99 of a call", "ms", [latency.p99]),
            figure("failures", "requests that the last tier failed", "", [failures]),
        ),
        table=Table(
            columns=("texts", "count", "share"),
            rows=(
                *(
                    (
                        f"answered by {name}",
                        tally.by_tier[tier],
                        round(tally.by_tier[tier] / answered, 4),
                    )
                    for tier, name in enumerate(names)
                ),
                *(
                    (f"of these degraded: {reason}", count, round(count / answered, 4))
                    for reason, count in sorted(tally.degraded.items())
                ),
                ("an error, as on_failure says", tally.failed, None),
            ),
        ),
        raw={
            "endpoint": counts,
            "requests": requests,
            "faults": tally.faults,
            "late_ms": tally.late_ms,
            "p95_ms": latency.p95,
        },
    )
