"""Ask a chat endpoint to rewrite texts by a prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sprat.endpoints.base import SaidText
from sprat.errors import EndpointError
from sprat.remote import ChatEndpoint
from sprat.tasks import generate
from sprat.text.template import TEXT, Template
from sprat.tokenizer import check_text
from sprat.values import Message, Sampling


class RewritingQuestion:
    """A model behind an endpoint that rewrites each text.

    What is sent is the prompt with the text and the inputs in it, and the schema.

    Parameters
    ----------
    prompt : str
        See `sprat.text.template.Template`.
    sampling : Sampling
        See `ChatEndpoint.complete`.
    schema : str or None
        JSON Schema that answers are to fit, sent as ``response_format``. Endpoints need not obey.
    has_logprobs : bool
        Whether the probabilities of tokens are asked for.

    Raises
    ------
    InvalidInput
        The prompt or a sampling parameter cannot be used.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        prompt: str,
        sampling: Sampling,
        *,
        schema: str | None = None,
        has_logprobs: bool = False,
    ) -> None:
        generate.check(sampling)
        self._endpoint = endpoint
        self._template = Template(prompt)
        self._sampling = sampling
        self._schema = schema
        self._has_logprobs = has_logprobs

    async def ask(
        self, text: str, *, inputs: Mapping[str, str], deadline: float = math.inf
    ) -> SaidText:
        """Ask about a text. See `ChatEndpoint.complete` for ``deadline`` and the other errors.

        Parameters
        ----------
        inputs : mapping of str to str
            Values of the prompt's placeholders, but for that of the text.

        Raises
        ------
        EndpointError
            Probabilities were asked for, and did not come.
        """
        check_text(text, field="text")
        answer = await self._endpoint.complete(
            [Message("user", self._template.fill({**inputs, TEXT: text}))],
            self._sampling,
            logprobs=self._has_logprobs,
            schema=self._schema,
            deadline=deadline,
        )
        if self._has_logprobs and answer.text and not answer.logprobs:
            raise EndpointError(
                f"{self._endpoint.name}: answers come without log-probabilities, so nobody knows "
                "how sure they are"
            )
        usage = answer.usage
        return SaidText(
            confidence=0.0 if answer.logprob is None else math.exp(answer.logprob),
            input_tokens=0 if usage is None else usage.input_tokens,
            text=answer.text,
            complete=answer.complete,
            logprobs=answer.logprobs,
            output_tokens=0 if usage is None else usage.output_tokens,
        )
