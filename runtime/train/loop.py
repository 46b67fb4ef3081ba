"""Gradient descent with early stopping, and a way to go on later: AdamW on whatever has a loss.

The learning rate rises over the first tenth of the steps and then falls to zero in a straight line.
Before the first pass over the rows and after each one the validation loss is measured, where there
are rows for that; the weights with the least one are the result, and training ends early when it
does not fall any more. Too few rows say nothing of a single pass: then all passes are made, and the
last weights are the result.

Where training stands is written to one file again and again. Training that goes on from it ends
with the same weights, bit for bit, as training that was never interrupted.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sprat.errors import EngineError, InvalidInput, SetupError
from sprat.progress import Progress
from sprat.values import FloatArray

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.safetensors"
SAVE_EVERY_S = 60.0
WARM_UP = 0.1
MOST_NORM = 1.0
"""Gradients longer than this are cut to it."""

_BETAS, _EPSILON, _DECAY = (0.9, 0.999), 1e-8, 0.01


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How to train.

    Attributes
    ----------
    learning_rate : float
        The highest; above 0.
    epochs : int
        Most passes over the rows, from 1.
    batch : int
        Rows of a step, from 1.
    patience : int or None
        Passes without a smaller validation loss before training ends, from 1. None: all passes are
        made, and the last weights kept.
    seed : int
        Of all that is random; at least 0.
    """

    learning_rate: float = 1e-4
    epochs: int = 6
    batch: int = 32
    patience: int | None = 2
    seed: int = 0

    def check(self) -> None:
        """Raise InvalidInput for a number that is out of range."""
        for name, good, expected in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch", self.batch >= 1, "1 or more"),
            ("patience", self.patience is None or self.patience >= 1, "1 or more, or None"),
            ("seed", 0 <= self.seed < 2**63, "0 to 2^63 - 1"),
        ):
            if not good:
                raise InvalidInput(
                    f"{name}: expected {expected}, got {getattr(self, name)}", field=name
                )


@dataclass(slots=True)
class LoopState:
    """Where training stands.

    Attributes
    ----------
    step : int
        Steps that are done.
    losses : list of float
        Validation loss before training and after each pass.
    best : int
        Index of the one whose weights are kept.
    seconds : float
        Time that training took so far.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    best: int = 0
    seconds: float = 0.0


class Trainable(Protocol):
    """What `train` needs of a model under training."""

    parameters: dict[str, torch.Tensor]
    """What is trained, by name."""
    rates: dict[str, float]
    """Multiples of the learning rate, of parameters by name; 1 for all others."""
    count: int
    """Training rows."""

    def losses(self, rows: Sequence[int]) -> Iterator[torch.Tensor]:
        """The loss of a batch in parts that fit into memory; their sum is descended."""
        ...

    def judge(self) -> float:
        """Mean loss of the validation rows."""
        ...


def train(
    model: Trainable,
    settings: LoopSettings,
    *,
    checkpoint: Path,
    key: str,
    resume: bool,
    progress: Progress,
) -> LoopState:
    """Train; the model has the best weights in the end.

    Parameters
    ----------
    checkpoint : Path
        Folder for the state of training. What is there of another training is an error with
        ``resume`` and is written over without.
    key : str
        Digest of all that training depends on.

    Returns
    -------
    LoopState
        At the end.

    Raises
    ------
    InvalidInput
        A setting is out of range.
    SetupError
        There is a state to go on from, but of another training.
    EngineError
        The loss is not finite: the learning rate is too high.
    """
    settings.check()
    run = _Run(model, settings, checkpoint / CHECKPOINT, key)
    if resume:
        run.load()
    return run.go(progress)


class _Run:
    def __init__(self, model: Trainable, settings: LoopSettings, path: Path, key: str) -> None:
        import torch

        self._model = model
        self._settings = settings
        self._path = path
        self._key = key
        self._steps_a_pass = -(-model.count // settings.batch)
        self._state = LoopState()
        self._best: dict[str, FloatArray] = {}
        self._optimizer = torch.optim.AdamW(
            [{"params": [each], "name": name} for name, each in model.parameters.items()],
            lr=settings.learning_rate,
            betas=_BETAS,
            eps=_EPSILON,
            weight_decay=_DECAY,
        )

    def go(self, progress: Progress) -> LoopState:
        state, settings = self._state, self._settings
        total = self._steps_a_pass * settings.epochs
        started = saved = time.perf_counter() - state.seconds
        if not state.losses:
            progress.phase("validate")
            self._judge()
        self._announce(progress, total)
        while state.step < total and not self._is_over:
            epoch, at = divmod(state.step, self._steps_a_pass)
            # The order is that of the pass, whoever asks for it, and whenever.
            order = np.random.default_rng([settings.seed, epoch]).permutation(self._model.count)
            rows = order[at * settings.batch : (at + 1) * settings.batch].tolist()
            self._learn(rows, _rate(state.step, total))
            state.step += 1
            progress.advance(len(rows))
            if state.step % self._steps_a_pass == 0:
                progress.phase("validate")
                self._judge()
                self._announce(progress, total)
            now = time.perf_counter()
            state.seconds = now - started
            if now - saved >= SAVE_EVERY_S:
                self.save()
                saved = now
        _restore(self._model.parameters, self._best)
        return state

    @property
    def _is_over(self) -> bool:
        patience = self._settings.patience
        return patience is not None and len(self._state.losses) - 1 - self._state.best >= patience

    def _announce(self, progress: Progress, total: int) -> None:
        epoch = self._state.step // self._steps_a_pass + 1
        name = f"pass {epoch}, validation loss {self._state.losses[-1]:.3f}"
        progress.phase(name, total=total * self._settings.batch)
        progress.advance(self._state.step * self._settings.batch)

    def _learn(self, rows: list[int], rate: float) -> None:
        import torch

        # Of each step, so that training which was interrupted drops out the same elements.
        torch.manual_seed(self._settings.seed * 1_000_003 + self._state.step)
        for group in self._optimizer.param_groups:
            scale = self._model.rates.get(group["name"], 1.0)
            group["lr"] = self._settings.learning_rate * rate * scale
        self._optimizer.zero_grad()
        for loss in self._model.losses(rows):
            if not math.isfinite(loss.item()):
                raise EngineError(
                    f"the loss is not finite at step {self._state.step}; "
                    "try a smaller learning rate"
                )
            loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._model.parameters.values()), MOST_NORM)
        self._optimizer.step()

    def _judge(self) -> None:
        """Measure the validation loss, and keep the weights where it is the least so far."""
        state = self._state
        state.losses.append(self._model.judge())
        is_better = len(state.losses) == 1 or state.losses[-1] < state.losses[state.best]
        if is_better or self._settings.patience is None:
            state.best = len(state.losses) - 1
            self._best = _copies(self._model.parameters)

    def save(self) -> None:
        from safetensors.numpy import save_file

        tensors = {f"now.{name}": value for name, value in _copies(self._model.parameters).items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for name, parameter in self._model.parameters.items():
            moments: dict[str, torch.Tensor] = self._optimizer.state.get(parameter, {})
            tensors |= {
                f"{kind}.{name}": moments[kind].numpy()
                for kind in ("exp_avg", "exp_avg_sq")
                if kind in moments
            }
        metadata = {"key": self._key, "state": json.dumps(asdict(self._state))}
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        save_file(tensors, beside, metadata)
        os.replace(beside, self._path)

    def load(self) -> None:
        """Go on where the file says; from the start where there is none."""
        import torch
        from safetensors import SafetensorError, safe_open

        if not self._path.is_file():
            return
        try:
            with safe_open(self._path, "numpy") as file:
                metadata: dict[str, Any] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            raise SetupError(
                f"{self._path} is damaged: there is nothing to resume; train without --resume"
            ) from None
        if metadata.get("key") != self._key:
            raise SetupError(
                f"{self._path} is of a training with other rows, settings or another model; repeat "
                "that one's command to resume it, or train without --resume"
            )
        self._state = LoopState(**json.loads(metadata["state"]))

        def part(kind: str) -> dict[str, FloatArray]:
            return {
                name.removeprefix(f"{kind}."): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{kind}.")
            }

        _restore(self._model.parameters, part("now"))
        self._best = part("best")
        mean, square = part("exp_avg"), part("exp_avg_sq")
        for name, parameter in self._model.parameters.items():
            if name in mean:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(self._state.step)),
                    "exp_avg": torch.from_numpy(mean[name].copy()),
                    "exp_avg_sq": torch.from_numpy(square[name].copy()),
                }


def _copies(parameters: Mapping[str, torch.Tensor]) -> dict[str, FloatArray]:
    return {name: each.detach().numpy().copy() for name, each in parameters.items()}


def _restore(parameters: Mapping[str, torch.Tensor], values: Mapping[str, FloatArray]) -> None:
    import torch

    with torch.no_grad():
        for name, each in parameters.items():
            each.copy_(torch.from_numpy(values[name]))


def _rate(step: int, total: int) -> float:
    """Share of the highest learning rate."""
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return (total - step) / max(1, total - warm)
