"""The header of a GGUF file, read without the weights and believed only where it adds up.

References
----------
"GGUF", docs/gguf.md of the ggml project: the layout of the file. Versions 2 and 3 are read, in
little-endian.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sprat.errors import CorruptFile, UnsupportedModel

TYPES = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1),
    25: ("i16", 1, 2),
    26: ("i32", 1, 4),
    27: ("i64", 1, 8),
    28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56),
    30: ("bf16", 1, 2),
    34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
    41: ("q1_0", 128, 18),
    42: ("q2_0", 64, 18),
}
"""Of each type of weights in files: its name, the weights of a block, the bytes of a block."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MAX_DIMENSIONS = 4

_FLOAT32, _STRING, _ARRAY = 6, 8, 9
# struct codes of the scalar types of metadata.
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    Attributes
    ----------
    name : str
        Such as ``blk.0.attn_q.weight``.
    type : str
        Of its weights; a name of `TYPES`.
    shape : tuple of int
        Of a matrix: the length of its rows, then their number.
    weights : int
        How many it has.
    size : int
        Bytes that they take.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    weights: int
    size: int


class Header:
    """What stands before the weights.

    Parameters
    ----------
    path : Path
        A GGUF file.

    Attributes
    ----------
    metadata : dict
        Scalars and strings by their key; None stands for an array.
    tensors : list of Tensor
        In the order of the file.

    Raises
    ------
    CorruptFile
        It is no GGUF file, is cut, holds no tensors, or contradicts itself.
    UnsupportedModel
        A version or a type of weights that sprat does not know.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.metadata: dict[str, str | int | float | bool | None] = {}
        self._kinds: dict[str, int] = {}
        try:
            with path.open("rb") as self._stream:
                self._left = self._size = os.fstat(self._stream.fileno()).st_size
                self.tensors = self._read()
        except OSError as error:
            raise CorruptFile(str(path), f"cannot be read: {error.strerror}") from error

    def text(self, key: str, default: str | None = None) -> str:
        """A string of the metadata.

        Raises
        ------
        CorruptFile
            It is missing without a default, or no string.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise CorruptFile(str(self._path), f"{key}: expected a string, found {value!r}")
        return value

    def float32(self, key: str) -> float:
        """A number of the metadata; llama.cpp aborts where it reads one of another type.

        Raises
        ------
        CorruptFile
            It is missing, or no float32.
        """
        value = self.metadata.get(key)
        if self._kinds.get(key) != _FLOAT32 or not isinstance(value, float):
            raise CorruptFile(str(self._path), f"{key}: expected a float32, found {value!r}")
        return value

    def _read(self) -> list[Tensor]:
        if self._take(len(_MAGIC)) != _MAGIC:
            raise CorruptFile(str(self._path), "not a GGUF file")
        version = self._number("I")
        if version not in _VERSIONS:
            raise UnsupportedModel(
                f"{self._path}: version {version} of GGUF; 2 and 3, in little-endian, are read"
            )
        tensors, entries = self._number("Q"), self._number("Q")
        for _ in range(entries):
            self._read_entry()
        return self._read_tensors(tensors)

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise CorruptFile(
                str(self._path),
                f"cut inside its header: {size} bytes expected at {self._size - self._left}, "
                f"{self._left} are there",
            )
        self._left -= size
        return self._stream.read(size)

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))
        return value

    def _string(self) -> bytes:
        return self._take(self._number("Q"))

    def _text(self) -> str:
        return self._string().decode(errors="replace")

    def _read_entry(self) -> None:
        key, kind = self._text(), self._number("I")
        if key in self.metadata:
            raise CorruptFile(str(self._path), f"holds {key} twice")
        self._kinds[key] = kind
        if kind == _STRING:
            self.metadata[key] = self._text()
        elif kind in _SCALARS:
            self.metadata[key] = self._number(_SCALARS[kind])
        elif kind == _ARRAY:
            item, count = self._number("I"), self._number("Q")
            if item == _STRING:
                for _ in range(count):
                    self._string()
            elif item in _SCALARS:
                self._take(count * struct.calcsize(f"<{_SCALARS[item]}"))
            else:
                raise CorruptFile(str(self._path), f"{key}: an array of unknown type {item}")
            self.metadata[key] = None
        else:
            raise CorruptFile(str(self._path), f"{key}: unknown type {kind}")

    def _read_tensors(self, count: int) -> list[Tensor]:
        if not count:
            raise CorruptFile(str(self._path), "holds no tensors")
        alignment = self.metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise CorruptFile(
                str(self._path), f"general.alignment: expected a power of 2, found {alignment!r}"
            )
        tensors: dict[str, Tensor] = {}
        end = 0
        for _ in range(count):
            tensor, offset = self._read_tensor()
            if tensor.name in tensors:
                raise CorruptFile(str(self._path), f"holds tensor {tensor.name} twice")
            expected = -(-end // alignment) * alignment
            if offset != expected:
                raise CorruptFile(
                    str(self._path),
                    f"tensor {tensor.name}: expected at offset {expected}, found at {offset}",
                )
            end = offset + tensor.size
            tensors[tensor.name] = tensor
        end += -((self._left - self._size) // alignment) * alignment
        if end > self._size:
            raise CorruptFile(
                str(self._path),
                f"expected {end} bytes, found {self._size}: the weights are cut",
            )
        return list(tensors.values())

    def _read_tensor(self) -> tuple[Tensor, int]:
        name, rank = self._text(), self._number("I")
        if not 1 <= rank <= _MAX_DIMENSIONS:
            raise CorruptFile(str(self._path), f"tensor {name}: {rank} dimensions")
        shape = [self._number("Q") for _ in range(rank)]
        kind, offset = self._number("I"), self._number("Q")
        if kind not in TYPES:
            raise UnsupportedModel(f"{self._path}: tensor {name}: unknown type of weights {kind}")
        type_name, block, size = TYPES[kind]
        if min(shape) < 1 or shape[0] % block:
            raise CorruptFile(
                str(self._path), f"tensor {name}: shape {shape} cannot be {type_name}"
            )
        weights = prod(shape)
        return Tensor(name, type_name, tuple(shape), weights, weights // block * size), offset
