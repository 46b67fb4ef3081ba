"""Calls to a cascade that arrive at a rate, whatever becomes of them; every reply is checked.

Open loop: a call is sent when its time has come, not when another one is answered, so a server
that falls behind gets more and more to do. Its latency counts from when it was to be sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sprat.calibration import least_confidence
from sprat.client import AsyncClient
from sprat.errors import SpratError
from sprat.values import Classification, ClassifyResult, OnFailure

SIZES = (1, 1, 1, 1, 2, 2, 4, 8)
"""Texts of a call; each of these is as likely."""

CHANNELS = 4
TOP_K = 3
TIMEOUT_S = 10.0
BUDGET_MS = 40.0
HURRIED = 8
"""One call of so many has a budget, which is sometimes too short."""

SLACK = 0.1
"""How far a score may be from the reference: what shares its batch moves an int8 encoder's."""

MISSED = ("DEADLINE", "QUEUE_FULL", "ENGINE")
"""Reasons of errors that say that a tier was missed."""

ROUNDED = 1e-6
"""Confidences travel as float32."""

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one tier says of a text, as it was computed before.

    Attributes
    ----------
    scores : dict of str to float
        Of the labels that it knows scores of, the best one among them.
    confidence : float or None
        In the best label; None: it says none.
    tokens : int or None
        Of the text in that tier; None: nobody knows.
    """

    scores: dict[str, float]
    confidence: float | None
    tokens: int | None = None

    def allows(self, label: str, confidence: float | None) -> bool:
        """Whether it may have said so, in any batch."""
        if self.scores.get(label, 0.0) < max(self.scores.values()) - SLACK:
            return False
        if self.confidence is None or confidence is None:
            return self.confidence == confidence
        return abs(confidence - self.confidence) <= 2 * SLACK


@dataclass(frozen=True, slots=True)
class Subject:
    """What is called, and what it must answer.

    Attributes
    ----------
    tasks : dict of str to str
        The same cascade under several names, each with its ``on_failure``.
    accept_at : sequence of float
        Threshold of each tier.
    engines : sequence of str
        Of each tier.
    texts : sequence of str
        What is sent.
    opinions : sequence of sequence of Opinion
        By text and tier.
    """

    tasks: dict[str, OnFailure]
    accept_at: Sequence[float]
    engines: Sequence[str]
    texts: Sequence[str]
    opinions: Sequence[Sequence[Opinion]]

    @property
    def last(self) -> int:
        """The last tier."""
        return len(self.accept_at) - 1

    def is_sure(self, tier: int, confidence: float | None, slack: float) -> bool:
        """Whether a tier may answer with that confidence, or a little more."""
        least = self.accept_at[tier]
        if tier < self.last:
            least = least_confidence(least, self.engines[tier])
        return confidence is None or confidence + slack >= least


@dataclass(slots=True)
class Tally:
    """What became of the calls.

    Attributes
    ----------
    calls, texts : int
        Sent.
    answered : int
        Texts with an answer.
    by_tier : Counter
        Texts by the tier that answered.
    degraded : Counter
        Texts of which a tier was missed, by reason; answered nonetheless.
    failed : int
        Texts whose error is what the task promises for a tier that was missed.
    lost, wrong, broken : int
        Calls without a reply, or with an error that is none of the cascade's; texts with an answer
        that is not theirs; texts with one that is not what the policy says.
    faults : list of str
        The first of these.
    latencies_ms : list of float
        Of calls, from when they were to be sent.
    late_ms : float
        The longest that a call was sent too late, since this client had no time.
    """

    calls: int = 0
    texts: int = 0
    answered: int = 0
    by_tier: Counter[int] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    lost: int = 0
    wrong: int = 0
    broken: int = 0
    faults: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    late_ms: float = 0.0

    def fault(self, kind: str, task: str, what: str) -> None:
        """Count a fault; the first of all are kept."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.faults) < _SHOWN:
            self.faults.append(f"{kind}, {task}: {what}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: to which task, which texts, how."""

    task: str
    which: tuple[int, ...]
    partial: bool
    budget_ms: float | None


def plan(subject: Subject, calls: int, *, seed: int) -> list[Call]:
    """Calls at random: tasks, sizes, texts, partial or not, with a budget or without."""
    draw = random.Random(seed)
    names, every = sorted(subject.tasks), range(len(subject.texts))
    return [
        Call(
            task=draw.choice(names),
            which=tuple(draw.sample(every, min(draw.choice(SIZES), len(every)))),
            partial=draw.random() < 0.5,
            budget_ms=BUDGET_MS if draw.randrange(HURRIED) == 0 else None,
        )
        for _ in range(calls)
    ]


async def soak(address: str, subject: Subject, calls: Sequence[Call], *, rate: float) -> Tally:
    """Send calls at a rate, at random times, and check all replies.

    Parameters
    ----------
    address : str
        Of a server that is ready.
    rate : float
        Calls a second, above 0.
    """
    tally = Tally()
    draw = random.Random(len(calls))
    clients = [AsyncClient(address, timeout_s=TIMEOUT_S) for _ in range(CHANNELS)]
    try:
        due = time.perf_counter()
        sent = []
        for number, call in enumerate(calls):
            # As many arrive in any second as by chance: a Poisson process.
            due += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tally.late_ms = max(tally.late_ms, (time.perf_counter() - due) * 1e3)
            client = clients[number % CHANNELS]
            sent.append(asyncio.create_task(_send(client, subject, call, due, tally)))
        _, pending = await asyncio.wait(sent, timeout=2 * TIMEOUT_S)
        for each in pending:
            each.cancel()
            tally.fault("lost", "any task", "no reply at all")
        for each in sent:
            if each not in pending:
                each.result()
    finally:
        for client in clients:
            await client.close()
    return tally


async def _send(
    client: AsyncClient, subject: Subject, call: Call, due: float, tally: Tally
) -> None:
    tally.calls += 1
    tally.texts += len(call.which)
    sent = time.perf_counter()
    try:
        result = await client.classify(
            call.task,
            [subject.texts[index] for index in call.which],
            top_k=TOP_K,
            partial=call.partial,
            budget_ms=call.budget_ms,
        )
    except SpratError as error:
        if time.perf_counter() - sent < TIMEOUT_S:
            check_error(subject, call, error, tally)
        else:
            tally.fault("lost", call.task, "no reply in time")
    else:
        check(subject, call, result, tally)
    tally.latencies_ms.append((time.perf_counter() - due) * 1e3)


def check(subject: Subject, call: Call, result: ClassifyResult, tally: Tally) -> None:
    """Check a reply: that each text has its own answer, and as the policy says."""
    if len(result.items) != len(call.which):
        tally.fault("wrong", call.task, f"{len(result.items)} items of {len(call.which)} texts")
        return
    reasons = {error.index: error.reason for error in result.errors}
    unanswered = {at for at, item in enumerate(result.items) if item is None}
    if len(reasons) < len(result.errors) or reasons.keys() != unanswered:
        tally.fault("wrong", call.task, "errors are not those of the items without an answer")
        return
    for at, (index, item) in enumerate(zip(call.which, result.items, strict=True)):
        opinions = subject.opinions[index]
        if item is None:
            tally.failed += 1
            if subject.tasks[call.task] != "error" or reasons[at] not in MISSED:
                tally.fault("broken", call.task, f"{reasons[at]} for a text")
            elif subject.is_sure(0, opinions[0].confidence, -ROUNDED):
                tally.fault("broken", call.task, "an error for a text that the first tier answers")
            continue
        tally.answered += 1
        tally.by_tier[item.tier] += 1
        if item.degraded is not None:
            tally.degraded[item.degraded] += 1
        if fault := _not_its_own(item, opinions):
            tally.fault("wrong", call.task, fault)
        elif fault := _against_policy(subject, call, item):
            tally.fault("broken", call.task, fault)


def _not_its_own(item: Classification, opinions: Sequence[Opinion]) -> str:
    """Why an answer is none about this text; empty where it is one."""
    if [said.tier for said in item.tiers] != list(range(item.tier + 1)):
        return f"tiers {[said.tier for said in item.tiers]} were heard, {item.tier} answered"
    for said in item.tiers:
        if not opinions[said.tier].allows(said.label, said.confidence):
            return f"tier {said.tier} says something else of that text"
    if item.scores[:1] and item.scores[0].label != item.tiers[-1].label:
        return "the best score is not that of the tier that answered"
    tokens = opinions[item.tier].tokens
    if tokens is not None and item.input_tokens != tokens:
        return f"{item.input_tokens} tokens instead of {tokens}"
    return ""


def _against_policy(subject: Subject, call: Call, item: Classification) -> str:
    """What of an answer is not as threshold and policy say; empty where all is."""
    *before, said = item.tiers
    for each in before:
        if subject.is_sure(each.tier, each.confidence, -ROUNDED):
            return f"tier {each.tier} was sure, and passed it on"
    is_sure = subject.is_sure(item.tier, said.confidence, ROUNDED)
    is_unsure = not subject.is_sure(item.tier, said.confidence, -ROUNDED)
    label = "" if item.abstained else said.label
    if item.label != label or item.escalated != (item.tier > 0):
        return "label and flags contradict each other"
    if item.degraded is None:
        if item.tier < subject.last and (item.abstained or not is_sure):
            return f"tier {item.tier} answered, and was not sure enough"
        if item.tier == subject.last and not (is_unsure if item.abstained else is_sure):
            return "the last tier did not abstain as its threshold says"
        return ""
    policy = subject.tasks[call.task]
    if policy == "error" or item.tier == subject.last or not is_unsure:
        return f"degraded ({item.degraded}) where no tier was to be asked, or with an error"
    return "" if item.abstained == (policy == "abstain") else f"degraded, but not {policy}"


def check_error(subject: Subject, call: Call, error: SpratError, tally: Tally) -> None:
    """Check an error of a whole call: that a tier was missed, and the task promises an error."""
    goes_on = any(
        not subject.is_sure(0, subject.opinions[index][0].confidence, -ROUNDED)
        for index in call.which
    )
    if error.reason not in MISSED:
        tally.fault("lost", call.task, error.reason)
    elif subject.tasks[call.task] != "error" or call.partial or not goes_on:
        tally.fault("broken", call.task, f"{error.reason} for the call")
    else:
        tally.failed += len(call.which)
