from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sprat import measure
from sprat.benchmarks import harness
from sprat.benchmarks.harness import Case, Figure, Outcome, Table, figure
from sprat.errors import CorruptFile, NotFound, SetupError

FIELDS = {
    *("format", "case", "title", "date", "commit", "quick", "disturbance", "machine"),
    *("versions", "parameters", "method", "figures", "table", "met", "raw"),
}


def outcome(*figures: Figure) -> Outcome:
    table = Table(columns=("a", "b"), rows=(("x", 1.5), ("y", None)))
    return Outcome({"texts": "ours"}, "How.", figures, table, raw={"rounds": [1, 2]})


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a case that returns a given outcome."""

    def make(result: Outcome) -> Case:
        module = type(sys)("made_up_case")
        module.run = lambda context: result  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "made_up_case", module)
        return Case("trial", "A trial", "made_up_case")

    return make


def run(case: Case, folder: Path) -> harness.Result:
    return harness.run_here(case, folder, quick=False, say=lambda line: None)


def test_harness_writes_a_result_that_says_everything(tmp_path: Path, case: Any) -> None:
    figures = (
        figure("a", "A", "ms", [3.0, 1.0, 2.0], at_most=2.5),
        figure("b", "B", "", [0.5]),
    )
    result = run(case(outcome(*figures)), tmp_path / "results")
    document = json.loads((tmp_path / "results" / "trial.json").read_text())
    assert set(document) == FIELDS
    assert document["figures"][0] == {
        "name": "a",
        "title": "A",
        "unit": "ms",
        "value": 2.0,
        "rounds": [3.0, 1.0, 2.0],
        "at_least": None,
        "at_most": 2.5,
        "met": True,
    }
    assert document["figures"][1]["met"] is None
    assert document["met"] is True
    assert document["machine"]["threads"] >= 1
    assert "sprat" in document["versions"]
    assert document["table"]["rows"] == [["x", 1.5], ["y", None]]
    assert document["raw"] == {"rounds": [1, 2]}
    assert harness.read(tmp_path / "results" / "trial.json") == result
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["trial.json"]


@pytest.mark.parametrize(
    ("rounds", "goal", "met"),
    [
        ([0.9], {"at_least": 0.9}, True),
        ([0.8999], {"at_least": 0.9}, False),
        ([0.45], {"at_most": 0.45}, True),
        ([0.4501], {"at_most": 0.45}, False),
        ([2.0], {"at_least": 1.0, "at_most": 3.0}, True),
        ([0.5], {"at_least": 1.0, "at_most": 3.0}, False),
        ([2.0], {}, None),
    ],
)
def test_harness_judges_a_figure_by_its_goal(
    rounds: list[float], goal: dict[str, float], met: bool | None
) -> None:
    assert figure("a", "A", "", rounds, **goal).met is met


def test_harness_meets_its_goals_when_every_figure_does(tmp_path: Path, case: Any) -> None:
    good = figure("a", "A", "", [1.0], at_least=0.5)
    bad = figure("b", "B", "", [1.0], at_most=0.5)
    free = figure("c", "C", "", [1.0])
    assert run(case(outcome(good, free)), tmp_path).met is True
    assert run(case(outcome(good, bad)), tmp_path).met is False
    assert run(case(outcome(free)), tmp_path).met is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"met": False}, "figures.0: Value error, met does not follow from value and goal"),
        ({"value": 9.0}, "figures.0: Value error, value is not the median of rounds"),
        ({"rounds": []}, "figures.0.rounds: "),
        ({"value": "fast"}, "figures.0.value: "),
        ({"note": "x"}, "figures.0.note: "),
    ],
)
def test_harness_refuses_a_figure_that_was_edited(
    tmp_path: Path, case: Any, change: dict[str, Any], message: str
) -> None:
    run(case(outcome(figure("a", "A", "", [1.0], at_least=0.5))), tmp_path)
    path = tmp_path / "trial.json"
    document = json.loads(path.read_text())
    document["figures"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match=message):
        harness.read(path)


def test_harness_names_a_missing_result(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"serve\.json: missing; `make bench` makes it"):
        harness.read(tmp_path / "serve.json")


def test_harness_refuses_what_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "serve.json").write_text('{"format": 1}')
    with pytest.raises(CorruptFile, match="case: Field required"):
        harness.read(tmp_path / "serve.json")
    (tmp_path / "serve.json").write_text("{")
    with pytest.raises(CorruptFile, match="Invalid JSON"):
        harness.read(tmp_path / "serve.json")


def test_harness_a_failed_case_leaves_the_old_result(
    tmp_path: Path, case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case(outcome(figure("a", "A", "", [1.0])))
    before = run(made, tmp_path)

    def fail(context: object) -> Outcome:
        raise SetupError("something is missing")

    monkeypatch.setattr(sys.modules["made_up_case"], "run", fail)
    with pytest.raises(SetupError, match="something is missing"):
        run(made, tmp_path)
    assert harness.read(tmp_path / "trial.json") == before


@pytest.mark.parametrize(
    ("machine", "own", "share"),
    [
        # Over 10 s on 4 CPUs, 40 s were there to be had.
        ((100.0, 125.0), ((1.0, 0.0, 2.0, 0.0), (4.0, 1.0, 9.0, 4.0)), 0.25),
        ((100.0, 110.0), ((0.0, 0.0, 0.0, 0.0), (5.0, 5.0, 0.1, 0.1)), 0.0),
        ((100.0, 190.0), ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)), 1.0),
        ((None, None), ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)), None),
    ],
)
def test_harness_disturbance_is_what_others_took(
    machine: tuple[float | None, ...],
    own: tuple[tuple[float, ...], ...],
    share: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine_clock, own_clock, clock = iter(machine), iter(own), iter((50.0, 60.0))
    monkeypatch.setattr(measure, "machine_cpu_seconds", lambda: next(machine_clock))
    fake_os = SimpleNamespace(times=lambda: (*next(own_clock), 0.0), cpu_count=lambda: 4)
    monkeypatch.setattr(harness, "os", fake_os)
    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert harness._Watch().disturbance() == share


@pytest.mark.parametrize("name", harness.CASES)
def test_harness_every_case_can_be_run(name: str) -> None:
    case = harness.find(name)
    assert case.name == name
    assert callable(import_module(case.module).run)


def test_harness_unknown_case_offers_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"no benchmark named 'swim'; known: accuracy, "):
        harness.find("swim")


def test_harness_isolated_case_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="benchmark swim ended with status 1"):
        harness.run_isolated(Case("swim", "", ""), tmp_path, quick=True)


def test_harness_worker_tells_its_error_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sprat.benchmarks.worker", "swim", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no benchmark named 'swim'")
    assert len(done.stderr.splitlines()) == 1


def test_harness_command_keeps_trials_away_from_real_results() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sprat.benchmarks", "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--quick needs --results" in done.stderr


def test_harness_finds_its_checkout() -> None:
    tree = harness.checkout()
    assert tree is not None
    assert (tree / "benchmarks").is_dir()
