from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sprat.benchmarks import report
from sprat.benchmarks.harness import Figure, Result, Table, figure
from sprat.errors import CorruptFile, SetupError

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- table:serve -->", "<!-- /table:serve -->"


def result(
    *figures: Figure,
    table: Table | None = None,
    quick: bool = False,
    disturbance: float | None = 0.01,
) -> Result:
    return Result(
        case="serve",
        title="Classify through gRPC",
        date="2026-01-02T03:04:05+00:00",
        commit="0123456789ab",
        quick=quick,
        disturbance=disturbance,
        machine={"cpu": "Some CPU", "threads": 2},
        versions={},
        parameters={},
        method="How it was done.",
        figures=figures,
        table=table,
        met=None,
        raw={},
    )


RATIO = figure("ratio", "share of the ceiling", "", [0.9312], at_least=0.9)
LATENCY = figure("p50", "p50", "ms", [4.0567], at_most=0.8)
RATE = figure("rate", "alone", "texts/s", [1234.5])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Folder with the result of one case."""
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (folder / "serve.json").write_text(result(RATIO, LATENCY, RATE).model_dump_json())
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    return report.main()


def test_report_renders_figures_goals_and_conditions() -> None:
    assert report.render(result(RATIO, LATENCY, RATE)) == (
        "| figure | measured | goal | met |\n"
        "| --- | --- | --- | --- |\n"
        "| share of the ceiling | 0.931 | ≥ 0.900 | yes |\n"
        "| p50 | 4.06 ms | ≤ 0.800 ms | no |\n"
        "| alone | 1,234 texts/s |  |  |\n"
        "\n"
        "How it was done. Measured on 2026-01-02 at 0123456789ab on Some CPU, 2 compute threads."
    )


def test_report_leaves_out_goals_where_there_are_none() -> None:
    assert report.render(result(RATE)).startswith("| figure | measured |\n| --- | --- |\n| alone")


def test_report_renders_a_table() -> None:
    table = Table(columns=("in-flight", "ms"), rows=((1, 0.25), (16, None), (2000, "x")))
    assert report.render(result(table=table)).startswith(
        "| in-flight | ms |\n| --- | --- |\n| 1 | 0.250 |\n| 16 |  |\n| 2,000 | x |\n\nHow"
    )


def test_report_says_that_a_trial_means_nothing() -> None:
    assert report.render(result(RATE, quick=True)).endswith("these figures mean nothing.")


def test_report_says_that_others_disturbed_it() -> None:
    quiet = report.render(result(RATE, disturbance=None))
    assert report.render(result(RATE, disturbance=0.02)) == quiet
    disturbed = report.render(result(RATE, disturbance=0.374))
    assert disturbed == quiet + " Other processes took 37% of the machine meanwhile."


def test_report_replaces_what_stands_between_markers(results: Path) -> None:
    text = f"# Title\n\n{BEGIN}\nold\nlines\n{END}\n\nEnd without newline"
    made = report.update(text, results)
    table = report.render(result(RATIO, LATENCY, RATE))
    assert made == f"# Title\n\n{BEGIN}\n{table}\n{END}\n\nEnd without newline"
    assert report.update(made, results) == made


@pytest.mark.parametrize(
    "text",
    [
        f"A marker such as `{BEGIN}` inside of a line is text.\n",
        "<!-- table:menu -->\nof another tool\n<!-- /table:menu -->\n",
    ],
)
def test_report_leaves_what_is_not_its_own_alone(results: Path, text: str) -> None:
    assert report.update(text, results) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{BEGIN}\n", "<!-- /table:serve --> is missing"),
        (f"{END}\n", "line 1: expected the begin of a table"),
        (f"{BEGIN}\n{BEGIN}\n{END}\n", "line 2: expected <!-- /table:serve -->, found"),
        (f"\n{BEGIN}\n<!-- /table:start -->\n", "line 3: expected <!-- /table:serve -->, found"),
    ],
)
def test_report_names_a_marker_out_of_place(results: Path, text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        report.update(text, results)


def test_report_names_a_missing_result(results: Path) -> None:
    with pytest.raises(CorruptFile, match=r"start\.json: missing; `make bench` makes it"):
        report.update("<!-- table:start -->\n<!-- /table:start -->\n", results)


def test_report_does_not_publish_a_trial(results: Path) -> None:
    (results / "serve.json").write_text(result(RATE, quick=True).model_dump_json())
    with pytest.raises(SetupError, match="serve: the result is of a quick trial"):
        report.update(f"{BEGIN}\n{END}\n", results)


def test_report_check_tells_a_stale_document(
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = tmp_path / "README.md"
    before = f"{BEGIN}\nold\n{END}\n"
    readme.write_text(before)
    assert run(monkeypatch, str(readme), "--check") == 1
    assert "is out of date: run `python -m sprat.benchmarks.report" in capsys.readouterr().err
    assert readme.read_text() == before
    assert run(monkeypatch, str(readme)) == 0
    assert "share of the ceiling" in readme.read_text()
    assert run(monkeypatch, str(readme), "--check") == 0


def test_report_says_what_is_wrong_with_a_document(
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, str(tmp_path / "none.md"), "--check") == 1
    assert "none.md cannot be read" in capsys.readouterr().err
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n")
    assert run(monkeypatch, str(readme), "--results", str(results)) == 1
    assert "README.md: <!-- /table:serve --> is missing" in capsys.readouterr().err


def test_report_readme_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, str(ROOT / "README.md"), "--check") == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12, "12"),
        (1500, "1,500"),
        (3.0, "3"),
        (0.12345, "0.123"),
        (9.876, "9.88"),
        (12.345, "12.3"),
        (99.96, "100.0"),
        (742.4, "742"),
        (-0.5, "-0.500"),
    ],
)
def test_report_numbers_have_three_digits(value: float, text: str) -> None:
    assert report._number(value) == text


def test_report_makes_the_table_of_metrics_from_the_server(tmp_path: Path) -> None:
    made = report.update("<!-- table:metrics -->\nstale\n<!-- /table:metrics -->\n", tmp_path)
    assert "| `sprat_task_drift_psi` | task, figure, tier | population stability index |" in made
    assert "stale" not in made


def test_report_makes_the_table_of_settings_from_the_configuration(tmp_path: Path) -> None:
    made = report.update("<!-- table:config -->\nstale\n<!-- /table:config -->\n", tmp_path)
    assert "| `server.listen` |" in made
    assert "stale" not in made
