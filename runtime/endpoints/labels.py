"""Ask a chat endpoint for one of some labels: the prompt, and what its answers say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sprat.endpoints.base import SaidLabel
from sprat.errors import EndpointError, InvalidInput
from sprat.remote import ChatEndpoint, Completion
from sprat.tasks import choose
from sprat.tokenizer import check_text
from sprat.values import Label, LabelSet, Message, Sampling

MOST_VOTES = 25
_AROUND = "-\"'`*\u201c\u201d\u2018\u2019.,:; \t\n"
"""What models put around a label: the dash of the list, quotes, stars, a full stop."""


class LabelQuestion:
    """A model behind an endpoint, asked for one of the labels about each text.

    How sure it is: the probability of the tokens that it answered with (``votes`` = 1), or the
    share of several answers at temperature 1 that agree (self-consistency, Wang et al., 2023).

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
        check_votes(votes)
        choose.check_options(labels, 2, choose.MOST_LABELS, "labels")
        if instructions:
            check_text(instructions, field="instructions")
        self._endpoint = endpoint
        self._votes = votes
        self._prompt = choose.prompt(LabelSet(endpoint.model, tuple(labels), instructions))
        self._names = {label.name: label.name for label in labels}
        folded = Counter(_bare(label.name) for label in labels)
        self._folded = {
            _bare(label.name): label.name for label in labels if folded[_bare(label.name)] == 1
        }
        # A token is at least a byte.
        longest = max(len(label.name.encode()) for label in labels)
        self._sampling = Sampling(max_tokens=longest + 16, temperature=0.0 if votes == 1 else 1.0)

    async def ask(self, text: str, *, deadline: float = math.inf) -> SaidLabel:
        """Ask about a text. See `ChatEndpoint.complete` for ``deadline`` and the other errors.

        Raises
        ------
        EndpointError
            A single answer came without its probability.
        """
        chat = [Message("system", self._prompt), Message("user", text)]
        # One after another: other texts are under way meanwhile.
        answers = [
            await self._endpoint.complete(
                chat, self._sampling, logprobs=self._votes == 1, deadline=deadline
            )
            for _ in range(self._votes)
        ]
        read = sum(each.usage.input_tokens for each in answers if each.usage is not None)
        votes = Counter(self._match(each.text) for each in answers if each.complete)
        del votes[""]
        if not votes:
            return SaidLabel(0.0, read, "")
        ((label, count),) = votes.most_common(1)
        if self._votes > 1:
            return SaidLabel(count / self._votes, read, label)
        return SaidLabel(probability(self._endpoint, answers[0]), read, label)

    def _match(self, answer: str) -> str:
        """The label that an answer is, but for quotes, case and a full stop; else empty."""
        return self._names.get(answer.strip()) or self._folded.get(_bare(answer), "")


def check_votes(votes: int) -> None:
    """Refuse votes out of [1, 25].

    Raises
    ------
    InvalidInput
    """
    if not 1 <= votes <= MOST_VOTES:
        raise InvalidInput(f"votes: expected 1 to {MOST_VOTES}, got {votes}", field="votes")


def probability(endpoint: ChatEndpoint, answer: Completion) -> float:
    """Probability of a single answer, by its tokens.

    Raises
    ------
    EndpointError
        It came without.
    """
    if answer.logprob is None:
        raise EndpointError(
            f"{endpoint.name}: answers come without log-probabilities, so nobody knows "
            "how sure they are; ask several times (--votes 5)"
        )
    return math.exp(answer.logprob)


def _bare(text: str) -> str:
    return " ".join(text.strip(_AROUND).casefold().split())
