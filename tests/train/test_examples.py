"""Training examples: what the server would ask, and what it would score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_chooser import Chooser
from sprat.errors import DataError, InvalidInput
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.train.examples import Example, Examples, Step, shared_length
from sprat.values import (
    ExtractSpec,
    Grammar,
    IntArray,
    Label,
    LabelSet,
    Sampling,
    TransformSpec,
)

SCHEMA = '{"type":"object","properties":{"who":{"type":"string"},"n":{"type":"integer"}}}'
LABELS = LabelSet("tiny", (Label("ab"), Label("abc"), Label("ax", "other")), "Which one?")
EXTRACT = ExtractSpec("tiny", SCHEMA, "Who, and how many?", max_tokens=8)
TRANSFORM = TransformSpec("tiny", "In {tone}: {text}", sampling=Sampling(max_tokens=4))
TEXT = "Two of us </s> é"


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[LlamaEngine]:
    made = LlamaEngine(tiny, context_length=1024, sequence_limit=1, threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def examples(engine: LlamaEngine) -> Examples:
    return Examples(engine, most_tokens=1024)


def text(engine: LlamaEngine, example: Example) -> str:
    raw = engine._vocabulary.piece
    return b"".join(map(raw, example.answer.tolist())).decode()


def test_examples_have_the_prompts_of_the_server(
    examples: Examples, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server in front of the same model hands to its engine, token by token."""
    asked: list[IntArray] = []

    def recorded(kind: Any) -> Any:
        start = kind.start

        def record(self: Any, *arguments: Any) -> None:
            asked.append(arguments[-1].prompt)
            start(self, *arguments)

        return record

    for kind in (Chooser, LlamaEngine):
        monkeypatch.setattr(kind, "start", recorded(kind))
    store = Store(tmp_path)
    pull(str(tiny), store, name="tiny")
    with Runtime(models=["tiny"], store=store) as runtime:
        runtime.choose(LABELS, [TEXT])
        runtime.extract(EXTRACT, [TEXT])
        list(runtime.transform(TRANSFORM, TEXT, inputs={"tone": "anger"}))
    where: Any = {"lines": [1], "path": "rows"}
    made = [
        *examples.classify(LABELS, [TEXT], [0], **where),
        *examples.extract(EXTRACT, [TEXT], ["{}"], **where),
        *examples.transform(TRANSFORM, [TEXT], [{"tone": "anger"}], ["x"], **where),
    ]
    assert [each.tolist() for each in asked] == [each.prompt.tolist() for each in made]


def test_examples_choose_a_label_where_it_parts_from_others(
    examples: Examples, engine: LlamaEngine
) -> None:
    made = examples.classify(LABELS, [TEXT] * 3, [0, 1, 2], lines=[1, 2, 3], path="rows")
    b, x, c = engine._vocabulary.continuation("bxc").tolist()
    end = engine.turn_end()
    # This vocabulary puts a space before labels, for the server as well.
    assert [text(engine, each) for each in made] == [" ab", " abc", " ax"]
    assert made[0].answer[-1] == end
    assert end < c
    assert made[0].steps == (Step(2, (b, x)), Step(3, (end, c)))
    assert made[1].steps == (Step(2, (b, x)), Step(3, (end, c)))
    assert made[2].steps == (Step(2, (b, x)),)
    assert len(made[2]) == len(made[2].prompt) + 2


def test_examples_choose_each_token_of_a_label_for_full_scoring(
    examples: Examples, engine: LlamaEngine
) -> None:
    spec = LabelSet("tiny", LABELS.labels, scoring="full")
    (made,) = examples.classify(spec, [TEXT], [2], lines=[1], path="rows")
    assert made.answer[-1] == engine.turn_end()
    assert made.steps == (Step(0), Step(1), Step(2), Step(3))


def test_examples_leave_out_what_a_schema_forces(examples: Examples, engine: LlamaEngine) -> None:
    schema = '{"type":"object","properties":{"who":{"enum":["me","us"]}},"required":["who"]}'
    spec = ExtractSpec("tiny", schema)
    (made,) = examples.extract(spec, [TEXT], ['{"who":"us"}'], lines=[1], path="rows")
    # The first token is chosen by the engine even where there is one only.
    assert [text(engine, made)[step.at] for step in made.steps] == ["{", "u"]
    assert text(engine, made) == '{"who":"u'


def test_examples_of_free_text_end_the_turn(examples: Examples, engine: LlamaEngine) -> None:
    where: Any = {"lines": [1], "path": "rows"}
    (free,) = examples.transform(TRANSFORM, [TEXT], [{"tone": ""}], ["yes"], **where)
    assert text(engine, free) == "yes"
    assert free.answer[-1] == engine.turn_end()
    assert len(free.steps) == 4
    yes_no = TransformSpec("tiny", "{text}", Grammar("regex", "yes|no"))
    (forced,) = examples.transform(yes_no, [TEXT], [{}], ["yes"], **where)
    assert text(engine, forced) == "y"


def test_examples_name_the_lines_of_answers_that_do_not_fit(examples: Examples) -> None:
    values = ['{"who":"me"}', '{"who":1}', '{"other":"x"}']
    with pytest.raises(DataError) as error:
        examples.extract(EXTRACT, [TEXT] * 3, values, lines=[4, 5, 9], path="rows")
    assert error.value.line == 5
    assert "line 9: answer: the grammar does not allow it" in error.value.message
    assert "me" not in error.value.message.replace("grammar", "")


def test_examples_name_the_lines_of_texts_that_are_too_long(examples: Examples) -> None:
    with pytest.raises(DataError, match=r"rows:7: text: \d+ tokens") as error:
        examples.classify(LABELS, ["fine", "x" * 2000], [0, 1], lines=[6, 7], path="rows")
    assert "xx" not in error.value.message


def test_examples_refuse_answers_that_are_far_too_long_unspelled(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spell(*_: object) -> None:
        raise AssertionError("takes minutes")

    monkeypatch.setattr("sprat.engine.llama.LlamaEngine.spell", spell)
    value = json.dumps({"who": "x" * 100_000}, separators=(",", ":"))
    with pytest.raises(DataError, match=r"rows:7: text: \d+ tokens"):
        examples.extract(EXTRACT, ["fine"], [value], lines=[7], path="rows")


def test_examples_refuse_labels_that_the_model_reads_alike(examples: Examples) -> None:
    spec = LabelSet("tiny", (Label("a"), Label("a")))
    with pytest.raises(InvalidInput, match=r"labels\[1\]"):
        examples.classify(spec, [TEXT], [0], lines=[1], path="rows")


def test_examples_share_what_all_prompts_begin_with(examples: Examples) -> None:
    texts = ["red", "rust", "rue"]
    made = examples.classify(LABELS, texts, [0, 1, 2], lines=[1, 2, 3], path="rows")
    shared = shared_length(made)
    for each in made[1:]:
        np.testing.assert_array_equal(each.prompt[:shared], made[0].prompt[:shared])
    assert len({int(each.prompt[shared]) for each in made}) == 3 - 1
    assert shared_length([made[0], made[0]]) == len(made[0].prompt) - 1
    assert shared_length([]) == 0
