"""A bundle: the folder that holds a trained task, checked when it is read.

::

    bundle.json        manifest: labels, temperature, base model, figures, sha256 of the others
    head.safetensors   weight float32[K, D], bias float32[K]
    report.json        the whole evaluation
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from sprat import manifest as manifests
from sprat.errors import CorruptFile, StaleBundle, StoreError
from sprat.kernels import classify_head
from sprat.manifest import BUNDLE_MANIFEST, BundleManifest, ModelManifest
from sprat.values import FloatArray, IntArray

HEAD = "head.safetensors"
REPORT = "report.json"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A linear head on sentence vectors.

    Attributes
    ----------
    manifest : BundleManifest
    weight : float32[K, D]
        A row for each label of the manifest, in its order.
    bias : float32[K]
    """

    manifest: BundleManifest
    weight: FloatArray
    bias: FloatArray

    @classmethod
    def load(cls, folder: Path, *, base: ModelManifest | None = None) -> Bundle:
        """Read a bundle and check all of it.

        Parameters
        ----------
        base : ModelManifest, optional
            The model that it is to be used with.

        Raises
        ------
        CorruptFile
            A file is missing or is not what the manifest says, or the head does not fit it.
        StaleBundle
            The bundle was made with another model than ``base``, or another version of it.
        """
        manifest = manifests.read(folder / BUNDLE_MANIFEST, BundleManifest)
        if base is not None and base.digest != manifest.base.digest:
            raise StaleBundle(
                str(folder),
                f"made with {manifest.base.name} version {manifest.base.digest[:12]}, but "
                f"{base.name} here is version {base.version}; train the bundle again",
            )
        if HEAD not in {entry.path for entry in manifest.files}:
            raise CorruptFile(str(folder / BUNDLE_MANIFEST), f"files: {HEAD} is not listed")
        manifests.verify(folder, manifest.files)
        weight, bias = _read_head(folder / HEAD, rows=len(manifest.labels))
        if base is not None and weight.shape[1] != base.dimension:
            raise CorruptFile(
                str(folder / HEAD),
                f"weight: {weight.shape[1]} columns, but vectors of {base.name} have "
                f"{base.dimension} elements",
            )
        return cls(manifest, weight, bias)

    def logits(self, vectors_nd: FloatArray) -> FloatArray:
        """Scores of every label, before temperature and softmax.

        Parameters
        ----------
        vectors_nd : float32[N, D]
            L2-normalized sentence vectors of the base model.

        Returns
        -------
        float32[N, K]
        """
        logits_nk: FloatArray = vectors_nd @ self.weight.T + self.bias
        return logits_nk

    def rank(self, vectors_nd: FloatArray, top_k: int) -> tuple[IntArray, FloatArray]:
        """The best labels and their probabilities: `logits`, over the temperature, as softmax.

        Parameters
        ----------
        vectors_nd : float32[N, D]
            L2-normalized sentence vectors of the base model.
        top_k : int
            From 1; where there are fewer labels, all of them.

        Returns
        -------
        indices : int32[N, min(top_k, K)]
            Labels, best first; equally good ones in the order of the manifest.
        probabilities : float32[N, min(top_k, K)]
        """
        top_k = min(top_k, len(self.bias))
        return classify_head(vectors_nd, self.weight, self.bias, self.manifest.temperature, top_k)

    def save(self, folder: Path, *, report: str) -> BundleManifest:
        """Write the bundle into an empty folder.

        Parameters
        ----------
        report : str
            The evaluation as JSON.

        Returns
        -------
        BundleManifest
            With the files that were written.
        """
        head = {"weight": self.weight, "bias": self.bias}
        (folder / HEAD).write_bytes(safetensors.numpy.save(head))
        (folder / REPORT).write_text(report, encoding="utf-8")
        manifest = self.manifest.model_copy(update={"files": manifests.list_files(folder)})
        manifests.write(folder / BUNDLE_MANIFEST, manifest)
        return manifest


def write_bundle(
    path: Path, build: Callable[[Path], object], *, replace: bool = False
) -> BundleManifest:
    """Write a bundle to a path outside the store: all of it, or nothing.

    Parameters
    ----------
    path : Path
        Folder to make; its parent exists.
    build : callable
        Writes the bundle into the empty folder it is given, which stands beside ``path``.
    replace : bool
        Overwrite a bundle that is there already; nothing else is ever overwritten.

    Raises
    ------
    StoreError
        When something is in the way, or the folder cannot be written.
    """
    path = path.absolute()
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent} is no folder; make it first")
    _check_free(path, replace)
    token = secrets.token_hex(6)
    work, old = (path.with_name(f".{path.name}.{token}.{part}") for part in ("new", "old"))
    try:
        try:
            work.mkdir()
            build(work)
            manifest = manifests.read(work / BUNDLE_MANIFEST, BundleManifest)
            for file in (*work.iterdir(), work):
                _flush(file)
            _check_free(path, replace)
            if path.exists():
                path.rename(old)
            work.rename(path)
            _flush(path.parent)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error
    return manifest


def _check_free(path: Path, replace: bool) -> None:
    if not os.path.lexists(path):
        return
    if not (path / BUNDLE_MANIFEST).is_file():
        raise StoreError(f"{path} is there already and is not a bundle; choose another path")
    if not replace:
        raise StoreError(f"{path} is there already; replace it explicitly")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_head(path: Path, *, rows: int) -> tuple[FloatArray, FloatArray]:
    try:
        tensors = dict(safetensors.deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except (OSError, safetensors.SafetensorError):
        raise CorruptFile(str(path), "not a safetensors file") from None
    if tensors.keys() != {"weight", "bias"}:
        raise CorruptFile(
            str(path), f"expected tensors bias and weight, found {', '.join(sorted(tensors))}"
        )
    weight = _tensor(path, "weight", tensors["weight"], dimensions=2, rows=rows)
    bias = _tensor(path, "bias", tensors["bias"], dimensions=1, rows=rows)
    return weight, bias


def _tensor(
    path: Path, name: str, tensor: dict[str, Any], *, dimensions: int, rows: int
) -> FloatArray:
    dtype, shape = tensor["dtype"], tuple(tensor["shape"])
    expected = f"float32[{rows}{', D' * (dimensions - 1)}]"
    if dtype != "F32" or len(shape) != dimensions or shape[0] != rows or 0 in shape:
        raise CorruptFile(
            str(path), f"{name}: expected {expected}, found {dtype}[{', '.join(map(str, shape))}]"
        )
    array = np.frombuffer(tensor["data"], "<f4").reshape(shape)
    if not np.isfinite(array).all():
        raise CorruptFile(str(path), f"{name}: not all values are finite")
    return array
