"""Files that describe labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sprat.cli.output import read_file
from sprat.errors import ConfigError

LabelsFile = Annotated[
    Path | None,
    typer.Option(
        "--labels-file",
        help="JSON file: a list of `{name, description, examples}`; the last two may be absent.",
    ),
]


class LabelEntry(BaseModel):
    """An entry of a labels file."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()


def read_labels_file(path: Path) -> list[LabelEntry]:
    """Labels in the order of their file.

    Raises
    ------
    ConfigError
        The file cannot be read, or is not what the option says.
    """
    try:
        document = json.loads(read_file(path, "--labels-file"))
        return TypeAdapter(list[LabelEntry]).validate_python(
            [{"name": each} if isinstance(each, str) else each for each in document]
            if isinstance(document, list)
            else document
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
        raise ConfigError("--labels-file", f"{path}{where}: {first['msg']}") from None
    except ValueError:
        raise ConfigError("--labels-file", f"{path}: not JSON") from None
