"""Cascades that rewrite texts, on scripted engines behind real schedulers."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
import rewritings
from doubles import WAIT_S, eventually, generator_manifest, no_leaked_threads
from rewritings import language_tier

from sprat.budget import ComputePermits
from sprat.engine.base import Progress
from sprat.engine.fake import FakeGenerator
from sprat.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineError,
    InputTooLong,
    InvalidInput,
    NotReady,
    QueueFull,
    SpratError,
)
from sprat.model import GenerativeModel
from sprat.scheduler import ComputePool, GenerateScheduler, Mailbox
from sprat.tasks.rewrite_tier import LanguageRewriter
from sprat.tasks.tier import Part
from sprat.tasks.transform_task import TransformTask
from sprat.values import Chunk, Effort, OnFailure

SURE, HALF, UNSURE = -0.05, -0.5, -2.0
"""Log-probabilities of tokens: confidences of 0.71, 0.50 and 0.05 by `rewritings.SURENESS`."""


class Scripted(FakeGenerator):
    """A generator whose steps wait for a gate, which is open at first."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = threading.Event()
        self.gate.set()
        self.starts = 0

    def start(self, start: Any) -> None:
        self.starts += 1
        super().start(start)

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        if self.busy():
            assert self.gate.wait(WAIT_S), "the gate stayed shut"
        return super().step(max_tokens=max_tokens, threads=threads)


@dataclass
class Stage:
    """A task with the engines of its tiers."""

    task: TransformTask
    engines: list[Scripted]
    models: list[GenerativeModel]
    mailbox: Mailbox

    def run(self, text: str = "hello", **options: Any) -> Any:
        return self.task.run(text, mailbox=self.mailbox, **options)

    async def ask(self, text: str = "hello", **options: Any) -> list[Chunk]:
        async def drain() -> list[Chunk]:
            async with aclosing(self.run(text, **options)) as chunks:
                return [chunk async for chunk in chunks]

        return await asyncio.wait_for(drain(), WAIT_S)

    async def last(self, text: str = "hello", **options: Any) -> Chunk:
        """The last chunk, with the text of all."""
        chunks = await self.ask(text, **options)
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        return chunks[-1]

    @property
    def counts(self) -> list[tuple[int, int, int]]:
        return [(each.asked, each.answered, each.missed) for each in self.task.info.tiers]


@pytest.fixture
async def stages() -> AsyncIterator[Any]:
    opened: list[tuple[Scripted, GenerativeModel]] = []
    pools: list[ComputePool] = []

    def build(
        *engines: Scripted,
        accept_at: Sequence[float],
        on_failure: OnFailure = "abstain",
        changes: Sequence[dict[str, Any]] = (),
        capacity: Sequence[int] = (100_000, 100_000),
        **manifest: Any,
    ) -> Stage:
        permits = ComputePermits(2)
        pool = ComputePool(permits)
        pools.append(pool)
        names = [f"gen{place}" for place in range(len(engines))]
        bundle = rewritings.bundle(
            *(
                language_tier(generator_manifest(name), f"tier-{place}", **changed)
                for place, (name, changed) in enumerate(
                    itertools.zip_longest(names, changes, fillvalue={})
                )
            ),
            **manifest,
        )
        models = [
            GenerativeModel(
                generator_manifest(name),
                GenerateScheduler(name, lambda engine=engine: engine, permits, capacity=room),
                pool,
            )
            for name, engine, room in zip(names, engines, capacity, strict=False)
        ]
        opened.extend(zip(engines, models, strict=True))
        parts = [
            Part(place, LanguageRewriter.of(bundle.manifest, place, model), least)
            for place, (model, least) in enumerate(zip(models, accept_at, strict=True))
        ]
        task = TransformTask("polite", bundle.manifest, parts, on_failure=on_failure)
        mailbox = Mailbox(asyncio.get_running_loop())
        return Stage(task, list(engines), models, mailbox)

    with no_leaked_threads():
        yield build
        for engine, model in opened:
            engine.gate.set()
            await asyncio.to_thread(model.close)
        for pool in pools:
            await asyncio.to_thread(pool.close)


async def test_transform_task_first_tier_answers_what_it_is_sure_of(stages: Any) -> None:
    stage = stages(
        Scripted(answer="Good day", logprob=SURE), Scripted(answer="never"), accept_at=[0.6, 0.0]
    )
    (only,) = await stage.ask()
    assert (only.text, only.tier, only.escalated) == ("Good day", 0, False)
    assert (only.finish_reason, only.complete, only.abstained) == ("stop", True, False)
    assert only.confidence == pytest.approx(1 / (1 + math.exp(-0.9)))
    assert (only.calibrated, only.degraded) == (True, None)
    assert [(said.tier, said.label) for said in only.tiers] == [(0, "")]
    assert only.tiers[0].confidence == only.confidence
    assert only.cpu_ms == only.tiers[0].cpu_ms
    assert only.cpu_ms is not None
    assert only.cpu_ms > 0
    assert (only.model, only.task_version) == ("gen0", stage.task.info.version)
    assert only.timings.total_ns >= only.timings.infer_ns > 0
    assert stage.engines[1].starts == 0
    assert stage.counts == [(1, 1, 0), (0, 0, 0)]


async def test_transform_task_passes_on_what_it_is_not_sure_of(stages: Any) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(answer="Good day", logprob=SURE),
        accept_at=[0.6, 0.6],
    )
    (only,) = await stage.ask()
    assert (only.text, only.tier, only.escalated, only.abstained) == ("Good day", 1, True, False)
    assert [said.tier for said in only.tiers] == [0, 1]
    assert only.tiers[0].confidence == pytest.approx(0.5)
    assert only.cpu_ms == pytest.approx(sum(said.cpu_ms or 0 for said in only.tiers))
    assert only.model == "gen1"
    assert stage.counts == [(1, 0, 0), (1, 1, 0)]


async def test_transform_task_abstains_without_a_text(stages: Any) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=UNSURE),
        Scripted(answer="hm hm", logprob=HALF),
        accept_at=[0.6, 0.6],
    )
    (only,) = await stage.ask()
    assert (only.text, only.abstained, only.tier) == ("", True, 1)
    assert only.confidence == pytest.approx(0.5)
    assert only.output_tokens == 6


async def test_transform_task_threshold_of_the_last_tier_is_taken_as_it_is(stages: Any) -> None:
    """That of an earlier one has a band above it."""
    engines = Scripted(answer="a", logprob=HALF), Scripted(answer="b", logprob=HALF)
    (only,) = await stages(*engines, accept_at=[0.5, 0.5]).ask()
    assert (only.text, only.tier) == ("b", 1)


async def test_transform_task_tier_that_cannot_abstain_streams(stages: Any) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=UNSURE),
        Scripted(answer="Good day", logprob=UNSURE),
        accept_at=[0.6, 0.0],
    )
    chunks = await stage.ask()
    assert [chunk.text for chunk in chunks] == [*"Good day", ""]
    last = chunks[-1]
    assert (last.tier, last.escalated, last.abstained, last.complete) == (1, True, False, True)
    assert last.confidence == pytest.approx(1 / (1 + math.exp(3)))


async def test_transform_task_streams_while_the_answer_is_made(stages: Any) -> None:
    stage = stages(Scripted(answer="Good day"), accept_at=[0.0])
    engine = stage.engines[0]
    engine.gate.clear()
    async with aclosing(stage.run()) as chunks:
        first = asyncio.ensure_future(anext(chunks))
        await eventually(lambda: engine.starts, "it never came true")
        engine.gate.set()
        assert (await asyncio.wait_for(first, WAIT_S)).text == "G"
        rest = [chunk.text async for chunk in chunks]
    assert "".join(rest) == "ood day"


@pytest.mark.parametrize("effort", [Effort(budget_ms=60_000), Effort(accept_at=0.01)])
async def test_transform_task_holds_back_what_may_not_come_to_its_end(
    stages: Any, effort: Effort
) -> None:
    stage = stages(Scripted(answer="Good day"), accept_at=[0.0])
    (only,) = await stage.ask(effort=effort)
    assert only.text == "Good day"


async def test_transform_task_is_never_sure_of_an_incomplete_answer(stages: Any) -> None:
    short = {"asks": {"sampling": {"max_tokens": 4}}}
    stage = stages(
        Scripted(answer="Good day", logprob=SURE),
        Scripted(answer="Good evening", logprob=SURE),
        accept_at=[0.01, 0.0],
        changes=[short, short],
    )
    chunks = await stage.ask()
    assert "".join(chunk.text for chunk in chunks) == "Good"
    last = chunks[-1]
    assert (last.tier, last.complete, last.finish_reason) == (1, False, "length")
    assert [said.confidence for said in last.tiers] == [0.0, 0.0]


async def test_transform_task_incomplete_answer_has_no_confidence_whatever_the_curve(
    stages: Any,
) -> None:
    curve = {"temperature": 1.0, "isotonic": [[0.2, 0.5], [1.0, 0.9]]}
    stage = stages(
        Scripted(answer="Good day"),
        accept_at=[0.4],
        changes=[{"calibration": curve, "asks": {"sampling": {"max_tokens": 2}}}],
    )
    (only,) = await stage.ask()
    assert (only.abstained, only.confidence, only.text) == (True, 0.0, "")


async def test_transform_task_of_one_tier_lists_no_tiers(stages: Any) -> None:
    stage = stages(Scripted(answer="ok", logprob=SURE), accept_at=[0.6])
    (only,) = await stage.ask()
    assert (only.text, only.tiers, only.escalated) == ("ok", (), False)
    assert stage.task.info.tiers == ()


async def test_transform_task_without_calibration_has_no_confidence(stages: Any) -> None:
    bare = {"calibration": None, "sureness": None}
    stage = stages(Scripted(answer="ok"), accept_at=[0.0], changes=[bare])
    last = await stage.last()
    assert (last.confidence, last.calibrated) == (None, False)
    with pytest.raises(InvalidInput, match="no calibrated confidence"):
        await stage.ask(effort=Effort(accept_at=0.5))


async def test_transform_task_refuses_a_threshold_without_calibration(stages: Any) -> None:
    bare = {"calibration": None, "sureness": None}
    with pytest.raises(ConfigError, match="not calibrated"):
        stages(Scripted(), Scripted(), accept_at=[0.5, 0.0], changes=[bare])


async def test_transform_task_max_tier_ends_the_cascade(stages: Any) -> None:
    engines = Scripted(answer="hm", logprob=HALF), Scripted(answer="Good day", logprob=SURE)
    stage = stages(*engines, accept_at=[0.6, 0.0])
    (only,) = await stage.ask(effort=Effort(max_tier=0))
    assert (only.abstained, only.tier, only.text) == (True, 0, "")
    assert stage.engines[1].starts == 0


async def test_transform_task_request_may_bring_its_own_threshold(stages: Any) -> None:
    engines = Scripted(answer="hm", logprob=HALF), Scripted(answer="Good day", logprob=SURE)
    stage = stages(*engines, accept_at=[0.6, 0.0])
    (first,) = await stage.ask(effort=Effort(accept_at=0.4))
    assert (first.text, first.tier) == ("hm", 0)
    (none,) = await stage.ask(effort=Effort(accept_at=0.99))
    assert (none.abstained, none.tier) == (True, 1)
    streamed = await stage.ask(effort=Effort(accept_at=0.0))
    assert [chunk.text for chunk in streamed] == ["h", "m", ""]
    assert streamed[-1].tier == 0


@pytest.mark.parametrize(
    ("effort", "field"),
    [
        (Effort(max_tier=-1), "max_tier"),
        (Effort(accept_at=1.5), "accept_at"),
        (Effort(accept_at=math.nan), "accept_at"),
        (Effort(budget_ms=0), "budget_ms"),
        (Effort(budget_ms=math.inf), "budget_ms"),
    ],
)
async def test_transform_task_refuses_an_effort_out_of_range(
    stages: Any, effort: Effort, field: str
) -> None:
    stage = stages(Scripted(answer="ok"), accept_at=[0.5])
    with pytest.raises(InvalidInput) as caught:
        await stage.ask(effort=effort)
    assert caught.value.field == field
    assert stage.engines[0].starts == 0


async def failing_second(stages: Any, fault: str, **options: Any) -> Stage:
    """A cascade whose first tier passes on, and whose second one is missed."""
    second = Scripted(
        answer="Good day",
        logprob=math.nan if fault == "nan" else SURE,
        failing_steps=range(99) if fault == "failure" else (),
    )
    stage: Stage = stages(
        Scripted(answer="hm", logprob=HALF), second, accept_at=[0.6, 0.5], **options
    )
    if fault in ("overload", "no_time"):
        second.gate.clear()
    if fault == "closed":
        await asyncio.to_thread(stage.models[1].close)
    return stage


REASONS = {"failure": "failure", "nan": "failure", "no_time": "no_time"}


@pytest.mark.parametrize("fault", REASONS)
@pytest.mark.parametrize("on_failure", ["abstain", "answer", "error"])
async def test_transform_task_policy_decides_where_a_tier_is_missed(
    stages: Any, fault: str, on_failure: OnFailure
) -> None:
    stage = await failing_second(stages, fault, on_failure=on_failure)
    effort = Effort(budget_ms=200.0 if fault == "no_time" else None)
    if on_failure == "error":
        with pytest.raises(DeadlineExceeded if fault == "no_time" else EngineError):
            await stage.ask(effort=effort)
    else:
        (only,) = await stage.ask(effort=effort)
        assert (only.degraded, only.tier) == (REASONS[fault], 0)
        assert only.abstained == (on_failure == "abstain")
        assert only.text == ("" if only.abstained else "hm")
        assert only.confidence == pytest.approx(0.5)
    assert stage.counts[1][2] == 1


async def test_transform_task_overload_of_a_tier_is_one_that_is_missed(stages: Any) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(answer="Good day", logprob=SURE, sequence_limit=1),
        accept_at=[0.6, 0.5],
        capacity=(100_000, 300),
        on_failure="answer",
    )
    second = stage.engines[1]
    second.gate.clear()
    calls = [asyncio.ensure_future(stage.ask())]
    await eventually(lambda: second.starts == 1, "it never began")
    # One runs, one waits, and there is no room for others.
    calls += [asyncio.ensure_future(stage.ask()) for _ in range(3)]
    await eventually(lambda: sum(call.done() for call in calls) == 2, "nobody was refused")
    for call in calls:
        if call.done():
            (only,) = call.result()
            assert (only.degraded, only.text) == ("overload", "hm")
    waiting = [call for call in calls if not call.done()]
    second.gate.set()
    for answer in waiting:
        (good,) = await asyncio.wait_for(answer, WAIT_S)
        assert (good.text, good.degraded) == ("Good day", None)


async def test_transform_task_overload_of_the_first_tier_is_one_of_the_call(stages: Any) -> None:
    stage = stages(
        # Slow, not stopped: between its steps others are tokenized.
        Scripted(answer="x" * 250, logprob=SURE, sequence_limit=1, delay_s=0.02),
        Scripted(),
        accept_at=[0.6, 0.5],
        capacity=(300, 100_000),
        on_failure="answer",
    )
    calls = [asyncio.ensure_future(stage.ask())]
    await eventually(lambda: stage.engines[0].starts == 1, "it never began")
    # One runs, one waits, and there is no room for others.
    calls += [asyncio.ensure_future(stage.ask()) for _ in range(3)]
    await eventually(lambda: sum(call.done() for call in calls) == 2, "nobody was refused")
    for call in calls:
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends].count(QueueFull) == 2
    assert stage.counts == [(0, 0, 0), (0, 0, 0)]


async def test_transform_task_that_is_unloaded_is_not_ready(stages: Any) -> None:
    stage = await failing_second(stages, "closed")
    with pytest.raises(NotReady):
        await stage.ask()


@pytest.mark.parametrize("on_failure", ["abstain", "answer", "error"])
async def test_transform_task_failure_halfway_through_a_stream_is_one_of_the_call(
    stages: Any, on_failure: OnFailure
) -> None:
    """What was sent cannot be taken back, so no other text may follow it."""
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(answer="Good day", failing_steps=[4]),
        accept_at=[0.6, 0.0],
        on_failure=on_failure,
    )
    seen = []
    with pytest.raises(EngineError):
        async with aclosing(stage.run()) as chunks:
            async for chunk in chunks:
                seen.append(chunk)
    assert "".join(chunk.text for chunk in seen).startswith("G")
    assert all(chunk.finish_reason is None for chunk in seen)


async def test_transform_task_deadline_halfway_through_a_stream_is_one_of_the_call(
    stages: Any,
) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(answer="x" * 5000, context_length=8192, delay_s=0.01),
        accept_at=[0.6, 0.0],
        changes=[{}, {"asks": {"sampling": {"max_tokens": 6000}}}],
        on_failure="answer",
    )
    seen = []
    with pytest.raises(DeadlineExceeded):
        async with aclosing(stage.run(deadline=time.monotonic() + 0.5)) as chunks:
            async for chunk in chunks:
                seen.append(chunk.text)
    assert set(seen) == {"x"}
    await eventually(lambda: not stage.engines[1].busy(), "it never came true")


async def test_transform_task_failure_of_the_first_tier_is_one_of_the_call(stages: Any) -> None:
    stage = stages(Scripted(failing_steps=[0]), Scripted(), accept_at=[0.6, 0.0])
    with pytest.raises(EngineError):
        await stage.ask()
    assert stage.engines[1].starts == 0
    # The next call is answered.
    assert (await stage.last()).tier == 1


async def test_transform_task_first_tier_without_scores_fails(stages: Any) -> None:
    stage = stages(Scripted(answer="hm", logprob=math.nan), accept_at=[0.6])
    with pytest.raises(EngineError, match="no scores"):
        await stage.ask()


async def test_transform_task_deadline_of_the_first_tier_is_that_of_the_call(stages: Any) -> None:
    stage = stages(Scripted(), Scripted(), accept_at=[0.6, 0.0], on_failure="answer")
    with pytest.raises(DeadlineExceeded):
        await stage.ask(deadline=time.monotonic() - 1)
    assert stage.counts == [(0, 0, 0), (0, 0, 0)]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("accept_at", [0.0, 0.5])
async def test_transform_task_closed_early_stops_the_engine(
    stages: Any, place: int, accept_at: float
) -> None:
    """Whether it waits, is held back or streams."""
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(answer="x" * 1000, delay_s=0.001),
        accept_at=[0.6, accept_at],
    )
    engine = stage.engines[place]
    engine.gate.clear()
    chunks = stage.run()
    first = asyncio.ensure_future(anext(chunks))
    await eventually(lambda: engine.starts == 1, "it never came true")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(first, WAIT_S)
    await chunks.aclose()
    engine.gate.set()
    await eventually(lambda: not engine.busy(), "it never came true")
    assert stage.counts[1] == (0, 0, 0)


async def test_transform_task_closed_between_pieces_stops_the_engine(stages: Any) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(answer="x" * 1000, delay_s=0.001),
        accept_at=[0.6, 0.0],
    )
    async with aclosing(stage.run()) as chunks:
        assert (await asyncio.wait_for(anext(chunks), WAIT_S)).text == "x"
    await eventually(lambda: not stage.engines[1].busy(), "it never came true")
    assert stage.counts[1] == (0, 0, 0)


async def test_transform_task_abandoned_before_its_first_chunk_costs_nothing(stages: Any) -> None:
    stage = stages(Scripted(), accept_at=[0.0])
    await stage.run().aclose()
    assert stage.engines[0].starts == 0


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"nothing for {tone}"),
        ({"tone": "kind", "x": ""}, "no placeholder {x}"),
        ({"tone": "kind", "text": "x"}, "the text itself"),
        ({"tone": "\ud800"}, "surrogate"),
    ],
)
async def test_transform_task_refuses_inputs_that_are_not_the_prompts(
    stages: Any, inputs: dict[str, str], message: str
) -> None:
    asks = {"asks": {"prompt": "{tone}: {text}"}}
    stage = stages(
        *(Scripted(), Scripted()),
        accept_at=[0.6, 0.0],
        changes=[asks, asks],
        transform={"inputs": ["tone"]},
    )
    with pytest.raises(InvalidInput, match=message):
        await stage.ask(inputs=inputs)
    good = await stage.last(inputs={"tone": "kind"})
    assert good.complete


async def test_transform_task_text_too_long_for_a_later_tier_is_refused(stages: Any) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(context_length=60),
        accept_at=[0.6, 0.0],
        on_failure="answer",
    )
    with pytest.raises(InputTooLong) as caught:
        await stage.ask("x" * 100)
    assert caught.value.field == "prompt"
    assert (await stage.last()).tier == 1


@pytest.mark.parametrize("text", ["", "\ud800"])
async def test_transform_task_refuses_what_is_no_text(stages: Any, text: str) -> None:
    stage = stages(Scripted(), accept_at=[0.0])
    with pytest.raises(InvalidInput) as caught:
        await stage.ask(text)
    assert caught.value.field == "text"


async def test_transform_task_prompt_that_does_not_fit_is_refused_at_once(stages: Any) -> None:
    with pytest.raises(InputTooLong):
        stages(Scripted(context_length=20), accept_at=[0.0])


async def test_transform_task_calls_are_kept_apart(stages: Any) -> None:
    """Each call says its own text again: answers of the fake are its prompts."""
    stage = stages(
        Scripted(logprob=HALF), Scripted(logprob=SURE), accept_at=[0.6, 0.0], on_failure="error"
    )
    texts = [f"text {number}" for number in range(30)]
    answers = await asyncio.gather(*(stage.ask(text) for text in texts))
    for text, chunks in zip(texts, answers, strict=True):
        said = "".join(chunk.text for chunk in chunks)
        assert said == f"user: Repeat: {text}\nassistant:"
        assert chunks[-1].tier == 1
    assert stage.counts == [(30, 0, 0), (30, 30, 0)]


@pytest.mark.parametrize("on_failure", ["abstain", "answer", "error"])
async def test_transform_task_storm_loses_and_mixes_no_answer(
    stages: Any, on_failure: OnFailure
) -> None:
    """The last tier fails on a fifth of its steps; some callers leave; each text has its end."""
    stage = stages(
        Scripted(logprob=HALF),
        Scripted(logprob=SURE, failing_steps=range(0, 100_000, 25)),
        accept_at=[0.6, 0.5],
        on_failure=on_failure,
    )

    async def one(number: int) -> str:
        call = asyncio.ensure_future(stage.ask(f"text {number}"))
        if number % 7 == 0:
            await asyncio.sleep(0.001 * (number % 5))
            call.cancel()
        try:
            (only,) = await call
        except asyncio.CancelledError:
            return "left"
        except EngineError:
            assert on_failure == "error"
            return "error"
        own = f"user: Repeat: text {number}\nassistant:"
        if only.degraded is None:
            assert (only.text, only.tier) == (own, 1)
            return "good"
        assert (only.degraded, only.tier) == ("failure", 0)
        assert only.text == (own if on_failure == "answer" else "")
        return "degraded"

    ends = [
        end
        for start in range(0, 60, 10)
        for end in await asyncio.wait_for(
            asyncio.gather(*(one(number) for number in range(start, start + 10))), WAIT_S
        )
    ]
    assert len(ends) == 60
    assert "error" in ends if on_failure == "error" else "degraded" in ends
    for engine in stage.engines:
        await eventually(lambda engine=engine: not engine.busy(), "an answer was left behind")


async def test_transform_task_errors_hold_no_text(stages: Any) -> None:
    stage = stages(
        Scripted(answer="hm", logprob=HALF),
        Scripted(failing_steps=range(99)),
        accept_at=[0.6, 0.0],
        on_failure="error",
    )
    with pytest.raises(SpratError) as caught:
        await stage.ask("a secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInput) as refused:
        await stage.ask("a secret", inputs={"other": "a secret"})
    assert "a secret" not in str(refused.value)
