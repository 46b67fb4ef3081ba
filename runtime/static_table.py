"""The folder of a static model: read, checked, written.

It is the format of the model2vec library::

    model.safetensors   embeddings [R, H]; weights [V] and mapping [V], where there are any
    config.json         normalize, max_length, and notes on how it was made
    tokenizer.json      of the ``tokenizers`` library

so models that were made with that library load here, and what sprat makes loads there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sprat.errors import CorruptFile, UnsupportedModel
from sprat.values import FloatArray, IntArray

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

MAX_LENGTH = 512
"""Most tokens of a text where the configuration does not say: the library's own default."""

UNLIMITED = 1_000_000
"""Most tokens of a text where the configuration says that there is no limit."""

Quantization = Literal["int8", "float16", "float32"]
QUANTIZATIONS: tuple[Quantization, ...] = ("int8", "float16", "float32")

Values = npt.NDArray[np.int8] | npt.NDArray[np.float16] | npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class StaticTable:
    """Token embeddings; see `sprat.kernels.embedding_bag` for what is done with them.

    Attributes
    ----------
    values : int8[R, H], float16[R, H] or float32[R, H]
        A row for each token, or for each group of tokens where there are ``rows``.
    weights : float32[V] or None
        What the row of each token is multiplied by: its weight times its scale.
    rows : int32[V] or None
        The row of each token; None where token i has row i, and R is V.
    normalize : bool
        Whether sentence vectors are scaled to length 1.
    max_tokens : int
        Tokens that a text is cut to, from 1.
    """

    values: Values
    weights: FloatArray | None
    rows: IntArray | None
    normalize: bool
    max_tokens: int

    @property
    def vocabulary_size(self) -> int:
        """How many tokens it is for."""
        return len(self.values) if self.rows is None else len(self.rows)

    @property
    def quantization(self) -> Quantization:
        """Type of ``values``."""
        return cast(Quantization, self.values.dtype.name)


def is_static(folder: Path) -> bool:
    """Whether a folder's weights are those of a static model; False for what cannot be read."""
    try:
        with safe_open(folder / WEIGHTS, framework="np") as tensors:
            return "embeddings" in tensors.keys()  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        return False


def read(folder: Path) -> StaticTable:
    """Read a static model without its tokenizer.

    A float64 table becomes float32.

    Raises
    ------
    CorruptFile
        A file is missing, cut or malformed, or its arrays do not fit one another.
    UnsupportedModel
        A table of another type.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="np") as tensors:
            found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptFile(str(path), f"not a whole safetensors file ({error})") from None
    except (TypeError, AttributeError) as error:  # a type that numpy does not have
        raise UnsupportedModel(
            f"{path}: a tensor of a type that is not supported ({error})"
        ) from None
    values = found.get("embeddings")
    if values is None or values.ndim != 2 or 0 in values.shape:
        shape = "none" if values is None else list(values.shape)
        raise CorruptFile(str(path), f"embeddings: expected a table [rows, dimension], got {shape}")
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    if values.dtype not in (np.int8, np.float16, np.float32):
        raise UnsupportedModel(
            f"{path}: embeddings: expected {', '.join(QUANTIZATIONS)} or float64, "
            f"got {values.dtype}"
        )
    if not np.isfinite(values).all():
        raise CorruptFile(str(path), "embeddings: not all values are finite")
    rows = _rows(path, found.get("mapping"), len(values))
    vocabulary = len(values) if rows is None else len(rows)
    return StaticTable(
        values=np.ascontiguousarray(values),
        weights=_weights(path, found.get("weights"), vocabulary),
        rows=rows,
        normalize=_normalize(folder / CONFIG, config),
        max_tokens=_max_tokens(folder / CONFIG, config),
    )


def _weights(path: Path, stored: npt.NDArray[Any] | None, vocabulary: int) -> FloatArray | None:
    if stored is None:
        return None
    if stored.shape != (vocabulary,) or stored.dtype.kind != "f":
        raise CorruptFile(
            str(path),
            f"weights: expected {vocabulary} floats, one for each token, "
            f"got {stored.dtype} {list(stored.shape)}",
        )
    if not np.isfinite(stored).all():
        raise CorruptFile(str(path), "weights: not all values are finite")
    return stored.astype(np.float32)


def _rows(path: Path, stored: npt.NDArray[Any] | None, count: int) -> IntArray | None:
    if stored is None:
        return None
    if stored.ndim != 1 or stored.dtype.kind not in "iu" or len(stored) == 0:
        raise CorruptFile(
            str(path), f"mapping: expected integers, got {stored.dtype} {list(stored.shape)}"
        )
    if stored.min() < 0 or stored.max() >= count:
        raise CorruptFile(
            str(path),
            f"mapping: expected rows in [0, {count}), got {stored.min()} to {stored.max()}",
        )
    return stored.astype(np.int32)


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a static model.

    Raises
    ------
    CorruptFile
        It is missing, or no JSON object.
    """
    path = folder / CONFIG
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise CorruptFile(str(path), f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise CorruptFile(str(path), "not JSON") from None
    if not isinstance(document, dict):
        raise CorruptFile(str(path), f"expected an object, found {type(document).__name__}")
    return document


def _normalize(path: Path, config: dict[str, Any]) -> bool:
    value = config.get("normalize", False)
    if not isinstance(value, bool):
        raise CorruptFile(str(path), f"normalize: expected true or false, got {value!r}")
    return value


def _max_tokens(path: Path, config: dict[str, Any]) -> int:
    value = config.get("max_length", MAX_LENGTH)
    if value is None:
        return UNLIMITED
    if type(value) is not int or value < 1:
        raise CorruptFile(str(path), f"max_length: expected an integer from 1, got {value!r}")
    return value


def write(folder: Path, table: StaticTable, notes: dict[str, Any]) -> None:
    """Write table and configuration into a folder; its tokenizer.json is the caller's.

    Parameters
    ----------
    notes : dict
        What else config.json says, for people.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"embeddings": table.values}
    if table.weights is not None:
        tensors["weights"] = table.weights
    if table.rows is not None:
        tensors["mapping"] = table.rows
    config: dict[str, Any] = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        **notes,
        "hidden_dim": table.values.shape[1],
        "embedding_dtype": table.quantization,
        "normalize": table.normalize,
        "max_length": None if table.max_tokens == UNLIMITED else table.max_tokens,
    }
    if table.rows is not None:
        config["vocabulary_quantization"] = len(table.values)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
