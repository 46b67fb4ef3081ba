"""Extract by a bundle: the fields of texts, from taggers, language models or other machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, get_args

from sprat.errors import InvalidInput
from sprat.scheduler import Mailbox
from sprat.tasks.cascade import Escalation
from sprat.tasks.extract_tier import Extracted, ExtractTier
from sprat.values import Effort, Extraction, ExtractResult, LongInput


class ExtractTask(Escalation[ExtractTier, Extraction]):
    """An extract task: the tiers of a bundle of kind extract, one or several.

    See `sprat.tasks.cascade.Escalation` for the parameters.
    """

    async def run(
        self,
        texts: Sequence[str],
        *,
        requested: Sequence[str] = (),
        long_input: LongInput = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> ExtractResult:
        """Find the fields of each text.

        Parameters
        ----------
        requested : sequence of str
            Fields that the texts were asked for; none where nothing is known.
        long_input : {"refuse", "chunk"}
            What happens to a text of more tokens than a tier takes. Endpoints get texts whole.

        See `sprat.tasks.cascade.Escalation.answer` for the others and for what is raised.

        Raises
        ------
        InvalidInput
            For a requested field that the task does not have.
        """
        if long_input not in get_args(LongInput):
            raise InvalidInput(
                f"long_input: expected refuse or chunk, got {long_input!r}", field="long_input"
            )
        for index, field in enumerate(requested):
            if field not in self._info.labels:
                known = ", ".join(self._info.labels)
                raise InvalidInput(
                    f"requested[{index}]: no field of this task, which has {known}",
                    field=f"requested[{index}]",
                )
        ask = self.asking(
            requested=requested, long_input=long_input, partial=partial, mailbox=mailbox
        )
        return await self.answer(
            texts, ask, ExtractResult, partial=partial, effort=effort, deadline=deadline
        )

    @staticmethod
    def asking(
        *, requested: Sequence[str], long_input: LongInput, partial: bool, mailbox: Mailbox
    ) -> Callable[[ExtractTier, Sequence[str], float], Coroutine[Any, Any, Extracted]]:
        """How a tier is asked; see `run`."""

        def ask(
            tier: ExtractTier, texts: Sequence[str], deadline: float
        ) -> Coroutine[Any, Any, Extracted]:
            return tier.judge(
                texts,
                requested=requested,
                long_input=long_input,
                partial=partial,
                deadline=deadline,
                mailbox=mailbox,
            )

        return ask
