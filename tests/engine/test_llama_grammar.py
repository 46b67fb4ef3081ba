"""Answers under a grammar: always inside it, forced tokens decoded at once, clear refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from llamas import STORIES, generate, run, text_of, tokens

from sprat.engine.base import Progress, Start
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_grammar import MOST_BYTES, WORD_BITS
from sprat.errors import EngineError, InvalidInput
from sprat.values import Grammar, GrammarKind, Message, Sampling

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "fisherman": {"type": "string", "maxLength": 12},
            "fish": {"enum": ["herring", "sprat", "eel"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["fisherman", "fish", "count"],
        "additionalProperties": False,
    }
)


def under(
    engine: LlamaEngine,
    grammar: Grammar,
    *,
    prompt: str = STORIES[0],
    logprobs: int | None = None,
    **sampling: float,
) -> list[Progress]:
    """What becomes of one answer under a grammar."""
    start = Start(
        0,
        tokens(engine, prompt),
        Sampling(**({"max_tokens": 64} | sampling)),
        grammar=engine.compile(grammar),
        logprobs=logprobs,
    )
    engine.start(start)
    return run(engine)[0]


def test_grammar_json_is_valid_and_complete(engine: LlamaEngine) -> None:
    progress = under(engine, Grammar("json_schema", SCHEMA))
    value = json.loads(text_of(progress))
    assert value.keys() == {"fisherman", "fish", "count"}
    assert value["fish"] in ("herring", "sprat", "eel")
    assert progress[-1].finish_reason == "stop"
    assert progress[-1].complete


def test_grammar_forced_tokens_need_no_step_of_their_own(engine: LlamaEngine) -> None:
    progress = under(engine, Grammar("regex", "Attention please, the answer is (yes|no)\\."))
    assert text_of(progress) in [
        f"Attention please, the answer is {word}." for word in ("yes", "no")
    ]
    forced, grown = (sum(getattr(p, name) for p in progress) for name in ("forced", "tokens"))
    assert forced >= 6
    assert len(progress) == grown - forced <= 4


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_grammar_holds_at_every_temperature(engine: LlamaEngine, temperature: float) -> None:
    for seed in range(3):
        progress = under(engine, Grammar("regex", "[a-c]{3}!"), temperature=temperature, seed=seed)
        text = text_of(progress)
        assert len(text) == 4
        assert set(text[:3]) <= set("abc")


def test_grammar_lark(engine: LlamaEngine) -> None:
    progress = under(engine, Grammar("lark", 'start: ("eel" | "pike") " " /[0-9]{1,3}/ "kg"'))
    name, weight = text_of(progress).split(" ")
    assert name in ("eel", "pike")
    assert weight.endswith("kg")
    assert int(weight[:-2]) >= 0
    assert progress[-1].complete


def test_grammar_of_one_answer_does_not_touch_others(exact: LlamaEngine, alone: list[str]) -> None:
    grammar = exact.compile(Grammar("json_schema", SCHEMA))
    for number, story in enumerate(STORIES[:4]):
        ids = tokens(exact, story)
        exact.start(
            Start(number, ids, Sampling(max_tokens=12), grammar=grammar if number == 2 else None)
        )
    seen = run(exact)
    for number in (0, 1, 3):
        assert text_of(seen[number]) == alone[number]
    assert text_of(seen[2]).startswith('{"fisherman":"')


def test_grammar_cut_answer_is_not_complete(engine: LlamaEngine) -> None:
    for most in range(1, 7):
        progress = under(engine, Grammar("json_schema", SCHEMA), max_tokens=most)
        assert sum(p.tokens for p in progress) == most
        assert progress[-1].finish_reason == "length"
        assert not progress[-1].complete


def test_grammar_answer_that_ends_with_its_last_token_is_complete(engine: LlamaEngine) -> None:
    whole = under(engine, Grammar("json_schema", SCHEMA))
    needed = sum(p.tokens for p in whole)
    progress = under(engine, Grammar("json_schema", SCHEMA), max_tokens=needed)
    assert text_of(progress) == text_of(whole)
    assert (progress[-1].finish_reason, progress[-1].complete) == ("stop", True)


def test_grammar_stop_string_leaves_the_answer_incomplete(engine: LlamaEngine) -> None:
    start = Start(
        0,
        tokens(engine, STORIES[0]),
        Sampling(max_tokens=64, stop=("fish",)),
        grammar=engine.compile(Grammar("json_schema", SCHEMA)),
    )
    engine.start(start)
    progress = run(engine)[0]
    assert text_of(progress) == '{"'
    assert (progress[-1].finish_reason, progress[-1].complete) == ("stop", False)


def test_grammar_open_end_lets_the_model_stop(engine: LlamaEngine) -> None:
    progress = under(engine, Grammar("regex", "a*"), max_tokens=4)
    assert set(text_of(progress)) <= {"a"}


# -- log-probabilities -----------------------------------------------------------------------


def test_logprobs_under_a_grammar_count_what_it_allows(exact: LlamaEngine) -> None:
    chances = {}
    for word in ("eel", "pike", "cod"):
        progress = under(exact, Grammar("regex", "(eel|pike|cod)"), logprobs=3)
        top = progress[0].logprobs[0].top
        chances = {each.token: math.exp(each.logprob) for each in top}
        assert sum(chances.values()) <= 1 + 1e-5
        assert word
    assert progress[0].logprobs[0].chosen == progress[0].logprobs[0].top[0]
    answer = b"".join(choice.chosen.token for p in progress for choice in p.logprobs)
    assert answer.decode() == text_of(progress)
    forced = [c for p in progress for c in p.logprobs if not c.top]
    assert all(c.chosen.logprob == 0 for c in forced)


def test_logprobs_are_those_of_the_model(exact: LlamaEngine) -> None:
    ids = tokens(exact, STORIES[1])
    exact.start(Start(0, ids, Sampling(max_tokens=5, repeat_penalty=1.5), logprobs=2))
    free = run(exact)[0]
    exact.start(Start(0, ids, Sampling(max_tokens=5), logprobs=0))
    plain = run(exact)[0]
    # The penalty changes what is chosen, not what is reported.
    assert [len(c.top) for p in free for c in p.logprobs] == [2] * 5
    assert all(c.top == () for p in plain for c in p.logprobs)
    first = free[0].logprobs[0]
    assert first.top[0].logprob >= first.top[1].logprob
    assert plain[0].logprobs[0].chosen.logprob == pytest.approx(first.top[0].logprob, abs=1e-4)
    text = b"".join(c.chosen.token for p in plain for c in p.logprobs).decode()
    assert text == text_of(plain)


def test_logprobs_of_the_end_token_are_not_reported(exact: LlamaEngine) -> None:
    ids = exact.chat_tokens([Message("user", "Say: yes")])
    exact.start(
        Start(
            0,
            ids,
            Sampling(max_tokens=9),
            logprobs=0,
            grammar=exact.compile(Grammar("regex", "y+")),
        )
    )
    progress = run(exact)[0]
    reported = sum(len(p.logprobs) for p in progress)
    ended = progress[-1].finish_reason == "stop"
    assert reported == sum(p.tokens for p in progress) - ended


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "source", "reason"),
    [
        ("json_schema", "", "expected 1 to 65536 bytes, got 0"),
        ("json_schema", "{", "not a usable json_schema"),
        ("json_schema", '"text"', "not a usable json_schema"),
        ("json_schema", '{"type": "fish"}', "Invalid type"),
        ("json_schema", '{"type": "integer", "minimum": 3, "maximum": 1}', "Unsatisfiable"),
        ("json_schema", '{"not": {}}', "not a usable json_schema"),
        ("json_schema", "[" * 20_000 + "]" * 20_000, "not a usable json_schema"),
        ("json_schema", '{"enum": []}', "not a usable json_schema"),
        ("regex", "(", "invalid regex"),
        ("regex", "(?=a)b", "invalid regex"),
        ("regex", "(" * 30_000 + ")" * 30_000, "not a usable regex"),
        ("regex", "[^\\s\\S]", "not a usable regex"),
        ("lark", "", "expected 1 to 65536 bytes, got 0"),
        ("lark", "start: nowhere", "unknown name"),
        ("lark", "start: " + "(" * 30_000 + '"a"' + ")" * 30_000, "not a usable lark"),
        ("lark", "a" * (MOST_BYTES + 1), "expected 1 to 65536 bytes, got 65537"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_grammar_unusable_ones_are_refused(
    engine: LlamaEngine, kind: GrammarKind, source: str, reason: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        engine.compile(Grammar(kind, source))
    assert raised.value.field == "grammar"
    assert reason in raised.value.message
    assert len(raised.value.message) < 400


def test_grammar_that_never_ends_is_an_error_to_its_answer_alone(
    engine: LlamaEngine,
) -> None:
    ids = tokens(engine, STORIES[0])
    endless = engine.compile(Grammar("lark", 'start: "a" start'))
    engine.start(Start(0, ids, Sampling(max_tokens=20), grammar=endless))
    engine.start(Start(1, ids, Sampling(max_tokens=20)))
    seen = run(engine)
    assert "the grammar became too complex" in (seen[0][-1].error or "")
    assert seen[1][-1].finish_reason == "length"


def test_grammar_of_another_engine_is_refused(engine: LlamaEngine) -> None:
    start = Start(0, tokens(engine, "Hi"), Sampling(), grammar=object())
    with pytest.raises(EngineError, match="compiled by another engine"):
        engine.start(start)
    assert not engine.busy()


def test_grammar_that_a_schema_tries_to_loosen_stays_strict(engine: LlamaEngine) -> None:
    loose = {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "type": "boolean"}
    assert text_of(under(engine, Grammar("json_schema", json.dumps(loose)))) in ("true", "false")
    with pytest.raises(InvalidInput, match="Unimplemented"):
        engine.compile(Grammar("json_schema", json.dumps({**loose, "not": {"const": True}})))


def test_grammar_is_compiled_once(engine: LlamaEngine) -> None:
    grammar = Grammar("json_schema", SCHEMA)
    assert engine.compile(grammar) is engine.compile(Grammar("json_schema", SCHEMA))


def test_grammar_masks_are_as_wide_as_the_vocabulary(engine: LlamaEngine) -> None:
    mask = engine.compile(Grammar("regex", "a")).matcher().mask()
    assert len(mask) == math.ceil(engine._vocabulary.size / WORD_BITS)
    allowed = np.unpackbits(mask.view(np.uint8), bitorder="little").nonzero()[0]
    assert [engine._vocabulary.piece(int(token)) for token in allowed] == [b"a"]


def test_generation_without_a_grammar_is_what_it_was(exact: LlamaEngine, alone: list[str]) -> None:
    assert generate(exact, STORIES[3])[0] == alone[3]
