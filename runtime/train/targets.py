"""Where texts of each label go: a file with a target for each."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from sprat.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_TARGET_CHARACTERS = 1024
MAX_SHOWN_LABELS = 10


def read_targets(path: Path, labels: Sequence[str]) -> dict[str, str]:
    """Read the targets of a route task.

    Parameters
    ----------
    path : Path
        ``.json``: an object; ``.toml``: a document without tables. Keys are labels, values are
        strings: a queue, a team, a model, an endpoint.
    labels : sequence of str
        Each needs a target.

    Raises
    ------
    ConfigError
        When the file cannot be read, or labels and keys are not the same: with their names.
    """
    try:
        source = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError("targets", f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError("targets", f"{path} is not UTF-8 (byte {error.start})") from None
    found = _parse(path, source)
    missing = [label for label in labels if label not in found]
    unknown = [label for label in found if label not in labels]
    for what, names in (("no target for", missing), ("not among the labels of the data:", unknown)):
        if names:
            more = len(names) - MAX_SHOWN_LABELS
            shown = ", ".join(map(repr, names[:MAX_SHOWN_LABELS]))
            tail = f" and {more} more" if more > 0 else ""
            raise ConfigError("targets", f"{path}: {what} {shown}{tail}")
    return {label: check_target(found[label], f"targets.{label}") for label in labels}


def check_target(value: object, path: str) -> str:
    """A target as it may stand in a bundle.

    Raises
    ------
    ConfigError
        It is no string, empty, longer than 1,024 characters, or has a control character.
    """
    if not isinstance(value, str):
        raise ConfigError(path, f"expected a string, found {type(value).__name__}")
    if not value.strip():
        raise ConfigError(path, "empty")
    if len(value) > MAX_TARGET_CHARACTERS:
        raise ConfigError(
            path, f"{len(value)} characters, at most {MAX_TARGET_CHARACTERS} are accepted"
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ConfigError(path, "a control character or lone surrogate")
    return value


def _parse(path: Path, source: str) -> dict[str, object]:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".toml"):
        raise ConfigError(
            "targets", f"{path}: expected .json or .toml, found {suffix or 'no suffix'}"
        )
    try:
        found = json.loads(source) if suffix == ".json" else tomllib.loads(source)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("targets", f"{path}: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError("targets", f"{path}: a number too long, or nested too deep") from None
    if not isinstance(found, dict):
        raise ConfigError("targets", f"{path}: expected an object, found {type(found).__name__}")
    return found
