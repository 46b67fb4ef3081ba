"""What a cascade saves, and whether its guarantee holds: BANKING77, three tiers.

The commands are those that a user would give: `sprat train --tiers static,head,finetune`, then
`sprat tune` on rows that were kept from the training. Test rows are only ever judged on.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sprat.benchmarks import bundle
from sprat.benchmarks.harness import Context, Outcome, Table, figure
from sprat.benchmarks.workbench import Workbench, banking_rows, draw
from sprat.bundle import Bundle
from sprat.errors import DataError
from sprat.inprocess import Runtime
from sprat.progress import Silent
from sprat.pull import pull
from sprat.train.data import read
from sprat.train.head import Embed
from sprat.train.metrics import Floats, Picks, bootstrap, interval
from sprat.train.split import same_texts
from sprat.train.thresholds import Aim, TierScores, best_tier, cascade, choose
from sprat.train.tune import score_tiers

ROWS = 30
"""Of each label: what tiers are trained on."""

KEPT = 4_000
"""Other training rows: what thresholds are chosen on."""

SEED = 7
MAX_LOSS = 0.5
ALPHA, DELTA = 0.05, 0.1
SPLITS = 200
QUICK_LABELS = 6
BATCH = 256


def run(context: Context) -> Outcome:
    """Train, tune, judge on the test rows; then the guarantee on many splits of these."""
    train, test = (banking_rows(context, part) for part in ("train", "test"))
    if context.quick:
        labels = sorted({row["label"] for row in train})[:QUICK_LABELS]
        train, test = ([r for r in rows if r["label"] in labels] for rows in (train, test))
    chosen_at = set(draw([row["label"] for row in train], ROWS, SEED))
    learned = [row for at, row in enumerate(train) if at in chosen_at]
    tuning = [row for at, row in enumerate(train) if at not in chosen_at]
    random.Random(SEED).shuffle(tuning)
    tuning = tuning[:KEPT]
    tiers = "static,head" if context.quick else "static,head,finetune"
    store = context.store
    pull(bundle.ENCODER, store)
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as name:
        work = Workbench(Path(name), store.root)
        work.write("train", learned)
        work.write("tuning", tuning)
        work.write("test", test)
        context.say(f"training {tiers}")
        task, tuned = str(work.folder / "bench-cascade"), str(work.folder / "tuned")
        work.sprat(
            *("train", str(work.rows("train")), "--base", bundle.ENCODER, "--tiers", tiers),
            *("-o", task, "--test", str(work.rows("tuning"))),
        )
        context.say("tuning")
        loss = 5.0 if context.quick else MAX_LOSS
        chosen = json.loads(
            work.sprat(
                *("tune", task, "--data", str(work.rows("tuning")), "--max-loss", str(loss)),
                *("-o", tuned, "--json"),
            )
        )
        context.say(json.dumps({key: chosen[key] for key in ("accept_at", "shares", "cost_ms")}))

        @contextmanager
        def open_embed(model: str) -> Iterator[Embed]:
            with Runtime(models=[model], store=store) as runtime:
                yield lambda texts: np.concatenate(
                    [
                        runtime.embed(model, texts[i : i + BATCH], truncation="truncate").vectors
                        for i in range(0, len(texts), BATCH)
                    ]
                )

        rows = read(work.rows("test"))
        scores = score_tiers(
            Bundle.load(Path(task)),
            rows,
            open_embed=open_embed,
            engine_of=lambda model: store.model(model)[0].engine,
            progress=Silent(),
        )
        if "finetune" in tiers:
            store.remove("bench-cascade-encoder")
    thresholds = tuple(chosen["accept_at"][tier.name] for tier in scores)
    ratio, points = _judge(scores, thresholds)
    context.say(f"cost {ratio}, loss {points}")
    groups = same_texts(rows.texts)
    exceeded, covered, refused = _guarantee(scores, groups, 3 if context.quick else SPLITS)
    best = scores[best_tier(scores)]
    answers = cascade(scores, thresholds)
    return Outcome(
        parameters={
            "encoder": bundle.ENCODER,
            "tiers": tiers,
            "train_rows": len(learned),
            "tuning_rows": len(tuning),
            "test_rows": len(test),
            "max_loss_points": loss,
            "cost_ratio": list(ratio),
            "loss_points": list(points),
            "alpha": ALPHA,
            "delta": DELTA,
            "splits": SPLITS,
            "refused_splits": refused,
        },
        method=(
            f"{ROWS} training rows of each label, drawn at random, train the tiers; "
            f"{len(tuning):,} others choose the thresholds (`sprat tune --max-loss {loss:g}`). "
            "Cost: CPU time of a text in batches of up to 256, of all tiers that see it. Loss "
            "against the tier that is the best one on the test rows. 95 % intervals in the "
            f"parameters. Guarantee: {SPLITS} random halves of the test rows choose thresholds for "
            f"at most {ALPHA:.0%} wrong answers with probability {1 - DELTA:g}, and the other half "
            "says whether that holds."
        ),
        figures=(
            figure("cost_ratio", "cost, share of the best tier alone", "", [ratio[0]], at_most=0.5),
            figure(
                "loss", "points of accuracy below the best tier", "points", [points[0]], at_most=0.5
            ),
            figure(
                "exceeded", "splits whose error exceeds the limit", "", [exceeded], at_most=0.16
            ),
            figure("covered", "share answered under the guarantee", "", [covered]),
        ),
        table=Table(
            columns=("tier", "CPU ms a text", "accuracy alone", "answers from", "answers"),
            rows=(
                *(
                    (
                        tier.name,
                        round(tier.cost_ms, 4),
                        round(float(tier.is_right_n.mean()), 4),
                        None if accept_at is None else round(accept_at, 4),
                        round(float((answers.tier_n == index).mean()), 4),
                    )
                    for index, (tier, accept_at) in enumerate(zip(scores, thresholds, strict=True))
                ),
                (
                    "all together",
                    round(float(answers.cost_n.mean()), 4),
                    round(float(answers.is_right_n.mean()), 4),
                    None,
                    round(answers.answered / len(test), 4),
                ),
            ),
        ),
        raw={"best_tier": best.name, "chosen": chosen},
    )


_Interval = tuple[float, float, float]


def _judge(
    scores: tuple[TierScores, ...], thresholds: tuple[float | None, ...]
) -> tuple[_Interval, _Interval]:
    """Cost ratio and points lost on the test rows, each with its interval."""
    answers = cascade(scores, thresholds)
    best = best_tier(scores)
    alone = scores[best]

    def figures(picks_rn: Picks) -> dict[str, Floats]:
        return {
            "ratio": answers.cost_n[picks_rn].mean(axis=1) / alone.cost_ms,
            "points": 100
            * (alone.is_right_n[picks_rn].mean(axis=1) - answers.is_right_n[picks_rn].mean(axis=1)),
        }

    count = len(answers.tier_n)
    point = figures(np.arange(count)[None])
    resampled = bootstrap(figures, (count,), np.random.default_rng(SEED))
    found = [interval(float(point[name][0]), resampled[name]) for name in ("ratio", "points")]
    ratio, points = ((each.value, each.low, each.high) for each in found)
    return ratio, points


def _guarantee(
    scores: tuple[TierScores, ...], groups: np.ndarray[tuple[int], np.dtype[np.int32]], splits: int
) -> tuple[float, float, int]:
    """Share of the splits whose error exceeds alpha, mean coverage, and splits that were refused.

    A split that is refused answers nothing, and so exceeds nothing.
    """
    count = len(groups)
    exceeded, covered, refused = 0, [], 0
    for seed in range(splits):
        order = np.random.default_rng([SEED, seed]).permutation(count).astype(np.int32)
        half, other = order[: count // 2], order[count // 2 :]
        try:
            chosen = choose(
                [tier.take(half) for tier in scores],
                Aim("error", ALPHA, DELTA),
                groups=np.unique(groups[half], return_inverse=True)[1].astype(np.int32),
                seed=seed,
                path="the test rows",
            )
        except DataError:
            refused += 1
            covered.append(0.0)
            continue
        answers = cascade([tier.take(other) for tier in scores], chosen.thresholds)
        exceeded += answers.wrong > ALPHA * answers.answered
        covered.append(answers.answered / len(other))
    return exceeded / splits, statistics.mean(covered), refused
