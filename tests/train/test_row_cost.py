"""What work costs, row by row."""

from __future__ import annotations

import time

import pytest

from sprat.train.row_cost import LEAST_COST_MS, row_cost


def test_row_cost_is_the_cpu_time_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((2.0, 2.5, 3.0, 3.0))
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    assert row_cost(lambda: "made", 100) == ("made", pytest.approx(5.0))
    # A clock that shows nothing: thresholds divide by costs.
    assert row_cost(lambda: "made", 100) == ("made", LEAST_COST_MS)


def test_row_cost_passes_on_what_fails() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        row_cost(fail, 1)
