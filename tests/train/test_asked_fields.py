"""Tiers that ask for fields in training: questions, right answers, calibration, figures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from doubles import manifest
from fields import extract_bundle

from sprat.asked_manifest import Fields, RemoteFields
from sprat.bundle_manifest import BundleManifest
from sprat.errors import DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Silent
from sprat.text.leaves import leaves, pointer, read
from sprat.train.asked_fields import AskedFields
from sprat.train.spans import GoldSpan, SpanDataset
from sprat.values import (
    Extraction,
    ExtractResult,
    ExtractSpec,
    Field,
    ItemError,
    Label,
    LabelSet,
    Timings,
)

KIND = AskedFields()
REF = ModelRef(name="polite", digest="1" * 64)
BUNDLE: BundleManifest = extract_bundle(manifest("encoder")).manifest
TIER = BUNDLE.tiers[0].model_copy(update={"calibration": None})
"""Whatever a tier is, here only its calibration matters."""


def rows(*given: tuple[str, dict[str, list[str]]]) -> SpanDataset:
    """Texts with the words that they have of each field, every word at its next place."""
    texts, spans = [], []
    for text, fields in given:
        found = []
        for field, words in fields.items():
            at = 0
            for word in words:
                at = text.index(word, at)
                found.append(GoldSpan(at, at + len(word), field))
                at += len(word)
        texts.append(text)
        spans.append(tuple(sorted(found)))
    empty: tuple[str, ...] = ()
    lines = tuple(range(1, len(texts) + 1))
    return SpanDataset(tuple(texts), tuple(spans), (empty,) * len(texts), lines, "rows.jsonl")


def answering(*values: dict[str, Any] | None, chances: tuple[float, ...] = ()) -> Any:
    """One call that gives these values; None is an answer that does not hold."""

    def ask(asked: SpanDataset) -> ExtractResult:
        items = tuple(
            Extraction(
                value,
                "" if value is None else json.dumps(value),
                tuple(Field(pointer(path), 0.5, grounded=True) for path, _ in _leaves(value)),
                confidence=0.0 if value is None else (chances or (0.5,) * len(values))[at],
            )
            for at, value in enumerate(values)
        )
        return ExtractResult(items, (), "model", "", "", Timings(), calibrated=True)

    return ask


def _leaves(value: dict[str, Any] | None) -> list[Any]:
    return [] if value is None else list(leaves(read(json.dumps(value))))


def test_asked_fields_right_is_what_has_the_same_strings() -> None:
    data = rows(
        ("Ada, Bea and Ada", {"guests": ["Ada", "Bea"], "name": ["Ada"]}),
        ("Ada, Bea and Ada", {"guests": ["Ada", "Bea"]}),
        ("nobody", {}),
        ("nobody", {}),
        ("Ada or Bea", {"name": ["Ada"]}),
        ("Ada or Bea", {"name": ["Ada", "Bea"]}),
        ("Ada", {"name": ["Ada"]}),
    )
    found: tuple[dict[str, Any] | None, ...] = (
        {"guests": ["Bea", "Ada"], "name": "Ada"},
        {"guests": ["Ada"]},
        {},
        None,
        {"guests": ["Ada"]},
        {"name": "Ada"},
        {"name": "ada"},
    )
    said = KIND.say(BUNDLE, answering(*found), data, Silent())
    assert said.is_sound_n.tolist() == [True, True, True, False, True, True, True]
    assert said.chance_n.tolist() == [0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5]
    tier = KIND.fitted(TIER, KIND.fit(BUNDLE, said, data, TIER, seed=0))
    sure_n, answer_n, right_n = KIND.rate(BUNDLE, said, data, tier)
    assert right_n.tolist() == [True, False, True, False, False, False, False]
    assert answer_n is None
    # What does not hold is no answer, whatever the curve says of a chance of 0.
    assert (sure_n[3], sure_n[0] > 0) == (0.0, True)
    report = KIND.evaluate(BUNDLE, said, data, tier, seed=0)
    assert report.metrics["exact_match"].value == pytest.approx(2 / 7)
    assert report.wrong_lines == (2, 4, 5, 6, 7)
    assert report.whole is not None
    assert report.metrics["whole_ece"] == report.whole.ece
    assert sum(each.n for each in report.whole.reliability) == 7
    assert KIND.evaluate(BUNDLE, said, data, TIER, seed=0).whole is None


def test_asked_fields_confidences_follow_the_chances() -> None:
    rng = np.random.default_rng(0)
    chance_n = rng.random(600)
    is_right_n = rng.random(600) < chance_n**2
    data = rows(*(("Ada or Bea", {"name": ["Ada"]}) for _ in chance_n))
    found = [{"name": "Ada" if right else "Bea"} for right in is_right_n.tolist()]
    found[:20] = [None] * 20  # type: ignore[list-item]

    def ask(few: SpanDataset) -> ExtractResult:
        start = few.lines[0] - 1
        part = slice(start, start + len(few))
        result = answering(*found[part], chances=tuple(chance_n[part].tolist()))(few)
        assert isinstance(result, ExtractResult)
        return result

    said = KIND.say(BUNDLE, ask, data, Silent())
    fit = KIND.fit(BUNDLE, said, data, TIER, seed=0)
    assert fit.rows == 580
    assert fit.calibration.ceiling == pytest.approx(581 / 582)
    sure_n, _, right_n = KIND.rate(BUNDLE, said, data, KIND.fitted(TIER, fit))
    assert abs(sure_n[20:].mean() - right_n[20:].mean()) < 0.01
    upper = sure_n > 0.5
    assert abs(sure_n[upper].mean() - right_n[upper].mean()) < 0.08


def test_asked_fields_without_an_answer_that_holds_are_refused() -> None:
    data = rows(("Ada", {"name": ["Ada"]}), ("Bea", {"name": ["Bea"]}))
    said = KIND.say(BUNDLE, answering(None, None), data, Silent())
    with pytest.raises(DataError, match=r"rows\.jsonl: none of 2 answers holds"):
        KIND.fit(BUNDLE, said, data, TIER, seed=0)


def test_asked_fields_row_that_cannot_be_answered_names_its_line() -> None:
    data = rows(("Ada", {"name": ["Ada"]}), ("Bea", {"name": ["Bea"]}))

    def ask(few: SpanDataset) -> ExtractResult:
        error = ItemError(1, "INPUT_TOO_LONG", "texts[1]: 99 tokens, at most 9")
        return ExtractResult((None, None), (error,), "", "", "", Timings())

    with pytest.raises(DataError, match=r"rows\.jsonl:2: text: 99 tokens"):
        KIND.say(BUNDLE, ask, data, Silent())


def test_asked_fields_rows_with_other_fields_are_refused() -> None:
    with pytest.raises(DataError, match="known fields: 'guests', 'name'"):
        KIND.check(BUNDLE, rows(("Ada", {"shop": ["Ada"]})))


def test_asked_fields_are_asked_with_the_schema_of_the_bundle() -> None:
    labels = [Label("name", "who comes")]
    asked = KIND.language(BUNDLE, adapter=None, trained=None, labels=labels, max_tokens=9)
    assert asked.max_tokens == 9
    assert json.loads(asked.json_schema) == {
        "type": "object",
        # Described ones first: so does the model read them.
        "properties": {
            "name": {"type": ["string", "null"], "description": "who comes"},
            "guests": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "guests"],
        "additionalProperties": False,
    }
    far = KIND.remote(BUNDLE, model="big", task_version="", labels=labels, votes=3)
    assert far == RemoteFields(model="big", json_schema=asked.json_schema, votes=3)


def test_asked_fields_are_asked_as_the_adapter_was_trained() -> None:
    properties = {"guests": {"type": "array", "items": {"type": "string"}}, "name": {"enum": []}}
    properties["name"] = {"type": "string"}
    schema = json.dumps({"type": "object", "properties": properties})
    trained = ExtractSpec("tiny", schema, "Who?", max_tokens=40, adapter="polite")
    asked = KIND.language(BUNDLE, adapter=REF, trained=trained, labels=())
    assert asked == Fields(json_schema=schema, instructions="Who?", max_tokens=40, adapter=REF)
    other = KIND.language(BUNDLE, adapter=REF, trained=trained, labels=(), instructions="?")
    assert (other.instructions, other.max_tokens) == ("?", 40)
    with pytest.raises(InvalidInput, match="expected none beside adapter polite"):
        KIND.language(BUNDLE, adapter=REF, trained=trained, labels=[Label("name")])


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string"}, "expected that of an object with properties"),
        ({"type": "object", "properties": {}}, "found none"),
        (
            {"type": "object", "properties": {"name": {"type": "string"}}},
            "expected the fields of the bundle, guests, name; found name",
        ),
        (
            {
                "type": "object",
                "properties": {"name": {"type": "string"}, "guests": {"type": "string"}},
            },
            "schema.properties.guests: expected an array of strings",
        ),
        (
            {
                "type": "object",
                "properties": {
                    "name": {"type": ["string", "integer"]},
                    "guests": {"type": "array", "items": {"type": "string"}},
                },
            },
            "schema.properties.name: expected a string",
        ),
    ],
)
def test_asked_fields_of_adapters_for_other_fields_are_refused(
    schema: dict[str, Any], said: str
) -> None:
    trained = ExtractSpec("tiny", json.dumps(schema), adapter="polite")
    with pytest.raises(InvalidInput, match=said) as caught:
        KIND.language(BUNDLE, adapter=REF, trained=trained, labels=())
    assert caught.value.field == "adapter"
    # Neither is such a bundle read.
    document = BUNDLE.model_dump(mode="json")
    tier = {
        **document["tiers"][0],
        "name": "language",
        "weights": "",
        "language": {"json_schema": json.dumps(schema)},
    }
    document["tiers"].append(tier)
    with pytest.raises(ValueError, match=said):
        BundleManifest.model_validate(document)


def test_asked_fields_of_adapters_for_labels_are_refused() -> None:
    trained = LabelSet("tiny", (Label("a"), Label("b")), adapter="polite")
    with pytest.raises(InvalidInput, match="polite was trained for another kind of task"):
        KIND.language(BUNDLE, adapter=REF, trained=trained, labels=())
