"""A LoRA adapter in llama.cpp: loaded beside its model, and put on a context as a whole set.

The memory of a context holds what was computed under its adapter: whoever puts another one on goes
on with sequences of that one only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from ctypes import c_float
from pathlib import Path
from typing import Any

from sprat.engine.llama_lib import collect_errors
from sprat.errors import CorruptFile, EngineError


class Adapter:
    """An adapter that is loaded for one model.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    model : pointer
        A loaded model. It outlives the adapter, and the adapter every context that it is on.
    path : Path
        GGUF file, as `sprat.quantize.gguf_adapter.inspect` approves it for this model.

    Raises
    ------
    CorruptFile
        llama.cpp cannot load it for this model.
    """

    def __init__(self, lib: Any, model: Any, path: Path) -> None:
        self._lib = lib
        with collect_errors() as errors:
            self.pointer = lib.llama_adapter_lora_init(model, os.fsencode(path))
        if not self.pointer:
            reason = errors[0] if errors else "no reason given"
            raise CorruptFile(str(path), f"llama.cpp cannot load it: {reason}")

    def close(self) -> None:
        """Release it: after every context that it is on, and before its model."""
        if self.pointer:
            self._lib.llama_adapter_lora_free(self.pointer)
            self.pointer = None


def find_adapter(adapters: Mapping[str, Adapter], name: str) -> Adapter | None:
    """An adapter by its name; None for an empty one.

    Raises
    ------
    EngineError
        There is none of that name.
    """
    if name and name not in adapters:
        raise EngineError(f"no adapter named {name!r} is loaded")
    return adapters.get(name)


def apply(lib: Any, context: Any, adapter: Adapter | None) -> None:
    """Make a context compute under an adapter, or under none.

    Nothing happens where it does already; a switch makes the next batch some milliseconds slower.
    """
    if adapter is None:
        lib.llama_set_adapters_lora(context, None, 0, None)
    else:
        pointers = (type(adapter.pointer) * 1)(adapter.pointer)
        lib.llama_set_adapters_lora(context, pointers, 1, (c_float * 1)(1.0))
