"""Rows that adapters are trained on, by kind of task, and the spec that they are asked by."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sprat.engine.llama import LlamaEngine
from sprat.manifest import sha256_file
from sprat.text.schema import Schema
from sprat.text.template import TEXT, Template
from sprat.train import split
from sprat.train.data import Dataset, read
from sprat.train.examples import Example, Examples
from sprat.train.rows import MAX_TEXT_BYTES, bad_rows, read_records
from sprat.train.wanted import Wanted, read_wanted
from sprat.values import ExtractSpec, Label, LabelSet, TransformSpec

Spec = LabelSet | ExtractSpec | TransformSpec


@dataclass(frozen=True, slots=True)
class Rows(Wanted):
    """Texts and what they should become: a label, the JSON of a value, or a text.

    ``inputs`` are for transform; empty for other kinds.
    """

    @property
    def answers(self) -> tuple[str, ...]:
        """One per row."""
        return self.targets

    def dataset(self) -> Dataset:
        """The same as labelled texts."""
        return Dataset(self.texts, self.answers, self.lines, self.path, self.sha256)


def read_rows(path: Path, spec: Spec) -> Rows:
    """Read rows for a spec.

    For labels, ``text`` and ``label``: see `sprat.train.data.read`. For a schema, ``text`` and
    either ``value``, an object, or ``spans``, a list of objects with ``field`` and the ``start``
    and ``end`` of its characters in the text. For a prompt, ``text``, ``target`` and a field for
    each other placeholder.

    Raises
    ------
    DataError
        The file cannot be read, holds no rows, or has bad ones: their lines.
    InvalidInput
        The schema or the prompt is none.
    """
    if isinstance(spec, LabelSet):
        data = read(path)
        return Rows(data.texts, data.labels, ({},) * len(data), data.lines, data.path, data.sha256)
    if isinstance(spec, ExtractSpec):
        return _read_values(path, Schema(spec.schema))
    names = [name for name in Template(spec.prompt).names if name != TEXT]
    wanted = read_wanted(path, names)
    return Rows(
        wanted.texts, wanted.targets, wanted.inputs, wanted.lines, wanted.path, wanted.sha256
    )


def with_labels(spec: LabelSet, path: Path) -> LabelSet:
    """A spec that names no labels with those of the rows, sorted."""
    if spec.labels:
        return spec
    return replace(spec, labels=tuple(map(Label, sorted(set(read(path).labels)))))


def hold_out(rows: Rows, share: float, *, kind: str, seed: int) -> tuple[Rows, Rows]:
    """Rows to keep and rows to hold out; texts that are the same stay together.

    Of labelled rows each label is in both, in about the same shares.

    Raises
    ------
    DataError
        There are too few rows, or for labels too few of one of them.
    """
    if kind == "classify":
        data = rows.dataset()
        index = {line: row for row, line in enumerate(rows.lines)}
        kept, held = split.split(data, share, seed=seed)
        return rows.take(index[line] for line in kept.lines), rows.take(
            index[line] for line in held.lines
        )
    kept_rows, held_rows = split.split_texts(rows.texts, share, seed=seed, path=rows.path)
    return rows.take(kept_rows), rows.take(held_rows)


def make_examples(
    rows: Rows, spec: Spec, engine: LlamaEngine, *, most_tokens: int
) -> list[Example]:
    """Training examples. Errors as in `sprat.train.examples.Examples`.

    Raises
    ------
    DataError
        Rows have labels that are not among those of the spec, too: their lines.
    """
    examples = Examples(engine, most_tokens=most_tokens)
    where: dict[str, Any] = {"lines": rows.lines, "path": rows.path}
    if isinstance(spec, LabelSet):
        names = [label.name for label in spec.labels]
        targets = rows.dataset().targets(names).tolist()
        return examples.classify(spec, rows.texts, targets, **where)
    if isinstance(spec, ExtractSpec):
        return examples.extract(spec, rows.texts, rows.answers, **where)
    return examples.transform(spec, rows.texts, rows.inputs, rows.answers, **where)


def _read_values(path: Path, schema: Schema) -> Rows:
    texts: list[str] = []
    answers: list[str] = []
    lines: list[int] = []
    faults: list[tuple[int, str]] = []
    properties = json.loads(schema.text).get("properties", {})
    for line, record in read_records(path, ("text",)):
        text = str(record["text"])
        try:
            if ("value" in record) == ("spans" in record):
                found = "both" if "value" in record else "neither"
                raise ValueError(f"expected either value or spans, found {found}")
            if "value" in record:
                value = record["value"]
            else:
                value = _from_spans(text, record["spans"], properties)
            if not isinstance(value, dict):
                raise ValueError("value: expected an object")
            answers.append(_in_order(value, json.loads(schema.text)))
        except RecursionError:
            faults.append((line, "value: nested too deeply"))
        except ValueError as error:
            faults.append((line, str(error)))
        else:
            texts.append(text)
            lines.append(line)
    if faults:
        raise bad_rows(str(path), faults)
    return Rows(
        tuple(texts),
        tuple(answers),
        ({},) * len(texts),
        tuple(lines),
        str(path),
        sha256_file(path),
    )


def _from_spans(text: str, spans: object, properties: dict[str, Any]) -> dict[str, Any]:
    """The value that spans are: a list for a field that the schema says is an array."""
    if not isinstance(spans, list):
        raise ValueError("spans: expected a list")
    value: dict[str, Any] = {}
    for index, span in enumerate(spans):
        where = f"spans[{index}]"
        if not isinstance(span, dict):
            raise ValueError(f"{where}: expected an object")
        field, start, end = (span.get(key) for key in ("field", "start", "end"))
        if field not in properties:
            raise ValueError(f"{where}.field: none of the schema's properties")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            raise ValueError(
                f"{where}: expected 0 <= start < end <= {len(text)}, the length of the text"
            )
        if "text" in span and span["text"] != text[start:end]:
            raise ValueError(f"{where}.text: not what stands in the text from start to end")
        if properties[field].get("type") == "array":
            value.setdefault(field, []).append(text[start:end])
        elif field in value:
            raise ValueError(f"{where}.field: twice, but the schema takes one; make it an array")
        else:
            value[field] = text[start:end]
    return value


def _in_order(value: Any, schema: Any) -> str:
    """JSON without white space, the keys of objects in the order of the schema's properties."""
    ordered = _ordered(value, schema)
    try:
        made = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ValueError("value: holds a number that JSON does not have") from None
    if (size := len(made.encode("utf-8", "replace"))) > MAX_TEXT_BYTES:
        raise ValueError(f"value: {size} bytes, at most {MAX_TEXT_BYTES} are accepted")
    return made


def _ordered(value: Any, schema: Any) -> Any:
    known = schema if isinstance(schema, dict) else {}
    if isinstance(value, list):
        items = known.get("items")
        return [_ordered(item, items) for item in value]
    if not isinstance(value, dict):
        return value
    properties = known.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    keys = [key for key in properties if key in value]
    keys += [key for key in value if key not in properties]
    return {key: _ordered(value[key], properties.get(key)) for key in keys}
