"""A linear head: from sentence vectors to the scores of a task's labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from sprat.errors import CorruptFile
from sprat.kernels import classify_head
from sprat.values import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear head on sentence vectors.

    Attributes
    ----------
    weight : float32[K, D]
        A row for each label, in the order of the bundle.
    bias : float32[K]
    temperature : float
        Logits are divided by it before softmax.
    """

    weight: FloatArray
    bias: FloatArray
    temperature: float = 1.0

    @property
    def dimension(self) -> int:
        """D: elements of a vector that it takes."""
        return int(self.weight.shape[1])

    def logits(self, vectors_nd: FloatArray) -> FloatArray:
        """Scores of every label, before temperature and softmax.

        Parameters
        ----------
        vectors_nd : float32[N, D]
            L2-normalized sentence vectors of the tier's model.

        Returns
        -------
        float32[N, K]
        """
        logits_nk: FloatArray = vectors_nd @ self.weight.T + self.bias
        return logits_nk

    def rank(self, vectors_nd: FloatArray, top_k: int) -> tuple[IntArray, FloatArray]:
        """The best labels and their probabilities: `logits`, over the temperature, as softmax.

        Parameters
        ----------
        vectors_nd : float32[N, D]
            L2-normalized sentence vectors of the tier's model.
        top_k : int
            From 1; where there are fewer labels, all of them.

        Returns
        -------
        indices : int32[N, min(top_k, K)]
            Labels, best first; equally good ones in the order of the bundle.
        probabilities : float32[N, min(top_k, K)]
        """
        top_k = min(top_k, len(self.bias))
        return classify_head(vectors_nd, self.weight, self.bias, self.temperature, top_k)

    def probabilities(self, features_nd: FloatArray) -> npt.NDArray[np.float64]:
        """Probability of each label by itself, for heads whose labels do not exclude each other.

        Parameters
        ----------
        features_nd : float32[N, D]

        Returns
        -------
        float64[N, K]
            In [0, 1]; the temperature has no part in it.
        """
        return sigmoid(self.logits(features_nd))

    def save(self, path: Path) -> None:
        """Write weight and bias as a safetensors file; the temperature is the manifest's."""
        path.write_bytes(safetensors.numpy.save({"weight": self.weight, "bias": self.bias}))

    @classmethod
    def load(cls, path: Path, *, rows: int, temperature: float) -> Head:
        """Read a head and check its tensors.

        Parameters
        ----------
        rows : int
            Labels that it must have.

        Raises
        ------
        CorruptFile
            The file is not what `save` writes, or has another number of labels.
        """
        try:
            tensors = dict(safetensors.deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
        except (OSError, safetensors.SafetensorError):
            raise CorruptFile(str(path), "not a safetensors file") from None
        if tensors.keys() != {"weight", "bias"}:
            raise CorruptFile(
                str(path), f"expected tensors bias and weight, found {', '.join(sorted(tensors))}"
            )
        weight = _tensor(path, "weight", tensors["weight"], dimensions=2, rows=rows)
        bias = _tensor(path, "bias", tensors["bias"], dimensions=1, rows=rows)
        return cls(weight, bias, temperature)


def sigmoid(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-x)) of each value, without overflow; NaN of NaN."""
    with np.errstate(invalid="ignore"):
        result: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    return result


def _tensor(
    path: Path, name: str, tensor: dict[str, Any], *, dimensions: int, rows: int
) -> FloatArray:
    dtype, shape = tensor["dtype"], tuple(tensor["shape"])
    expected = f"float32[{rows}{', D' * (dimensions - 1)}]"
    if dtype != "F32" or len(shape) != dimensions or shape[0] != rows or 0 in shape:
        raise CorruptFile(
            str(path), f"{name}: expected {expected}, found {dtype}[{', '.join(map(str, shape))}]"
        )
    array = np.frombuffer(tensor["data"], "<f4").reshape(shape)
    if not np.isfinite(array).all():
        raise CorruptFile(str(path), f"{name}: not all values are finite")
    return array
