"""CTranslate2 alone, as fast as it goes: what the server is measured against.

Knows the library itself, not sprat's engine, so that a slow engine cannot lower the ceiling.
Token ids are there, padded batches are made, and outputs are dropped: no tokenizing, pooling,
head or server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import numpy as np

from sprat.values import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded token ids.

    Attributes
    ----------
    ids : StorageView of int32[B, T]
        Zero after the end of a row.
    lengths : StorageView of int32[B]
        Tokens of each row.
    """

    ids: ctranslate2.StorageView
    lengths: ctranslate2.StorageView


def batches(rows: Sequence[IntArray], size: int) -> list[Batch]:
    """Rows in the given order, ``size`` at a time."""
    made = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        lengths = np.array([len(row) for row in part], np.int32)
        ids = np.zeros((len(part), lengths.max()), np.int32)
        for index, row in enumerate(part):
            ids[index, : len(row)] = row
        view = ctranslate2.StorageView.from_array
        made.append(Batch(view(ids), view(lengths)))
    return made


def by_length(rows: Sequence[IntArray]) -> list[IntArray]:
    """Rows, longest first: no padding to speak of, and short batches at the end."""
    return sorted(rows, key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over batches.

    Attributes
    ----------
    seconds, cpu_s : float
        Wall time; CPU time of this process.
    """

    seconds: float
    cpu_s: float


class Ceiling:
    """The forward pass of an encoder with a fixed number of compute threads.

    Parameters
    ----------
    weights : Path
        Folder of the CTranslate2 model.
    threads : int
        Compute threads in all: as many workers of one thread, or one worker of as many.
    """

    def __init__(self, weights: Path, threads: int) -> None:
        self._threads = threads
        self._side_by_side = ctranslate2.Encoder(
            str(weights), inter_threads=threads, intra_threads=1
        )
        self._together = ctranslate2.Encoder(str(weights), inter_threads=1, intra_threads=threads)

    def throughput(self, work: Sequence[Batch]) -> Pass:
        """Batches on workers of one thread each, with a submitting thread for each worker."""
        encoder = self._side_by_side
        with ThreadPoolExecutor(self._threads) as submitters:
            cpu, started = time.process_time(), time.perf_counter()
            for _ in submitters.map(lambda b: encoder.forward_batch(b.ids, b.lengths), work):
                pass
            return Pass(time.perf_counter() - started, time.process_time() - cpu)

    def latencies_ms(self, work: Sequence[Batch], *, threads: int) -> list[float]:
        """Batches one after another, each on one thread or on all; milliseconds each."""
        encoder = self._side_by_side if threads == 1 else self._together
        found = []
        for batch in work:
            started = time.perf_counter()
            encoder.forward_batch(batch.ids, batch.lengths)
            found.append((time.perf_counter() - started) * 1e3)
        return found

    def vectors(self, rows: Sequence[IntArray]) -> FloatArray:
        """Mean-pooled, L2-normalized sentence vectors, float32[N, D], to check the work itself."""
        made = []
        for row, batch in zip(rows, batches(rows, 1), strict=True):
            output = self._side_by_side.forward_batch(batch.ids, batch.lengths)
            hidden = np.asarray(output.last_hidden_state, np.float32)[0, : len(row)]
            mean = hidden.mean(axis=0)
            made.append(mean / np.linalg.norm(mean))
        return np.stack(made)
