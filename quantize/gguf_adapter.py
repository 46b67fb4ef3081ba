"""LoRA adapters in GGUF files: what they hold, and whether they fit the model they are for.

llama.cpp checks less than it relies on: what would abort its process, or would be left out of the
answers silently, is refused here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from sprat.errors import CorruptFile, UnsupportedModel
from sprat.quantize.gguf_header import Header, Tensor

_A, _B = ".lora_a", ".lora_b"
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_TYPES = ("f32", "f16", "bf16", "q8_0")


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What the header of an adapter says.

    Attributes
    ----------
    rank : int
        Of its largest pair of matrices.
    alpha : float
        Each product of a pair is multiplied by ``alpha / rank`` and added to the base's matrix.
    licence : str
        As its authors state it; may be empty.
    """

    rank: int
    alpha: float
    licence: str


def inspect(path: Path, *, base: Path) -> AdapterFacts:
    """Read the header of an adapter and check that it is whole and fits a model.

    Parameters
    ----------
    path : Path
        A GGUF file with a LoRA adapter. Its weights are not read.
    base : Path
        The GGUF model that it is for.

    Returns
    -------
    AdapterFacts
        What it holds.

    Raises
    ------
    CorruptFile
        It is no GGUF file, is cut, or its header contradicts itself.
    UnsupportedModel
        It is no LoRA adapter, not for this model, or of a kind that llama.cpp would abort on or
        apply in part.
    """
    header, model = Header(path), Header(base)
    if (kind := header.text("general.type", "model")) != "adapter":
        raise UnsupportedModel(f"{path}: holds {kind!r}, not an adapter")
    if (kind := header.text("adapter.type")) != "lora":
        raise UnsupportedModel(f"{path}: expected an adapter of type 'lora', found {kind!r}")
    if "adapter.alora.invocation_tokens" in header.metadata:
        raise UnsupportedModel(
            f"{path}: an activated LoRA, which works only after certain tokens, is not supported"
        )
    own, expected = header.text("general.architecture"), model.text("general.architecture")
    if own != expected:
        raise UnsupportedModel(f"{path}: made for a {own}, but {base.name} is a {expected}")
    alpha = header.float32("adapter.lora.alpha")
    if not 0 < alpha < math.inf:
        raise CorruptFile(
            str(path), f"adapter.lora.alpha: expected a number above 0, found {alpha}"
        )
    return AdapterFacts(
        rank=max(_ranks(path, header.tensors, {t.name: t for t in model.tensors})),
        alpha=alpha,
        licence=header.text("general.license", ""),
    )


def _ranks(path: Path, tensors: list[Tensor], model: dict[str, Tensor]) -> list[int]:
    """Rank of each pair of matrices, all of them checked."""
    found = {tensor.name: tensor for tensor in tensors}
    for name, tensor in found.items():
        if not name.endswith((_A, _B)):
            raise UnsupportedModel(
                f"{path}: tensor {name}: expected {_A[1:]} and {_B[1:]} only; "
                "llama.cpp would leave it out"
            )
        if tensor.type not in _TYPES:
            raise UnsupportedModel(
                f"{path}: tensor {name}: expected {', '.join(_TYPES)}, found {tensor.type}"
            )
    ranks = []
    for name in dict.fromkeys(name.removesuffix(_A).removesuffix(_B) for name in found):
        for part in (name + _A, name + _B):
            if part not in found:
                raise CorruptFile(str(path), f"tensor {part} is missing")
        target = model.get(name)
        if target is None or len(target.shape) < 2:
            raise UnsupportedModel(f"{path}: the model has no matrix {name}")
        _check_target(path, target, model)
        ranks.append(_rank(path, found[name + _A], found[name + _B], target))
    return ranks


def _check_target(path: Path, target: Tensor, model: dict[str, Tensor]) -> None:
    if target.name == _EMBEDDING and _OUTPUT not in model:
        raise UnsupportedModel(
            f"{path}: adapts {_EMBEDDING}, which is the output of this model too; "
            "llama.cpp cannot do that"
        )
    if target.type == "nvfp4":
        raise UnsupportedModel(f"{path}: adapts {target.name}, which is nvfp4 in this model")


def _rank(path: Path, a: Tensor, b: Tensor, target: Tensor) -> int:
    columns, rows, *experts = target.shape
    rank = b.shape[0]
    expected: tuple[tuple[int, ...], tuple[int, ...]]
    if target.name == _EMBEDDING:
        # The rows of A are looked up, not multiplied.
        expected = (rank, rows), (rank, columns)
    else:
        expected = (columns, rank, *experts), (rank, rows, *experts)
    if (a.shape, b.shape) != expected:
        raise UnsupportedModel(
            f"{path}: adapts {target.name} by matrices of shapes {a.shape} and {b.shape}, but "
            f"for this model and rank {rank} they are {expected[0]} and {expected[1]}"
        )
    return rank
