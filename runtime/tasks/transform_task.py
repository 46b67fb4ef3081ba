"""Transform by a bundle: language models and endpoints that rewrite a text, the cheapest first."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sprat.errors import DeadlineExceeded, EngineError
from sprat.scheduler import Mailbox
from sprat.tasks.cascade import Escalation
from sprat.tasks.rewrite_tier import OnText, RewriteTier, Rewritten
from sprat.values import Chunk, Effort, TransformResult


class TransformTask(Escalation[RewriteTier, Chunk]):
    """A transform task: the tiers of a bundle that rewrite a text.

    An answer that another tier may still replace is held back until it is accepted, and then sent
    at once. A tier whose threshold is 0 has its answer sent while it is made, unless the request
    has a budget, which might end it halfway. If it fails on the way, so does the call: what was
    sent cannot be taken back, whatever ``on_failure`` says.

    See `sprat.tasks.cascade.Escalation` for the parameters.
    """

    async def run(
        self,
        text: str,
        *,
        inputs: Mapping[str, str] | None = None,
        effort: Effort = Effort(),
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the rewritten text. Closing the iterator gives up what was begun.

        Parameters
        ----------
        inputs : mapping of str to str, optional
            Values of the prompt's placeholders, but for that of the text; each may be empty.

        See `sprat.tasks.cascade.Escalation.answer` for the others and for what is raised.

        Yields
        ------
        Chunk
            The last one says which tier answered and how sure it is; where the task abstained it
            is the only one, and has no text.

        Raises
        ------
        InvalidInput, InputTooLong
            For inputs that are not those of the prompt, a text or an input that cannot be used,
            and a prompt that does not fit with them into the context of a model that is asked.
        """
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def ask(
            tier: RewriteTier, texts: Sequence[str], until: float
        ) -> Coroutine[Any, Any, Rewritten]:
            on_text: OnText | None = pieces.put_nowait if self._is_final(tier, effort) else None
            return tier.judge(
                texts[0], inputs=inputs or {}, on_text=on_text, deadline=until, mailbox=mailbox
            )

        answering = asyncio.ensure_future(
            self.answer(
                [text], ask, TransformResult, partial=False, effort=effort, deadline=deadline
            )
        )
        answering.add_done_callback(lambda _: pieces.put_nowait(None))
        is_begun = False
        try:
            while (piece := await pieces.get()) is not None:
                is_begun = True
                yield Chunk(piece)
            result = await answering
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        (item,) = result.items
        assert item is not None
        if is_begun and item.degraded is not None:
            why = f"task {self._info.name}: a tier gave up its answer, which was sent in part"
            raise (DeadlineExceeded if item.degraded == "no_time" else EngineError)(why)
        yield replace(
            item,
            text="" if is_begun else item.text,
            calibrated=result.calibrated,
            task_version=result.task_version,
            timings=result.timings,
        )

    def _is_final(self, tier: RewriteTier, effort: Effort) -> bool:
        """Whether what a tier says is the answer, however sure it is, and comes to its end."""
        accept_at = self._accept_at[self._tiers.index(tier)]
        if effort.accept_at is not None:
            accept_at = effort.accept_at
        return accept_at == 0 and effort.budget_ms is None
