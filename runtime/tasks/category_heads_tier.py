"""A tier of a moderator that has heads on vectors: see `sprat.tasks.scan` for how texts are read.

For texts that are flagged, the window that is to blame is looked at more closely: where a sentence
or a few words of it reach the threshold by themselves, these are the span that is reported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sprat.bundle import Bundle
from sprat.bundle_manifest import Moderation as ModerationSettings
from sprat.bundle_manifest import Thresholds
from sprat.head import Head
from sprat.model import EmbeddingModel, Encoded
from sprat.model.common import readable
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks.moderate_tier import Finding, Moderated
from sprat.tasks.scan import Floats, Piece, Scan, Scores, highest
from sprat.tasks.tier import ModelTier
from sprat.text.ngrams import with_ngrams
from sprat.values import FloatArray, ItemError

WAVE = 64
"""Windows that are scored together: enough for full batches, and few enough that a long text does
not fill the model's queue, and that a cancelled call ends soon."""

CLOSE_UP = 80
"""Characters of the parts in which a flagged window is looked at more closely: a short sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class CategoryHeadsTier(ModelTier[EmbeddingModel]):
    """The heads of one tier, one a category, on the model that they were fitted on.

    See `sprat.tasks.moderate_tier.ModerateTier`.

    Attributes
    ----------
    head : Head
        With a row for each category.
    settings : Moderation
        Windows and thresholds.
    pool : ComputePool
        Where long texts are worked on.
    """

    head: Head
    settings: ModerationSettings
    pool: ComputePool

    @classmethod
    def of(
        cls, bundle: Bundle, place: int, model: EmbeddingModel, pool: ComputePool
    ) -> CategoryHeadsTier:
        """The tier at a place of a bundle."""
        manifest = bundle.manifest
        tier = manifest.tiers[place]
        assert isinstance(tier.moderation, ModerationSettings)  # a tier with heads has it
        return cls(
            *(tier.name, manifest.labels, tier.whole, model),
            *(bundle.heads[place], tier.moderation, pool),
        )

    @property
    def thresholds(self) -> tuple[Thresholds, ...]:
        """From which probabilities on it acts."""
        return self.settings.thresholds

    def acting_at(self, thresholds: tuple[Thresholds, ...]) -> CategoryHeadsTier:
        """The same with other thresholds, for which nothing was calibrated."""
        settings = self.settings.model_copy(update={"thresholds": thresholds})
        return replace(self, settings=settings, calibration=None)

    async def judge(
        self, texts: Sequence[str], *, partial: bool, deadline: float, mailbox: Mailbox
    ) -> Moderated:
        """Moderate texts of any length: see `ModerateTier.judge`."""
        errors: list[ItemError] = []
        good = readable(texts, errors, partial)
        scan = _Scan(self, texts, deadline, mailbox)
        scores = await scan.windows(good, self.settings.window, self.settings.overlap)
        # Scoring a window more closely reads its tokens again; that is not counted.
        found = {
            index: Finding(highest(scores[index]), len(scores[index]), scan.input_tokens[index])
            for index in good
        }
        closer = await scan.closer({at: each for at, each in found.items() if each.is_number})
        return Moderated.of(
            self,
            texts,
            {at: self._narrowed(each, closer.get(at, [])) for at, each in found.items()},
            calibration=self.calibration,
            failed={},
            errors=errors,
            cpu_ns=scan.cpu_ns,
            tokenize_ns=scan.tokenize_ns,
            queue_ns=scan.queue_ns,
            infer_ns=scan.infer_ns,
        )

    def _narrowed(self, found: Finding, closer: Sequence[tuple[Piece, Floats]]) -> Finding:
        """The same with smaller pieces, where these reach the threshold by themselves."""
        reasons = []
        for column, (limits, (piece, probability)) in enumerate(
            zip(self.thresholds, found.reasons, strict=True)
        ):
            if probability >= limits.flag_at:
                inside = [
                    (float(chances[column]), each)
                    for each, chances in closer
                    if piece.start <= each.start and each.end <= piece.end
                ]
                most, narrow = max(inside, key=lambda each: each[0], default=(0.0, piece))
                piece = narrow if most >= limits.flag_at else piece
            reasons.append((piece, probability))
        return replace(found, reasons=reasons)


class _Scan(Scan):
    """The scoring of one call's texts by heads."""

    def __init__(
        self,
        tier: CategoryHeadsTier,
        texts: Sequence[str],
        deadline: float,
        mailbox: Mailbox,
    ) -> None:
        super().__init__(texts, tier.model.info.name, tier.pool, wave=WAVE)
        self._tier = tier
        self._deadline = deadline
        self._mailbox = mailbox

    async def closer(self, found: Mapping[int, Finding]) -> Scores:
        """Scores of parts of those windows that got a text flagged."""
        flagged = dict.fromkeys(
            piece
            for each in found.values()
            for (piece, probability), limits in zip(
                each.reasons, self._tier.thresholds, strict=True
            )
            if probability >= limits.flag_at and piece.end - piece.start > CLOSE_UP
        )
        return await self.score(
            [each for piece in flagged for each in piece.cut(self.texts, CLOSE_UP, 0)]
        )

    async def read(self, pieces: Sequence[Piece], texts: Sequence[str]) -> list[Floats | None]:
        """See `Scan.read`. What is too long and cannot be cut is truncated."""
        encoded = await self._tier.model.encode(
            texts, truncation="truncate", deadline=self._deadline, mailbox=self._mailbox
        )
        self._count(pieces, encoded)
        fitting = [
            number
            for number, piece in enumerate(pieces)
            if not encoded.dropped_tokens[number] or piece.end - piece.start == 1
        ]
        chances_wk = await self.compute(
            sum(map(len, texts)),
            functools.partial(self._chances, encoded.vectors[fitting], [texts[i] for i in fitting]),
        )
        made: list[Floats | None] = [None] * len(pieces)
        for number, chances in zip(fitting, chances_wk, strict=True):
            made[number] = chances
        return made

    def _chances(self, vectors_wd: FloatArray, texts: Sequence[str]) -> Floats:
        features = with_ngrams(vectors_wd, texts, self._tier.settings.ngram_buckets)
        return self._tier.head.probabilities(features)

    def _count(self, pieces: Sequence[Piece], encoded: Encoded) -> None:
        for piece, tokens, spent in zip(pieces, encoded.input_tokens, encoded.cpu_ns, strict=True):
            self.input_tokens[piece.text] += tokens
            self.cpu_ns[piece.text] += spent
        self.tokenize_ns += encoded.tokenize_ns
        self.queue_ns += encoded.queue_ns
        self.infer_ns += encoded.infer_ns
