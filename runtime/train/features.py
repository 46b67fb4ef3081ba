"""Sentence vectors of training rows, kept in the store: a second training embeds nothing.

::

    cache/embeddings/MODEL-VERSION/SHA256.safetensors

holds ``keys`` uint8[N, 32] (sha256 of each text), ``vectors`` float32[N, D] and ``dropped``
int32[N] (tokens that were cut off). A file is never changed: its name is the sha256 of its content,
which is checked whenever it is read, and whoever finds it wrong removes it. So processes need no
lock; at worst two of them compute the same texts.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

import sprat
from sprat.values import FloatArray, IntArray

log = logging.getLogger(__name__)

LIMIT_BYTES = 512 * 1024 * 1024
"""Of all models; beyond it, files that were not used for the longest time go."""

LEFT_BEHIND_S = 3600
"""A file under construction that is older than this is nobody's any more."""

Compute = Callable[[Sequence[str]], tuple[FloatArray, IntArray]]
"""Texts to their vectors, float32[N, D], and the tokens that each lost, int32[N]."""


class EmbeddingCache:
    """Sentence vectors of one model on disk.

    Parameters
    ----------
    folder : Path
        Of all models; see `sprat.store.Store.embeddings`. It is made when something is first kept.
    digest : str
        Of the model. The version of sprat stands beside it, since another one may compute other
        vectors.
    limit_bytes : int
        Size of the files of all models.
    """

    def __init__(self, folder: Path, digest: str, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._root = folder
        self._folder = folder / f"{digest[:32]}-{sprat.__version__}"
        self._limit_bytes = limit_bytes

    def embed(self, texts: Sequence[str], compute: Compute) -> tuple[FloatArray, IntArray]:
        """Vectors of texts, from disk where they are there, else computed and then kept.

        What the disk refuses is logged and costs nothing but time.

        Parameters
        ----------
        texts : sequence of str
            From 1; no two alike.
        compute : callable
            Called at most once, with the texts that are not there, in their order.

        Returns
        -------
        vectors : float32[N, D]
        dropped : int32[N]
            Tokens that each text lost to truncation.
        """
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        found = self._find(set(keys))
        missing = [index for index, key in enumerate(keys) if key not in found]
        if missing:
            vectors, dropped = compute([texts[index] for index in missing])
            self._keep([keys[index] for index in missing], vectors, dropped)
            for index, vector, lost in zip(missing, vectors, dropped.tolist(), strict=True):
                found[keys[index]] = vector, lost
        return (
            np.stack([found[key][0] for key in keys]),
            np.array([found[key][1] for key in keys], np.int32),
        )

    def _find(self, wanted: set[bytes]) -> dict[bytes, tuple[FloatArray, int]]:
        found: dict[bytes, tuple[FloatArray, int]] = {}
        for path in self._files():
            if len(found) == len(wanted):
                break
            tensors = _read(path)
            if tensors is None:
                continue
            here = {key.tobytes(): row for row, key in enumerate(tensors["keys"])}
            rows = {key: here[key] for key in wanted & here.keys()}
            for key, row in rows.items():
                found[key] = tensors["vectors"][row], int(tensors["dropped"][row])
            if rows:
                _touch(path)
        return found

    def _files(self) -> list[Path]:
        """Newest first: most trainings repeat the last one."""
        return sorted(self._folder.glob("*.safetensors"), key=_used, reverse=True)

    def _keep(self, keys: Sequence[bytes], vectors: FloatArray, dropped: IntArray) -> None:
        content = safetensors.numpy.save(
            {
                "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1),
                "vectors": np.ascontiguousarray(vectors, np.float32),
                "dropped": np.ascontiguousarray(dropped, np.int32),
            }
        )
        if len(content) > self._limit_bytes:
            log.info("embeddings are not kept: %d bytes, over the limit", len(content))
            return
        work = self._folder / f".{secrets.token_hex(6)}.part"
        try:
            # Vectors say something of the texts: they are for this user only.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            work.write_bytes(content)
            work.rename(self._folder / f"{hashlib.sha256(content).hexdigest()}.safetensors")
            self._shrink()
        except OSError as error:
            log.warning("embeddings are not kept: %s: %s", error.filename, error.strerror)
            _remove(work)

    def _shrink(self) -> None:
        for part in self._root.glob("*/.*.part"):
            if time.time() - _used(part) > LEFT_BEHIND_S:
                _remove(part)
        total = 0
        for path in sorted(self._root.glob("*/*.safetensors"), key=_used, reverse=True):
            total += _size(path)
            if total > self._limit_bytes:
                _remove(path)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The tensors of a file; None where another process removed it, or it was wrong and is gone."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read: %s", path, error.strerror)
        return None
    if hashlib.sha256(content).hexdigest() != path.stem:
        log.warning("%s is corrupt and is made again", path)
        _remove(path)
        return None
    return safetensors.numpy.load(content)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        # Removed meanwhile, or somebody else's: then its age stays as it is.
        return


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error.strerror)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
