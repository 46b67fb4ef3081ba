"""The engine for encoders: CTranslate2 on the CPU.

CTranslate2 fixes the threads of a forward pass when a model is loaded. So a model is loaded with a
worker for every core, each running a batch on one thread (the most texts a second), and once more
with one worker that runs a batch on all cores. That copy is kept, 26 MB for MiniLM-L6 in int8, only
where it runs a short text faster: cores that are slow to wake each other make it slower.

``CT2_USE_MKL`` is never set: on AMD it makes CTranslate2 several times slower.
"""

from __future__ import annotations

import ctypes
import json
import logging
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
from ctranslate2 import Encoder, StorageView, get_supported_compute_types

from sprat.errors import CorruptFile, EngineError
from sprat.kernels import pack, pool
from sprat.values import FloatArray, IntArray

log = logging.getLogger(__name__)

SHORT_TEXT = 16
"""Tokens of the text that the choice is made by."""

TRIALS = 9
"""Timed passes of each kind; a tenth of a second in all."""


def describe() -> str:
    """The library's version and the weight types that it computes with here, for people."""
    types = ", ".join(sorted(get_supported_compute_types("cpu")))
    return f"ctranslate2 {version('ctranslate2')}: {types}"


class Ct2Encoder:
    """An `EncoderEngine` over the folder that `sprat.quantize.ct2.convert` writes.

    Parameters
    ----------
    folder : Path
        Holds model.bin, config.json and vocabulary.json.
    pooling : {"mean", "cls"}
        How token vectors become a sentence vector.
    max_tokens : int
        Longest row. The model must have that many positions.
    workers : int
        Threads that may call it at once, and cores that one call may use where that is
        faster.

    Attributes
    ----------
    alone_threads : int
        As in `EncoderEngine`: 1 or ``workers``, as measured here.

    Raises
    ------
    CorruptFile
        A file of the folder is missing, cut or malformed.
    EngineError
        The model cannot run on this machine, or not over ``max_tokens`` tokens.
    """

    def __init__(
        self, folder: Path, *, pooling: Literal["mean", "cls"], max_tokens: int, workers: int
    ) -> None:
        self.max_tokens = max_tokens
        self._folder = folder
        self._pooling = pooling
        self._rows = _vocabulary_size(folder / "vocabulary.json")
        per_core = _load(folder, inter_threads=workers, intra_threads=1)
        longest = np.zeros((1, max_tokens), np.int32)
        self.dimension = self._pooled(per_core, longest, np.array([max_tokens], np.int32)).shape[1]
        self.alone_threads = 1
        self._encoders: tuple[Encoder, Encoder] | None = per_core, per_core
        if workers > 1:
            all_cores = _load(folder, inter_threads=1, intra_threads=workers)
            seconds = [self._time_short_text(encoder) for encoder in (per_core, all_cores)]
            log.info(
                "%s: a short text takes %.1f ms on 1 thread, %.1f ms on %d",
                folder.parent.name,
                *(1e3 * each for each in seconds),
                workers,
            )
            if seconds[1] < seconds[0]:
                self.alone_threads = workers
                self._encoders = per_core, all_cores
            del all_cores
        _return_freed_memory()

    def encode(self, rows: Sequence[IntArray], *, threads: int) -> FloatArray:
        """Run one batch; see `EncoderEngine.encode`.

        Raises
        ------
        EngineError
            A row is empty, is too long or holds a token id that the model has no vector for; or
            the engine is closed.
        """
        return self._pooled(self._encoder(threads), *self._pack(rows))

    def states(self, rows: Sequence[IntArray], *, threads: int) -> list[FloatArray]:
        """Run one batch; see `EncoderEngine.states`.

        Raises
        ------
        EngineError
            As `encode`.
        """
        ids_bt, lengths_b = self._pack(rows)
        states_bth = self._forward(self._encoder(threads), ids_bt, lengths_b)
        lengths = lengths_b.tolist()
        return [row[:length].copy() for row, length in zip(states_bth, lengths, strict=True)]

    def _encoder(self, threads: int) -> Encoder:
        if self._encoders is None:
            raise EngineError(f"{self._folder}: the engine is closed")
        per_core, all_cores = self._encoders
        return all_cores if threads > 1 else per_core

    def _pack(self, rows: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
        """Padded ids and lengths: int32[B, T] and int32[B]."""
        lengths = [len(row) for row in rows]
        shortest, longest = min(lengths, default=0), max(lengths, default=0)
        if not (shortest and longest <= self.max_tokens):
            raise EngineError(
                f"{self._folder}: expected rows of 1 to {self.max_tokens} tokens, "
                f"got {len(rows)} rows of {shortest} to {longest}"
            )
        ids_n = np.concatenate(rows)
        offsets = np.array([0, *accumulate(lengths)], np.int64)
        try:
            ids_bt, _, lengths_b = pack(ids_n, offsets, self._rows)
        except ValueError:  # CTranslate2 would read past its table.
            raise EngineError(
                f"{self._folder}: expected token ids in [0, {self._rows}), got {ids_n.min()} to "
                f"{ids_n.max()}: the tokenizer is another model's"
            ) from None
        return ids_bt, lengths_b

    def _time_short_text(self, encoder: Encoder) -> float:
        """Median seconds of a forward pass, once warm."""
        length = min(SHORT_TEXT, self.max_tokens)
        ids, lengths = np.zeros((1, length), np.int32), np.array([length], np.int32)
        seconds = []
        for _ in range(TRIALS + 1):
            started = time.perf_counter()
            self._pooled(encoder, ids, lengths)
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds[1:])

    def _pooled(self, encoder: Encoder, ids_bt: IntArray, lengths_b: IntArray) -> FloatArray:
        return pool(self._forward(encoder, ids_bt, lengths_b), lengths_b, self._pooling)

    def _forward(self, encoder: Encoder, ids_bt: IntArray, lengths_b: IntArray) -> FloatArray:
        """States of all tokens, float32[B, T, H]; those of the padding say nothing."""
        try:
            output = encoder.forward_batch(
                StorageView.from_array(ids_bt), StorageView.from_array(lengths_b)
            )
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"{self._folder}: CTranslate2 cannot run it ({error})") from error
        # A view: it keeps the output alive while it is read.
        return np.asarray(output.last_hidden_state)

    def close(self) -> None:
        """Release the weights. No call may be running."""
        # Not `unload_model`, which does nothing while CTranslate2 still counts a batch as active.
        self._encoders = None


def _load(folder: Path, *, inter_threads: int, intra_threads: int) -> Encoder:
    try:
        return Encoder(
            str(folder), device="cpu", inter_threads=inter_threads, intra_threads=intra_threads
        )
    except (RuntimeError, ValueError) as error:
        raise CorruptFile(str(folder), f"CTranslate2 cannot load it ({error})") from error
    except MemoryError:
        raise EngineError(f"{folder}: not enough memory to load it") from None


def _return_freed_memory() -> None:
    """Have glibc give back what loading and the trials freed: some 20 MB for MiniLM-L6."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _vocabulary_size(path: Path) -> int:
    try:
        tokens = json.loads(path.read_bytes())
    except OSError as error:
        raise CorruptFile(str(path), f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise CorruptFile(str(path), "not JSON") from None
    if not isinstance(tokens, list):
        raise CorruptFile(str(path), f"expected a list, found {type(tokens).__name__}")
    return len(tokens)
