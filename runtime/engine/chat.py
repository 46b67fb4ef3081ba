"""A model's own chat template, rendered so that what users write stays what users write."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from jinja2 import TemplateError

from sprat.engine.chat_sandbox import BUDGET, Budget, OverBudgetError, RefusalError, Sandbox
from sprat.errors import InvalidInput, UnsupportedModel
from sprat.values import Message

_BLANK = "x"
_PRIVATE_USE = 0xF0000, 0xFFFE


def blanked(messages: Sequence[Message]) -> list[Message]:
    """The same chat with nothing in it: a content that is not blank becomes one letter."""
    return [Message(m.role, _BLANK if m.content.strip() else m.content) for m in messages]


class ChatTemplate:
    """A chat template, compiled in `sprat.engine.chat_sandbox`. Thread-safe.

    Parameters
    ----------
    template : str
        Jinja source, as the model's file holds it.
    bos, eos : str
        Texts of the special tokens that templates use.

    Raises
    ------
    UnsupportedModel
        The source is no template, or needs what the sandbox does not have.

    Examples
    --------
    >>> import re
    >>> template = ChatTemplate("{{ messages[0].content }}</s>", bos="", eos="</s>")
    >>> template.render([Message("user", "Hi")], protect=re.compile("(?=</s>)<"))
    ['Hi</s>']
    """

    def __init__(self, template: str, *, bos: str, eos: str) -> None:
        self._values = {"bos_token": bos, "eos_token": eos, "tools": None, "documents": None}
        try:
            self._template = Sandbox().from_string(template)
        except (TemplateError, RecursionError) as error:
            reason = getattr(error, "message", None) or type(error).__name__
            raise UnsupportedModel(f"the chat template is malformed: {reason}") from None

    def render(self, messages: Sequence[Message], *, protect: re.Pattern[str]) -> list[str]:
        """The prompt for a chat, ending where the answer begins.

        Parameters
        ----------
        protect : re.Pattern
            Matches each first character of the text of a special token.

        Returns
        -------
        list of str
            The prompt in parts: one, unless a content has the text of special tokens; then it is
            cut behind the first character of each. Tokenized one by one with special tokens parsed,
            the parts have those of the template and none of the contents.

        Raises
        ------
        InvalidInput
            The template refuses this chat: some take no system message, or want turns to alternate.
        UnsupportedModel
            The template fails, or exceeds its budget.
        """
        first, count = _PRIVATE_USE
        cut = "".join(chr(first + secrets.randbelow(count)) for _ in range(4))
        chat = [
            {"role": m.role, "content": protect.sub(lambda found: found[0] + cut, m.content)}
            for m in messages
        ]
        budget = Budget(sum(len(m["content"]) for m in chat))
        values = {BUDGET: budget, "messages": chat, "add_generation_prompt": True, **self._values}
        pieces = []
        try:
            for piece in self._template.generate(values):
                budget.build(len(piece))
                pieces.append(piece)
        except RefusalError as refusal:
            raise self._refused(messages, protect, str(refusal)) from None
        except Exception as error:  # a program of unknown origin may come to anything
            reason = str(error) if isinstance(error, OverBudgetError) else type(error).__name__
            raise UnsupportedModel(f"the chat template failed on this chat: {reason}") from None
        return "".join(pieces).split(cut)

    def _refused(
        self, messages: Sequence[Message], protect: re.Pattern[str], reason: str
    ) -> InvalidInput | UnsupportedModel:
        """The error for a chat that the template refuses: in its words, if they hold no content."""
        blank = blanked(messages)
        if list(messages) != blank:
            try:
                self.render(blank, protect=protect)
            except (InvalidInput, UnsupportedModel) as error:
                return error
            reason = "it does not take one of the contents"
        return InvalidInput(f"the chat template refuses this chat: {reason}", field="chat")
