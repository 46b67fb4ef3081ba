"""Gradient descent: it learns, stops, and goes on where it was stopped, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sprat.errors import EngineError, InvalidInput, SetupError
from sprat.progress import Silent
from sprat.train.loop import CHECKPOINT, LoopSettings, LoopState, train

if TYPE_CHECKING:
    import torch

SETTINGS = LoopSettings(learning_rate=0.3, epochs=6, batch=4, patience=6, seed=3)


class Line:
    """Fit y = 2 x on twelve points; it can be made to fail at a step."""

    def __init__(self, *, fail_at: int | None = None, broken: bool = False) -> None:
        torch = pytest.importorskip("torch", reason="torch is not installed")
        self._x = torch.linspace(-1, 1, 12)
        self._weight = torch.nn.Parameter(torch.zeros(1))
        self.parameters: dict[str, torch.Tensor] = {"weight": self._weight}
        self.rates = {"weight": 1.0}
        self.count = 12
        self._fail_at, self._broken, self._steps = fail_at, broken, 0

    @property
    def value(self) -> float:
        return float(self._weight.detach())

    def losses(self, rows: Sequence[int]) -> Iterator[torch.Tensor]:
        if self._steps == self._fail_at:
            raise KeyboardInterrupt
        self._steps += 1
        x = self._x[rows]
        noise = 0.1 * x.new_empty(len(rows)).normal_()
        loss = (self._weight * x - 2 * x + noise).square().mean()
        yield loss * float("nan") if self._broken else loss

    def judge(self) -> float:
        return float((self._weight * self._x - 2 * self._x).detach().square().mean())


def run(model: Line, folder: Path, *, key: str = "k", resume: bool = False) -> LoopState:
    return train(model, SETTINGS, checkpoint=folder, key=key, resume=resume, progress=Silent())


def test_loop_learns_and_keeps_the_best(tmp_path: Path) -> None:
    model = Line()
    state = run(model, tmp_path)
    assert state.step == 18
    assert state.losses[state.best] == min(state.losses) < state.losses[0] / 4
    assert model.judge() == pytest.approx(min(state.losses), rel=1e-5)


def test_loop_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Line()
    expected = run(whole, tmp_path / "whole")
    monkeypatch.setattr("sprat.train.loop.SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(Line(fail_at=8), tmp_path / "cut")
    resumed = Line()
    state = run(resumed, tmp_path / "cut", resume=True)
    assert resumed.value == whole.value
    assert state.losses == expected.losses
    assert (state.step, state.best) == (expected.step, expected.best)


def test_loop_stops_when_it_no_longer_helps(tmp_path: Path) -> None:
    class Perfect(Line):
        def judge(self) -> float:
            return 0.0

    settings = LoopSettings(epochs=9, batch=4, patience=2)
    state = train(
        Perfect(), settings, checkpoint=tmp_path, key="k", resume=False, progress=Silent()
    )
    assert (len(state.losses), state.best) == (3, 0)


def test_loop_resumes_nothing_of_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprat.train.loop.SAVE_EVERY_S", 0.0)
    run(Line(), tmp_path, key="one")
    with pytest.raises(SetupError, match="of a training with other rows"):
        run(Line(), tmp_path, key="other", resume=True)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SetupError, match="damaged"):
        run(Line(), tmp_path, key="one", resume=True)


def test_loop_without_a_state_starts_at_the_beginning(tmp_path: Path) -> None:
    assert run(Line(), tmp_path, resume=True).step == 18


def test_loop_names_the_step_where_it_diverges(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not finite at step 0; try a smaller learning rate"):
        run(Line(broken=True), tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("epochs", 0),
        ("batch", 0),
        ("patience", 0),
        ("seed", -1),
    ],
)
def test_loop_refuses_settings_out_of_range(field: str, value: float) -> None:
    settings = LoopSettings(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=f"{field}: expected"):
        settings.check()
