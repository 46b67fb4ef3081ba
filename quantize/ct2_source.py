"""What authors publish of an encoder, config.json and model.safetensors, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from sprat.errors import CorruptFile, UnsupportedModel
from sprat.quantize.ct2_families import ACTIVATIONS, FAMILIES
from sprat.values import FloatArray

# Tensors that may be there and are left out, by the beginning of their name without the prefix.
_EXTRAS = (
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.dense.",
    "classifier.",
    "cls.",
    "lm_head.",
    "pre_classifier.",
    "qa_outputs.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "vocab_transform.",
)

_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Config:
    """config.json.

    Raises
    ------
    UnsupportedModel
        The file is missing, or it or a property asks for what sprat does not know.
    CorruptFile
        The file is no JSON object.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values = read_json(path)
        self.architecture = str(self._values.get("model_type"))
        if self.architecture not in FAMILIES:
            raise UnsupportedModel(
                f"{path}: model_type {self.architecture!r} is not supported; supported are "
                f"{', '.join(FAMILIES)}"
            )
        self.family = FAMILIES[self.architecture]
        for key, wanted in {"position_embedding_type": "absolute", "is_decoder": False}.items():
            found = self._values.get(key, wanted)
            if found != wanted:
                raise UnsupportedModel(f"{path}: {key} {found!r} is not supported, only {wanted!r}")

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number, at least ``least``."""
        value = self._values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UnsupportedModel(
                f"{self._path}: {key}: expected a whole number of at least {least}, found {value!r}"
            )
        return value

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        value = self._values.get("layer_norm_eps", 1e-12)
        if not isinstance(value, float | int) or not 0 < value < 1:
            raise UnsupportedModel(
                f"{self._path}: layer_norm_eps: expected a number in (0, 1), found {value!r}"
            )
        return float(value)

    @property
    def activation(self) -> str:
        """The activation's name in CTranslate2."""
        name = self._values.get(self.family.activation, "gelu")
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise UnsupportedModel(
                f"{self._path}: {self.family.activation} {name!r} is not supported; supported are "
                f"{', '.join(ACTIVATIONS)}"
            )
        return ACTIVATIONS[name]


class Weights:
    """The tensors of a safetensors file, each taken once.

    Parameters
    ----------
    path : Path
        The file.
    prefix : str
        What names begin with where the encoder is a part of a larger model, such as ``bert.``.

    Raises
    ------
    UnsupportedModel
        The file is missing.
    CorruptFile
        The file is cut or malformed.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        if not path.is_file():
            raise UnsupportedModel(
                f"{path}: missing; only safetensors weights are read, never pickled ones"
            )
        try:
            # Opening checks the header, the offsets and the size of the file.
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise CorruptFile(str(path), f"not a whole safetensors file ({error})") from None
        content = np.memmap(path, dtype=np.uint8, mode="r")
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        self._data = content[start:]
        header: dict[str, dict[str, Any]] = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        self._prefix = prefix if any(name.startswith(prefix) for name in header) else ""
        self._left = {
            _modern(name.removeprefix(self._prefix)): entry for name, entry in header.items()
        }

    def take(self, name: str, *shape: int) -> FloatArray:
        """A tensor as a float32 array of its own.

        Raises
        ------
        UnsupportedModel
            It is missing, or has another shape or a type that is not a float.
        CorruptFile
            It holds an infinity or a NaN.
        """
        where = f"{self._path}: tensor {self._prefix}{name}"
        entry = self._left.pop(name, None)
        if entry is None:
            raise UnsupportedModel(f"{where} is missing")
        if tuple(entry["shape"]) != shape:
            raise UnsupportedModel(f"{where}: expected shape {list(shape)}, found {entry['shape']}")
        if entry["dtype"] not in _FLOATS:
            raise UnsupportedModel(
                f"{where}: expected type {' or '.join(_FLOATS)}, found {entry['dtype']}"
            )
        begin, end = entry["data_offsets"]
        stored = self._data[begin:end].view(_FLOATS[entry["dtype"]]).reshape(shape)
        if entry["dtype"] == "BF16":
            # The upper half of a float32.
            values = (stored.astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.array(stored, dtype=np.float32)
        if not np.isfinite(values).all():
            raise CorruptFile(str(self._path), f"tensor {self._prefix}{name} is not finite")
        return values

    def check_rest(self) -> None:
        """Refuse tensors that nobody took, unless they are known extras."""
        unknown = sorted(n for n in self._left if not n.startswith(_EXTRAS))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UnsupportedModel(
                f"{self._path}: tensor {self._prefix}{unknown[0]}{more}: not a part of this "
                "architecture"
            )


def _modern(name: str) -> str:
    """A name with the words of today for the two halves of a layer norm."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises
    ------
    UnsupportedModel
        There is no such file.
    CorruptFile
        It is no JSON, or no object.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnsupportedModel(f"{path}: missing") from None
    except (ValueError, OSError) as error:
        raise CorruptFile(str(path), f"not JSON ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise CorruptFile(str(path), f"expected an object, found {type(document).__name__}")
    return document
