"""Gates: a limit is kept or it is not, and a limit of nothing is an error."""

from __future__ import annotations

import pytest

from sprat.errors import InvalidInput
from sprat.train.gates import check

FIGURES = {"accuracy": 0.91, "ece": 0.02}


def test_gates_say_what_failed_and_by_how_much() -> None:
    gates = check(FIGURES, {"min-accuracy": 0.93, "max-ece": 0.015})
    assert [gate.passed for gate in gates] == [False, False]
    assert [gate.message() for gate in gates] == [
        "accuracy is 0.9100: 0.0200 below --min-accuracy 0.93",
        "ece is 0.0200: 0.0050 above --max-ece 0.015",
    ]


def test_gates_pass_at_the_limit_and_skip_what_is_not_asked_for() -> None:
    gates = check(FIGURES, {"min-accuracy": 0.91, "max-ece": 0.02, "min-macro-f1": None})
    assert [(gate.option, gate.passed) for gate in gates] == [
        ("min-accuracy", True),
        ("max-ece", True),
    ]


@pytest.mark.parametrize("option", ["min-accuracy", "max-ece"])
def test_gates_no_number_never_passes(option: str) -> None:
    assert not check(FIGURES, {option: float("nan")})[0].passed


def test_gates_refuse_a_metric_that_was_not_measured() -> None:
    with pytest.raises(InvalidInput, match=r"--min-micro-f1: .* no micro_f1; it has accuracy, ece"):
        check(FIGURES, {"min-micro-f1": 0.5})
