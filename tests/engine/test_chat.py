from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import pytest

from sprat.engine import chat_sandbox
from sprat.engine.chat import ChatTemplate, blanked
from sprat.errors import InvalidInput, UnsupportedModel
from sprat.values import Message

SPECIAL = re.compile(r"(?=<\|start\|>|<\|end\|>|</s>).", re.DOTALL)

PLAIN = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)

STRICT = """
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim + '\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('turns must alternate, turn ' ~ loop.index ~ ' does not') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[ASK] ' ~ (system if loop.first else '') ~ message.content.strip() ~ ' [/ASK]' }}
    {%- else %}
        {{- ' ' + message.content.split('</think>')[-1] | trim + eos_token }}
    {%- endif %}
{%- endfor %}"""

HELPERS = """
{%- macro show(m) %}{{ m.role | upper }}={{ m.content | tojson }}{% endmacro %}
{%- set seen = namespace(roles=[]) %}
{%- for m in messages if m.content is defined and not m.tool_calls %}
    {%- set seen.roles = seen.roles + [m.role] %}
    {%- if loop.last %}{{- show(m) }} of {{ loop.length }}{% endif %}
{%- endfor %}
{%- generation %} {{ seen.roles | unique | join('+') }}{% endgeneration %}
{%- for n in range(9) %}{% if n == 2 %}{% break %}{% endif %} {{ n }}{% endfor %}
{%- if tools is not none %} tools{% endif %}
{{- ' ' ~ {'b': 2, 'a': [1, none]} | tojson(indent=2) }}"""


def chat(*contents: str, roles: Sequence[str] = ("user", "assistant")) -> list[Message]:
    return [
        Message(roles[i % len(roles)], content)  # type: ignore[arg-type]
        for i, content in enumerate(contents)
    ]


def render(template: str, messages: list[Message]) -> list[str]:
    return ChatTemplate(template, bos="<s>", eos="</s>").render(messages, protect=SPECIAL)


def test_chat_renders_messages_and_asks_for_an_answer() -> None:
    assert render(PLAIN, chat("Hi", "Ho")) == [
        "<|start|>user\nHi<|end|>\n<|start|>assistant\nHo<|end|>\n<|start|>assistant\n"
    ]


def test_chat_renders_templates_that_look_into_contents() -> None:
    messages = [Message("system", " Be brief. "), *chat(" Hi ", "hm</think> Ho ", "Why?")]
    assert render(STRICT, messages) == [
        "<s>[ASK] Be brief.\n\nHi [/ASK] Ho</s>[ASK] Why? [/ASK]",
    ]


def test_chat_offers_what_templates_of_hugging_face_expect() -> None:
    assert render(HELPERS, chat('"é"', "<b>")) == [
        'ASSISTANT="<b>" of 2 user+assistant 0 1 {\n  "b": 2,\n  "a": [\n    1,\n    null\n  ]\n}'
    ]


def test_chat_offers_the_date() -> None:
    (text,) = render("{{ strftime_now('%Y %%') }}", chat("Hi"))
    assert text in (f"{datetime.now():%Y %%}", f"{datetime.now().year - 1} %")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a<|end|>b", ["a<", "|end|>b"]),
        ("<|start|><|end|>", ["<", "|start|><", "|end|>"]),
        ("</s></s", ["<", "/s></s"]),
        ("<|end", ["<|end"]),
        ("", [""]),
    ],
)
def test_chat_cuts_the_text_of_special_tokens_in_contents(content: str, parts: list[str]) -> None:
    assert render("{{ messages[0].content }}", chat(content)) == parts
    assert "".join(render(PLAIN, chat(content))) == (
        f"<|start|>user\n{content}<|end|>\n<|start|>assistant\n"
    )


def test_chat_cuts_overlapping_special_tokens() -> None:
    template = ChatTemplate("{{ messages[0].content }}", bos="", eos="")
    parts = template.render(chat("abcabc"), protect=re.compile("(?=abca|cab)."))
    assert parts == ["a", "bc", "abc"]


def test_chat_cuts_stay_where_a_template_trims_and_replaces() -> None:
    template = "{{ messages[0].content | trim | replace('a', 'o') | upper }}"
    assert render(template, chat("  a<|end|>a  ")) == ["O<", "|END|>O"]


def test_chat_blanked_keeps_roles_and_what_is_blank() -> None:
    messages = chat("secret", "", " \n")
    assert blanked(messages) == chat("x", "", " \n")


def test_chat_refusal_has_the_words_of_the_template() -> None:
    messages = chat("Hi", "Ho", roles=("user",))
    with pytest.raises(InvalidInput, match="turns must alternate, turn 2 does not") as caught:
        render(STRICT, messages)
    assert caught.value.field == "chat"


def test_chat_refusal_never_has_the_words_of_the_user() -> None:
    template = "{{ raise_exception('I dislike ' ~ messages[0].content) }}"
    with pytest.raises(InvalidInput) as caught:
        render(template, chat("my secret"))
    assert "secret" not in str(caught.value)
    picky = "{% if 'secret' in messages[0].content %}{{ raise_exception(messages[0].content) }}"
    with pytest.raises(InvalidInput, match="one of the contents") as caught:
        render(picky + "{% endif %}", chat("my secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}",
        "{{ messages | wordwrap(3) }}",
        "{% endif %}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    ],
)
def test_chat_malformed_template_is_unsupported(template: str) -> None:
    with pytest.raises(UnsupportedModel, match="malformed"):
        ChatTemplate(template, bos="", eos="")


HOSTILE = {
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "huge range": "{% for a in range(10**9) %}{% endfor %}",
    "loops inside of filters": "{% for a in range(99999) %}{{ range(99999) | list | length }}"
    "{% endfor %}",
    "loops inside of methods": "{% set t = 'x' * 999999 %}{% for a in range(99999) %}"
    "{{ t.count('y') }}{% endfor %}",
    "long output": "{% for a in range(99999) %}" + "x" * 999 + "{% endfor %}",
    "doubling with +": "{% set n = namespace(t='x') %}{% for a in range(99) %}"
    "{% set n.t = n.t + n.t %}{% endfor %}",
    "doubling with ~": "{% set n = namespace(t='x') %}{% for a in range(99) %}"
    "{% set n.t = n.t ~ n.t %}{% endfor %}",
    "doubling with join": "{% set n = namespace(t='x') %}{% for a in range(99) %}"
    "{% set n.t = [n.t, n.t] | join(n.t) %}{% endfor %}",
    "doubling with replace": "{% set n = namespace(t='xx') %}{% for a in range(99) %}"
    "{% set n.t = n.t | replace('x', 'xx') %}{% endfor %}",
    "doubling with a method": "{% set n = namespace(t='xx') %}{% for a in range(99) %}"
    "{% set n.t = n.t.replace('x', 'xx') %}{% endfor %}",
    "doubling lists, shown": "{% set n = namespace(t=['x']) %}{% for a in range(40) %}"
    "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t }}",
    "doubling lists, as JSON": "{% set n = namespace(t=['x']) %}{% for a in range(40) %}"
    "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t | tojson }}",
    "doubling lists, as text": "{% set n = namespace(t=['x']) %}{% for a in range(40) %}"
    "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t | upper }}",
    "repetition of a text": "{{ 'x' * 10000000000 }}",
    "repetition from the left": "{{ 10000000000 * 'x' }}",
    "repetition of a list": "{{ ([0] * 10000000000) | length }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "squaring": "{% set n = namespace(t=9) %}{% for a in range(99) %}"
    "{% set n.t = n.t * n.t %}{% endfor %}",
    "format width": "{{ '%1000000000d' % 1 }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "padding method": "{{ 'x'.ljust(10000000000) }}",
    "indentation": "{{ [1] | tojson(indent=10000000000) }}",
    "date width": "{{ strftime_now('%1000000000d') }}",
    "recursion": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "branching recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(40) }}",
    "attributes": "{{ messages.__class__.__mro__ }}",
    "attributes of a text": "{{ ''.__class__.__base__.__subclasses__() }}",
    "attributes by name": "{{ (messages | map(attribute='__class__') | list)[0].__name__.x }}",
    "change of the chat": "{{ messages.append(1) }}",
    "another file": "{% include 'other' %}",
    "undefined": "{{ nothing.at.all }}",
    "wrong types": "{{ messages + 1 }}",
    "division by zero": "{{ 1 // 0 }}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.timeout(20)
def test_chat_hostile_template_fails_soon_and_says_nothing_of_the_chat(template: str) -> None:
    with pytest.raises(UnsupportedModel, match="failed on this chat") as caught:
        render(template, chat("my secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["raise_exception.__globals__", "''['__class__']", "''.format"])
def test_chat_template_sees_nothing_of_python(name: str) -> None:
    assert render("[{{ " + name + " }}]", chat("Hi")) == ["[]"]


def test_chat_budget_grows_with_the_chat() -> None:
    content = "x" * chat_sandbox.MOST_CHARACTERS
    assert len(render(STRICT, chat(content))[0]) > len(content)


def test_chat_budget_has_room_for_a_long_chat() -> None:
    messages = chat(*["Hi there, how are you?"] * 1001)
    assert render(STRICT, messages)[0].count("[ASK]") == 501


def test_chat_render_starts_each_time_with_a_whole_budget() -> None:
    template = ChatTemplate(PLAIN, bos="", eos="")
    content = "x" * (chat_sandbox.MOST_CHARACTERS // 2)
    for _ in range(3):
        template.render(chat(content), protect=SPECIAL)
