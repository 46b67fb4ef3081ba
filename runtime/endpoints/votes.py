"""Ask a chat endpoint a prompt about each text: once, with a probability, or often, for votes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sprat.errors import EndpointError, InvalidInput
from sprat.remote import ChatEndpoint, Completion
from sprat.values import Message, Sampling

MOST_VOTES = 25


@dataclass(frozen=True, slots=True)
class Heard:
    """What an endpoint answered about a text.

    Attributes
    ----------
    answers : list of Completion
        One for each vote.
    input_tokens : int
        That it read for all of them, as far as it says so.
    """

    answers: list[Completion]
    input_tokens: int


class Voting:
    """A prompt for a model behind an endpoint.

    How sure an answer is: the probability of its tokens (``votes`` = 1), or the share of several
    answers at temperature 1 that agree (self-consistency, Wang et al., 2023).

    Parameters
    ----------
    prompt : str
        What the model is told before it reads a text.
    max_tokens : int
        Most tokens of an answer, from 1.
    votes : int
        Answers per text, from 1 to 25.
    schema : str, optional
        JSON Schema that answers are to fit, sent as ``response_format``. Endpoints need not obey.

    Raises
    ------
    InvalidInput
        The votes are out of range.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        prompt: str,
        *,
        max_tokens: int,
        votes: int,
        schema: str | None = None,
    ) -> None:
        if not 1 <= votes <= MOST_VOTES:
            raise InvalidInput(f"votes: expected 1 to {MOST_VOTES}, got {votes}", field="votes")
        self._endpoint = endpoint
        self._prompt = prompt
        self._votes = votes
        self._schema = schema
        self._sampling = Sampling(max_tokens=max_tokens, temperature=0.0 if votes == 1 else 1.0)

    async def ask(self, text: str, *, deadline: float) -> Heard:
        """Ask about a text. See `ChatEndpoint.complete` for ``deadline`` and for what is raised."""
        chat = [Message("system", self._prompt), Message("user", text)]
        # One after another: other texts are under way meanwhile.
        answers = [
            await self._endpoint.complete(
                chat,
                self._sampling,
                logprobs=self._votes == 1,
                schema=self._schema,
                deadline=deadline,
            )
            for _ in range(self._votes)
        ]
        usages = [answer.usage for answer in answers if answer.usage is not None]
        return Heard(answers, sum(usage.input_tokens for usage in usages))

    def elect(self, heard: Heard, read: Callable[[str], str]) -> tuple[str, float]:
        """What most answers say, and how sure that is, in [0, 1]; empty and 0 where none counts.

        Parameters
        ----------
        read : callable
            What a complete answer says; empty where it does not count.

        Raises
        ------
        EndpointError
            A single answer came without its probability.
        """
        votes = Counter(read(answer.text) for answer in heard.answers if answer.complete)
        del votes[""]
        if not votes:
            return "", 0.0
        ((said, count),) = votes.most_common(1)
        return said, self.probability(heard) if self._votes == 1 else count / self._votes

    def probability(self, heard: Heard) -> float:
        """Probability of a single answer, by its tokens.

        Raises
        ------
        EndpointError
            It came without.
        """
        (answer,) = heard.answers
        if answer.logprob is None:
            raise EndpointError(
                f"{self._endpoint.name}: answers come without log-probabilities, so nobody knows "
                "how sure they are; ask several times (--votes 5)"
            )
        return math.exp(answer.logprob)
