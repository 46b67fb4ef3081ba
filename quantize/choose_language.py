"""The gate of language models: logits after every token, and what a model chooses among labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sprat.budget import detect
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_scorer import Scorer
from sprat.inprocess import Runtime
from sprat.manifest import (
    MODEL_MANIFEST,
    ModelManifest,
    list_files,
    write,
)
from sprat.measure import median
from sprat.progress import Progress
from sprat.quantize import gate, gguf
from sprat.quantize.gate_rows import GateRows
from sprat.quantize.gguf_importance import collect
from sprat.quantize.speed import STEP_TOKENS, prompt_rate, writing_rate
from sprat.store import Store
from sprat.values import FloatArray, IntArray, Label, LabelSet

MOST_TOKENS = 8192
"""Tokens that models are compared on; texts beyond are left out."""

TEXT_TOKENS = 1024
"""A text is cut to so many tokens."""

CALIBRATION_TOKENS = 16384
CHOICE_BATCH = 16

PROMPT_TOKENS, ANSWER_TOKENS = 256, 32
"""The request by which speeds are weighed: narrow work reads much and writes little."""

ROUNDS = 3


class LanguageTrial:
    """See `sprat.quantize.choose.Trial`.

    Parameters
    ----------
    base : ModelManifest
        The model, and with ``folder`` its files.
    work : Path
        Folder to make: a store of the candidates.
    rows : GateRows
        What to compare on; rows with labels are also chosen among all of their labels.
    calibration : GateRows or None
        Texts that guide the rounding to types of 4 bits.
    progress : Progress
        Told of phases, texts and tokens.

    Raises
    ------
    EngineError
        llama.cpp is not installed, or no text has two tokens.
    """

    reference = "f16"
    task: str | None = None

    def __init__(
        self,
        base: ModelManifest,
        folder: Path,
        work: Path,
        rows: GateRows,
        calibration: GateRows | None,
        progress: Progress,
    ) -> None:
        self._base, self._work, self._rows, self._progress = base, work, rows, progress
        self._threads = detect().threads
        self._published = folder / (base.source_weights or base.weights)
        self._importance: dict[str, FloatArray] | None = None
        self.tokens = 0
        progress.phase(f"make {self.reference}")
        self._write(self.reference, self._model(self.reference).parent)
        if calibration is not None:
            self._importance = collect(
                self._model(self.reference),
                calibration.texts,
                context_length=TEXT_TOKENS,
                tokens=CALIBRATION_TOKENS,
                threads=self._threads,
                progress=progress,
            )
        self._targets = None
        self._labels: tuple[str, ...] = ()
        if rows.rows is not None and len(set(rows.rows.labels)) > 1:
            self._labels = tuple(sorted(set(rows.rows.labels)))
            self._targets = rows.targets(self._labels)
            self._expected = self._choices(self.reference)

    def _model(self, quantization: str) -> Path:
        return self._work / "models" / quantization / "model.gguf"

    def make(self, quantization: str, folder: Path) -> None:
        """See `Trial.make`."""
        self._write(quantization, folder)

    def _write(self, quantization: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        importance = self._importance if quantization in ("q4_0", "iq4_nl") else None
        path = folder / "model.gguf"
        gguf.requantize(self._published, path, quantization=quantization, importance=importance)
        update = {
            "name": quantization,
            "quantization": quantization,
            "weights": path.name,
            "source_weights": None,
            "files": list_files(folder),
        }
        write(folder / MODEL_MANIFEST, self._base.model_copy(update=update))

    def figures(self, quantization: str) -> dict[str, float]:
        """See `Trial.figures`."""
        figures = self._compare(quantization)
        if self._targets is not None:
            answers = self._choices(quantization)
            figures |= gate.compare_labels(self._expected, answers, self._targets)
        return figures

    def _compare(self, quantization: str) -> dict[str, float]:
        figures = gate.TokenFigures()
        self._progress.phase(f"compare {quantization} with {self.reference}", total=MOST_TOKENS)
        settings = {"context_length": TEXT_TOKENS, "threads": self._threads}
        reference = Scorer(self._model(self.reference), **settings)
        try:
            quantized = Scorer(self._model(quantization), **settings)
            try:
                for text in self._rows.texts:
                    room = min(reference.context_length, MOST_TOKENS - figures.tokens)
                    ids = reference.tokenize(text)[:room]
                    figures.add(ids, reference.logits(ids), quantized.logits(ids))
                    self._progress.advance(len(ids))
                    if figures.tokens >= MOST_TOKENS:
                        break
            finally:
                quantized.close()
        finally:
            reference.close()
        self.tokens = figures.tokens
        return figures.result()

    def _choices(self, quantization: str) -> IntArray:
        """What a model chooses of the labels for each text: indices, int32[N]."""
        texts = self._rows.texts
        number = {label: index for index, label in enumerate(self._labels)}
        labels = LabelSet(quantization, tuple(Label(label) for label in self._labels))
        self._progress.phase(f"choose labels by {quantization}", total=len(texts))
        found = []
        with Runtime(models=[quantization], store=Store(self._work)) as runtime:
            for start in range(0, len(texts), CHOICE_BATCH):
                batch = texts[start : start + CHOICE_BATCH]
                items = runtime.choose(labels, batch, top_k=1).items
                found += [number[item.scores[0].label] for item in items if item is not None]
                self._progress.advance(len(batch))
        return np.array(found, np.int32)

    def speeds(self, quantization: str) -> dict[str, float]:
        """See `Trial.speeds`."""
        engine = LlamaEngine(
            self._model(quantization),
            context_length=2 * PROMPT_TOKENS,
            sequence_limit=1,
            threads=self._threads,
        )
        prompts, answers = [], []
        try:
            for _ in range(ROUNDS + 1):
                prompts.append(prompt_rate(engine, PROMPT_TOKENS, STEP_TOKENS, self._threads))
                answers.append(writing_rate(engine, ANSWER_TOKENS, self._threads))
        finally:
            engine.close()
        return {
            "prompt_tokens_per_s": median(prompts[1:]),
            "answer_tokens_per_s": median(answers[1:]),
        }

    def slowness(self, speeds: Mapping[str, float]) -> float:
        """See `Trial.slowness`: seconds of a request."""
        return (
            PROMPT_TOKENS / speeds["prompt_tokens_per_s"]
            + ANSWER_TOKENS / speeds["answer_tokens_per_s"]
        )

    def add_source(self, folder: Path) -> None:
        """See `Trial.add_source`: the base keeps what a language model was published in."""
