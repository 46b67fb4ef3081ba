"""Tiers that rewrite texts: those of transform tasks."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.asked_manifest import RemoteRewriting, Rewriting
from sprat.bundle_manifest import BundleManifest, Calibration, Sureness, TierManifest, Transform
from sprat.calibration import chance_of_rewriting, confidences_of_rewritings
from sprat.errors import DataError, InvalidInput, SpratError
from sprat.manifest import ModelRef
from sprat.progress import Progress
from sprat.scheduler import Mailbox
from sprat.tasks.extract import SIDE_BY_SIDE
from sprat.tasks.rewrite_tier import Rewritten as TierAnswer
from sprat.tasks.transform_task import TransformTask
from sprat.text.template import TEXT, Template
from sprat.train.asked import Ask, AskedKind, Rated, answers
from sprat.train.calibrate import CalibrationFit
from sprat.train.confidence import with_whole
from sprat.train.evaluate_rewriting import RewritingReport, TierRewritings, evaluate_rewriting
from sprat.train.evaluate_transform import Rewritten, right_answers, validator
from sprat.train.record import LanguageRecord
from sprat.train.rewriting_record import RewriterRecord, RewritingRecord
from sprat.train.rows import bad_rows
from sprat.train.split import same_texts, split_texts
from sprat.train.sureness import SurenessFit, fit_sureness
from sprat.train.wanted import Wanted
from sprat.values import Grammar, ItemError, Label, TransformSpec

LEAST_SOUND = 10
"""Different texts with an answer that is complete, and fits the grammar, that a calibration needs.
"""


@dataclass(frozen=True, slots=True, eq=False)
class SaidOfTexts:
    """What a tier says of N rows.

    Attributes
    ----------
    answers : tuple of Rewritten
        Those that do not fit the grammar are not complete.
    logprobs : tuple of tuple of float
        Of the tokens of each answer that no grammar forced; empty of a tier that has none.
    chance_n : float64[N]
        Probability in [0, 1] of each answer by the lights of a tier that has no such tokens.
    """

    answers: tuple[Rewritten, ...]
    logprobs: tuple[tuple[float, ...], ...]
    chance_n: npt.NDArray[np.float64]

    @property
    def sound(self) -> list[int]:
        """Rows with an answer that is complete."""
        return [row for row, answer in enumerate(self.answers) if answer.complete]

    def confidences(self, tier: TierManifest) -> npt.NDArray[np.float64] | None:
        """How sure a tier is of them, float64[N]; None without a calibration."""
        if tier.whole is None:
            return None
        chance_n = self.chance_n
        if tier.sureness is not None:
            chance_n = np.array(
                [
                    chance_of_rewriting(given, tier.sureness, is_sound=answer.complete)
                    for given, answer in zip(self.logprobs, self.answers, strict=True)
                ]
            )
        return confidences_of_rewritings(chance_n, tier.whole)


@dataclass(frozen=True, slots=True)
class _Heard:
    """Answers of a call, and rows without one."""

    items: Sequence[TierAnswer | None]
    errors: Sequence[ItemError]


class AskedRewritings(
    AskedKind[Wanted, SaidOfTexts, SurenessFit | CalibrationFit, RewritingReport, RewritingRecord]
):
    """See `sprat.train.asked.AskedKind`.

    An answer is right where it is as wanted, or near enough: see `Transform.right_at`.
    """

    record = RewritingRecord
    options = frozenset({"prompt", "task", "max_tokens"})
    uncalibrated = Calibration(temperature=1.0, isotonic=((0.0, 0.0), (1.0, 1.0)))

    def unfitted(self, tier: TierManifest) -> TierManifest:
        """Another server's task says how sure it is; the others say log-probabilities."""
        asks_task = tier.remote is not None and tier.remote.task_version != ""
        sureness = Sureness(quantiles=(0.0,), weights=(0.0,), bias=0.0)
        return tier.model_copy(
            update={
                "calibration": self.uncalibrated,
                "sureness": None if asks_task else sureness,
            }
        )

    def language(
        self,
        bundle: BundleManifest,
        *,
        adapter: ModelRef | None,
        trained: Any,
        labels: Sequence[Label],
        **asks: Any,
    ) -> Rewriting:
        """See `question`."""
        spec = question(bundle.tiers, trained, adapter=adapter, labels=labels, **asks)
        _check_same(transform_of(bundle), spec)
        return Rewriting(
            prompt=spec.prompt, sampling=spec.sampling, lookup=spec.lookup, adapter=adapter
        )

    def remote(
        self,
        bundle: BundleManifest,
        *,
        model: str,
        task_version: str,
        labels: Sequence[Label],
        **asks: Any,
    ) -> RemoteRewriting:
        """See `question`; the task of another sprat server knows its own prompt."""
        if task_version:
            return RemoteRewriting(model=model, task_version=task_version)
        spec = question(bundle.tiers, None, adapter=None, labels=labels, **asks)
        _check_same(transform_of(bundle), spec)
        return RemoteRewriting(model=model, prompt=spec.prompt, sampling=spec.sampling)

    def check(self, bundle: BundleManifest, rows: Wanted) -> None:
        """Refuse targets that do not fit the grammar."""
        grammar = transform_of(bundle).grammar
        if grammar is None:
            return
        fits = _fitting(grammar)
        faults = [
            (line, f"target: does not fit the {grammar.kind}")
            for line, target in zip(rows.lines, rows.targets, strict=True)
            if not fits(target)
        ]
        if faults:
            raise bad_rows(rows.path, faults)

    def split(self, rows: Wanted, held_out: float, *, seed: int) -> tuple[Wanted, Wanted]:
        """The same texts stay together, whatever their inputs are."""
        if not 0 < held_out < 1:
            raise InvalidInput(
                f"held_out: expected above 0 and below 1, got {held_out:g}", field="held_out"
            )
        kept, held = split_texts(rows.texts, held_out, seed=seed, path=rows.path)
        return rows.take(kept), rows.take(held)

    async def call(self, task: TransformTask, rows: Wanted, mailbox: Mailbox) -> _Heard:
        """Ask about all of them side by side, as far as that pays."""
        (tier,) = task.tiers
        places = asyncio.Semaphore(SIDE_BY_SIDE)
        errors: list[ItemError] = []

        async def ask(row: int) -> TierAnswer | None:
            async with places:
                try:
                    return await tier.judge(
                        rows.texts[row],
                        inputs=rows.inputs[row],
                        on_text=None,
                        deadline=math.inf,
                        mailbox=mailbox,
                    )
                except SpratError as error:
                    errors.append(ItemError(row, error.reason, error.message))
                    return None

        items = await asyncio.gather(*map(ask, range(len(rows))))
        return _Heard(items, sorted(errors, key=lambda error: error.index))

    def say(
        self, bundle: BundleManifest, ask: Ask, rows: Wanted, progress: Progress
    ) -> SaidOfTexts:
        """Ask for answers with the log-probabilities of their tokens."""
        heard: list[TierAnswer] = answers(ask, rows, progress)
        return SaidOfTexts(
            tuple(Rewritten(each.answers[0].text, each.answers[0].complete) for each in heard),
            tuple(each.logprobs for each in heard),
            np.array([each.confidence[0] or 0.0 for each in heard], np.float64),
        )

    def fit(
        self,
        bundle: BundleManifest,
        said: SaidOfTexts,
        rows: Wanted,
        tier: TierManifest,
        *,
        seed: int,
    ) -> SurenessFit | CalibrationFit:
        """See `fit_sureness`; of a tier that says how sure it is, a curve. Of what is sound.

        Raises
        ------
        DataError
            Too little is.
        """
        sound = said.sound
        texts = [rows.texts[row] for row in sound]
        found = len(set(same_texts(texts).tolist()))
        if found < LEAST_SOUND:
            raise DataError(
                rows.path,
                0,
                f"expected {LEAST_SOUND} or more different texts with an answer that comes to an "
                f"end and fits the grammar, found {found} of {len(rows)}; raise max_tokens, or "
                "ask otherwise",
            )
        right_n = _right(bundle, said, rows)[sound]
        if self.unfitted(tier).sureness is not None:
            return fit_sureness([said.logprobs[row] for row in sound], right_n, texts, seed=seed)
        calibration = with_whole(
            Calibration(temperature=1.0), said.chance_n[sound], right_n, seed=seed
        )
        return CalibrationFit(calibration, len(right_n))

    def fitted(self, tier: TierManifest, fit: SurenessFit | CalibrationFit) -> TierManifest:
        """A tier with its calibration, and its sureness where it has log-probabilities."""
        sureness = fit.sureness if isinstance(fit, SurenessFit) else None
        return tier.model_copy(update={"calibration": fit.calibration, "sureness": sureness})

    def evaluate(
        self,
        bundle: BundleManifest,
        said: SaidOfTexts,
        rows: Wanted,
        tier: TierManifest,
        *,
        seed: int,
    ) -> RewritingReport:
        """Judge a tier that answers everything."""
        transform = transform_of(bundle)
        given = TierRewritings(
            name=tier.name,
            engine="",
            accept_at=0.0,
            answers=said.answers,
            confidence_n=said.confidences(tier),
            cost_ms=1.0,
        )
        return evaluate_rewriting(
            [given],
            rows,
            schema=schema_of(transform),
            right_at=transform.right_at,
            seed=seed,
        )[0]

    def rate(
        self, bundle: BundleManifest, said: SaidOfTexts, rows: Wanted, tier: TierManifest
    ) -> Rated:
        """Whether answers are right."""
        confidence_n = said.confidences(tier)
        assert confidence_n is not None
        return confidence_n, None, _right(bundle, said, rows)

    def recorded(
        self, record: RewritingRecord, name: str, report: RewritingReport, training: LanguageRecord
    ) -> RewritingRecord:
        """Its evaluation, and how it came about."""
        own = RewriterRecord(evaluation=report, training=training)
        return record.model_copy(update={"tiers": {**record.tiers, name: own}})


def question(
    tiers: Sequence[TierManifest],
    trained: Any,
    *,
    adapter: ModelRef | None,
    labels: Sequence[Label] = (),
    prompt: str | None = None,
    task: TransformSpec | None = None,
    max_tokens: int | None = None,
) -> TransformSpec:
    """What a tier is asked: by a task, or else as its adapter was trained, or as tiers before it.

    Parameters
    ----------
    tiers : sequence of TierManifest
        Those before it.
    trained : object or None
        The spec that the adapter was trained to be asked.
    labels : sequence of Label
        None.
    task : TransformSpec, optional
    prompt, max_tokens : str, int, optional
        In the place of theirs.

    Returns
    -------
    TransformSpec
        Its model and adapter say nothing.

    Raises
    ------
    InvalidInput
        Nothing says it, or the adapter is for another kind of task.
    """
    if labels:
        raise InvalidInput("labels: expected none for a transform task", field="labels")
    if trained is not None and not isinstance(trained, TransformSpec):
        raise InvalidInput(
            f"adapter: expected one for transform, but {adapter and adapter.name} was trained for "
            "another kind of task",
            field="adapter",
        )
    spec = task or trained or _as_before(tiers)
    if spec is None:
        if prompt is None:
            raise InvalidInput(
                "prompt: expected one, a task, or an adapter that `sprat train` made",
                field="prompt",
            )
        spec = TransformSpec("", prompt)
    if prompt is not None:
        spec = replace(spec, prompt=prompt)
    if max_tokens is not None:
        spec = replace(spec, sampling=replace(spec.sampling, max_tokens=max_tokens))
    return spec


def _as_before(tiers: Sequence[TierManifest]) -> TransformSpec | None:
    """What the last tier with a prompt is asked."""
    for tier in reversed(tiers):
        asked = tier.language or tier.remote
        if isinstance(asked, Rewriting | RemoteRewriting) and asked.prompt:
            return TransformSpec("", asked.prompt, sampling=asked.sampling)
    return None


def inputs_of(prompt: str) -> tuple[str, ...]:
    """Placeholders of a prompt besides that of the text.

    Raises
    ------
    InvalidInput
        It is no prompt.
    """
    return tuple(name for name in Template(prompt).names if name != TEXT)


def transform_of(bundle: BundleManifest) -> Transform:
    """The section of a transform task."""
    assert bundle.transform is not None
    return bundle.transform


def schema_of(transform: Transform) -> str | None:
    """The JSON Schema that answers have to fit, if there is one."""
    grammar = transform.grammar
    return grammar.source if grammar is not None and grammar.kind == "json_schema" else None


def _check_same(transform: Transform, spec: TransformSpec) -> None:
    """Refuse a question with other inputs, or for other answers, than those of the bundle."""
    found = inputs_of(spec.prompt)
    if set(found) != set(transform.inputs):
        wanted, there = (
            ", ".join(f"{{{name}}}" for name in (TEXT, *sorted(names)))
            for names in (transform.inputs, found)
        )
        raise InvalidInput(
            f"prompt: expected the placeholders of the bundle, {wanted}; found {there}",
            field="prompt",
        )
    # A prompt alone says nothing of answers: they have to fit what the bundle says.
    other = transform.grammar
    if spec.grammar is not None and not _is_same(spec.grammar, other):
        raise InvalidInput(
            "grammar: expected that of the bundle, "
            + ("none" if other is None else f"the same {other.kind}"),
            field="grammar",
        )


def _is_same(one: Grammar, other: Grammar | None) -> bool:
    """Whether grammars say the same; JSON Schemas do so in any order and with any white space."""
    if other is None or one.kind != other.kind or one.kind != "json_schema":
        return one == other
    return bool(json.loads(one.source) == json.loads(other.source))


def _fitting(grammar: Grammar) -> Callable[[str], bool]:
    if grammar.kind == "json_schema":
        # As JSON: white space and the order of keys do not count.
        return validator(grammar.source)
    from sprat.engine.llama_grammar import Checker

    return Checker(grammar).fits


def _right(bundle: BundleManifest, said: SaidOfTexts, rows: Wanted) -> npt.NDArray[np.bool_]:
    transform = transform_of(bundle)
    return right_answers(
        said.answers, rows, schema=schema_of(transform), right_at=transform.right_at
    )
