"""What a transform task needs of a tier, and the tier that is a model of this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from sprat.asked_manifest import Rewriting
from sprat.bundle_manifest import BundleManifest, Calibration, Sureness
from sprat.calibration import chance_of_rewriting, confidences_of_rewritings
from sprat.errors import EngineError
from sprat.model import GenerativeModel
from sprat.scheduler import Mailbox
from sprat.tasks import transform
from sprat.tasks.tier import AnyTier, ModelTier, Whole
from sprat.values import Chunk, TokenChoice, TransformSpec

OnText = Callable[[str], None]
"""Is given the pieces of an answer while it is made."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rewritten(Whole[Chunk]):
    """What a tier makes of a text: one answer, with all of its text.

    Attributes
    ----------
    logprobs : tuple of float
        Natural logarithm of the probability of each token that no grammar forced, where the tier
        has a use for them.
    """

    logprobs: tuple[float, ...] = ()

    def label(self, row: int) -> str:
        """None: a text is no word."""
        return ""

    def withheld(self, own: Chunk) -> Chunk:
        """Without its text."""
        return replace(own, text="")

    @classmethod
    def of(
        cls, answer: Chunk, confidence: float | None, logprobs: Sequence[float] = ()
    ) -> Rewritten:
        """The answer to a text: its last chunk, with the text of all."""
        return cls(
            index=[0],
            failed={},
            confidence=[confidence],
            cpu_ns=[round((answer.cpu_ms or 0.0) * 1e6)],
            errors=(),
            tokenize_ns=answer.timings.tokenize_ns,
            queue_ns=answer.timings.queue_ns,
            infer_ns=answer.timings.infer_ns,
            answers=[answer],
            logprobs=tuple(logprobs),
        )


class RewriteTier(AnyTier, Protocol):
    """A tier of a transform task: a language model, or another machine."""

    async def judge(
        self,
        text: str,
        *,
        inputs: Mapping[str, str],
        on_text: OnText | None,
        deadline: float,
        mailbox: Mailbox,
    ) -> Rewritten:
        """Rewrite a text. To cancel it gives up what it has begun.

        Parameters
        ----------
        inputs : mapping of str to str
            Values of the prompt's placeholders, but for that of the text.
        on_text : callable or None
            Is given the answer piece by piece, where the tier makes it so.
        deadline : float
            `time.monotonic` value after which the answer is of no use.

        Raises
        ------
        InvalidInput, InputTooLong
            For a text or an input that cannot be used, and inputs that are not the prompt's.
        QueueFull, DeadlineExceeded, EngineError
            It has too much to do, cannot answer in time, or fails: then the tier is missed.
        NotReady
            It is being unloaded.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LanguageRewriter(ModelTier[GenerativeModel]):
    """A prompt for a generative model, and how sure its answers are; a `RewriteTier`.

    Attributes
    ----------
    spec : TransformSpec
        What is asked. The model is loaded with its adapter.
    sureness : Sureness or None
        Without it, or a calibration, answers have no confidence.
    """

    writes: ClassVar[bool] = True
    spec: TransformSpec
    sureness: Sureness | None

    @classmethod
    def of(cls, manifest: BundleManifest, place: int, model: GenerativeModel) -> LanguageRewriter:
        """The language tier at a place of a bundle, on a model with its adapter.

        Raises
        ------
        InvalidInput
            The model cannot be asked that, such as a grammar which it cannot follow.
        TaskNotSupported
            The model has no chat template.
        """
        tier = manifest.tiers[place]
        assert isinstance(tier.language, Rewriting)
        assert manifest.transform is not None
        spec = tier.language.spec(model.info.name, manifest.transform.grammar)
        transform.check(model, spec)
        return cls(tier.name, manifest.labels, tier.whole, model, spec, tier.sureness)

    async def warm_up(self, mailbox: Mailbox) -> None:
        """Have the model read what prompts begin with."""
        await transform.warm_up(self.model, self.spec, mailbox=mailbox)

    async def judge(
        self,
        text: str,
        *,
        inputs: Mapping[str, str],
        on_text: OnText | None,
        deadline: float,
        mailbox: Mailbox,
    ) -> Rewritten:
        """See `RewriteTier.judge`."""
        chunks = transform.run(
            self.model,
            text,
            self.spec,
            inputs=inputs,
            logprobs=None if self.sureness is None else 0,
            deadline=deadline,
            mailbox=mailbox,
        )
        pieces: list[str] = []
        tokens: list[TokenChoice] = []
        async with aclosing(chunks):
            async for last in chunks:
                pieces.append(last.text)
                tokens += last.logprobs
                if on_text is not None and last.text:
                    on_text(last.text)
        answer = replace(last, text="".join(pieces), logprobs=())
        logprobs = unforced(tokens, has_grammar=self.spec.grammar is not None)
        sure = how_sure(logprobs, self.sureness, self.calibration, is_sound=answer.complete)
        if sure is not None and math.isnan(sure):
            raise EngineError(f"model {self.model.info.name} has no scores for the text")
        return Rewritten.of(answer, sure, logprobs)


def unforced(tokens: Sequence[TokenChoice], *, has_grammar: bool) -> list[float]:
    """Log-probabilities of the tokens of an answer that a grammar did not force.

    Of those that it forced they are 0: see `sprat.engine.base.Progress`.
    """
    given = [token.chosen.logprob for token in tokens]
    return [each for each in given if each] if has_grammar else given


def how_sure(
    logprobs: Sequence[float],
    sureness: Sureness | None,
    calibration: Calibration | None,
    *,
    is_sound: bool,
) -> float | None:
    """Confidence in an answer, in [0, 1]; NaN where a log-probability is.

    None without sureness, or without a calibration. See `sprat.calibration.chance_of_rewriting` for
    the parameters.
    """
    if sureness is None:
        return None
    chance = chance_of_rewriting(logprobs, sureness, is_sound=is_sound)
    return confidence_of(chance, calibration)


def confidence_of(chance: float, calibration: Calibration | None) -> float | None:
    """Confidence in an answer of such a chance; None without a calibration."""
    if calibration is None:
        return None
    return float(confidences_of_rewritings(np.array([chance]), calibration)[0])
