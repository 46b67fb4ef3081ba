"""A spec as a task of the configuration: for a server, and as a file to copy from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sprat import config
from sprat.errors import InvalidInput
from sprat.task_config import (
    ClassifyTaskConfig,
    ExtractTaskConfig,
    TransformTaskConfig,
)
from sprat.values import ExtractSpec, LabelSet, TransformSpec

TrainedTask = ClassifyTaskConfig | ExtractTaskConfig | TransformTaskConfig
"""What adapters are trained for."""

TASK = "task.toml"
SCHEMA = "schema.json"
_RELATIVE = f"# {SCHEMA} lies beside this file; where this is copied to, write its whole path."


def task_config(spec: LabelSet | ExtractSpec | TransformSpec) -> TrainedTask:
    """A spec as the configuration has it."""
    if isinstance(spec, LabelSet):
        return ClassifyTaskConfig(
            model=spec.model,
            adapter=spec.adapter,
            labels=spec.labels,
            instructions=spec.instructions,
            scoring=spec.scoring,
            normalize_length=spec.normalize_length,
            correct_prior=spec.correct_prior,
        )
    if isinstance(spec, ExtractSpec):
        return ExtractTaskConfig.model_validate(
            {
                "model": spec.model,
                "adapter": spec.adapter,
                "schema": json.loads(spec.schema),
                "instructions": spec.instructions,
                "require_grounding": spec.require_grounding,
                "max_tokens": spec.max_tokens,
            }
        )
    # No grammar is said by saying nothing.
    grammar = {} if spec.grammar is None else {"grammar": spec.grammar}
    return TransformTaskConfig.model_validate(
        {
            "model": spec.model,
            "adapter": spec.adapter,
            "prompt": spec.prompt,
            "sampling": spec.sampling,
            "lookup": spec.lookup,
            **grammar,
        }
    )


def task_files(spec: LabelSet | ExtractSpec | TransformSpec, name: str) -> dict[str, str]:
    """Files of an adapter's folder that say how its task is served: `TASK`, and a schema beside it.

    Parameters
    ----------
    name : str
        Of the task.

    Returns
    -------
    dict of str to str
        Content by name. They name no place, so that the folder may be moved.
    """
    schema = _schema(spec)
    if schema is None:
        return {TASK: task_table(spec, name)}
    return {TASK: f"{_RELATIVE}\n{task_table(spec, name)}", SCHEMA: schema}


def task_table(
    spec: LabelSet | ExtractSpec | TransformSpec, name: str, folder: Path = Path()
) -> str:
    """A task as a table of the configuration, to copy into ``sprat.toml``.

    Parameters
    ----------
    name : str
        Of the task.
    folder : Path
        Where its schema lies.
    """
    task = task_config(spec)
    entries = {"kind": task.kind, **task.model_dump(exclude_defaults=True, by_alias=True)}
    path = str(folder / SCHEMA)
    if isinstance(spec, ExtractSpec):
        entries["schema"] = path
    elif isinstance(spec, TransformSpec) and spec.grammar is not None:
        is_schema = spec.grammar.kind == "json_schema"
        entries["grammar"] = {spec.grammar.kind: path if is_schema else spec.grammar.source}
    elif isinstance(spec, LabelSet):
        entries["labels"] = [
            {"name": label.name, "description": label.description}
            if label.description
            else label.name
            for label in spec.labels
        ]
    body = (f"{key} = {_toml(value)}\n" for key, value in entries.items())
    return "".join([f"[tasks.{_toml(name)}]\n", *body])


def read_task(folder: Path, name: str) -> TrainedTask:
    """The task that `task_files` wrote into the folder of an adapter.

    Raises
    ------
    InvalidInput
        There is none, as for an adapter that was added and not trained.
    ConfigError
        It cannot be used: its schema is not beside it, for one.
    """
    path = folder / TASK
    if not path.is_file():
        raise InvalidInput(
            f"{name}: nothing says what this adapter is asked; expected one that `sprat train` "
            "made",
            field="adapter",
        )
    task = config.load(path, environment={}).tasks[name]
    assert isinstance(task, TrainedTask)  # no other is written
    return task


def _schema(spec: LabelSet | ExtractSpec | TransformSpec) -> str | None:
    """The JSON Schema that answers have to fit, if there is one."""
    if isinstance(spec, ExtractSpec):
        return spec.schema
    if isinstance(spec, TransformSpec) and spec.grammar is not None:
        return spec.grammar.source if spec.grammar.kind == "json_schema" else None
    return None


def _toml(value: Any) -> str:
    """A value of TOML; strings as JSON writes them, but for one control character."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        pairs = (f"{key} = {_toml(each)}" for key, each in value.items() if each is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
