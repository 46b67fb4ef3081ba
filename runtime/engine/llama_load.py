"""What is read of a GGUF file when an engine is made: the model and its chat template."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sprat.engine import llama_lib
from sprat.engine.llama_vocab import Vocabulary
from sprat.errors import CorruptFile, UnsupportedModel

if TYPE_CHECKING:
    from sprat.engine.chat import ChatTemplate


def load_model(lib: Any, path: Path) -> Any:
    """The model of a GGUF file.

    Raises
    ------
    CorruptFile
        llama.cpp cannot load it.
    UnsupportedModel
        It is no decoder.
    """
    if not path.is_file():
        raise CorruptFile(str(path), "missing")
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = llama_lib.is_amx_safe(llama_lib.built_for(lib))
    with llama_lib.collect_errors() as errors:
        model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        reason = errors[0] if errors else "no reason given"
        raise CorruptFile(str(path), f"llama.cpp cannot load it: {reason}")
    if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
        lib.llama_model_free(model)
        raise UnsupportedModel(f"{path}: expected a decoder, found a model with an encoder")
    return model


def chat_template(
    lib: Any, model: Any, vocabulary: Vocabulary
) -> ChatTemplate | UnsupportedModel | None:
    """The model's template. A malformed one is an error only to who asks for a chat."""
    from sprat.engine.chat import ChatTemplate

    source = llama_lib.metadata_text(lib, model, "tokenizer.chat_template")
    if not source:
        return None
    try:
        return ChatTemplate(source, bos=vocabulary.bos, eos=vocabulary.eos)
    except UnsupportedModel as error:
        return error
