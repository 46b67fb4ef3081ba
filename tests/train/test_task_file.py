"""Specs as tasks of the configuration: what is written is read as the same spec."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sprat.config import Config
from sprat.errors import ConfigError, InvalidInput
from sprat.text.schema import Schema
from sprat.train.task_file import TASK, read_task, task_config, task_files, task_table
from sprat.values import (
    ExtractSpec,
    Grammar,
    Label,
    LabelSet,
    Sampling,
    TransformSpec,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = '{"type":"object","properties":{"who":{"enum":[null,"me"]}}}'
ODD = 'A "quoted" \\ line\nand \x7f another; é \u2028'
SPECS = [
    LabelSet("base", (Label("a"), Label("b", ODD)), ODD, adapter="x"),
    LabelSet("base", (Label("a"), Label("b")), "", "full", True, True, adapter="x"),
    ExtractSpec("base", SCHEMA, "Who?", adapter="x"),
    ExtractSpec("base", SCHEMA, require_grounding=True, max_tokens=7, adapter="x"),
    TransformSpec("base", ODD + "{text}", adapter="x"),
    TransformSpec("base", "{text}", Grammar("regex", "a|b\\d"), adapter="x"),
    TransformSpec(
        "base",
        "{text}",
        Grammar("json_schema", SCHEMA),
        Sampling(max_tokens=9, temperature=0.5, seed=3, stop=("\n",)),
        lookup=False,
        adapter="x",
    ),
]


@pytest.mark.parametrize("spec", SPECS)
def test_task_file_is_read_as_the_same_spec(
    spec: LabelSet | ExtractSpec | TransformSpec, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for name, content in task_files(spec, "the.task").items():
        (made / name).write_text(content, encoding="utf-8")
    folder = made.rename(tmp_path / "moved")
    assert read_task(folder, "the.task").spec() == spec
    # What is to be copied elsewhere says where the schema lies.
    document = tomllib.loads(task_table(spec, "the.task", folder))
    assert Config.model_validate(document).tasks["the.task"].spec() == spec
    served = task_config(spec).spec()
    if isinstance(served, ExtractSpec):
        served = replace(served, schema=Schema(served.schema).text)
    assert served == spec


def test_task_file_that_is_not_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="polite: nothing says what this adapter is asked"):
        read_task(tmp_path, "polite")


def test_task_file_whose_schema_is_gone_names_the_path(tmp_path: Path) -> None:
    files = task_files(ExtractSpec("base", SCHEMA, adapter="x"), "x")
    (tmp_path / TASK).write_text(files[TASK], encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tasks\.x\.schema: .*schema\.json cannot be read"):
        read_task(tmp_path, "x")
