"""Classify: the label that the tiers of a bundle say, and the honesty to abstain."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sprat.scheduler import Mailbox
from sprat.tasks.cascade import Escalation
from sprat.tasks.tier import Judged, Tier, check_request
from sprat.values import Classification, ClassifyResult, Effort, Truncation


class ClassifyTask(Escalation[Tier, Classification]):
    """A classifier: the tiers of a bundle of kind classify or route, one or several."""

    async def run(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> ClassifyResult:
        """Classify texts.

        Parameters
        ----------
        top_k : int, optional
            How many scores to return, from 1; absent: all labels.

        See `Escalation.answer` and `sprat.tasks.tier.Tier.judge` for the others and for what is
        raised.
        """
        check_request(top_k, effort, calibrated=self._has_confidence)
        ask = self.asking(top_k=top_k, truncation=truncation, partial=partial, mailbox=mailbox)
        return await self.answer(
            texts, ask, ClassifyResult, partial=partial, effort=effort, deadline=deadline
        )

    @staticmethod
    def asking(
        *, top_k: int | None, truncation: Truncation, partial: bool, mailbox: Mailbox
    ) -> Callable[[Tier, Sequence[str], float], Coroutine[Any, Any, Judged]]:
        """How a tier is asked; see `run`."""

        def ask(tier: Tier, texts: Sequence[str], deadline: float) -> Coroutine[Any, Any, Judged]:
            return tier.judge(
                texts,
                top_k=top_k,
                truncation=truncation,
                partial=partial,
                deadline=deadline,
                mailbox=mailbox,
            )

        return ask
