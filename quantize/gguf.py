"""GGUF models: what they hold, whether they are whole, and other types of weights of them.

llama.cpp is never handed a file that was cut or whose header contradicts itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from ctypes import POINTER, byref, c_float
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.engine import llama_lib
from sprat.errors import ConfigError, StoreError, UnsupportedModel
from sprat.quantize.gguf_header import Header
from sprat.values import FloatArray

FILE_TYPES = {
    "f16": "LLAMA_FTYPE_MOSTLY_F16",
    "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "iq4_nl": "LLAMA_FTYPE_MOSTLY_IQ4_NL",
}
"""Types of weights that `requantize` makes, and llama.cpp's names of their mixtures. Those that
llama.cpp has fast kernels for on x86, and f16, to which the others are compared."""


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What the header of a GGUF model says.

    Attributes
    ----------
    architecture : str
        Such as ``llama``.
    name : str
        What its authors call it; may be empty.
    context_length : int
        Tokens of a sequence that it was trained for.
    quantization : str
        The type of most weights of its layers, such as ``q4_1``; others may be mixed in.
    parameters : int
        Weights in all tensors.
    chat_template : bool
        Whether it says how a chat becomes a prompt.
    tokenizer : str
        Kind, and kind of pre-tokenizer where there is one: ``gpt2 (smollm)``.
    """

    architecture: str
    name: str
    context_length: int
    quantization: str
    parameters: int
    chat_template: bool
    tokenizer: str


def inspect(path: Path) -> GgufFacts:
    """Read the header of a GGUF model and check that the file is whole.

    Parameters
    ----------
    path : Path
        The file. Its weights are not read.

    Returns
    -------
    GgufFacts
        What it holds.

    Raises
    ------
    CorruptFile
        It is no GGUF file, is cut, holds no tensors, or its header contradicts itself.
    UnsupportedModel
        A version, a type of weights or a kind of file that sprat does not know.
    """
    header = Header(path)
    if header.text("general.type", "model") != "model":
        raise UnsupportedModel(f"{path}: holds {header.text('general.type')!r}, not a model")
    if header.metadata.get("split.count", 1) != 1:
        raise UnsupportedModel(f"{path}: one part of a split model; merge the parts first")
    architecture = header.text("general.architecture")
    context_length = header.metadata.get(f"{architecture}.context_length")
    if not isinstance(context_length, int) or context_length < 1:
        raise UnsupportedModel(
            f"{path}: {architecture}.context_length: expected a whole number above 0, "
            f"found {context_length!r}"
        )
    types: Counter[str] = Counter()
    # Embeddings often have a type of their own, and in a small model most of the weights.
    for tensor in [t for t in header.tensors if t.name.startswith("blk.")] or header.tensors:
        types[tensor.type] += tensor.weights
    splitter = header.text("tokenizer.ggml.pre", "")
    return GgufFacts(
        architecture=architecture,
        name=header.text("general.name", ""),
        context_length=context_length,
        quantization=types.most_common(1)[0][0],
        parameters=sum(tensor.weights for tensor in header.tensors),
        chat_template=bool(header.text("tokenizer.chat_template", "")),
        tokenizer=header.text("tokenizer.ggml.model") + (f" ({splitter})" if splitter else ""),
    )


def requantize(
    source: Path,
    out: Path,
    *,
    quantization: str,
    importance: Mapping[str, FloatArray] | None = None,
) -> GgufFacts:
    """Write a GGUF model with its matrices in another type of weights.

    Q8_0 moves a weight by about 1/254 of the largest of its block of 32, at most. Types of 4 bits
    move it sixteen times as far, and what that does to answers differs from model to model: they
    are for `sprat.quantize.choose`, which measures it. A tensor that is of the type already, as the
    embedding and output table often is, is copied bit by bit; norms stay as they are.

    Parameters
    ----------
    source : Path
        A GGUF model.
    out : Path
        The file to make, in a folder that exists. It appears, or is replaced, only when it is
        complete.
    quantization : {"f16", "q8_0", "q4_0", "iq4_nl"}
        The type.
    importance : mapping of str to float32[C], optional
        How much each of a matrix's C columns counts when its weights are rounded, by the name of
        the tensor; see `sprat.quantize.gguf_importance`. Of no effect on f16 and q8_0.

    Returns
    -------
    GgufFacts
        What `out` holds.

    Raises
    ------
    CorruptFile, UnsupportedModel
        As `inspect` of `source`, or llama.cpp cannot re-quantize it.
    ConfigError
        Another `quantization`.
    EngineError
        llama.cpp is not installed, or not for this machine.
    StoreError
        `out` cannot be written.
    """
    if quantization not in FILE_TYPES:
        raise ConfigError("quantization", f"expected {', '.join(FILE_TYPES)}; got {quantization!r}")
    if not out.parent.is_dir():
        raise StoreError(f"{out}: cannot be written: its folder does not exist")
    inspect(source)
    library = llama_lib.load()
    params = library.llama_model_quantize_default_params()
    params.ftype = getattr(library, FILE_TYPES[quantization])
    params.allow_requantize = True
    entries = _entries(library, importance) if importance else None
    if entries is not None:
        params.imatrix = entries
    staging = out.with_name(f"{out.name}.part")
    try:
        with llama_lib.collect_errors() as errors:
            failed = library.llama_model_quantize(bytes(source), bytes(staging), byref(params))
        if failed:
            reason = "; ".join(errors)
            if "iostream" in reason:
                raise StoreError(f"{out}: cannot be written; is there space left? ({reason})")
            raise UnsupportedModel(f"{source}: llama.cpp cannot re-quantize it ({reason})")
        facts = inspect(staging)
        staging.replace(out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        staging.unlink(missing_ok=True)
    return facts


def _entries(library: Any, importance: Mapping[str, FloatArray]) -> Any:
    """The mapping as llama.cpp takes it: an array that ends with an entry without a name.

    It points into the mapping's arrays, which must outlive it.
    """
    kind = library.llama_model_imatrix_data
    entries = [
        kind(name.encode(), values.ctypes.data_as(POINTER(c_float)), values.size)
        for name, values in importance.items()
    ]
    return (kind * (len(entries) + 1))(*entries)
