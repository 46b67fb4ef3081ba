"""Logits after every token of a text, from a context of their own: to compare models by."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sprat.engine import llama_lib
from sprat.engine.llama_context import CELL_BLOCK, make_context
from sprat.engine.llama_load import load_model
from sprat.engine.llama_vocab import Vocabulary
from sprat.errors import EngineError, InputTooLong
from sprat.values import FloatArray, IntArray

BATCH_TOKENS = 128
"""Most tokens of a batch, and so rows of logits: 25 MB for a vocabulary of 49,152."""


class Scorer:
    """A GGUF model that says after every token of a text what it expects next. One thread.

    Parameters
    ----------
    path : Path
        GGUF file of a decoder.
    context_length : int
        Most tokens of a text; no more than the model was trained for.
    threads : int
        Compute threads.
    on_tensor : callback, optional
        A ``ggml_backend_sched_eval_callback``, called for every tensor that is computed.

    Attributes
    ----------
    vocabulary : Vocabulary
        Of the model.
    context_length : int
        Most tokens of a text.

    Raises
    ------
    CorruptFile, UnsupportedModel
        As in `sprat.engine.llama_load.load_model`.
    EngineError
        llama.cpp is missing or does not fit this machine, or there is not enough memory.
    """

    def __init__(
        self, path: Path, *, context_length: int, threads: int, on_tensor: Any = None
    ) -> None:
        self._lib = llama_lib.load()
        self._path = path
        self._model = load_model(self._lib, path)
        self._context: Any = None
        self._batch: Any = None
        try:
            self.vocabulary = Vocabulary(self._lib, self._model)
            trained = int(self._lib.llama_model_n_ctx_train(self._model))
            self.context_length = min(context_length, trained)
            self._context = make_context(
                self._lib,
                self._model,
                cells=-(-self.context_length // CELL_BLOCK) * CELL_BLOCK,
                sequences=1,
                outputs=BATCH_TOKENS,
                batch_tokens=BATCH_TOKENS,
                is_unified=True,
                threads=threads,
                on_tensor=on_tensor,
            )
            self._memory = self._lib.llama_get_memory(self._context)
            self._batch = self._lib.llama_batch_init(BATCH_TOKENS, 0, 1)
        except BaseException:
            self.close()
            raise

    def tokenize(self, text: str) -> IntArray:
        """Tokens of a text as a prompt begins: int32[T]. Control tokens in it are plain text.

        Raises
        ------
        InvalidInput
            The text has a lone surrogate.
        """
        return self.vocabulary.with_bos(self.vocabulary.tokenize(text, parse_special=False))

    def logits(self, ids: IntArray) -> Iterator[FloatArray]:
        """What the model expects after each token of a text.

        Parameters
        ----------
        ids : int32[T]
            Tokens of the vocabulary, at most `context_length`.

        Yields
        ------
        float32[N, V]
            Logits after the next N tokens, N at most `BATCH_TOKENS`. llama.cpp's own memory: valid
            until the next one is asked for.

        Raises
        ------
        InputTooLong
            The text has too many tokens.
        EngineError
            A token is not of the vocabulary, or llama.cpp cannot decode.
        """
        if len(ids) > self.context_length:
            raise InputTooLong(field="text", tokens=len(ids), limit=self.context_length)
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.vocabulary.size:
            raise EngineError(
                f"{self._path}: expected token ids in [0, {self.vocabulary.size}), "
                f"got {ids.min()} to {ids.max()}"
            )
        self._lib.llama_memory_clear(self._memory, True)
        for start in range(0, len(ids), BATCH_TOKENS):
            yield self._decode(ids[start : start + BATCH_TOKENS], start)

    def _decode(self, ids: IntArray, start: int) -> FloatArray:
        count = len(ids)
        self._batch.n_tokens = count
        self._fill(self._batch.token, ids)
        self._fill(self._batch.pos, np.arange(start, start + count, dtype=np.int32))
        self._fill(self._batch.n_seq_id, np.ones(count, np.int32))
        self._fill(self._batch.logits, np.ones(count, np.int8))
        for index in range(count):
            self._batch.seq_id[index][0] = 0
        if status := self._lib.llama_decode(self._context, self._batch):
            raise EngineError(f"{self._path}: llama.cpp cannot decode {count} tokens ({status})")
        first = self._lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(first, (count, self.vocabulary.size))

    @staticmethod
    def _fill(pointer: Any, values: np.ndarray[Any, Any]) -> None:
        ctypes.memmove(pointer, np.ascontiguousarray(values).ctypes.data, values.nbytes)

    def close(self) -> None:
        """Free the weights and the context."""
        if self._batch is not None:
            self._lib.llama_batch_free(self._batch)
            self._batch = None
        if self._context is not None:
            self._lib.llama_free(self._context)
            self._context = None
        if self._model is not None:
            self._lib.llama_model_free(self._model)
            self._model = None
