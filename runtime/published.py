"""Which of the files that somebody published make a model."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from sprat.errors import InvalidInput, UnsupportedModel

WEIGHTS = "model.safetensors"

_REQUIRED = (WEIGHTS, "config.json", "tokenizer.json")
_OPTIONAL = ("modules.json", "sentence_bert_config.json")
_POOLING = re.compile(r"\d+_Pooling/config\.json")
_PART_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.")


def choose(files: Collection[str], wanted: str | None) -> dict[str, str]:
    """Which files make the model.

    Parameters
    ----------
    files : collection of str
        Paths of everything there is; not trusted.
    wanted : str or None
        The GGUF file that was asked for.

    Returns
    -------
    dict of str to str
        From each path in the source to the one that its copy gets.

    Raises
    ------
    InvalidInput
        Several GGUF files, and none was asked for.
    UnsupportedModel
        Nothing that sprat reads.
    """
    if wanted is None and WEIGHTS in files:
        missing = [name for name in _REQUIRED if name not in files]
        if missing:
            raise UnsupportedModel(f"beside {WEIGHTS}, {' and '.join(missing)} is missing")
        poolings = {name for name in files if _POOLING.fullmatch(name)}
        return {n: n for n in files if n in _REQUIRED or n in _OPTIONAL or n in poolings}
    found = sorted(n for n in files if n.endswith(".gguf") and "\\" not in n)
    if wanted is not None:
        found = [name for name in found if name == wanted]
    if len(found) > 1:
        raise InvalidInput(
            f"several GGUF files; add the name of one, as in hf:org/name:{found[0]}: "
            f"{', '.join(found)}",
            field="spec",
        )
    if not found:
        pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in files)
        raise UnsupportedModel(
            f"no {wanted or f'{WEIGHTS} and no .gguf file'} is there"
            + ("; pickled weights are never read" if pickled else "")
        )
    if _PART_OF_SEVERAL.search(found[0]):
        raise UnsupportedModel(f"{found[0]} is one part of several; sprat reads whole GGUF files")
    return {found[0]: PurePosixPath(found[0]).name}


def local_files(path: Path) -> list[str]:
    """What `choose` chooses from on this machine: a file, or what a model's folder can hold."""
    if not path.is_dir():
        return [path.name]
    pooling = (p.relative_to(path).as_posix() for p in path.glob("*_Pooling/config.json"))
    return [p.name for p in path.iterdir() if p.is_file()] + list(pooling)


def below(path: Path, name: str) -> Path:
    """Where a file that `local_files` listed is."""
    return path / name if path.is_dir() else path
