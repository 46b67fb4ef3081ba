"""Templates: placeholders and braces, and everything else that `str.format` would have done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import InvalidInput
from sprat.text.template import MOST_CHARACTERS, Template


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("{text}", "T"),
        ("Say: {text}!", "Say: T!"),
        ("{text}{text} and {text}", "TT and T"),
        ("{{}} {text} {{text}}", "{} T {text}"),
        ("{{{text}}}", "{T}"),
        ('{{"a": {{"b": 1}}}} {text}', '{"a": {"b": 1}} T'),
    ],
)
def test_template_fills(prompt: str, filled: str) -> None:
    assert Template(prompt).fill({"text": "T"}) == filled


def test_template_reads_no_placeholders_in_inputs() -> None:
    filled = Template("{tone}: {text}").fill({"text": "{tone} {{", "tone": "{text.__class__}"})
    assert filled == "{text.__class__}: {tone} {{"


@pytest.mark.parametrize(
    "prompt",
    [
        "{text.__class__}",
        "{text.__class__.__mro__[1].__subclasses__}",
        "{text[0]}",
        "{0}",
        "{}",
        "{text!r}",
        "{text!r:>1000000}",
        "{text:>1000000000}",
        "{text:{text}}",
        "{ text }",
        "{text",
        "text}",
        "{{text}",
        "{text}}",
        "{",
        "}",
        "{tëxt}",
        "{1st}",
        "{a-b}",
        "{" + "a" * 65 + "}",
        "{text\n}",
    ],
)
def test_template_refuses_all_that_is_no_plain_placeholder(prompt: str) -> None:
    with pytest.raises(InvalidInput, match="the brace at character") as caught:
        Template(f"secret {prompt} {{text}}")
    assert caught.value.field == "prompt"
    assert "secret" not in caught.value.message


def test_template_says_where_the_brace_is() -> None:
    with pytest.raises(InvalidInput, match="character 7 "):
        Template("{text} {")


@pytest.mark.parametrize("prompt", ["Say hello.", "{{text}}", "{tone}"])
def test_template_has_a_place_for_the_text(prompt: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected the placeholder \{text\}"):
        Template(prompt)


@pytest.mark.parametrize("prompt", ["", " ", "\ud800 {text}"])
def test_template_is_text(prompt: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Template(prompt)
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": "t"}, r"inputs: nothing for \{tone\}"),
        ({"text": "t", "tone": "x", "mood": "y"}, r"no placeholder \{mood\}"),
        ({"text": "t", "tone": "x", "a secret": "y"}, "no placeholder a name that cannot be one"),
        ({"text": "t", "tone": "x", "": "y"}, "no placeholder a name that cannot be one"),
    ],
)
def test_template_takes_its_own_inputs_only(inputs: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        Template("{tone} {text}").fill(inputs)
    assert caught.value.field == "inputs"
    assert "secret" not in caught.value.message


def test_template_does_not_make_gigabytes_of_megabytes() -> None:
    template = Template("{text}" * 10_000)
    with pytest.raises(InvalidInput, match=f"at most {MOST_CHARACTERS}") as caught:
        template.fill({"text": "x" * 1_000_000})
    assert caught.value.field == "prompt"
    assert len(template.fill({"text": "x" * 100})) == 1_000_000


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_template_does_what_format_does(a: str, b: str, c: str, text: str, tone: str) -> None:
    a, b, c = (s.replace("{", "{{").replace("}", "}}") for s in (a, b, c))
    prompt = f"x{a}{{text}}{b}{{tone}}{c}"
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        return
    expected = prompt.format(text=text, tone=tone)
    assert Template(prompt).fill({"text": text, "tone": tone}) == expected
