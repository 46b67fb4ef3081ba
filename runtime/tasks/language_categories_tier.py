"""A tier of a moderator that asks a generative model about categories; no text is generated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from sprat.asked_manifest import Categories
from sprat.bundle_manifest import AskedModeration, BundleManifest, Thresholds
from sprat.calibration import category_chances
from sprat.engine.base import Chosen
from sprat.errors import EngineError
from sprat.model import Choices, GenerativeModel
from sprat.model.common import readable
from sprat.model.instructed import PROBES
from sprat.scheduler import Mailbox
from sprat.tasks import choose, decide
from sprat.tasks.moderate_tier import Finding, Moderated
from sprat.tasks.scan import Floats, Piece, Scan, highest
from sprat.tasks.tier import ModelTier
from sprat.values import IntArray, ItemError, LabelSet, QuestionSet

WAVE = 16
"""Windows that are asked about together: as many as a model works on side by side, twice. A long
text does not fill the model's queue, and a cancelled call ends soon."""


@dataclass(frozen=True, slots=True, eq=False)
class LanguageCategoriesTier(ModelTier[GenerativeModel]):
    """Categories with their descriptions, asked of a generative model, and their calibration.

    See `sprat.tasks.moderate_tier.ModerateTier`, and `sprat.tasks.scan` for how texts are read. The
    span of a category is the window in which it is most probable. What prompts begin with is read
    once and kept by the model.

    Attributes
    ----------
    asked : Categories
        The same categories, in the order in which the model reads them. The model is loaded with
        its adapter.
    settings : AskedModeration
        Calibration and thresholds.
    """

    writes: ClassVar[bool] = False
    asked: Categories
    settings: AskedModeration
    _spec: LabelSet | QuestionSet = field(init=False)
    _columns: IntArray = field(init=False)

    def __post_init__(self) -> None:
        places = {label.name: place for place, label in enumerate(self.asked.categories)}
        columns = np.array([places[label] for label in self.labels], np.int32)
        object.__setattr__(self, "_columns", columns)
        object.__setattr__(self, "_spec", self.asked.spec(self.model.info.name))

    @classmethod
    def of(
        cls, manifest: BundleManifest, place: int, model: GenerativeModel
    ) -> LanguageCategoriesTier:
        """The language tier at a place of a moderate bundle, on a model with its adapter.

        Raises
        ------
        InvalidInput
            The model cannot be asked that, such as more categories than it takes.
        TaskNotSupported
            The model has no chat template.
        """
        tier = manifest.tiers[place]
        assert isinstance(tier.language, Categories)  # a moderate bundle has such sections
        assert isinstance(tier.moderation, AskedModeration)
        made = cls(tier.name, manifest.labels, tier.whole, model, tier.language, tier.moderation)
        if isinstance(made._spec, LabelSet):
            choose.check(model, made._spec)
        else:
            decide.check(model, made._spec)
        return made

    @property
    def thresholds(self) -> tuple[Thresholds, ...]:
        """From which probabilities on it acts."""
        return self.settings.thresholds

    def acting_at(self, thresholds: tuple[Thresholds, ...]) -> LanguageCategoriesTier:
        """The same with other thresholds, for which nothing was calibrated."""
        settings = self.settings.model_copy(update={"thresholds": thresholds})
        return replace(self, settings=settings, calibration=None)

    async def warm_up(self, mailbox: Mailbox) -> None:
        """Have the model read the questions, and what else comes before a text."""
        await self.ask(PROBES[1:], math.inf, mailbox)

    async def judge(
        self, texts: Sequence[str], *, partial: bool, deadline: float, mailbox: Mailbox
    ) -> Moderated:
        """Moderate texts of any length: see `ModerateTier.judge`."""
        errors: list[ItemError] = []
        good = readable(texts, errors, partial)
        scan = _Scan(self, texts, deadline, mailbox)
        scores = await scan.windows(good, self.asked.window, self.asked.overlap)
        found = {
            index: Finding(highest(scores[index]), len(scores[index]), scan.input_tokens[index])
            for index in good
            if index not in scan.failed
        }
        return Moderated.of(
            self,
            texts,
            found,
            calibration=self.calibration,
            failed=scan.failed,
            errors=errors,
            cpu_ns=scan.cpu_ns,
            tokenize_ns=scan.tokenize_ns,
            queue_ns=scan.queue_ns,
            infer_ns=scan.infer_ns,
        )

    async def ask(self, texts: Sequence[str], deadline: float, mailbox: Mailbox) -> Choices:
        """What the model says of texts; those that it fails on or that are too long are listed."""
        if isinstance(self._spec, LabelSet):
            return await choose.ask(
                *(self.model, texts, self._spec),
                partial=True,
                keep_going=True,
                deadline=deadline,
                mailbox=mailbox,
            )
        return await decide.ask(
            *(self.model, texts, self._spec),
            partial=True,
            keep_going=True,
            deadline=deadline,
            mailbox=mailbox,
        )

    def chances(self, chosen: Sequence[Chosen]) -> Floats:
        """Calibrated probabilities of the categories, float64[K], from the choices of a text."""
        if self.asked.clean is None:
            said = np.array([each.probabilities[0] for each in chosen])  # yes comes first
        else:
            said = chosen[0].probabilities
        chances: Floats = category_chances(said[self._columns][None], self.settings.odds)[0]
        return chances


class _Scan(Scan):
    """What a generative model says of one call's texts."""

    def __init__(
        self,
        tier: LanguageCategoriesTier,
        texts: Sequence[str],
        deadline: float,
        mailbox: Mailbox,
    ) -> None:
        super().__init__(texts, tier.model.info.name, tier.model.pool, wave=WAVE)
        self._tier = tier
        self._deadline = deadline
        self._mailbox = mailbox

    async def read(self, pieces: Sequence[Piece], texts: Sequence[str]) -> list[Floats | None]:
        """See `Scan.read`."""
        choices = await self._tier.ask(texts, self._deadline, self._mailbox)
        made: list[Floats | None] = [None] * len(pieces)
        for (number, tokens), chosen, spent in zip(
            choices.kept, choices.chosen, choices.cpu_ns, strict=True
        ):
            made[number] = self._tier.chances(chosen)
            self.input_tokens[pieces[number].text] += tokens
            self.cpu_ns[pieces[number].text] += spent
        for number in choices.failed:
            self._fail(pieces[number].text, "failed on")
        for error in choices.errors:
            # A window is readable, so it is too long; a single character should never be.
            if (piece := pieces[error.index]).end - piece.start == 1:
                self._fail(piece.text, "has no room for")
        self.tokenize_ns += choices.tokenize_ns
        self.queue_ns += choices.queue_ns
        self.infer_ns += choices.infer_ns
        return made

    def _fail(self, index: int, how: str) -> None:
        name = self._tier.model.info.name
        self.failed.setdefault(index, EngineError(f"model {name} {how} texts[{index}]"))
