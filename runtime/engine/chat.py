"""A model's own chat template, rendered so that what users write stays what users write."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sprat.errors import UnsupportedModel
from sprat.values import Message

MAX_RENDERED = 1_000_000
"""Most characters that a template may add: more is a broken or hostile one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a rendered chat.

    Attributes
    ----------
    is_content : bool
        Whether a user wrote it: then special tokens in it are plain text.
    """

    text: str
    is_content: bool


class ChatTemplate:
    """A chat template in a sandbox: no attributes of Python objects, nothing that can be changed.

    Parameters
    ----------
    template : str
        Jinja source, as the model's file holds it.
    bos, eos : str
        The texts of the special tokens that templates use.

    Raises
    ------
    UnsupportedModel
        When the source is no template.
    """

    def __init__(self, template: str, *, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(template)
        except TemplateError as error:
            raise UnsupportedModel(f"the chat template is malformed: {error.message}") from None

    def render(self, messages: Sequence[Message]) -> list[Part]:
        """The prompt for a chat, in parts, ending where the answer begins.

        The template sees a random word in place of each content. So it cannot mistake a content for
        markup, and neither can the tokenizer.

        Raises
        ------
        UnsupportedModel
            When the template fails on this chat (some refuse a system message or an order of
            roles), or makes an absurdly long text.
        """
        words = [f"content{secrets.token_hex(16)}" for _ in messages]
        shown = [{"role": m.role, "content": w} for m, w in zip(messages, words, strict=True)]
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(
                messages=shown, add_generation_prompt=True, **self._tokens
            ):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_RENDERED:
                    raise UnsupportedModel(
                        f"the chat template makes more than {MAX_RENDERED} characters"
                    )
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise UnsupportedModel(
                f"the chat template failed on this chat: {type(error).__name__}"
            ) from None
        return _split("".join(pieces), words, messages)


def _split(rendered: str, words: Sequence[str], messages: Sequence[Message]) -> list[Part]:
    contents = {word: message.content for word, message in zip(words, messages, strict=True)}
    parts: list[Part] = []
    while rendered:
        word = min((w for w in words if w in rendered), key=rendered.index, default=None)
        if word is None:
            parts.append(Part(rendered, is_content=False))
            break
        before, _, rendered = rendered.partition(word)
        if before:
            parts.append(Part(before, is_content=False))
        parts.append(Part(contents[word], is_content=True))
    return parts


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)
