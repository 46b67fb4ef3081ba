"""Ask a chat endpoint for the fields of a text: the prompt, and what its answers say."""

from __future__ import annotations

import json
import math
from typing import Any

from sprat.endpoints.base import SaidFields
from sprat.endpoints.votes import Voting
from sprat.remote import ChatEndpoint
from sprat.tasks import extract
from sprat.text.leaves import plain, read
from sprat.text.schema import Schema
from sprat.tokenizer import check_text
from sprat.values import ExtractSpec


class FieldsQuestion:
    """A model behind an endpoint, asked to fill a schema from each text.

    The schema is sent as ``response_format``, too: endpoints that know it write nothing else. How
    sure the answer is: see `Voting`.

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
        if instructions:
            check_text(instructions, field="instructions")
        prompt = extract.prompt(ExtractSpec(endpoint.model, schema, instructions), Schema(schema))
        self._voting = Voting(endpoint, prompt, max_tokens=max_tokens, votes=votes, schema=schema)

    async def ask(self, text: str, *, deadline: float = math.inf) -> SaidFields:
        """Ask about a text. See `ChatEndpoint.complete` for ``deadline`` and the other errors.

        Raises
        ------
        EndpointError
            A single answer came without its probability.
        """
        heard = await self._voting.ask(text, deadline=deadline)
        value, sure = self._voting.elect(heard, _canonical)
        return SaidFields(sure, heard.input_tokens, json.loads(value) if value else None, {})


def _canonical(answer: str) -> str:
    """An answer with its keys in order, if it is a JSON object; else empty."""
    try:
        value: Any = plain(read(answer))
    except ValueError:
        return ""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else ""
