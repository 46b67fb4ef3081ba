"""The gate of encoders: sentence vectors, and what a task's head answers on them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Calibration, TierManifest
from sprat.calibration import confidences
from sprat.errors import ConfigError, StaleBundle
from sprat.head import Head
from sprat.inprocess import Runtime
from sprat.manifest import (
    MODEL_MANIFEST,
    ModelManifest,
    list_files,
    write,
)
from sprat.measure import median
from sprat.progress import Progress
from sprat.quantize import ct2, gate
from sprat.quantize.gate_rows import GateRows
from sprat.store import Store
from sprat.values import FloatArray

BATCH = 256
TIMED_TEXTS = 512
ROUNDS = 5


class EncoderTrial:
    """See `sprat.quantize.choose.Trial`.

    Parameters
    ----------
    base : ModelManifest
        The encoder, and with ``folder`` its files.
    store : Store
        Where the bundle is.
    work : Path
        Folder to make: a store of the candidates.
    rows : GateRows
        What to compare on. Texts that are too long are cut.
    task : str or None
        A bundle, by name or path.
    progress : Progress
        Told of phases and texts.

    Raises
    ------
    ConfigError
        No tier of the bundle stands on the encoder, or it is of another kind.
    StaleBundle
        The tier was made with another version of it.
    DataError
        Rows have labels that the bundle does not have.
    """

    reference = "float32"
    tokens = 0

    def __init__(
        self,
        base: ModelManifest,
        folder: Path,
        store: Store,
        work: Path,
        rows: GateRows,
        task: str | None,
        progress: Progress,
    ) -> None:
        self._base, self._folder = base, folder
        self._work, self._rows, self._progress = work, rows, progress
        self.task: str | None = None
        self._head: Head | None = None
        self._calibration: Calibration | None = None
        self._threshold = 0.0
        self._targets = None
        if task is not None:
            manifest, self._head, tier = _read_task(base, store, task)
            self._calibration, self._threshold = tier.calibration, tier.accept_at
            self.task = f"{manifest.name} {manifest.version}"
            self._targets = rows.targets(manifest.labels)
        source = work / "source"
        source.mkdir(parents=True)
        for name in ("source/model.safetensors", "source/config.json", "tokenizer.json"):
            (source / Path(name).name).symlink_to(folder / name)
        reference = work / "models" / self.reference
        # Under the same name it is the candidate too.
        reference.mkdir(parents=True)
        progress.phase(f"make {self.reference}")
        self._make(self.reference, reference)
        self._expected = self._vectors(self.reference)

    def make(self, quantization: str, folder: Path) -> None:
        """See `Trial.make`."""
        if quantization != self.reference:
            self._make(quantization, folder)

    def _make(self, quantization: str, folder: Path) -> None:
        ct2.convert(self._work / "source", folder / "ct2", quantization=quantization)
        shutil.copyfile(self._folder / "tokenizer.json", folder / "tokenizer.json")
        update = {
            "name": quantization,
            "quantization": quantization,
            "source_weights": None,
            "files": list_files(folder),
        }
        write(folder / MODEL_MANIFEST, self._base.model_copy(update=update))

    def figures(self, quantization: str) -> dict[str, float]:
        """See `Trial.figures`."""
        vectors = self._vectors(quantization)
        figures = gate.compare_vectors(self._expected, vectors)
        if self._head is not None:
            expected, found = (
                _answer(self._head, self._calibration, v) for v in (self._expected, vectors)
            )
            figures |= gate.compare_answers(
                expected, found, self._targets, threshold=self._threshold
            )
        return figures

    def _vectors(self, quantization: str) -> FloatArray:
        texts = self._rows.texts
        self._progress.phase(f"embed {len(texts)} texts by {quantization}", total=len(texts))
        parts = []
        with Runtime(models=[quantization], store=Store(self._work)) as runtime:
            for start in range(0, len(texts), BATCH):
                batch = texts[start : start + BATCH]
                parts.append(runtime.embed(quantization, batch, truncation="truncate").vectors)
                self._progress.advance(len(batch))
        return np.concatenate(parts)

    def speeds(self, quantization: str) -> dict[str, float]:
        """See `Trial.speeds`."""
        texts = self._rows.texts[:TIMED_TEXTS]
        rates = []
        with Runtime(models=[quantization], store=Store(self._work)) as runtime:
            for _ in range(ROUNDS + 1):
                started = time.perf_counter()
                runtime.embed(quantization, texts, truncation="truncate")
                rates.append(len(texts) / (time.perf_counter() - started))
        return {"texts_per_s": median(rates[1:])}

    def slowness(self, speeds: Mapping[str, float]) -> float:
        """See `Trial.slowness`."""
        return 1 / speeds["texts_per_s"]

    def add_source(self, folder: Path) -> None:
        """See `Trial.add_source`."""
        shutil.copytree(self._folder / "source", folder / "source")


def _read_task(
    base: ModelManifest, store: Store, task: str
) -> tuple[BundleManifest, Head, TierManifest]:
    """A bundle, its head on the encoder, and the tier that it is of."""
    manifest, folder = store.bundle(task)
    if manifest.kind not in ("classify", "route"):
        raise ConfigError(
            "task", f"expected a bundle that classifies or routes, got {manifest.kind}"
        )
    bundle = Bundle.load(folder)
    # Those with a head come first; the others stand on no encoder.
    for tier, head in zip(manifest.tiers, bundle.heads, strict=False):
        if tier.model.name == base.name:
            if tier.model.digest != base.digest:
                raise StaleBundle(
                    str(folder),
                    f"tier {tier.name} was made with another version of {base.name}; "
                    "train it again",
                )
            return manifest, head, tier
    bases = ", ".join(ref.name for ref in manifest.bases)
    raise ConfigError("task", f"{manifest.name} stands on {bases}, not on {base.name}")


def _answer(head: Head, calibration: Calibration | None, vectors_nd: FloatArray) -> gate.Answers:
    """The best labels, and the confidence in them as the task is served."""
    labels_n1, probabilities_n1 = head.rank(vectors_nd, 1)
    best_n = probabilities_n1[:, 0].astype(np.float64)
    return gate.Answers(
        labels_n1[:, 0], best_n if calibration is None else confidences(best_n, calibration)
    )
