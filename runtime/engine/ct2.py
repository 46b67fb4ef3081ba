"""Encoders on CTranslate2: ids in, pooled and normalized sentence vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import ctranslate2
import numpy as np

from sprat.errors import CorruptFile, EngineError
from sprat.kernels import pool
from sprat.values import FloatArray, IntArray


def describe() -> str:
    """The library's version and the weight types that run fast here."""
    types = sorted(ctranslate2.get_supported_compute_types("cpu"))
    return f"ctranslate2 {ctranslate2.__version__}: {', '.join(types)}"


class Ct2Encoder:
    """An encoder. See `sprat.engine.base.EncoderEngine`.

    Parameters
    ----------
    folder : Path
        A CTranslate2 model, as `sprat.quantize.ct2` writes it.
    pooling : {"mean", "cls"}
        How token vectors become a sentence vector.
    max_tokens : int
        Longest input.
    workers : int
        Batches that may run side by side on one thread each. With more than one, a second copy of
        the weights runs a batch that is alone on all of these threads.

    Raises
    ------
    CorruptFile
        When the library cannot read the model.
    """

    def __init__(
        self, folder: Path, *, pooling: Literal["mean", "cls"], max_tokens: int, workers: int
    ) -> None:
        self.max_tokens = max_tokens
        self._pooling = pooling
        self._workers = workers
        self._side_by_side = _load(folder, inter_threads=workers, intra_threads=1)
        self._alone = (
            _load(folder, inter_threads=1, intra_threads=workers)
            if workers > 1
            else self._side_by_side
        )
        probe = self._forward(self._side_by_side, np.zeros((1, 1), np.int32), np.ones(1, np.int32))
        self.dimension = probe.shape[2]

    def encode(self, rows: Sequence[IntArray], *, threads: int) -> FloatArray:
        """See `sprat.engine.base.EncoderEngine.encode`."""
        lengths = np.array([len(row) for row in rows], np.int32)
        ids = np.zeros((len(rows), int(lengths.max())), np.int32)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        encoder = self._alone if threads > 1 else self._side_by_side
        return pool(self._forward(encoder, ids, lengths), lengths, self._pooling)

    @staticmethod
    def _forward(encoder: ctranslate2.Encoder, ids: IntArray, lengths: IntArray) -> FloatArray:
        """Token vectors, float32[B, T, D]; padded positions hold anything."""
        try:
            output = encoder.forward_batch(
                ctranslate2.StorageView.from_array(ids),
                ctranslate2.StorageView.from_array(lengths),
            )
        except RuntimeError as error:
            raise EngineError(f"ctranslate2 failed on a batch: {error}") from None
        # A view of the output's memory; numpy keeps the output alive.
        return np.asarray(output.last_hidden_state)

    def close(self) -> None:
        """See `sprat.engine.base.EncoderEngine.close`."""
        del self._side_by_side, self._alone


def _load(folder: Path, *, inter_threads: int, intra_threads: int) -> ctranslate2.Encoder:
    try:
        return ctranslate2.Encoder(
            str(folder), "cpu", inter_threads=inter_threads, intra_threads=intra_threads
        )
    except (RuntimeError, ValueError) as error:
        raise CorruptFile(str(folder), f"ctranslate2 cannot load it: {error}") from None
