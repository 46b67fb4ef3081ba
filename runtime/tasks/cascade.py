"""A cascade: the cheapest tier answers what it is sure of, the next one gets the rest."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from sprat.bundle_manifest import BundleManifest
from sprat.calibration import least_confidence
from sprat.decisions import Decision, Recalled
from sprat.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineError,
    InvalidInput,
    QueueFull,
    SpratError,
)
from sprat.model.common import note
from sprat.tasks.pace import Pace
from sprat.tasks.tier import (
    AnyTierT,
    Heard,
    Item,
    Part,
    check_effort,
    version_of,
)
from sprat.tasks.watch import Watch
from sprat.values import (
    Degraded,
    Effort,
    ItemError,
    OnFailure,
    TaskInfo,
    TierAnswer,
    TierInfo,
    Timings,
)

REPLY_S = 0.005
"""Kept back of the time until a deadline, so that the answer still reaches the caller."""

_Error = TypeVar("_Error", bound=SpratError)
_Result = TypeVar("_Result")

_REASONS: dict[type[SpratError], Degraded] = {
    DeadlineExceeded: "no_time",
    QueueFull: "overload",
    EngineError: "failure",
}


class Escalation(Generic[AnyTierT, Item]):
    """A task of one tier or more, whatever its kind of answer.

    A tier answers the texts whose confidence reaches its threshold, by the rule of
    `sprat.calibration.least_confidence`. The others go to the next tier, together. What the last
    one is not sure enough of is abstained from; its threshold is taken as it is.

    A tier may be missed: no time is left for it, its queue is full, its engine fails, or it fails
    on a text. Then ``on_failure`` decides on the texts that were meant for it, with
    what the tier before said of them; tiers behind the missed one are not asked. Errors of the
    first tier are those of the call, since nothing is known yet.

    Parameters
    ----------
    name : str
        How requests call it.
    manifest : BundleManifest
        Of the bundle.
    parts : sequence of Part
        From the cheapest to the best; the last is the last one of the bundle that can be asked.
    on_failure : {"abstain", "answer", "error"}
        Abstain, or answer all the same; both are marked as degraded. Or fail: the call, or with
        ``partial`` the texts.
    unconfigured : tuple of str
        See `sprat.values.TaskInfo`.

    Raises
    ------
    ConfigError
        When a tier has a threshold, but no calibration and so no confidence; or other labels than
        the bundle.
    """

    def __init__(
        self,
        name: str,
        manifest: BundleManifest,
        parts: Sequence[Part[AnyTierT]],
        *,
        on_failure: OnFailure = "abstain",
        unconfigured: tuple[str, ...] = (),
    ) -> None:
        self._tiers = [part.tier for part in parts]
        self._accept_at = [part.accept_at for part in parts]
        self._on_failure = on_failure
        self._has_confidence = all(tier.calibrated for tier in self._tiers)
        self._paces = [Pace() for _ in parts]
        self._engines = [part.tier.identity.engine for part in parts]
        for tier, accept_at in zip(self._tiers, self._accept_at, strict=True):
            if tier.labels != manifest.labels:
                raise ConfigError(
                    f"tasks.{name}.tiers.{tier.name}",
                    f"has {len(tier.labels)} labels that are not the {len(manifest.labels)} of "
                    f"bundle {manifest.name}, or stand in another order",
                )
            if accept_at > 0 and not tier.calibrated:
                where = f".tiers.{tier.name}" if len(parts) > 1 else ""
                raise ConfigError(
                    f"tasks.{name}{where}.accept_at",
                    f"{accept_at:g} needs a confidence, but tier {tier.name} of bundle "
                    f"{manifest.name} is not calibrated",
                )
        self._info = TaskInfo(
            name=name,
            kind=manifest.kind,
            labels=manifest.labels,
            models=tuple((tier.identity.name, tier.identity.version) for tier in self._tiers),
            calibrated=self._has_confidence,
            accept_at=self._accept_at[-1],
            version=version_of(manifest, parts, unconfigured),
            unconfigured=unconfigured,
        )
        names = [tier.name for tier in self._tiers]
        self._watch = Watch(name, manifest, list(zip(names, self._accept_at, strict=True)))
        self._asked, self._answered, self._missed = ([0] * len(parts) for _ in range(3))

    @property
    def info(self) -> TaskInfo:
        """The task, with what each tier has done so far, and how far traffic has drifted."""
        tiers = self.tier_infos if len(self._tiers) > 1 else ()
        return replace(self._info, drift=self._watch.drift, tiers=tiers)

    @property
    def tier_infos(self) -> tuple[TierInfo, ...]:
        """What each tier has done so far, also the only one."""
        facts = zip(
            self._tiers, self._accept_at, self._asked, self._answered, self._missed, strict=True
        )
        return tuple(
            TierInfo(tier.name, accept_at, asked, answered, missed, tier.endpoint_info)
            for tier, accept_at, asked, answered, missed in facts
        )

    async def answer(
        self,
        texts: Sequence[str],
        ask: Callable[[AnyTierT, Sequence[str], float], Coroutine[Any, Any, Heard[Item]]],
        result: Callable[..., _Result],
        *,
        partial: bool,
        effort: Effort,
        deadline: float,
    ) -> _Result:
        """Answer texts.

        The result's ``model`` is that of the best tier that was heard, its times are sums over the
        tiers. A text that is too long for a tier that it reaches is refused, as by that tier alone.

        Parameters
        ----------
        ask : callable
            Asks a tier about texts, for an answer before a `time.monotonic` value.
        result : type
            Of the result, with the attributes of `sprat.values.ClassifyResult`.
        partial : bool
            List bad texts, instead of raising.
        effort : Effort
            How far to go.
        deadline : float
            `time.monotonic` value after which the answer is of no use.

        Raises
        ------
        InvalidInput
            For a number of ``effort`` out of its range, or a threshold where there are no
            confidences; and for the first bad text, unless ``partial``.
        DeadlineExceeded, QueueFull, EngineError
            Of the first tier; of others where ``on_failure`` is ``error``. With ``partial``, those
            of others are listed for each text.
        NotReady
            A tier is being unloaded.
        """
        started = time.perf_counter_ns()
        check_effort(effort, calibrated=self._has_confidence)
        until = deadline - REPLY_S
        if effort.budget_ms is not None:
            until = min(until, time.monotonic() + effort.budget_ms / 1e3)
        last = len(self._tiers) - 1
        if effort.max_tier is not None:
            last = min(last, effort.max_tier)
        call: _Call[Item] = _Call(texts, partial, several=len(self._tiers) > 1)
        heard = await ask(self._tiers[0], texts, deadline)
        for index, failure in heard.failed.items():
            note(call.errors, index, failure, partial)
        self._hear(call, heard, effort, place=0, last=last)
        for place in range(1, last + 1):
            if not call.open:
                break
            try:
                heard = await self._escalate(place, [texts[i] for i in call.open], until, ask)
            except InvalidInput as error:
                row = error.field.removeprefix("texts[").removesuffix("]")
                raise (_moved(error, int(row), call.open) if row.isdigit() else error) from None
            except (DeadlineExceeded, QueueFull, EngineError) as error:
                self._miss(call, place, range(len(call.open)), error)
                break
            for at, failure in heard.failed.items():
                self._miss(call, place, (at,), _moved(failure, at, call.open))
            self._hear(call, heard, effort, place=place, last=last)
        if effort.accept_at is None and len(self._tiers) == 1:
            self._watch.add_alone(heard, self._accept_at[0])
        elif effort.accept_at is None and effort.max_tier is None:
            self._watch.add(call.items)
        model, model_version = self._info.models[call.place]
        tokenize_ns, queue_ns, infer_ns = call.times_ns
        return result(
            items=tuple(call.items),
            errors=tuple(sorted(call.errors, key=lambda error: error.index)),
            model=model,
            model_version=model_version,
            task_version=self._info.version,
            calibrated=self._info.calibrated,
            timings=Timings(tokenize_ns, queue_ns, infer_ns, time.perf_counter_ns() - started),
        )

    def learn(self, decision: Decision) -> None:
        """Tell the drift watch what became known of an answer; of this version only."""
        if decision.task_version == self._info.version:
            self._watch.learn(decision)

    def recall(self, recalled: Recalled) -> None:
        """Tell the drift watch what a decision log has from before; of this version only."""
        task = self._info.name, self._info.version
        newest, known = (
            [each for each in decisions if (each.task, each.task_version) == task]
            for decisions in (recalled.newest, recalled.known)
        )
        self._watch.recall(newest, known, recalled.answered.get(task, {}))

    @property
    def tiers(self) -> tuple[AnyTierT, ...]:
        """Those that take part, in order."""
        return tuple(self._tiers)

    @property
    def last(self) -> int:
        """The last tier."""
        return len(self._tiers) - 1

    async def ask_last(
        self,
        ask: Callable[[AnyTierT, Sequence[str], float], Coroutine[Any, Any, Heard[Item]]],
        text: str,
        deadline: float,
    ) -> TierAnswer | None:
        """What the last tier says of a text, only to know it: nothing is counted or learned.

        None where it has no answer. See `answer` for the parameters and for what is raised.
        """
        heard = await ask(self._tiers[self.last], [text], deadline)
        if not heard.index:
            return None
        return TierAnswer(self.last, heard.label(0), heard.confidence[0], heard.cpu_ms(0))

    async def _escalate(
        self,
        place: int,
        texts: list[str],
        until: float,
        ask: Callable[[AnyTierT, Sequence[str], float], Coroutine[Any, Any, Heard[Item]]],
    ) -> Heard[Item]:
        """Ask a tier behind the first.

        Raises
        ------
        DeadlineExceeded
            It cannot answer in time, or did not.
        """
        pace, tier, began = self._paces[place], self._tiers[place], time.monotonic()
        left_s = until - began
        if not pace.fits(len(texts), left_s, began):
            raise DeadlineExceeded(
                f"task {self._info.name}: tier {tier.name} takes about "
                f"{pace.seconds(len(texts)) * 1e3:.0f} ms, which is more than the time left"
            )
        answer = ask(tier, texts, until)
        try:
            heard = await (answer if left_s == math.inf else _within(left_s, answer))
        except asyncio.TimeoutError:
            pace.learn_at_least(len(texts), left_s, time.monotonic())
            raise DeadlineExceeded(
                f"task {self._info.name}: the time ran out before tier {tier.name} answered"
            ) from None
        except DeadlineExceeded:
            ended = time.monotonic()
            pace.learn_at_least(len(texts), ended - began, ended)
            raise
        ended = time.monotonic()
        pace.learn(len(texts), ended - began, ended)
        return heard

    def _hear(
        self, call: _Call[Item], heard: Heard[Item], effort: Effort, *, place: int, last: int
    ) -> None:
        """Take in what a tier says of the open texts, and answer those that it is sure of."""
        call.hear(place, heard)
        accept_at = self._accept_at[place] if effort.accept_at is None else effort.accept_at
        least = accept_at
        if place < last:
            least = least_confidence(accept_at, self._engines[place])
        open_rows = []
        for row in range(len(heard.index)):
            if heard.is_sure(row, least):
                call.answer(row, abstained=False)
            elif place == last:
                call.answer(row, abstained=True)
            else:
                open_rows.append(row)
        self._asked[place] += len(heard.index)
        self._answered[place] += len(heard.index) - len(open_rows)
        call.keep(open_rows)

    def _miss(self, call: _Call[Item], place: int, which: Sequence[int], error: SpratError) -> None:
        """Decide on open texts that a tier was not heard of; they stay listed as open."""
        self._missed[place] += len(which)
        if self._on_failure == "error":
            for at in which:
                note(call.errors, call.open[at], error, call.partial)
            return
        self._answered[call.place] += len(which)
        for at in which:
            call.answer(
                call.rows[at],
                abstained=self._on_failure == "abstain",
                degraded=_REASONS[type(error)],
            )


class _Call(Generic[Item]):
    """The texts of one call: which are answered, and what the last tier said of the others.

    Attributes
    ----------
    open : list of int
        Texts without an answer, in order.
    rows : list of int
        Where the last tier's answers have each of them.
    place : int
        The tier that was heard last.
    times_ns : tuple of int
        Tokenizing, waiting, computing: so far, of all tiers.
    """

    def __init__(self, texts: Sequence[str], partial: bool, *, several: bool) -> None:
        self.partial = partial
        self.items: list[Item | None] = [None] * len(texts)
        self.errors: list[ItemError] = []
        self.open = list(range(len(texts)))
        self.rows: list[int] = []
        self.place = 0
        self.times_ns = (0, 0, 0)
        self._several = several
        self._said: Heard[Item] | None = None
        self._indices: list[int] = []
        self._heard: list[tuple[TierAnswer, ...]] = [()] * len(texts)

    def hear(self, place: int, heard: Heard[Item]) -> None:
        """Take in what a tier says of the open texts; those that it cannot read are listed."""
        for error in heard.errors:
            index = self.open[error.index]
            message = _renamed(error.message, error.index, index)
            self.errors.append(ItemError(index, error.reason, message))
        self.place, self._said = place, heard
        self._indices = [self.open[at] for at in heard.index]
        if self._several:
            for row, index in enumerate(self._indices):
                confidence, cpu_ms = heard.confidence[row], heard.cpu_ms(row)
                said = TierAnswer(place, heard.label(row), confidence, cpu_ms)
                self._heard[index] = (*self._heard[index], said)
        tokenize_ns, queue_ns, infer_ns = self.times_ns
        self.times_ns = (
            tokenize_ns + heard.tokenize_ns,
            queue_ns + heard.queue_ns,
            infer_ns + heard.infer_ns,
        )

    def keep(self, rows: list[int]) -> None:
        """Leave only these rows of the last tier open."""
        self.rows = rows
        self.open = [self._indices[row] for row in rows]

    def answer(self, row: int, *, abstained: bool, degraded: Degraded | None = None) -> None:
        """Settle a text with what the last tier says of it."""
        assert self._said is not None
        index = self._indices[row]
        self.items[index] = self._said.answer(
            row,
            abstained=abstained,
            tier=self.place,
            degraded=degraded,
            tiers=self._heard[index],
        )


async def _within(seconds: float, answer: Coroutine[Any, Any, _Result]) -> _Result:
    """An answer before its time is over, as by `asyncio.timeout`, which Python 3.10 does not have.

    `asyncio.wait_for` makes a task of it, which takes ten times as long.

    Raises
    ------
    asyncio.TimeoutError
        The time is over; the answer was cancelled.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    assert task is not None
    is_over = False

    def give_up() -> None:
        nonlocal is_over
        is_over = True
        task.cancel()

    timer = loop.call_later(seconds, give_up)
    try:
        return await answer
    except asyncio.CancelledError:
        # Who else has cancelled it meanwhile is obeyed; Python 3.10 does not tell.
        if is_over and (sys.version_info < (3, 11) or task.uncancel() == 0):
            raise asyncio.TimeoutError from None
        raise
    finally:
        timer.cancel()


def _renamed(message: str, at: int, index: int) -> str:
    """What was said of the text of a later tier, under its index in the call."""
    return message.replace(f"texts[{at}]", f"texts[{index}]", 1)


def _moved(error: _Error, at: int, indices: Sequence[int]) -> _Error:
    """The error of a text of a later tier, under its index in the call."""
    index = indices[at]
    error.message = _renamed(error.message, at, index)
    if "field" in error.metadata:
        error.metadata["field"] = f"texts[{index}]"
    error.args = (error.message,)
    return error
