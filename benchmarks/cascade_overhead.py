"""What a cascade costs beside its tiers, which answer at once here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sprat import measure
from sprat.benchmarks.harness import Context, Figure, Outcome, Table, figure
from sprat.bundle_manifest import BundleManifest
from sprat.errors import SetupError
from sprat.scheduler import Mailbox
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.tier import Identity, Judged, Part
from sprat.values import Classification, ClassifyResult, Truncation

TIERS = ("static", "head", "finetune")
LABELS = 77
ACCEPT_AT = 0.9
SIZES = (1, 64, 1024)
TRAFFIC = (
    ("0", "0 % escalated", (0, 0)),
    ("10", "10 % escalated", (10, 0)),
    ("100", "100 % escalated", (100, 0)),
    ("twice", "100 % escalated twice", (100, 100)),
)
"""Name, what it is, and of 100 texts how many the first tier and the second one are unsure of."""

MOST_US = 20.0
ROUND_S = 0.4
QUICK_S = 0.01
TIMEOUT_S = 60.0
LEAST_PASSES = 5


@dataclass(frozen=True)
class InstantTier:
    """A `sprat.tasks.tier.Tier` whose answers were made before it is asked. Texts are numbers.

    Attributes
    ----------
    unsure : int
        Of 100 numbers in a row, spread evenly: how many it is not sure of.
    """

    name: str
    labels: tuple[str, ...]
    unsure: int
    _made: dict[tuple[str, int], Judged] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool:
        """It is."""
        return True

    @property
    def identity(self) -> Identity:
        """Of no model."""
        return Identity(self.name, "0" * 12, "ct2")

    @property
    def endpoint_info(self) -> None:
        """It asks none."""

    async def judge(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None,
        truncation: Truncation,
        partial: bool,
        deadline: float,
        mailbox: Mailbox,
    ) -> Judged:
        """The same answers for as many texts from the same one on, always."""
        key = texts[0], len(texts)
        if key not in self._made:
            self._made[key] = self._make([int(text) for text in texts])
        return self._made[key]

    def _make(self, numbers: Sequence[int]) -> Judged:
        count = len(numbers)
        rng = np.random.default_rng(count)
        logits = rng.standard_normal((count, len(self.labels)))
        ranked = np.argsort(-logits, axis=1)
        scores = np.exp(np.take_along_axis(logits, ranked, axis=1))
        scores /= scores.sum(axis=1, keepdims=True)
        return Judged(
            index=list(range(count)),
            failed={},
            ranked=ranked.tolist(),
            probabilities=scores.tolist(),
            confidence=[0.5 if is_unsure(number, self.unsure) else 0.99 for number in numbers],
            labels=self.labels,
            input_tokens=[14] * count,
            dropped_tokens=[0] * count,
            cached_tokens=[0] * count,
            pruned=[0.0] * count,
            cpu_ns=[1000] * count,
            errors=(),
            tokenize_ns=1,
            queue_ns=1,
            infer_ns=1,
        )


def is_unsure(number: int, percent: int) -> bool:
    """Whether a number is one of the ``percent`` of 100 in a row that are spread evenly."""
    return (number + 1) * percent // 100 > number * percent // 100


def run(context: Context) -> Outcome:
    """Every size of call at every share of texts that go on to the next tier."""
    return asyncio.run(_run(context))


async def _run(context: Context) -> Outcome:
    mailbox = Mailbox(asyncio.get_running_loop())
    round_s = QUICK_S if context.quick else ROUND_S
    labels = tuple(f"label-{number}" for number in range(LABELS))
    last = InstantTier(TIERS[-1], labels, 0)
    figures: list[Figure] = []
    rows = []
    for name, share, unsure in TRAFFIC:
        tiers = tuple(
            InstantTier(tier, labels, percent)
            for tier, percent in zip(TIERS, (*unsure, 0), strict=True)
        )
        manifest = _manifest(labels, unsure)
        task = ClassifyTask(
            "cascade", manifest, [Part(at, tier, ACCEPT_AT) for at, tier in enumerate(tiers)]
        )
        for size in SIZES:
            calls = _calls(size)
            for texts in calls:
                _check(await _once(task, texts, mailbox), [_tier(text, unsure) for text in texts])
            beyond, alone = [], []
            for _ in range(context.rounds):
                cascade_us, tier_us = await _pair(task, last, calls, mailbox, round_s)
                beyond.append(cascade_us - tier_us)
                alone.append(tier_us)
            each = "1 text" if size == 1 else f"{size:,} texts"
            figures.append(
                figure(
                    f"beyond_{size}_{name}",
                    f"{each} a call, {share}",
                    "us a text",
                    beyond,
                    at_most=None if name == "twice" else MOST_US,
                )
            )
            rows.append((each, share, measure.median(alone), measure.median(beyond)))
        context.say(share)
    return Outcome(
        parameters={"tiers": len(TIERS), "labels": LABELS, "rounds": context.rounds},
        method=(
            f"Three tiers of {LABELS} labels whose answers were made before, against one of them "
            "that is asked without a task, in turn on one event loop, with a deadline as calls "
            "through gRPC have one: median CPU time of calls beyond that of the one tier, over all "
            "their texts. The drift watch is in it; nothing of engines, tokenizing and gRPC is. "
            "Median of rounds."
        ),
        figures=tuple(figures),
        table=Table(
            columns=("call", "escalated", "one tier: us a text", "beyond it: us a text"),
            rows=tuple(rows),
        ),
    )


def _tier(text: str, unsure: tuple[int, int]) -> int:
    """Which tier is to answer a text."""
    return next((at for at, each in enumerate(unsure) if not is_unsure(int(text), each)), 2)


async def _once(task: ClassifyTask, texts: Sequence[str], mailbox: Mailbox) -> ClassifyResult:
    return await task.run(texts, deadline=time.monotonic() + TIMEOUT_S, mailbox=mailbox)


async def _alone(
    tier: InstantTier, texts: Sequence[str], mailbox: Mailbox
) -> tuple[Classification, ...]:
    """What the tier says, as callers see it."""
    judged = await tier.judge(
        texts,
        top_k=None,
        truncation="refuse",
        partial=False,
        deadline=time.monotonic() + TIMEOUT_S,
        mailbox=mailbox,
    )
    return tuple(judged.answer(row, abstained=False) for row in range(len(judged.index)))


async def _pair(
    task: ClassifyTask,
    tier: InstantTier,
    calls: Sequence[Sequence[str]],
    mailbox: Mailbox,
    round_s: float,
) -> tuple[float, float]:
    """CPU microseconds a text of both, in turn: of the median time over all calls."""
    spent_ns: tuple[list[int], list[int]] = ([], [])

    async def through_task(texts: Sequence[str]) -> None:
        await _once(task, texts, mailbox)

    async def through_tier(texts: Sequence[str]) -> None:
        await _alone(tier, texts, mailbox)

    end = time.perf_counter() + round_s
    while len(spent_ns[1]) < LEAST_PASSES or time.perf_counter() < end:
        for ask, spent in zip((through_task, through_tier), spent_ns, strict=True):
            started = time.thread_time_ns()
            for texts in calls:
                await ask(texts)
            spent.append(time.thread_time_ns() - started)
            # Nothing waits here: the loop would never forget timers that were cancelled.
            await asyncio.sleep(0)
    count = sum(map(len, calls))
    task_us, tier_us = (measure.median(each) / count / 1e3 for each in spent_ns)
    return task_us, tier_us


def _calls(size: int) -> list[list[str]]:
    """Calls of so many texts, together at least 100."""
    calls = -(-100 // size)
    return [[str(call * size + at) for at in range(size)] for call in range(calls)]


def _check(result: ClassifyResult, tiers: Sequence[int]) -> None:
    """Every text is answered, by the tier that it is to be.

    Raises
    ------
    SetupError
        It is not.
    """
    answered = [item.tier for item in result.items if item is not None and not item.abstained]
    if answered != list(tiers):
        raise SetupError("a text was answered by another tier than it was made for")


def _manifest(labels: Sequence[str], unsure: tuple[int, int]) -> BundleManifest:
    """A bundle that was tuned on the very texts that it is asked about."""
    edges = tuple(number / 10 for number in range(1, 10))
    reached = 100
    tiers = []
    for name, percent in zip(TIERS, (*unsure, 0), strict=True):
        passed_on = reached * percent // 100
        counts = [0] * 10
        counts[5], counts[9] = passed_on, reached - passed_on
        tiers.append({"name": name, "edges": edges, "counts": counts, "passed_on": passed_on})
        reached = passed_on
    figure = {"value": 0.0, "low": 0.0, "high": 0.0}
    return BundleManifest.model_validate(
        {
            "name": "overhead",
            "kind": "classify",
            "labels": labels,
            "tuning": {
                "rule": "cost",
                "limit": 1.0,
                "delta": 0.1,
                "data_sha256": "",
                "chosen_on": 100,
                "verified_on": 100,
                "cost_ms": {},
                "shares": {},
                "best_tier": TIERS[-1],
                **dict.fromkeys(("cost_ratio", "loss_points", "coverage", "wrong"), figure),
                "traffic": {"rows": 100, "tiers": tiers, "labels": {}},
            },
            "tiers": [
                {
                    "name": name,
                    "base": {"name": name, "digest": "0" * 64},
                    "weights": f"{name}.safetensors",
                    "calibration": {"temperature": 1.0},
                    "accept_at": ACCEPT_AT,
                    "evaluation": {"n": 1, "metrics": {}},
                }
                for name in TIERS
            ],
            "train_rows": 1,
            "created": "2020-01-01T00:00:00Z",
            "made_by": "sprat",
            "files": [],
        }
    )
