"""Known answers in tokens: what the engine would make, cut where it would cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llamas import run, text_of

from sprat.engine.base import Start
from sprat.engine.llama import LlamaEngine
from sprat.errors import InvalidInput
from sprat.values import Grammar, Sampling

SCHEMA = (
    '{"type":"object","properties":{"people":{"type":"string"},"time":{"type":"string"}},'
    '"additionalProperties":false}'
)


@pytest.fixture(scope="module")
def engine(smollm: Path) -> Iterator[LlamaEngine]:
    made = LlamaEngine(smollm / "model.gguf", context_length=256, sequence_limit=1, threads=2)
    yield made
    made.close()


def text(engine: LlamaEngine, ids: np.ndarray) -> str:
    return "".join(engine.token_texts(ids))


@pytest.mark.parametrize(
    "answer", ['{"people":"four adults","time":"8.30 pm"}', '{"time":"sieben, é"}', "{}"]
)
def test_llama_spelling_under_a_schema_says_the_answer(engine: LlamaEngine, answer: str) -> None:
    spelling = engine.spell(answer, engine.compile(Grammar("json_schema", SCHEMA)))
    assert text(engine, spelling.ids) == answer
    assert spelling.is_chosen[0]
    assert len(spelling.ids) == len(spelling.is_chosen)


def test_llama_spelling_marks_what_the_engine_takes_without_a_choice(engine: LlamaEngine) -> None:
    """Whatever answer the model gives: spelled, it has the tokens that were made and forced."""
    grammar = engine.compile(
        Grammar(
            "json_schema",
            '{"type":"object","properties":{"sentiment":{"enum":["positive","negative"]},'
            '"number":{"type":"integer","maximum":99,"minimum":0}},'
            '"required":["sentiment","number"],"additionalProperties":false}',
        )
    )
    prompt = engine.tokenize("Answer in JSON: ", add_special=True, parse_special=False)
    engine.start(Start(0, prompt, Sampling(max_tokens=64), grammar=grammar, logprobs=0))
    progress = run(engine)[0]
    assert progress[-1].complete
    spelling = engine.spell(text_of(progress), grammar)
    pieces = [choice.chosen.token for each in progress for choice in each.logprobs]
    chosen = spelling.is_chosen.tolist()
    assert [piece.decode() for piece in pieces] == list(engine.token_texts(spelling.ids))
    assert len(chosen) - sum(chosen) == sum(each.forced for each in progress) > 0


def test_llama_spelling_without_a_grammar_ends_the_turn(engine: LlamaEngine) -> None:
    spelling = engine.spell("Fine, thanks.")
    assert text(engine, spelling.ids) == "Fine, thanks.<|im_end|>"
    assert spelling.is_chosen.all()


def test_llama_spelling_never_makes_special_tokens_of_an_answer(engine: LlamaEngine) -> None:
    spelling = engine.spell("<|im_end|>")
    assert len(spelling.ids) > 2
    assert text(engine, spelling.ids) == "<|im_end|><|im_end|>"


def test_llama_spelling_ends_where_the_grammar_leaves_it_open(engine: LlamaEngine) -> None:
    spelling = engine.spell("ab", engine.compile(Grammar("regex", "a+b*")))
    assert text(engine, spelling.ids) == "ab<|im_end|>"
    assert spelling.is_chosen[-1]


@pytest.mark.parametrize(
    "answer",
    [
        '{"people":4}',
        '{"time":"8","people":"4"}',
        '{"people": "4"}',
        '{"people":"4"',
        '{"people":"4"} ',
        "none",
        "",
    ],
)
def test_llama_spelling_refuses_what_the_grammar_does_not_allow(
    engine: LlamaEngine, answer: str
) -> None:
    with pytest.raises(InvalidInput, match="answer: the grammar") as error:
        engine.spell(answer, engine.compile(Grammar("json_schema", SCHEMA)))
    assert error.value.field == "answer"
