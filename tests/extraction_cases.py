"""Twenty schemas that differ, and the check that what is extracted under them is valid.

The suite tries each once. By hand, over real texts: ``python tests/extraction_cases.py 500``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from jsonschema import Draft202012Validator, FormatChecker

from sprat.inprocess import Runtime
from sprat.store import Store
from sprat.values import Extraction, ExtractResult, ExtractSpec

MODEL = "smollm2-135m"
MAX_TOKENS = 96
TEXT = {"type": "string", "maxLength": 40}


def fields(required: Sequence[str] | None = None, **properties: Any) -> dict[str, Any]:
    """A schema of an object; what is required is all unless it says otherwise."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else list(required),
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "strings": fields(first_name=TEXT, last_name=TEXT),
    "numbers": fields(people={"type": "integer"}, price={"type": "number"}),
    "ranges": fields(
        people={"type": "integer", "minimum": 1, "maximum": 20},
        share={"type": "number", "minimum": 0, "exclusiveMaximum": 1},
    ),
    "boolean and null": fields(is_booking={"type": "boolean"}, nothing={"type": "null"}),
    "enum": fields(intent={"enum": ["book", "cancel", "change", None, 7]}),
    "constant": fields(kind={"const": "booking"}, name=TEXT),
    "optional": fields([], date=TEXT, time=TEXT, people={"type": "integer"}),
    "nullable": fields(time={"type": ["string", "null"], "maxLength": 10}),
    "array": fields(words={"type": "array", "items": TEXT, "maxItems": 4}),
    "array of at least": fields(
        words={"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3}
    ),
    "array of objects": fields(
        guests={"type": "array", "items": fields(["name"], name=TEXT), "maxItems": 2}
    ),
    "tuple": fields(
        pair={"type": "array", "prefixItems": [TEXT, {"type": "integer"}], "items": False}
    ),
    "nested": fields(booking=fields(guest=fields(name=TEXT), time=TEXT)),
    "any of": fields(when={"anyOf": [{"type": "null"}, fields(day=TEXT), {"type": "integer"}]}),
    "definitions": {
        **fields(guest={"$ref": "#/$defs/person"}, host={"$ref": "#/$defs/person"}),
        "$defs": {"person": fields(name={"type": "string", "maxLength": 12})},
    },
    "recursive": {
        **fields(["name"], name=TEXT, next={"$ref": "#"}),
    },
    "formats": fields(
        date={"type": "string", "format": "date"}, mail={"type": "string", "format": "email"}
    ),
    "pattern": fields(time={"type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]$"}),
    "map": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 3},
    "odd keys": fields(**{"a/b~c": TEXT, "ключ": {"type": "boolean"}, 'q"uote\\': TEXT}),
}


class Extractor(Protocol):
    """A client, or the runtime."""

    def extract(self, spec: ExtractSpec, texts: Sequence[str]) -> ExtractResult: ...


def extract(verbs: Extractor, name: str, texts: Sequence[str]) -> list[Extraction]:
    """Extract under a schema and check what comes: one result for each text."""
    schema = SCHEMAS[name]
    spec = ExtractSpec(MODEL, json.dumps(schema, ensure_ascii=False), max_tokens=MAX_TOKENS)
    items = [item for item in verbs.extract(spec, texts).items if item is not None]
    assert len(items) == len(texts)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    for text, item in zip(texts, items, strict=True):
        if item.complete:
            validator.validate(item.value)
            assert json.loads(item.json) == item.value
        else:
            assert (item.value, item.json, item.fields) == (None, "", ())
        assert item.output_tokens <= MAX_TOKENS
        for field in item.fields:
            assert 0 <= field.score <= 1
            assert field.grounded <= (field.start is not None)
            if field.start is not None and field.end is not None:
                assert 0 <= field.start < field.end <= len(text)
    return items


def main(count: int) -> None:
    """Print what became of ``count`` extractions."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("SPRAT_TEST_DATA", root.parent / "shared" / "data"))
    with (data / "restaurant8k.test.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line)["text"] for line in lines]
    texts = rows[:: len(rows) // count][:count]
    started, seen = time.monotonic(), Counter[str]()
    with Runtime(models=[MODEL], store=Store(root / ".test-home")) as runtime:
        for index, name in enumerate(SCHEMAS):
            items = extract(runtime, name, texts[index :: len(SCHEMAS)])
            seen["complete"] += sum(item.complete for item in items)
            seen["incomplete"] += sum(not item.complete for item in items)
            seen["tokens"] += sum(item.output_tokens for item in items)
            seen["forced"] += sum(item.forced_tokens for item in items)
            seen["leaves"] += sum(len(item.fields) for item in items)
            seen["placed"] += sum(f.start is not None for item in items for f in item.fields)
            print(f"{time.monotonic() - started:6.0f} s  {name}: {dict(seen)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
