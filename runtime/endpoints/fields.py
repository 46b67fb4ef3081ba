"""Ask a chat endpoint for the fields of a text: the prompt, and what its answers say."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from sprat.endpoints.base import SaidFields
from sprat.endpoints.labels import check_votes, probability
from sprat.remote import ChatEndpoint
from sprat.tasks import extract
from sprat.text.leaves import plain, read
from sprat.text.schema import Schema
from sprat.tokenizer import check_text
from sprat.values import ExtractSpec, Message, Sampling


class FieldsQuestion:
    """A model behind an endpoint, asked to fill a schema from each text.

    The schema is sent as ``response_format``, too: endpoints that know it write nothing else. How
    sure the answer is: the probability of all of its tokens (``votes`` = 1), or the share of
    several answers at temperature 1 that say the same.

    What is sent is the prompt, which holds the instructions and the schema, and the text.

    Parameters
    ----------
    schema : str
        JSON Schema of an object.
    instructions : str
        What the texts are and what to look for; empty for a general sentence.
    max_tokens : int
        Most tokens of an answer, from 1.
    votes : int
        Answers per text, from 1 to 25.

    Raises
    ------
    InvalidInput
        The schema or the votes cannot be used.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        schema: str,
        *,
        instructions: str = "",
        max_tokens: int = 128,
        votes: int = 1,
    ) -> None:
        check_votes(votes)
        if instructions:
            check_text(instructions, field="instructions")
        self._endpoint = endpoint
        self._votes = votes
        self._schema = schema
        self._prompt = extract.prompt(
            ExtractSpec(endpoint.model, schema, instructions), Schema(schema)
        )
        self._sampling = Sampling(max_tokens=max_tokens, temperature=0.0 if votes == 1 else 1.0)

    async def ask(self, text: str, *, deadline: float = math.inf) -> SaidFields:
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
                *(chat, self._sampling),
                logprobs=self._votes == 1,
                schema=self._schema,
                deadline=deadline,
            )
            for _ in range(self._votes)
        ]
        tokens = sum(each.usage.input_tokens for each in answers if each.usage is not None)
        votes = Counter(_canonical(each.text) for each in answers if each.complete)
        del votes[""]
        if not votes:
            return SaidFields(0.0, tokens, None, {})
        ((value, count),) = votes.most_common(1)
        sure = count / self._votes if self._votes > 1 else probability(self._endpoint, answers[0])
        return SaidFields(sure, tokens, json.loads(value), {})


def _canonical(answer: str) -> str:
    """An answer with its keys in order, if it is a JSON object; else empty."""
    try:
        value: Any = plain(read(answer))
    except ValueError:
        return ""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else ""
