"""Fit LoRA matrices to examples (Hu et al., 2021), with the loop of `sprat.train.loop`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sprat.errors import InvalidInput
from sprat.progress import Progress
from sprat.train import loop
from sprat.train.examples import Example, shared_length
from sprat.train.loop import LoopSettings, LoopState
from sprat.train.packs import cut, pack

if TYPE_CHECKING:
    import torch

    from sprat.train.lora_model import LoraModel

PACK_TOKENS = 1024
"""Most tokens of a forward pass: what takes memory, some 2 MB a token for 135 million weights."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """How to train.

    Attributes
    ----------
    rank : int
        Of the matrices, 1 to 256.
    learning_rate : float
        The highest; above 0.
    epochs : int
        Most passes over the examples, from 1.
    batch : int
        Examples of a step, from 1.
    patience : int
        Passes without a smaller validation loss before training ends, from 1.
    seed : int
        Of the matrices at the start and of the order of the examples; at least 0.
    bf16 : bool
        Multiply matrices in bfloat16: several times as fast on CPUs with AMX, slower on others.
    """

    rank: int = 8
    learning_rate: float = 1e-3
    epochs: int = 6
    batch: int = 16
    patience: int = 2
    seed: int = 0
    bf16: bool = False

    @property
    def alpha(self) -> float:
        """Products of the matrices count twice."""
        return 2.0 * self.rank

    @property
    def loop(self) -> LoopSettings:
        """What the loop has to know of it."""
        return LoopSettings(self.learning_rate, self.epochs, self.batch, self.patience, self.seed)

    def check(self) -> None:
        """Raise InvalidInput for a number that is out of range."""
        if not 1 <= self.rank <= 256:
            raise InvalidInput(f"rank: expected 1 to 256, got {self.rank}", field="rank")
        self.loop.check()


def fit(
    model: LoraModel,
    train: Sequence[Example],
    valid: Sequence[Example],
    settings: LoraSettings,
    *,
    checkpoint: Path,
    base: str,
    resume: bool,
    progress: Progress,
) -> LoopState:
    """Train; the model has the best matrices in the end.

    Parameters
    ----------
    checkpoint : Path
        Folder for the state of training: see `sprat.train.loop.train`.
    base : str
        Digest of the model.

    Returns
    -------
    LoopState
        At the end. Its losses are means of the negative log-likelihood of a whole answer, in nats.

    Raises
    ------
    InvalidInput, SetupError, EngineError
        As in `sprat.train.loop.train`.
    """
    settings.check()
    return loop.train(
        _Examples(model, train, valid),
        settings.loop,
        checkpoint=checkpoint,
        key=_digest(train, valid, settings, base),
        resume=resume,
        progress=progress,
    )


class _Examples:
    """Examples as what the loop trains on. See `sprat.train.loop.Trainable`."""

    def __init__(
        self, model: LoraModel, train: Sequence[Example], valid: Sequence[Example]
    ) -> None:
        self.parameters: dict[str, torch.Tensor] = {**model.parameters}
        self.rates: dict[str, float] = {}
        self.count = len(train)
        self._model = model
        self._train, self._valid = train, valid
        self._shared = shared_length([*train, *valid])

    def losses(self, rows: Sequence[int]) -> Iterator[torch.Tensor]:
        batch = [self._train[row] for row in rows]
        steps = sum(len(example.steps) for example in batch)
        for nll in self._nll(batch):
            yield nll.sum() / steps

    def judge(self) -> float:
        import torch

        with torch.no_grad():
            total = sum(float(nll.double().sum()) for nll in self._nll(self._valid))
        return total / len(self._valid)

    def _nll(self, examples: Sequence[Example]) -> Iterator[torch.Tensor]:
        """Of each step, pack by pack."""
        for part in cut(examples, self._shared, most_tokens=PACK_TOKENS):
            yield self._model.nll(pack(part, self._shared))


def _digest(
    train: Sequence[Example], valid: Sequence[Example], settings: LoraSettings, base: str
) -> str:
    """Sha256, in hex, over all that training depends on."""
    digest = hashlib.sha256(f"{base} {asdict(settings)} {len(train)}".encode())
    for example in [*train, *valid]:
        digest.update(f"{len(example.prompt)} {len(example.answer)} {example.steps}".encode())
        digest.update(example.prompt.tobytes() + example.answer.tobytes())
    return digest.hexdigest()
