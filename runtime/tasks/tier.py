"""What a cascade needs of a tier: from texts to answers with a confidence, whatever answers."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from sprat.bundle_manifest import BundleManifest, Calibration
from sprat.errors import InvalidInput, SpratError
from sprat.model import GenerativeModel, Model
from sprat.scheduler import Mailbox
from sprat.values import (
    Classification,
    Degraded,
    Effort,
    EndpointInfo,
    ItemError,
    LabelScore,
    TierAnswer,
    Truncation,
)

Item = TypeVar("Item")
"""What callers get for a text."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What answers in a tier.

    Attributes
    ----------
    name : str
        Of the model.
    version : str
        Another one may give other answers.
    engine : str
        See `sprat.calibration.least_confidence` for what depends on it.
    """

    name: str
    version: str
    engine: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Heard(ABC, Generic[Item]):
    """What a tier says of N texts: all that a cascade has to know of it.

    Attributes
    ----------
    index : list of int
        M texts that it has an answer for, in order.
    failed : dict of int to SpratError
        Texts that got no answer because the tier failed on them, such as scores that are no
        numbers, and why: an error as `Tier.judge` raises it where it fails as a whole. Messages may
        name ``texts[INDEX]``.
    confidence : list of float or None
        Probability, in [0, 1], that each answer is right: M; None without a calibration.
    cpu_ns : list of int
        CPU time of each text in nanoseconds; 0 where there is no answer.
    errors : sequence of ItemError
        Texts that the tier refused.
    tokenize_ns, queue_ns, infer_ns : int
        As in `sprat.values.Timings`.
    """

    index: list[int]
    failed: dict[int, SpratError]
    confidence: list[float | None]
    cpu_ns: list[int]
    errors: Sequence[ItemError]
    tokenize_ns: int
    queue_ns: int
    infer_ns: int

    def is_sure(self, row: int, least: float) -> bool:
        """Whether an answer has this confidence, or is one without any calibration."""
        confidence = self.confidence[row]
        return confidence is None or confidence >= least

    def cpu_ms(self, row: int) -> float:
        """CPU milliseconds of an answer."""
        return self.cpu_ns[self.index[row]] / 1e6

    def spent_ms(self, row: int, tiers: Sequence[TierAnswer]) -> float:
        """CPU milliseconds of a text in all tiers that were heard, of this one where none are."""
        return sum(said.cpu_ms or 0.0 for said in tiers) if tiers else self.cpu_ms(row)

    @abstractmethod
    def label(self, row: int) -> str:
        """An answer in a word: see `sprat.values.TierAnswer`."""

    @abstractmethod
    def answer(
        self,
        row: int,
        *,
        abstained: bool,
        tier: int = 0,
        degraded: Degraded | None = None,
        tiers: tuple[TierAnswer, ...] = (),
    ) -> Item:
        """An answer as callers see it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Judged(Heard[Classification]):
    """What a tier of a classifier says of N texts.

    Attributes
    ----------
    ranked : list of list of int
        Labels of each answer, best first: M rows. The confidence is that in the best one. One is
        empty where the tier named no label: it is sure of nothing then.
    probabilities : list of list of float
        Theirs.
    labels : tuple of str
        What ``ranked`` points to.
    input_tokens, dropped_tokens, cached_tokens : list of int
        Of each text, as in `sprat.values.Classification`; 0 where there is no answer.
    pruned : list of float
        Of each text, as there.
    """

    ranked: list[list[int]]
    probabilities: list[list[float]]
    labels: tuple[str, ...]
    input_tokens: list[int]
    dropped_tokens: list[int]
    cached_tokens: list[int]
    pruned: list[float]

    def label(self, row: int) -> str:
        """The best label of an answer; empty where it names none."""
        return self.labels[self.ranked[row][0]] if self.ranked[row] else ""

    def is_sure(self, row: int, least: float) -> bool:
        """Whether an answer names a label, with this confidence or without any calibration."""
        return bool(self.ranked[row]) and Heard.is_sure(self, row, least)

    def answer(
        self,
        row: int,
        *,
        abstained: bool,
        tier: int = 0,
        degraded: Degraded | None = None,
        tiers: tuple[TierAnswer, ...] = (),
    ) -> Classification:
        """An answer as callers see it."""
        index = self.index[row]
        return Classification(
            label="" if abstained else self.label(row),
            confidence=self.confidence[row],
            scores=tuple(
                map(
                    LabelScore,
                    map(self.labels.__getitem__, self.ranked[row]),
                    self.probabilities[row],
                )
            ),
            abstained=abstained,
            tier=tier,
            escalated=tier > 0,
            input_tokens=self.input_tokens[index],
            dropped_tokens=self.dropped_tokens[index],
            cached_tokens=self.cached_tokens[index],
            pruned=self.pruned[index],
            degraded=degraded,
            tiers=tiers,
            cpu_ms=self.spent_ms(row, tiers),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Whole(Heard[Item]):
    """What a tier says of N texts, in answers that are whole but for what a cascade makes of them.

    Attributes
    ----------
    answers : list
        M answers, as if the tier were alone. The confidence is that in all of each.
    """

    answers: list[Item]

    @abstractmethod
    def withheld(self, own: Item) -> Item:
        """An answer as it is where the tier abstains from it."""

    def answer(
        self,
        row: int,
        *,
        abstained: bool,
        tier: int = 0,
        degraded: Degraded | None = None,
        tiers: tuple[TierAnswer, ...] = (),
    ) -> Item:
        """An answer as callers see it."""
        own = self.answers[row]
        said: Any = self.withheld(own) if abstained else own
        made: Item = replace(
            said,
            abstained=abstained,
            confidence=self.confidence[row],
            tier=tier,
            escalated=tier > 0,
            degraded=degraded,
            tiers=tiers,
            cpu_ms=self.spent_ms(row, tiers),
        )
        return made


class AnyTier(Protocol):
    """A tier, whatever its kind of answer, and whatever gives it."""

    @property
    def name(self) -> str:
        """As in the bundle."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the bundle, in its order."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether its answers have a confidence."""
        ...

    @property
    def identity(self) -> Identity:
        """What answers."""
        ...

    @property
    def endpoint_info(self) -> EndpointInfo | None:
        """Of a tier that asks an endpoint, how that does."""
        ...


AnyTierT = TypeVar("AnyTierT", bound=AnyTier)
ModelT = TypeVar("ModelT", bound=Model)


@dataclass(frozen=True, slots=True, eq=False)
class ModelTier(Generic[ModelT]):
    """What tiers on a model of this process have in common; an `AnyTier`.

    Attributes
    ----------
    name : str
        As in the bundle.
    labels : tuple of str
        Those of the bundle, in its order.
    calibration : Calibration or None
        Of the confidence that an answer is right.
    model : Model
        What answers.
    """

    name: str
    labels: tuple[str, ...]
    calibration: Calibration | None
    model: ModelT

    @property
    def calibrated(self) -> bool:
        """Whether its answers have a confidence."""
        return self.calibration is not None

    @property
    def identity(self) -> Identity:
        """That of the model."""
        info = self.model.info
        return Identity(info.name, info.version, info.engine)

    @property
    def endpoint_info(self) -> None:
        """None: it runs here."""
        return None


@runtime_checkable
class Prompted(Protocol):
    """A tier whose prompts begin alike, on a generative model of this process."""

    @property
    def model(self) -> GenerativeModel:
        """What is asked."""
        ...

    @property
    def writes(self) -> bool:
        """Whether the model writes answers; else it chooses among labels."""
        ...

    async def warm_up(self, mailbox: Mailbox) -> None:
        """Have the model read what prompts begin with, and keep it: see `sprat.tasks.warm_up`."""
        ...


class Tier(AnyTier, Protocol):
    """A tier of a classifier: a head on vectors, a language model, another machine."""

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
        """Scores and confidences of texts. To cancel it gives up what it has begun.

        Parameters
        ----------
        top_k : int or None
            How many labels to return, from 1; None: all.
        truncation : {"refuse", "truncate"}
            What happens to a text of more tokens than the tier takes.
        partial : bool
            List bad texts, instead of raising.
        deadline : float
            `time.monotonic` value after which the answer is of no use.

        Raises
        ------
        InvalidInput
            For the first bad text, as ``texts[INDEX]``, unless ``partial``.
        QueueFull, DeadlineExceeded, EngineError
            It has too much to do, cannot answer in time, or fails: then the tier is missed.
        NotReady
            It is being unloaded.
        """
        ...


@dataclass(frozen=True, slots=True)
class Part(Generic[AnyTierT]):
    """A tier that takes part in a cascade.

    Attributes
    ----------
    place : int
        Its place among the tiers of the bundle.
    tier : Tier
        What answers.
    accept_at : float
        Least confidence of an answer, in [0, 1]. Above 0 for all but the last: a tier that accepts
        everything leaves nothing to those behind it. 0 of the last never abstains.
    """

    place: int
    tier: AnyTierT
    accept_at: float


def check_request(top_k: int | None, effort: Effort, *, calibrated: bool) -> None:
    """Check what a request asks of a classifier: as `check_effort`, and ``top_k``."""
    if top_k is not None and top_k < 1:
        raise InvalidInput(f"top_k: expected 1 or more, got {top_k}", field="top_k")
    check_effort(effort, calibrated=calibrated)


def check_effort(effort: Effort, *, calibrated: bool) -> None:
    """Check how far a request wants to go.

    Raises
    ------
    InvalidInput
        For a number out of its range, or a threshold where there are no confidences.
    """
    max_tier, accept_at, budget_ms = effort.max_tier, effort.accept_at, effort.budget_ms
    if max_tier is not None and max_tier < 0:
        raise InvalidInput(f"max_tier: expected 0 or more, got {max_tier}", field="max_tier")
    if accept_at is not None and not 0 <= accept_at <= 1:
        raise InvalidInput(f"accept_at: expected 0 to 1, got {accept_at:g}", field="accept_at")
    if accept_at and not calibrated:
        raise InvalidInput("accept_at: the task has no calibrated confidence", field="accept_at")
    if budget_ms is not None and not 0 < budget_ms < math.inf:
        raise InvalidInput(
            f"budget_ms: expected more than 0, and a finite number, got {budget_ms:g}",
            field="budget_ms",
        )


def version_of(
    manifest: BundleManifest, parts: Iterable[Part[Any]], unconfigured: Collection[str] = ()
) -> str:
    """Version of a task: that of its bundle, or where thresholds differ, the digest over both.

    Parameters
    ----------
    parts : iterable of Part
        The tiers that take part.
    unconfigured : collection of str
        Names of the tiers that cannot; the others that do not are the same as if their threshold
        was 0.
    """
    own = tuple(tier.accept_at for tier in manifest.tiers)
    thresholds = {part.place: part.accept_at for part in parts}
    given = tuple(
        None if tier.name in unconfigured else thresholds.get(place, 0.0)
        for place, tier in enumerate(manifest.tiers)
    )
    if own == given:
        return manifest.version
    return hashlib.sha256(f"{manifest.version} {given}".encode()).hexdigest()[:12]
