"""Ask a chat endpoint which categories a text belongs to: the prompt, and what its answers say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sprat.endpoints.base import SaidCategories
from sprat.endpoints.votes import Voting
from sprat.remote import ChatEndpoint, Completion
from sprat.tasks import choose
from sprat.tokenizer import check_text
from sprat.values import Label

MOST_CATEGORIES = 256
GENERAL_INSTRUCTIONS = "Say which of these categories the text that the user sends belongs to."
FORM = (
    'Answer with JSON and nothing else: {"categories": [...]} with the names of all that apply, '
    "and an empty list where none does."
)
LEAST_SURE = 0.51
"""A named category is more probable than one that is not, however unsure the answer is."""


class CategoryQuestion:
    """A model behind an endpoint, asked for the categories of each text, as JSON.

    How probable a category is by its lights: with one answer, the probability of the tokens of all
    of it for each category that it names, and what that leaves for each other one; with several
    ``votes`` at temperature 1, the share of the valid ones that name it, with one vote for and one
    against it added (Laplace).

    What is sent is the prompt, which holds the instructions, the categories and their descriptions,
    the schema of an answer, which holds the categories, and the text.

    Parameters
    ----------
    categories : sequence of Label
        1 to 256.
    instructions : str
        What the texts are and what is asked of them; empty for a general sentence.
    votes : int
        Answers per text, from 1 to 25.

    Raises
    ------
    InvalidInput
        The categories or the votes cannot be used.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        categories: Sequence[Label],
        *,
        instructions: str = "",
        votes: int = 1,
    ) -> None:
        choose.check_options(categories, 1, MOST_CATEGORIES, "categories")
        if instructions:
            check_text(instructions, field="instructions")
        self._votes = votes
        self._names = [category.name for category in categories]
        head = instructions or GENERAL_INSTRUCTIONS
        # A token is at least a byte.
        longest = len(json.dumps({"categories": self._names}).encode())
        self._voting = Voting(
            endpoint,
            "\n".join([head, *map(choose.line, categories), FORM]),
            max_tokens=longest + 32,
            votes=votes,
            schema=json.dumps(_schema(self._names), ensure_ascii=False),
        )

    async def ask(self, text: str, *, deadline: float = math.inf) -> SaidCategories:
        """Ask about a text. See `ChatEndpoint.complete` for ``deadline`` and the other errors.

        Raises
        ------
        EndpointError
            A single answer came without its probability.
        """
        heard = await self._voting.ask(text, deadline=deadline)
        valid = [named for each in heard.answers if (named := self._named(each)) is not None]
        if not valid:
            return SaidCategories.of({}, heard.input_tokens)
        if self._votes == 1:
            (named,) = valid
            sure = max(LEAST_SURE, self._voting.probability(heard))
            chances = {name: sure if name in named else 1 - sure for name in self._names}
        else:
            chances = {
                name: (sum(name in named for named in valid) + 1) / (len(valid) + 2)
                for name in self._names
            }
        return SaidCategories.of(chances, heard.input_tokens)

    def _named(self, answer: Completion) -> frozenset[str] | None:
        """The categories that an answer names; None where it is no list of these."""
        if not answer.complete:
            return None
        try:
            named = frozenset(_Answer.model_validate_json(answer.text).categories)
        except ValidationError:
            return None
        return named if named <= set(self._names) else None


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    categories: list[str]


def _schema(names: Sequence[str]) -> dict[str, Any]:
    """What an answer looks like, in the subset of JSON Schema that services take."""
    return {
        "type": "object",
        "properties": {
            "categories": {"type": "array", "items": {"type": "string", "enum": list(names)}}
        },
        "required": ["categories"],
        "additionalProperties": False,
    }
