"""A head on MiniLM, and behind it SmolLM2 with an adapter: who answers, how well, how fast.

Twelve labels of BANKING77 about cards, which are easily taken for each other. The commands are
those that a user would give: `sprat train` for the head and for the adapter, `sprat add-tier`,
`sprat tune` on rows that neither has seen. Test rows are only ever judged on, by a server, one text
a call.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.benchmarks import bundle
from sprat.benchmarks.harness import Context, Outcome, Table, figure
from sprat.benchmarks.process import ServerProcess
from sprat.benchmarks.workbench import Row, Workbench, banking_rows, draw
from sprat.bundle import Bundle
from sprat.client import Client
from sprat.measure import percentiles
from sprat.pull import pull
from sprat.values import Classification

ABOUT = "card"
LABELS = 12
TRAIN_ROWS, TIER_ROWS = 20, 15
"""Rows of each label for head and adapter, and for the calibration of the language tier."""

QUICK_LABELS = 2
QUICK_TRAIN_ROWS, QUICK_TIER_ROWS = 8, 30
QUICK_TUNING_ROWS = 100
"""In all: tuning takes no fewer."""

QUICK_TEST = 4
"""A quick trial is judged on one row in so many."""

ACCEPT_AT = 0.9
"""Of the head, where tuning finds that the language model does not pay."""

MAX_LOSS = 1.0
SEED = 7
ADAPTER = "bench-cards-lora"


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer, and the milliseconds that its call took."""

    item: Classification
    took_ms: float


def run(context: Context) -> Outcome:
    """Train both tiers, tune, and serve."""
    train, test = (banking_rows(context, part) for part in ("train", "test"))
    count = QUICK_LABELS if context.quick else LABELS
    labels = [name for name in sorted({row["label"] for row in train}) if ABOUT in name][:count]
    train, test = ([row for row in rows if row["label"] in labels] for rows in (train, test))
    random.Random(SEED).shuffle(train)
    learned, rest = _cut(train, QUICK_TRAIN_ROWS if context.quick else TRAIN_ROWS)
    tier_rows, tuning = _cut(rest, QUICK_TIER_ROWS if context.quick else TIER_ROWS)
    if context.quick:
        tuning, test = tuning[:QUICK_TUNING_ROWS], test[::QUICK_TEST]
    store = context.store
    for model in (bundle.ENCODER, bundle.GENERATOR):
        pull(model, store)
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as name:
        work = Workbench(Path(name), store.root)
        for part, rows in (("train", learned), ("tier", tier_rows), ("tuning", tuning)):
            work.write(part, rows)
        work.write("test", test)
        try:
            both, chosen = _make(context, work)
            at = chosen["accept_at"]["head"]
            pays = at is not None and 0 < at <= 1 and chosen["shares"]["language"] > 0
            context.say(f"tuned: {json.dumps(chosen['accept_at'])}")
            served = _with_threshold(both, at if pays else ACCEPT_AT, work.folder / "served")
            every, answers = _serve(context, served, test)
        finally:
            if ADAPTER in {manifest.name for manifest, _ in store.adapters()}:
                store.remove_adapter(ADAPTER)
    wanted = [row["label"] for row in test]
    share = statistics.mean(each.item.tier for each in answers)
    accuracy = _accuracy([each.item.label for each in answers], wanted)
    alone = [
        _accuracy([each.item.tiers[place].label for each in every], wanted) for place in (0, 1)
    ]
    cost = [each.item.cpu_ms or 0.0 for each in answers]
    times = percentiles([each.took_ms for each in answers])
    return Outcome(
        parameters={
            "encoder": bundle.ENCODER,
            "model": bundle.GENERATOR,
            "labels": labels,
            "train_rows": len(learned),
            "tier_rows": len(tier_rows),
            "tuning_rows": len(tuning),
            "test_rows": len(test),
            "accept_at": at if pays else ACCEPT_AT,
            "accept_at_is_tuned": pays,
        },
        method=(
            f"Head and adapter learn from the same {TRAIN_ROWS} rows of each label; "
            f"{len(tier_rows)} others calibrate and judge the language tier, {len(tuning)} choose "
            f"the threshold (`sprat tune --max-loss {MAX_LOSS:g}`; where a tier is left out, it "
            f"is {ACCEPT_AT}). "
            "Latency as a client sees it, one text a call and one call at a time, over a Unix "
            "socket. CPU time as replies state it. Alone, the language model is asked after the "
            "head, whose time is part of its latency."
        ),
        figures=(
            figure("escalated", "share of texts that the language model is asked", "", [share]),
            figure("accuracy", "accuracy of both together", "", [accuracy]),
            figure("head_accuracy", "accuracy of the head alone", "", [alone[0]]),
            figure("language_accuracy", "accuracy of the language model alone", "", [alone[1]]),
            figure("cpu", "CPU time of a text", "ms", [statistics.mean(cost)]),
            figure("p50", "median latency", "ms", [times.p50]),
            figure("p95", "95th percentile", "ms", [times.p95]),
            figure("p99", "99th percentile", "ms", [times.p99]),
        ),
        table=Table(
            columns=("answered by", "share", "accuracy", "CPU ms", "p50 ms", "p95 ms", "p99 ms"),
            rows=(
                _row("head, of both", answers, wanted, tiers=(0,)),
                _row("language model, of both", answers, wanted, tiers=(1,)),
                _row("both", answers, wanted, tiers=(0, 1)),
                _row("language model, all texts", every, wanted, tiers=(1,)),
            ),
        ),
        raw={"chosen": chosen},
    )


def _cut(rows: Sequence[Row], count: int) -> tuple[list[Row], list[Row]]:
    """So many rows of each label, and the others."""
    taken = set(draw([row["label"] for row in rows], count, SEED))
    return (
        [row for at, row in enumerate(rows) if at in taken],
        [row for at, row in enumerate(rows) if at not in taken],
    )


def _make(context: Context, work: Workbench) -> tuple[Path, dict[str, Any]]:
    """A bundle of both tiers, and what tuning chooses."""
    head, both = (str(work.folder / name) for name in ("bench-head", "bench-both"))
    train = str(work.rows("train"))
    context.say("training a head and an adapter")
    work.sprat("train", train, "--base", bundle.ENCODER, "-o", head)
    work.sprat(
        *("train", train, "--base", bundle.GENERATOR, "-o", ADAPTER),
        *(("--epochs", "1") if context.quick else ()),
    )
    context.say("adding the language tier")
    added = work.sprat(
        *("add-tier", head, "--model", bundle.GENERATOR, "--adapter", ADAPTER),
        *("--data", str(work.rows("tier")), "-o", both, "--json"),
    )
    context.say(f"by itself: {json.loads(added)['evaluation']['accuracy']:.3f}")
    loss = 5.0 if context.quick else MAX_LOSS
    tuned = work.sprat(
        *("tune", both, "--data", str(work.rows("tuning")), "--max-loss", str(loss)),
        *("--dry-run", "--json"),
    )
    return Path(both), json.loads(tuned)


def _with_threshold(made: Path, accept_at: float, out: Path) -> Path:
    """The bundle with a threshold of its head."""
    loaded = Bundle.load(made)
    head, language = loaded.manifest.tiers
    tiers = (head.model_copy(update={"accept_at": accept_at}), language)
    manifest = loaded.manifest.model_copy(update={"tiers": tiers})
    out.mkdir()
    Bundle(manifest, loaded.heads).named(out.name).save(out, report="{}")
    return out


def _serve(
    context: Context, served: Path, test: Sequence[Row]
) -> tuple[list[_Answer], list[_Answer]]:
    """Answers where every text is escalated, and those of the cascade."""
    with (
        ServerProcess(context.store.root, tasks=[str(served)]) as server,
        Client(server.address) as client,
    ):
        client.classify(served.name, [test[0]["text"]], accept_at=1.0)
        found: list[list[_Answer]] = []
        for accept_at in (1.0, None):
            context.say(f"asking about {len(test)} texts")
            answers = []
            for row in test:
                started = time.perf_counter()
                (item,) = client.classify(served.name, [row["text"]], accept_at=accept_at).items
                took_ms = (time.perf_counter() - started) * 1e3
                assert item is not None
                answers.append(_Answer(item, took_ms))
            found.append(answers)
    every, cascaded = found
    return every, cascaded


def _accuracy(given: Sequence[str], wanted: Sequence[str]) -> float:
    return statistics.mean(one == other for one, other in zip(given, wanted, strict=True))


def _row(
    name: str, answers: Sequence[_Answer], wanted: Sequence[str], *, tiers: tuple[int, ...]
) -> tuple[str | float | None, ...]:
    """What the answers of some tiers are worth and take."""
    found = [
        (each, label)
        for each, label in zip(answers, wanted, strict=True)
        if each.item.tier in tiers
    ]
    share = len(found) / len(answers)
    if not found:
        return (name, share, *[None] * 5)
    # Where all were escalated, the best label was not sure enough to be the answer.
    said = [each.item.scores[0].label for each, _ in found]
    times = percentiles([each.took_ms for each, _ in found])
    return (
        name,
        round(share, 4),
        round(_accuracy(said, [label for _, label in found]), 4),
        round(statistics.mean(each.item.cpu_ms or 0.0 for each, _ in found), 3),
        *(round(value, 2) for value in (times.p50, times.p95, times.p99)),
    )
