"""Fine-tune all layers of an encoder for the labels of a task (torch), with a simple head on top.

For labels the head is one direction for each label, and a row's scores are the cosines of its
sentence vector with these directions, times a scale that is learned too (a normalized softmax, as
in NormFace, Wang et al., 2017). The directions start at the mean vectors of their rows: with ten
rows a label that is a good classifier already, which training then sharpens. It learns what
contrastive training of pairs does, in passes over the rows instead of over their pairs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sprat.progress import Progress
from sprat.train.calibrate import fit_temperature, nll
from sprat.train.encoder_body import EncoderBody, parts
from sprat.train.loop import LoopSettings, LoopState, train
from sprat.values import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

VALIDATION = 0.1
"""Share of the rows that says when to stop, and what the confidences are calibrated on."""

FEW_ROWS = 2000
"""Up to so many, a tenth is too much to do without and too little to say when to stop: they are
trained on twice, for all passes, without the tenth for its scores and with it for the result."""

START_SCALE = 16.0
HEAD_RATE = 10.0
"""The head learns so much faster than the encoder below it, which knows its language already."""
SCALE_RATE = 100.0

PASS_TOKENS = 4096
"""Most tokens of a forward pass, padding included: bounds its memory to some 2 GB."""


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What came out.

    Attributes
    ----------
    weight : float32[K, H]
        A row for each label, on sentence vectors of the tuned encoder.
    held_logits : float32[M, K] or None
        Scores of the validation rows by an encoder that has not seen them, where the tuned one
        has.
    state : LoopState
        How it went.
    """

    weight: FloatArray
    held_logits: FloatArray | None
    state: LoopState


def validation_rows(targets_n: IntArray, folds_n: IntArray, *, seed: int) -> IntArray:
    """Rows to leave out of training: about a tenth of each label, at least one of it.

    Rows with the same text share a fold and stay together.

    Parameters
    ----------
    targets_n, folds_n : int32[N]
        Label and fold of each row; see `sprat.train.split.assign_folds`.

    Returns
    -------
    int32[M]
        Ascending.
    """
    rng = np.random.default_rng([seed, 1])
    # The first fold is a fifth of the rows, drawn evenly from all labels: half of it is a tenth.
    held = np.flatnonzero(folds_n == 0)
    chosen: list[int] = []
    for label in range(int(targets_n.max()) + 1):
        rows = rng.permutation(held[targets_n[held] == label])
        wanted = max(1, round(VALIDATION * int((targets_n == label).sum())))
        chosen += rows[:wanted].tolist()
    return np.array(sorted(chosen), np.int32)


def tune_for_labels(
    open_body: Callable[[], EncoderBody],
    rows: Sequence[IntArray],
    targets_n: IntArray,
    validation: IntArray,
    settings: LoopSettings,
    *,
    base: str,
    checkpoint: Path,
    resume: bool,
    progress: Progress,
) -> tuple[EncoderBody, Tuned]:
    """Fine-tune an encoder so that rows of a label lie together.

    Parameters
    ----------
    open_body : callable
        Reads the encoder; called again where rows are trained on twice, see `FEW_ROWS`.
    rows : sequence of int32[T]
        Token ids of N texts, special tokens included.
    targets_n : int32[N]
        Their labels, 0 to K - 1, each in a row that is no validation row.
    validation : int32[M]
        Rows that are not trained on.
    base : str
        Digest of the model that ``open_body`` reads.
    checkpoint, resume, progress
        See `sprat.train.loop.train`.

    Returns
    -------
    EncoderBody, Tuned
        With the weights that were kept, and what belongs to them.
    """
    are_few = len(rows) <= FEW_ROWS
    if are_few:
        settings = replace(settings, patience=None)
    kept = np.setdiff1d(np.arange(len(rows)), validation)

    def run(trained: Sequence[int], name: str) -> tuple[EncoderBody, _Labels, LoopState]:
        body = open_body()
        task = _Labels(body, rows, targets_n, trained, validation.tolist(), progress)
        key = training_digest(rows, [targets_n, np.array(trained)], settings, base)
        state = train(
            task,
            settings,
            checkpoint=checkpoint / name,
            key=key,
            resume=resume,
            progress=progress,
        )
        body.train(is_on=False)
        return body, task, state

    body, task, state = run(kept.tolist(), "part")
    held_logits = None
    if are_few:
        held_logits = task.held_logits()
        body, task, _ = run(range(len(rows)), "whole")
    return body, Tuned(task.weight().detach().numpy().astype(np.float32), held_logits, state)


class _Labels:
    """Cosines with a direction for each label; see the module."""

    def __init__(
        self,
        body: EncoderBody,
        rows: Sequence[IntArray],
        targets_n: IntArray,
        trained: Sequence[int],
        held: Sequence[int],
        progress: Progress,
    ) -> None:
        import torch

        self._body = body
        self._rows = rows
        self._targets = torch.from_numpy(targets_n.astype(np.int64))
        self._trained, self._held = trained, held
        progress.phase(f"embed {len(trained)} texts", total=len(trained))
        vectors = self._embed(trained, progress)
        targets = self._targets[list(trained)]
        means = [vectors[targets == label].mean(0) for label in range(int(targets_n.max()) + 1)]
        self._directions = torch.nn.Parameter(
            torch.nn.functional.normalize(torch.stack(means), dim=1)
        )
        self._log_scale = torch.nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self.parameters = {
            **body.parameters,
            "head.directions": self._directions,
            "head.log_scale": self._log_scale,
        }
        self.rates = {"head.directions": HEAD_RATE, "head.log_scale": SCALE_RATE}
        self.count = len(trained)

    def weight(self) -> torch.Tensor:
        import torch

        return self._log_scale.exp() * torch.nn.functional.normalize(self._directions, dim=1)

    def losses(self, rows: Sequence[int]) -> Iterator[torch.Tensor]:
        import torch

        self._body.train(is_on=True)
        lengths = [len(row) for row in self._rows]
        for part in parts([self._trained[row] for row in rows], lengths, most_tokens=PASS_TOKENS):
            logits = self._body.vectors([self._rows[at] for at in part]) @ self.weight().T
            loss = torch.nn.functional.cross_entropy(logits, self._targets[part], reduction="sum")
            yield loss / len(rows)

    def judge(self) -> float:
        # At the best temperature, which is fitted in the end: growing sure too fast is no harm.
        logits = self.held_logits()
        targets = self._targets[self._held].numpy().astype(np.int32)
        return nll(logits, targets, fit_temperature(logits, targets))

    def held_logits(self) -> FloatArray:
        """Scores of the validation rows: float32[M, K]."""
        import torch

        with torch.no_grad():
            logits: FloatArray = (self._embed(self._held) @ self.weight().T).numpy()
        return logits

    def _embed(self, rows: Sequence[int], progress: Progress | None = None) -> torch.Tensor:
        import torch

        self._body.train(is_on=False)
        vectors = torch.empty(len(rows), self._body.dimension)
        lengths = [len(self._rows[row]) for row in rows]
        with torch.no_grad():
            for part in parts(range(len(rows)), lengths, most_tokens=1024):
                vectors[part] = self._body.vectors([self._rows[rows[at]] for at in part])
                if progress is not None:
                    progress.advance(len(part))
        return vectors


def training_digest(
    rows: Sequence[IntArray],
    others: Sequence[IntArray],
    settings: LoopSettings,
    base: str,
) -> str:
    """Sha256, in hex, over all that training depends on; ``base`` is the digest of the model."""
    digest = hashlib.sha256(f"{base} {asdict(settings)} {len(rows)}".encode())
    for each in (*rows, *others):
        digest.update(f"{each.shape} {each.dtype}".encode())
        digest.update(each.tobytes())
    return digest.hexdigest()
