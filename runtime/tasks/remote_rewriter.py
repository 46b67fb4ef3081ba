"""A tier of a transform task that asks an endpoint to rewrite a text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from sprat.asked_manifest import RemoteRewriting
from sprat.bundle_manifest import BundleManifest, Sureness
from sprat.endpoints.base import Endpoint, SaidText, TextQuestion
from sprat.engine.llama_grammar import Checker
from sprat.errors import SpratError
from sprat.scheduler import Mailbox
from sprat.tasks.remote_tier import EndpointTier
from sprat.tasks.rewrite_tier import OnText, Rewritten, confidence_of, how_sure
from sprat.text.leaves import read, write
from sprat.values import Chunk, Timings


@dataclass(frozen=True, slots=True, eq=False)
class RemoteRewriter(EndpointTier[SaidText]):
    """A prompt for an endpoint, and how sure its answers are; a `RewriteTier`.

    What comes back is held to the grammar of the task here. JSON loses the white space between its
    tokens, so that it looks the same whatever tier it is from.

    Attributes
    ----------
    sureness : Sureness or None
        None: the confidence of the task that is asked stands for the chance of an answer.
    grammar : Checker or None
        What answers have to fit.
    is_json : bool
        Whether that is a JSON Schema.
    """

    question: TextQuestion
    sureness: Sureness | None
    grammar: Checker | None
    is_json: bool

    @classmethod
    def of(cls, manifest: BundleManifest, place: int, endpoint: Endpoint) -> RemoteRewriter:
        """The tier at a place of a bundle, on an endpoint.

        Raises
        ------
        ConfigError
            The endpoint is not what the tier was calibrated with.
        InvalidInput
            A sampling parameter cannot be used.
        """
        tier = manifest.tiers[place]
        assert manifest.transform is not None
        asked, grammar = cast(RemoteRewriting, tier.remote), manifest.transform.grammar
        is_json = grammar is not None and grammar.kind == "json_schema"
        question = endpoint.texts(
            asked,
            schema=grammar.source if grammar is not None and is_json else None,
            has_logprobs=tier.sureness is not None,
        )
        return cls(
            *(tier.name, manifest.labels, asked, tier.whole, endpoint, question, tier.sureness),
            *(None if grammar is None else Checker(grammar), is_json),
        )

    async def judge(
        self,
        text: str,
        *,
        inputs: Mapping[str, str],
        on_text: OnText | None,
        deadline: float,
        mailbox: Mailbox,
    ) -> Rewritten:
        """See `RewriteTier.judge`. An answer comes at once, not in pieces."""
        started = time.perf_counter_ns()
        (said,) = await self.question.ask([text], inputs=inputs, deadline=deadline)
        if isinstance(said, SpratError):
            raise said
        answer, fits = self._settled(said.text)
        is_sound = said.complete and fits
        if self.sureness is not None:
            sure = how_sure(said.logprobs, self.sureness, self.calibration, is_sound=is_sound)
        else:
            sure = confidence_of(said.confidence if is_sound else 0.0, self.calibration)
        return Rewritten.of(
            Chunk(
                answer,
                "stop" if said.complete else "length",
                prompt_tokens=said.input_tokens,
                output_tokens=said.output_tokens,
                complete=is_sound,
                timings=Timings(infer_ns=time.perf_counter_ns() - started),
                model=self.identity.name,
                model_version=self.identity.version,
            ),
            sure,
            () if self.sureness is None else said.logprobs,
        )

    def _settled(self, text: str) -> tuple[str, bool]:
        """An answer as the task gives it, and whether it fits the grammar."""
        if self.grammar is None:
            return text, True
        if self.is_json:
            try:
                text = write(read(text))
            except ValueError:
                return text, False
        return text, self.grammar.fits(text)
