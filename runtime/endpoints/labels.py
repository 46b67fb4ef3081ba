"""Ask a chat endpoint for one of some labels: the prompt, and what its answers say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sprat.endpoints.base import SaidLabel
from sprat.endpoints.votes import Voting
from sprat.remote import ChatEndpoint
from sprat.tasks import choose
from sprat.tokenizer import check_text
from sprat.values import Label, LabelSet

_AROUND = "-\"'`*\u201c\u201d\u2018\u2019.,:; \t\n"
"""What models put around a label: the dash of the list, quotes, stars, a full stop."""


class LabelQuestion:
    """A model behind an endpoint, asked for one of the labels about each text.

    How sure it is: see `Voting`.

    What is sent is the prompt, which holds the instructions, the labels and their descriptions, and
    the text.

    Parameters
    ----------
    labels : sequence of Label
        2 to 256.
    instructions : str
        What the texts are and what is asked of them; empty for a general sentence.
    votes : int
        Answers per text, from 1 to 25.

    Raises
    ------
    InvalidInput
        The labels or the votes cannot be used.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        labels: Sequence[Label],
        *,
        instructions: str = "",
        votes: int = 1,
    ) -> None:
        choose.check_options(labels, 2, choose.MOST_LABELS, "labels")
        if instructions:
            check_text(instructions, field="instructions")
        self._names = {label.name: label.name for label in labels}
        folded = Counter(_bare(label.name) for label in labels)
        self._folded = {
            _bare(label.name): label.name for label in labels if folded[_bare(label.name)] == 1
        }
        # A token is at least a byte.
        longest = max(len(label.name.encode()) for label in labels)
        prompt = choose.prompt(LabelSet(endpoint.model, tuple(labels), instructions))
        self._voting = Voting(endpoint, prompt, max_tokens=longest + 16, votes=votes)

    async def ask(self, text: str, *, deadline: float = math.inf) -> SaidLabel:
        """Ask about a text. See `ChatEndpoint.complete` for ``deadline`` and the other errors.

        Raises
        ------
        EndpointError
            A single answer came without its probability.
        """
        heard = await self._voting.ask(text, deadline=deadline)
        label, sure = self._voting.elect(heard, self._match)
        return SaidLabel(sure, heard.input_tokens, label)

    def _match(self, answer: str) -> str:
        """The label that an answer is, but for quotes, case and a full stop; else empty."""
        return self._names.get(answer.strip()) or self._folded.get(_bare(answer), "")


def _bare(text: str) -> str:
    return " ".join(text.strip(_AROUND).casefold().split())
