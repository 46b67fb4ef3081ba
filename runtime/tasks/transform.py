"""Transform: rewrite a text by a prompt, under a grammar where there is one."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import get_args

from sprat.errors import InputTooLong, InvalidInput
from sprat.model import GenerativeModel
from sprat.model.instructed import PROBES
from sprat.scheduler import Mailbox
from sprat.tasks import generate
from sprat.text.template import TEXT, Template
from sprat.tokenizer import check_text
from sprat.values import Chunk, GrammarKind, Message, TransformSpec


def run(
    model: GenerativeModel,
    text: str,
    spec: TransformSpec,
    *,
    inputs: Mapping[str, str] | None = None,
    logprobs: int | None = None,
    deadline: float = math.inf,
    mailbox: Mailbox,
) -> AsyncGenerator[Chunk, None]:
    """Stream the rewritten text. See `sprat.model.GenerativeModel.generate` for other errors.

    Parameters
    ----------
    inputs : mapping of str to str, optional
        Values of the prompt's placeholders, but for that of the text; each may be empty.
    logprobs : int, optional
        As in `sprat.model.GenerativeModel.generate`.

    Raises
    ------
    InvalidInput, InputTooLong
        For a prompt that is no template, inputs that are not those of the prompt, a text, an input
        or a sampling parameter that cannot be used, and a prompt that does not fit into the context
        with its inputs; from the first step on, for a grammar that cannot be followed.
    """
    template = _check(spec)
    check_text(text, field="text")
    for name, value in (inputs or {}).items():
        if name == TEXT:
            raise InvalidInput("inputs: {text} is the text itself", field="inputs")
        if value != "":
            check_text(value, field="inputs")
    filled = template.fill({**(inputs or {}), TEXT: text})
    probes = [[Message("user", template.fill_all(probe))] for probe in PROBES]
    return _stream(model, filled, probes, spec, logprobs, deadline, mailbox)


def check(model: GenerativeModel, spec: TransformSpec) -> None:
    """Raise what `run` would, whatever the text."""
    template = _check(spec)
    model.check_chat([Message("user", template.fill_all(PROBES[1]))], field="prompt")
    if spec.grammar is not None:
        model.compile_now(spec.grammar, field="grammar")


async def warm_up(model: GenerativeModel, spec: TransformSpec, *, mailbox: Mailbox) -> None:
    """Have a model read what prompts begin with, and begin an answer."""
    inputs = {name: PROBES[1] for name in _check(spec).names if name != TEXT}
    async with aclosing(run(model, PROBES[1], spec, inputs=inputs, mailbox=mailbox)) as chunks:
        await anext(chunks)


def _check(spec: TransformSpec) -> Template:
    generate.check(spec.sampling)
    if spec.grammar is not None and spec.grammar.kind not in get_args(GrammarKind):
        raise InvalidInput(
            f"grammar: expected json_schema, regex or lark, got {spec.grammar.kind!r}",
            field="grammar",
        )
    return Template(spec.prompt)


async def _stream(
    model: GenerativeModel,
    filled: str,
    probes: list[list[Message]],
    spec: TransformSpec,
    logprobs: int | None,
    deadline: float,
    mailbox: Mailbox,
) -> AsyncGenerator[Chunk, None]:
    grammar = None
    if spec.grammar is not None:
        grammar = await model.compile(spec.grammar, field="grammar")
    chunks = model.generate(
        [Message("user", filled)],
        spec.sampling,
        probes=probes,
        grammar=grammar,
        lookup=spec.lookup,
        logprobs=logprobs,
        adapter=spec.adapter,
        deadline=deadline,
        mailbox=mailbox,
    )
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    except InputTooLong as error:
        raise InputTooLong(field="prompt", tokens=error.tokens, limit=error.limit) from None
