"""Which token ends an answer: the one of the chat template, or else EOS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sprat.engine.chat import ChatTemplate
from sprat.engine.llama import LlamaEngine

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}END{% endfor %}"
CASES = {
    "template's": (TURNS.replace("END", "<|im_end|>\n"), "<|im_end|>"),
    "another than EOS": (TURNS.replace("END", " <|endoftext|>\n"), "<|endoftext|>"),
    "none": (TURNS.replace("END", "\n"), "<|im_end|>"),
    "refuses answers": ("{{ raise_exception('no') }}", "<|im_end|>"),
    "other beginning": ("{{ messages | length }}" + TURNS, "<|im_end|>"),
}


@pytest.fixture
def ending(
    exact: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> Callable[[ChatTemplate | None], str]:
    def find(template: ChatTemplate | None) -> str:
        monkeypatch.setattr(exact, "_template", template)
        return exact._vocabulary.text(exact.turn_end())

    return find


@pytest.mark.parametrize("case", CASES)
def test_llama_turn_end_is_what_the_template_puts_behind_an_answer(
    ending: Callable[[ChatTemplate | None], str], case: str
) -> None:
    source, expected = CASES[case]
    generation = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    assert ending(ChatTemplate(source + generation, bos="", eos="")) == expected


def test_llama_turn_end_without_a_template_is_eos(
    ending: Callable[[ChatTemplate | None], str],
) -> None:
    assert ending(None) == "<|im_end|>"
