"""GGUF models: what they hold, whether they are whole, and Q8_0 of them.

llama.cpp is never handed a file that was cut or whose header contradicts itself.
"""

from __future__ import annotations

from collections import Counter
from ctypes import byref
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sprat.engine import llama_lib
from sprat.errors import ConfigError, StoreError, UnsupportedModel
from sprat.quantize.gguf_header import Header


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


def requantize(source: Path, out: Path, *, quantization: Literal["q8_0"]) -> GgufFacts:
    """Write a GGUF model with its matrices in another type of weights.

    Q8_0 is the one type on offer because it needs no quality gate: it moves a weight by about 1/254
    of the largest of its block of 32, at most. A tensor that is Q8_0 already, as the embedding and
    output table often is, is copied bit by bit; norms stay as they are.

    Parameters
    ----------
    source : Path
        A GGUF model.
    out : Path
        The file to make, in a folder that exists. It appears, or is replaced, only when it is
        complete.
    quantization : {"q8_0"}
        The type.

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
    if quantization != "q8_0":
        raise ConfigError("quantization", f"expected q8_0, got {quantization!r}")
    if not out.parent.is_dir():
        raise StoreError(f"{out}: cannot be written: its folder does not exist")
    inspect(source)
    library = llama_lib.load()
    params = library.llama_model_quantize_default_params()
    params.ftype = library.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
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
