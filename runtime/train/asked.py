"""Tiers without weights: what asking them about labelled rows is, whatever the kind of task.

Each kind of task that may have such tiers has an `AskedKind`: what they are asked, and what becomes
of their answers. `sprat.train.asked_kinds` lists them, `sprat.train.asked_tiers` opens the tiers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from sprat.asked_manifest import AnyLanguage, AnyRemote
from sprat.bundle_manifest import BundleManifest, Calibration, ReportSummary, TierManifest
from sprat.errors import DataError, DeadlineExceeded, EngineError, InvalidInput, QueueFull
from sprat.manifest import ModelRef
from sprat.progress import Progress, Silent
from sprat.scheduler import Mailbox
from sprat.train.provenance import Source
from sprat.train.row_cost import row_cost
from sprat.values import IntArray, ItemError, Label

ASKED_AT_ONCE = 32
"""Rows of a call: more than any model works on side by side."""

ATTEMPTS = 5
"""Least attempts for a text that an endpoint is asked about: what was asked before is paid for."""


class Result(Protocol):
    """What a call gives, whatever the kind of task."""

    @property
    def items(self) -> Sequence[Any | None]:
        """An answer for each row; None where ``errors`` names it."""

    @property
    def errors(self) -> Sequence[ItemError]:
        """Rows that cannot be answered."""


Ask = Callable[[Any], Result]
"""One call about rows, in which bad ones are listed."""

OpenTier = Callable[[BundleManifest, int], AbstractContextManager[Ask]]
"""Loads what the tier at a place of a bundle asks, for as long as it is asked. It answers alone,
as `AskedKind.unfitted` has it."""

Rated = tuple[npt.NDArray[np.float64], IntArray | None, npt.NDArray[np.bool_]]
"""Confidences in [0, 1], answers as places of labels where they are labels, and whether they are
right: N rows."""


class AskedRows(Source, Protocol):
    """Labelled rows, whatever their labels are."""

    @property
    def path(self) -> str:
        """The file, for messages."""

    @property
    def texts(self) -> tuple[str, ...]:
        """None of them empty."""

    def take(self: RowsT, rows: Iterable[int]) -> RowsT:
        """The rows at these indices, in this order."""


class Evaluated(Protocol):
    """A report on a tier."""

    def summary(self) -> ReportSummary:
        """Its figures."""
        ...


class Fit(Protocol):
    """What was fitted, and what spoke for it."""

    @property
    def calibration(self) -> Calibration:
        """That of the tier."""
        ...


RowsT = TypeVar("RowsT", bound=AskedRows)
SaidT = TypeVar("SaidT")
ReportT = TypeVar("ReportT", bound=Evaluated)
RecordT = TypeVar("RecordT", bound=BaseModel)
FitT = TypeVar("FitT", bound=Fit)


class AskedKind(ABC, Generic[RowsT, SaidT, FitT, ReportT, RecordT]):
    """What tiers that ask are to the training of one kind of task.

    What a tier says is asked for once, without a calibration, as ``SaidT`` of N rows. All else
    follows from that and the labels of the rows.

    Attributes
    ----------
    record : type
        Of a bundle's ``report.json``.
    options : frozenset of str
        What may be said about a question beside the model and the labels: names of parameters of
        `language` and `remote`.
    uncalibrated : Calibration or None
        With it the confidence of an answer is the tier's own score, or there is none; see
        `unfitted`.
    """

    record: ClassVar[type[BaseModel]]
    options: ClassVar[frozenset[str]]
    uncalibrated: ClassVar[Calibration | None] = None

    def unfitted(self, tier: TierManifest) -> TierManifest:
        """A tier as it is asked about rows to calibrate it on."""
        return tier.model_copy(update={"calibration": self.uncalibrated})

    @abstractmethod
    def language(
        self,
        bundle: BundleManifest,
        *,
        adapter: ModelRef | None,
        trained: Any,
        labels: Sequence[Label],
        **asks: Any,
    ) -> AnyLanguage:
        """What a language tier asks.

        Parameters
        ----------
        adapter : ModelRef or None
            That it answers under.
        trained : object or None
            The spec that the adapter was trained to be asked.
        labels : sequence of Label
            Labels of the bundle with what describes them; not all need to be there.
        **asks
            Of `options`.

        Raises
        ------
        InvalidInput
            The adapter is for another kind of task, or labels are not those of the bundle.
        """

    @abstractmethod
    def remote(
        self,
        bundle: BundleManifest,
        *,
        model: str,
        task_version: str,
        labels: Sequence[Label],
        **asks: Any,
    ) -> AnyRemote:
        """What a remote tier asks; see `language`, and `sprat.asked_manifest.Remote`."""

    @abstractmethod
    def check(self, bundle: BundleManifest, rows: RowsT) -> None:
        """Refuse rows with labels that the bundle does not have.

        Raises
        ------
        DataError
        """

    @abstractmethod
    def split(self, rows: RowsT, held_out: float, *, seed: int) -> tuple[RowsT, RowsT]:
        """Two parts of the rows that share no text, the second one with this share of them."""

    @abstractmethod
    async def call(self, task: Any, rows: RowsT, mailbox: Mailbox) -> Result:
        """Ask a task of one tier about rows, and list the bad ones."""

    @abstractmethod
    def say(self, bundle: BundleManifest, ask: Ask, rows: RowsT, progress: Progress) -> SaidT:
        """What a tier says of rows."""

    @abstractmethod
    def fit(
        self, bundle: BundleManifest, said: SaidT, rows: RowsT, tier: TierManifest, *, seed: int
    ) -> FitT:
        """The calibration of a tier that these rows speak for."""

    def fitted(self, tier: TierManifest, fit: FitT) -> TierManifest:
        """A tier with what was fitted."""
        return tier.model_copy(update={"calibration": fit.calibration})

    @abstractmethod
    def evaluate(
        self, bundle: BundleManifest, said: SaidT, rows: RowsT, tier: TierManifest, *, seed: int
    ) -> ReportT:
        """How good a tier is, calibrated or not."""

    @abstractmethod
    def rate(self, bundle: BundleManifest, said: SaidT, rows: RowsT, tier: TierManifest) -> Rated:
        """What a calibrated tier makes of rows."""

    @abstractmethod
    def recorded(self, record: RecordT, name: str, report: ReportT, training: Any) -> RecordT:
        """The content of ``report.json`` with one tier more.

        Parameters
        ----------
        training : LanguageRecord
        """


def answers(ask: Ask, rows: AskedRows, progress: Progress) -> list[Any]:
    """The answers to rows.

    Raises
    ------
    DataError
        For the first row that cannot be answered, such as one that is too long.
    """
    made: list[Any] = []
    for start in range(0, len(rows), ASKED_AT_ONCE):
        few = rows.take(range(start, min(start + ASKED_AT_ONCE, len(rows))))
        try:
            result = ask(few)
        except (DeadlineExceeded, EngineError, QueueFull) as failure:
            # An endpoint that says nothing to any of them.
            raise DataError(rows.path, rows.lines[start], failure.message) from None
        for error in result.errors:
            message = error.message.replace(f"texts[{error.index}]", "text", 1)
            raise DataError(rows.path, rows.lines[start + error.index], message)
        made += result.items
        progress.advance(len(few))
    return made


def say_and_cost(
    kind: AskedKind[RowsT, SaidT, FitT, ReportT, RecordT],
    bundle: BundleManifest,
    place: int,
    ask: Ask,
    rows: RowsT,
    progress: Progress,
    remote_cost_ms: Callable[[], float] | None = None,
) -> tuple[SaidT, float]:
    """What a tier says of rows, and the CPU milliseconds of this process for each, above 0.

    Parameters
    ----------
    place : int
        Of the tier.
    remote_cost_ms : callable, optional
        What an answer of a remote tier costs instead; called when all rows are answered.
    """
    is_remote = bundle.tiers[place].remote is not None
    if not is_remote:
        # The memory, the adapter and what all prompts begin with are nobody's cost.
        kind.say(bundle, ask, rows.take([0]), Silent())
    said, cost_ms = row_cost(lambda: kind.say(bundle, ask, rows, progress), len(rows))
    return said, remote_cost_ms() if is_remote and remote_cost_ms is not None else cost_ms


def described(
    bundle: BundleManifest, trained: Sequence[Label], given: Sequence[Label]
) -> tuple[Label, ...]:
    """The labels of a bundle: those that an adapter knows, then others, as they are described.

    Raises
    ------
    InvalidInput
        They are not those of the bundle.
    """
    known = {label.name: label for label in (*trained, *given)}
    if len({label.name for label in given}) < len(given):
        raise InvalidInput("labels: expected no two of the same name", field="labels")
    unknown = sorted(known.keys() - set(bundle.labels))
    if unknown:
        raise InvalidInput(
            f"labels: {', '.join(map(repr, unknown))} not among those of bundle {bundle.name}: "
            + ", ".join(map(repr, bundle.labels)),
            field="labels",
        )
    others = (Label(name) for name in bundle.labels if name not in known)
    return (*known.values(), *others)
