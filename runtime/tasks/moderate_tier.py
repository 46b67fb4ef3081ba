"""A tier of a moderator: which categories a text falls into, and where the reason stands.

A text longer than the task's window is scanned in overlapping windows, and the highest probability
among them counts: nothing is cut off, and nothing hides behind a long preface. Windows of more
tokens than the model takes are halved until they fit. Then, for texts that are flagged, the window
that is to blame is looked at more closely: where a sentence or a few words of it reach the
threshold by themselves, these are the span that is reported.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sprat.bundle import Bundle
from sprat.bundle_manifest import Moderation as ModerationSettings
from sprat.bundle_manifest import Thresholds
from sprat.calibration import chance_of_actions, confidences
from sprat.errors import EngineError, SpratError
from sprat.head import Head
from sprat.model import EmbeddingModel, Encoded
from sprat.model.common import readable
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks.tier import ModelTier, Whole
from sprat.text.ngrams import with_ngrams
from sprat.text.windows import halved, windows
from sprat.tokenizer import is_visible
from sprat.values import (
    Action,
    CategoryScore,
    FloatArray,
    ItemError,
    Moderation,
)

INLINE_CHARACTERS = 2048
"""Texts up to this long together are worked on on the event loop, longer ones in the pool."""

WAVE = 64
"""Windows that are scored together: enough for full batches, and few enough that a long text does
not fill the model's queue, and that a cancelled call ends soon."""

CLOSE_UP = 80
"""Characters of the parts in which a flagged window is looked at more closely: a short sentence."""

_SEVERITY: dict[Action, int] = {"allow": 0, "flag": 1, "block": 2}

_Floats = npt.NDArray[np.float64]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Part:
    """Characters ``start`` to ``end`` of a text of the request."""

    text: int
    start: int
    end: int

    def cut(self, texts: Sequence[str], room: int, overlap: int) -> list[_Part]:
        """Windows of it that hold anything visible."""
        whole = texts[self.text][self.start : self.end]
        return [
            _Part(self.text, self.start + start, self.start + end)
            for start, end in windows(whole, room, overlap)
            if is_visible(whole[start:end])
        ]


_Scores = dict[int, list[tuple[_Part, _Floats]]]
"""By text: its parts with the probability of each category, float64[K]."""


class Moderated(Whole[Moderation]):
    """What a tier of a moderator says of N texts."""

    __slots__ = ()

    def label(self, row: int) -> str:
        """The category that it would flag the text for."""
        return self.answers[row].category or "allow"

    def withheld(self, own: Moderation) -> Moderation:
        """What nobody is sure of is flagged."""
        return replace(own, action="flag", category="")


@dataclass(frozen=True, slots=True, eq=False)
class ModerateTier(ModelTier[EmbeddingModel]):
    """The heads of one tier, one a category, on the model that they were fitted on.

    Its confidence is that a text is flagged for the right categories.

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
    ) -> ModerateTier:
        """The tier at a place of a bundle."""
        manifest = bundle.manifest
        tier = manifest.tiers[place]
        assert tier.moderation is not None  # the manifest of a moderate bundle has it
        return cls(
            *(tier.name, manifest.labels, tier.whole, model),
            *(bundle.heads[place], tier.moderation, pool),
        )

    def acting_at(self, thresholds: tuple[Thresholds, ...]) -> ModerateTier:
        """The same with other thresholds, for which nothing was calibrated."""
        settings = self.settings.model_copy(update={"thresholds": thresholds})
        return replace(self, settings=settings, calibration=None)

    async def judge(
        self, texts: Sequence[str], *, partial: bool, deadline: float, mailbox: Mailbox
    ) -> Moderated:
        """Moderate texts of any length.

        Parameters
        ----------
        partial : bool
            List bad texts, instead of raising.
        deadline : float
            `time.monotonic` value after which the answer is of no use.

        Raises
        ------
        InvalidInput
            For the first bad text, unless ``partial``.
        QueueFull, DeadlineExceeded, NotReady
            When the model cannot take the work on.
        """
        errors: list[ItemError] = []
        good = readable(texts, errors, partial)
        scan = _Scan(self, texts, deadline, mailbox)
        found = await scan.windows(good)
        # Scoring a window more closely reads its tokens again; that is not counted.
        input_tokens = list(scan.input_tokens)
        best = {index: _best(scores) for index, scores in found.items()}
        failed: dict[int, SpratError] = {
            index: EngineError(f"model {self.model.info.name} has no scores for texts[{index}]")
            for index in good
            if any(math.isnan(probability) for _, probability in best[index])
        }
        best = {index: best[index] for index in good if index not in failed}
        closer = await scan.closer(best)
        return Moderated(
            index=list(best),
            failed=failed,
            confidence=self._confidence(best),
            cpu_ns=scan.cpu_ns,
            errors=errors,
            tokenize_ns=scan.tokenize_ns,
            queue_ns=scan.queue_ns,
            infer_ns=scan.infer_ns,
            answers=[
                self._answer(
                    texts[index],
                    of_category,
                    closer.get(index, []),
                    len(found[index]),
                    input_tokens[index],
                )
                for index, of_category in best.items()
            ],
        )

    def _confidence(self, best: Mapping[int, Sequence[tuple[_Part, float]]]) -> list[float | None]:
        if self.calibration is None or not best:
            return [None] * len(best)
        probability_nk = np.array([[chance for _, chance in row] for row in best.values()])
        chance_n = chance_of_actions(probability_nk, self.settings.thresholds)
        confidence_n: list[float | None] = confidences(chance_n, self.calibration).tolist()
        return confidence_n

    def _answer(
        self,
        text: str,
        best: Sequence[tuple[_Part, float]],
        closer: Sequence[tuple[_Part, _Floats]],
        chunks: int,
        input_tokens: int,
    ) -> Moderation:
        categories = []
        for column, (name, limits, (part, probability)) in enumerate(
            zip(self.labels, self.settings.thresholds, best, strict=True)
        ):
            action = _action(probability, limits)
            if action != "allow":
                inside = [
                    (float(chances[column]), each)
                    for each, chances in closer
                    if part.start <= each.start and each.end <= part.end
                ]
                highest, narrow = max(inside, key=lambda found: found[0], default=(0.0, part))
                part = narrow if highest >= limits.flag_at else part
            start, end = _trimmed(text, part)
            categories.append(CategoryScore(name, probability, action, start, end))
        worst = max(categories, key=lambda each: (_SEVERITY[each.action], each.probability))
        return Moderation(
            action=worst.action,
            category="" if worst.action == "allow" else worst.category,
            categories=tuple(categories),
            chunks=chunks,
            input_tokens=input_tokens,
        )


class _Scan:
    """The scoring of one call's texts, with its counts and times."""

    def __init__(
        self,
        tier: ModerateTier,
        texts: Sequence[str],
        deadline: float,
        mailbox: Mailbox,
    ) -> None:
        self._tier = tier
        self._texts = texts
        self._deadline = deadline
        self._mailbox = mailbox
        self.input_tokens, self.cpu_ns = [0] * len(texts), [0] * len(texts)
        self.tokenize_ns = self.queue_ns = self.infer_ns = 0

    async def windows(self, indices: Sequence[int]) -> _Scores:
        """Scores of the windows of texts, at least one for each."""

        def cut() -> list[_Part]:
            room, overlap = self._tier.settings.window, self._tier.settings.overlap
            whole = (_Part(index, 0, len(self._texts[index])) for index in indices)
            return [part for each in whole for part in each.cut(self._texts, room, overlap)]

        characters = sum(len(self._texts[index]) for index in indices)
        return await self._score(await self._compute(characters, cut))

    async def closer(self, best: Mapping[int, Sequence[tuple[_Part, float]]]) -> _Scores:
        """Scores of parts of those windows that got a text flagged."""
        flagged = dict.fromkeys(
            part
            for of_category in best.values()
            for (part, probability), limits in zip(
                of_category, self._tier.settings.thresholds, strict=True
            )
            if probability >= limits.flag_at and part.end - part.start > CLOSE_UP
        )
        return await self._score(
            [each for part in flagged for each in part.cut(self._texts, CLOSE_UP, 0)]
        )

    async def _score(self, parts: Sequence[_Part]) -> _Scores:
        waiting = deque(parts)
        scores: _Scores = {}
        while waiting:
            wave = [waiting.popleft() for _ in range(min(WAVE, len(waiting)))]
            pieces = [self._texts[each.text][each.start : each.end] for each in wave]
            encoded = await self._tier.model.encode(
                pieces, truncation="truncate", deadline=self._deadline, mailbox=self._mailbox
            )
            self._count(wave, encoded)
            fitting = []
            for number, part in enumerate(wave):
                if encoded.dropped_tokens[number] and (length := part.end - part.start) > 1:
                    waiting.extend(part.cut(self._texts, *halved(length)))
                else:
                    fitting.append(number)
            chances_wk = await self._compute(
                sum(map(len, pieces)),
                functools.partial(
                    self._chances, encoded.vectors[fitting], [pieces[i] for i in fitting]
                ),
            )
            for number, chances in zip(fitting, chances_wk, strict=True):
                scores.setdefault(wave[number].text, []).append((wave[number], chances))
        return scores

    def _chances(self, vectors_wd: FloatArray, pieces: Sequence[str]) -> _Floats:
        features = with_ngrams(vectors_wd, pieces, self._tier.settings.ngram_buckets)
        return self._tier.head.probabilities(features)

    def _count(self, wave: Sequence[_Part], encoded: Encoded) -> None:
        for part, tokens, spent in zip(wave, encoded.input_tokens, encoded.cpu_ns, strict=True):
            self.input_tokens[part.text] += tokens
            self.cpu_ns[part.text] += spent
        self.tokenize_ns += encoded.tokenize_ns
        self.queue_ns += encoded.queue_ns
        self.infer_ns += encoded.infer_ns

    async def _compute(self, characters: int, call: Callable[[], _Result]) -> _Result:
        """Run ``call``, which reads so many characters, on the event loop or in the pool."""
        if characters <= INLINE_CHARACTERS:
            return call()
        return await self._tier.pool.run(self._tier.model.info.name, call)


def _best(scores: Sequence[tuple[_Part, _Floats]]) -> list[tuple[_Part, float]]:
    """For each category the part that scored highest, the first of equal ones."""
    chances_wk = np.stack([chances for _, chances in scores])
    return [
        (scores[row][0], float(chances_wk[row, column]))
        for column, row in enumerate(chances_wk.argmax(axis=0).tolist())
    ]


def _action(probability: float, limits: Thresholds) -> Action:
    if limits.block_at is not None and probability >= limits.block_at:
        return "block"
    return "flag" if probability >= limits.flag_at else "allow"


def _trimmed(text: str, part: _Part) -> tuple[int, int]:
    """Its characters without the white space around them."""
    piece = text[part.start : part.end]
    start = part.start + len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())
