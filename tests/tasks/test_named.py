"""Named tasks: what they are loaded as, and what they are refused for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from doubles import GENERATOR, Generator, generative_model, no_leaked_threads

from sprat.budget import ComputePermits
from sprat.errors import ConfigError
from sprat.model import GenerativeModel
from sprat.scheduler import ComputePool
from sprat.tasks import named
from sprat.tasks.named import Spec
from sprat.values import (
    Destination,
    ExtractSpec,
    Grammar,
    Label,
    LabelSet,
    Question,
    QuestionSet,
    RouteSet,
    Sampling,
    TransformSpec,
)

AB = (Label("a"), Label("b"))
LABELS = LabelSet(GENERATOR, AB)
NAMES = ExtractSpec(
    GENERATOR,
    '{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}',
)
QUESTIONS = QuestionSet(GENERATOR, (Question("q", "Is it?", "yes_no"),))
TRANSFORM = TransformSpec(GENERATOR, "Say {text}")


@pytest.fixture(scope="module")
def model() -> Iterator[GenerativeModel]:
    with no_leaked_threads():
        permits = ComputePermits(1)
        pool = ComputePool(permits)
        made = generative_model(Generator(context_length=400), permits, pool)
        yield made
        pool.close()
        made.close()


@pytest.mark.parametrize(
    ("spec", "kind", "labels"),
    [
        (LABELS, "classify", ("a", "b")),
        (RouteSet(GENERATOR, (Destination("x"), Destination("y"))), "route", ("x", "y")),
        (QUESTIONS, "decide", ("q",)),
        (TRANSFORM, "transform", ()),
    ],
)
def test_named_task_says_what_it_is(
    model: GenerativeModel, spec: Spec, kind: str, labels: tuple[str, ...]
) -> None:
    info = named.load("t", spec, model).info
    assert (info.name, info.kind, info.labels) == ("t", kind, labels)
    assert info.models == ((GENERATOR, model.info.version),)
    assert (info.calibrated, info.accept_at) == (False, 0.0)


def test_named_task_version_is_of_all_that_it_asks(model: GenerativeModel) -> None:
    def version(spec: Spec, **more: str) -> str:
        return named.load("t", spec, model, **more).info.version

    first = version(LABELS)
    assert first == version(replace(LABELS))
    assert len(first) == 12
    others = {
        version(replace(LABELS, instructions="Choose.")),
        version(replace(LABELS, labels=AB[::-1])),
        version(replace(LABELS, scoring="full")),
        version(LABELS, adapter_version="1"),
    }
    assert len(others | {first}) == 5


@pytest.mark.parametrize(
    ("spec", "path", "said"),
    [
        (replace(LABELS, labels=AB[:1]), "labels", "expected 2 to 256, got 1"),
        (replace(LABELS, labels=AB + AB[:1]), "labels[2]", "the same as labels[0]"),
        (replace(LABELS, labels=(*AB, Label("c" * 40))), "labels[2]", "40 tokens"),
        (replace(LABELS, normalize_length=True), "normalize_length", "full scoring"),
        (replace(LABELS, instructions="x" * 500), "", "no room is left for a text"),
        (RouteSet(GENERATOR, (Destination("x"),) * 2), "destinations[1]", "the same as"),
        (replace(QUESTIONS, questions=()), "questions", "expected 1 to 32, got 0"),
        (
            replace(QUESTIONS, questions=(Question("q", "?", "choice", AB[:1]),)),
            "questions[0].options",
            "expected 2 to 256, got 1",
        ),
        (replace(TRANSFORM, prompt="Say it"), "prompt", "expected the placeholder {text}"),
        (replace(TRANSFORM, prompt="{text}" + "x" * 500), "prompt", "tokens, at most 399"),
        (
            replace(TRANSFORM, sampling=Sampling(temperature=11)),
            "sampling.temperature",
            "expected [0, 10], got 11",
        ),
        (replace(TRANSFORM, grammar=Grammar("regex", "(")), "grammar", "no good"),
        (ExtractSpec(GENERATOR, "{}"), "schema", 'expected "type": "object"'),
        (ExtractSpec(GENERATOR, '{"type": "object"}'), "schema", "no good"),
        (ExtractSpec(GENERATOR, "{}", max_tokens=0), "max_tokens", "got 0"),
    ],
)
def test_named_task_is_refused_for_what_a_request_would_be(
    model: GenerativeModel, spec: Spec, path: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        named.load("t", spec, model)
    assert caught.value.path == (f"tasks.t.{path}" if path else "tasks.t")
    assert said in caught.value.message
