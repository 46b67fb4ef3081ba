"""How much each column of a model's matrices counts on texts of its task: an importance matrix.

A 4-bit type has room for few values, and which of them a weight is rounded to is a choice. Columns
that meet large activations move the outputs most, so llama.cpp, where it is told the mean square of
the activations that each column meets, rounds those more carefully. They are collected here through
the callback that llama.cpp's scheduler calls for every tensor that it computes.

References
----------
"Importance matrix calculations", pull request 4861 of llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sprat.engine import llama_lib
from sprat.engine.llama_scorer import Scorer
from sprat.errors import DataError, EngineError
from sprat.progress import Progress, Silent
from sprat.values import FloatArray

_FLOAT32 = 0  # GGML_TYPE_F32
_PRODUCT = b"MUL_MAT"
_PREFIX = b"blk."  # the layers; an embedding is looked up, not multiplied


class _Tensor(ctypes.Structure):
    """``struct ggml_tensor`` of ggml.h; `_check_layout` compares it with the library's own view."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


class _Collector:
    """Sums the squares of what each matrix of the layers is multiplied with."""

    def __init__(self, lib: Any) -> None:
        self._sums: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self._rows: dict[str, int] = {}
        self._error = ""
        functions = lib._lib
        self._op_name = functions.ggml_op_name
        self._op_name.argtypes, self._op_name.restype = [ctypes.c_int], ctypes.c_char_p
        self._name = functions.ggml_get_name
        self._name.argtypes, self._name.restype = [ctypes.c_void_p], ctypes.c_char_p
        # A pointer to this is all that llama.cpp keeps.
        self.callback = lib.ggml_backend_sched_eval_callback(self._on_tensor)

    def _on_tensor(self, address: int, is_asked: bool, _: Any) -> bool:
        """Say whether we want to see a tensor, and then see it. An exception must not pass C."""
        try:
            tensor = _Tensor.from_address(address)
            if tensor.name != self._name(address):
                raise EngineError("the tensors of this build of llama.cpp lie otherwise in memory")
            if is_asked:
                return self._is_wanted(tensor)
            self._add(tensor)
        except Exception as error:
            self._error = self._error or str(error)
        return not is_asked

    def _is_wanted(self, tensor: _Tensor) -> bool:
        if self._op_name(tensor.op) != _PRODUCT:
            return False
        weights, inputs = tensor.src[0].contents, tensor.src[1].contents
        is_weights = weights.name.startswith(_PREFIX) and weights.name.endswith(b".weight")
        return bool(is_weights and inputs.type == _FLOAT32)

    def _add(self, tensor: _Tensor) -> None:
        name, inputs = tensor.src[0].contents.name.decode(), tensor.src[1].contents
        columns, rows = inputs.ne[0], inputs.ne[1]
        if inputs.ne[2] != 1 or inputs.ne[3] != 1 or inputs.nb[0] != 4 or inputs.nb[1] % 4:
            raise EngineError(f"{name}: its inputs are no plain matrix")
        step = inputs.nb[1] // 4
        pointer = ctypes.cast(inputs.data, ctypes.POINTER(ctypes.c_float))
        whole = np.ctypeslib.as_array(pointer, ((rows - 1) * step + columns,))
        values = np.lib.stride_tricks.as_strided(whole, (rows, columns), (inputs.nb[1], 4))
        sums = np.einsum("rc,rc->c", values, values, dtype=np.float64)
        self._sums[name] = self._sums.get(name, 0) + sums
        self._rows[name] = self._rows.get(name, 0) + rows

    def means(self) -> dict[str, FloatArray]:
        """Mean square by tensor.

        Raises
        ------
        EngineError
            Something was not as expected, or not finite.
        """
        if self._error:
            raise EngineError(self._error)
        means = {n: (sums / self._rows[n]).astype(np.float32) for n, sums in self._sums.items()}
        if bad := [name for name, values in means.items() if not np.isfinite(values).all()]:
            raise EngineError(f"{bad[0]}: its inputs are not finite")
        return means


def collect(
    path: Path,
    texts: Sequence[str],
    *,
    context_length: int,
    tokens: int,
    threads: int,
    progress: Progress | None = None,
) -> dict[str, FloatArray]:
    """Run texts through a model and sum up what its matrices are multiplied with.

    Parameters
    ----------
    path : Path
        GGUF file; of f16 weights, so that activations are what they should be.
    texts : sequence of str
        Such as the model will get; not those that it is judged on.
    context_length : int
        A text is cut to so many tokens.
    tokens : int
        Stop after so many tokens in all.
    threads : int
        Compute threads.
    progress : Progress, optional
        Told of the tokens.

    Returns
    -------
    dict of str to float32[C]
        The mean square of what each of a matrix's C columns meets, by the name of the tensor.
        Experts of a mixture are left out.

    Raises
    ------
    DataError
        There are no texts.
    CorruptFile, UnsupportedModel, EngineError
        As in `sprat.engine.llama_scorer.Scorer`, or the activations are not finite.
    """
    if not texts:
        raise DataError("texts", 0, "no rows to calibrate with")
    progress = Silent() if progress is None else progress
    collector = _Collector(llama_lib.load())
    scorer = Scorer(
        path, context_length=context_length, threads=threads, on_tensor=collector.callback
    )
    seen = 0
    try:
        progress.phase("collect importances", total=tokens)
        for text in texts:
            ids = scorer.tokenize(text)[: min(scorer.context_length, tokens - seen)]
            for _ in scorer.logits(ids):
                pass
            seen += len(ids)
            progress.advance(len(ids))
            if seen >= tokens:
                break
    finally:
        scorer.close()
    return collector.means()
