"""What a benchmark is, what it leaves behind, and how it runs: in a process of its own.

A case is a module with ``run(context) -> Outcome``. Its `Result` is one JSON file with everything
that is needed to judge the figures: machine, versions, commit, parameters, every round.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sprat import measure
from sprat.errors import CorruptFile, NotFound, SetupError
from sprat.store import Store

WRITTEN = ("benchmarks/results", "README.md")
"""What benchmarks change in a checkout themselves."""

Cell = str | int | float | None


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Document):
    """One figure: what was measured, and the goal where there is one. Made by `figure`.

    Attributes
    ----------
    name : str
        For programs.
    title : str
        For people.
    unit : str
        Such as ``ms``; empty for a ratio.
    value : float
        Median of ``rounds``.
    rounds : tuple of float
        What each round gave, in order.
    at_least, at_most : float or None
        The goal.
    met : bool or None
        Whether ``value`` reaches it; None without a goal.
    """

    name: str
    title: str
    unit: str
    value: float
    rounds: tuple[float, ...] = Field(min_length=1)
    at_least: float | None = None
    at_most: float | None = None
    met: bool | None = None

    @model_validator(mode="after")
    def _follows_from_rounds(self) -> Figure:
        if self.value != measure.median(self.rounds):
            raise ValueError("value is not the median of rounds")
        if self.met != _is_met(self.value, self.at_least, self.at_most):
            raise ValueError("met does not follow from value and goal")
        return self


def figure(
    name: str,
    title: str,
    unit: str,
    rounds: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """A figure of the median of rounds, judged by its goal. Parameters as in `Figure`."""
    value = measure.median(rounds)
    return Figure(
        name=name,
        title=title,
        unit=unit,
        value=value,
        rounds=tuple(rounds),
        at_least=at_least,
        at_most=at_most,
        met=_is_met(value, at_least, at_most),
    )


def _is_met(value: float, at_least: float | None, at_most: float | None) -> bool | None:
    if at_least is None and at_most is None:
        return None
    return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


class Table(_Document):
    """Rows for the report, where figures alone do not say it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Result(_Document):
    """What a case leaves behind, as ``<case>.json``.

    Attributes
    ----------
    date : str
        UTC, ISO 8601.
    commit : str or None
        As `sprat.measure.commit` says it.
    quick : bool
        A trial of the code with little work: its figures mean nothing.
    disturbance : float or None
        Share of the machine's CPU time, in [0, 1], that other processes took meanwhile.
    machine, versions : dict
        See `sprat.measure`.
    method : str
        What was done, and what the figures exclude.
    met : bool or None
        Whether every goal is met; None without goals.
    raw : dict
        Everything else that was measured.
    """

    format: Literal[1] = 1
    case: str
    title: str
    date: str
    commit: str | None
    quick: bool
    disturbance: float | None
    machine: dict[str, Any]
    versions: dict[str, str]
    parameters: dict[str, Any]
    method: str
    figures: tuple[Figure, ...]
    table: Table | None
    met: bool | None
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case returns. Fields as in `Result`."""

    parameters: dict[str, Any]
    method: str
    figures: tuple[Figure, ...]
    table: Table | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a case gets.

    Attributes
    ----------
    store : Store
        Where models are; a case pulls those that it needs.
    checkout : Path or None
        The source tree that is measured; None for an installed package.
    quick : bool
        Do the least work that runs all of the code.
    say : callable
        Reports progress, one line a call.
    """

    store: Store
    checkout: Path | None
    quick: bool
    say: Callable[[str], None]

    @property
    def rounds(self) -> int:
        """How often each measurement is taken, in turn with the others."""
        return 1 if self.quick else 5


@dataclass(frozen=True, slots=True)
class Case:
    """A benchmark: its name, its title, and the module that runs it."""

    name: str
    title: str
    module: str


CASES = {
    case.name: case
    for case in (
        Case("serve", "Classify through gRPC", "sprat.benchmarks.serve"),
        Case("start", "Start of the server", "sprat.benchmarks.start"),
        Case("fairness", "Short calls beside a long prompt", "sprat.benchmarks.fairness"),
        Case("kernels", "Kernels", "sprat.benchmarks.kernels"),
        Case("quantization", "Quantized weights", "sprat.benchmarks.quantization"),
        Case("static", "Static models in process", "sprat.benchmarks.static"),
        Case("engines", "Engines in process", "sprat.benchmarks.engines"),
        Case("sizing", "Classify under load", "sprat.benchmarks.sizing_case"),
        Case("accuracy", "Accuracy on BANKING77", "sprat.benchmarks.accuracy"),
        Case("accuracy_finetune", "Fine-tuned encoders", "sprat.benchmarks.accuracy_finetune"),
        Case("accuracy_moderation", "Spam, moderated", "sprat.benchmarks.accuracy_moderation"),
        Case("cascade", "A cascade of three tiers", "sprat.benchmarks.cascade"),
        Case("cascade_overhead", "A cascade beside its tiers", "sprat.benchmarks.cascade_overhead"),
        Case("cascade_soak", "A cascade under steady traffic", "sprat.benchmarks.cascade_soak"),
        Case(
            "cascade_language",
            "A language model behind a head",
            "sprat.benchmarks.cascade_language",
        ),
        Case("accuracy_distil", "Accuracy of a student", "sprat.benchmarks.accuracy_distil"),
        # The last: they need programs that are built only for them.
        Case("peers", "Language models beside other servers", "sprat.benchmarks.peers"),
        Case("peers_q4_0", "The same with four bits", "sprat.benchmarks.peers_q4_0"),
    )
}


def find(name: str) -> Case:
    """A case by name.

    Raises
    ------
    NotFound
        With the names that exist.
    """
    if name not in CASES:
        raise NotFound("benchmark", name, tuple(CASES))
    return CASES[name]


def checkout() -> Path | None:
    """Top folder of the source tree that this package runs from, or that we stand in."""
    for folder in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (folder / "setup.py").is_file() and (folder / "runtime" / "measure.py").is_file():
            return folder
    return None


class _Watch:
    """How busy others keep the machine from here on."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = self._others()

    @staticmethod
    def _others() -> float | None:
        """CPU seconds of everything but this process and the children that it has waited for."""
        machine = measure.machine_cpu_seconds()
        return None if machine is None else machine - sum(os.times()[:4])

    def disturbance(self) -> float | None:
        """As in `Result`. No child may be running."""
        now = self._others()
        if now is None or self._before is None:
            return None
        available = (time.perf_counter() - self._started) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, (now - self._before) / available))


def run_here(case: Case, folder: Path, *, quick: bool, say: Callable[[str], None]) -> Result:
    """Run a case in this process and write its result below ``folder``.

    Raises
    ------
    SpratError
        When something that the case needs is missing, or an answer is wrong.
    """
    tree = checkout()
    watch = _Watch()
    outcome: Outcome = import_module(case.module).run(Context(Store(), tree, quick, say))
    judged = [each.met for each in outcome.figures if each.met is not None]
    result = Result(
        case=case.name,
        title=case.title,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=None if tree is None else measure.commit(tree, exclude=WRITTEN),
        quick=quick,
        disturbance=watch.disturbance(),
        machine=measure.machine(),
        versions=measure.versions(),
        parameters=outcome.parameters,
        method=outcome.method,
        figures=outcome.figures,
        table=outcome.table,
        met=all(judged) if judged else None,
        raw=outcome.raw,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return result


def run_isolated(case: Case, folder: Path, *, quick: bool) -> Result:
    """Run a case in a process of its own, which writes its progress to our stderr.

    Raises
    ------
    SetupError
        When the process fails.
    """
    command = [sys.executable, "-m", "sprat.benchmarks.worker", case.name, str(folder)]
    status = subprocess.run([*command, "--quick"] if quick else command, check=False).returncode
    if status != 0:
        raise SetupError(f"benchmark {case.name} ended with status {status}")
    return read(folder / f"{case.name}.json")


def read(path: Path) -> Result:
    """Read a result.

    Raises
    ------
    CorruptFile
        When it is missing, no result, or contradicts itself.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CorruptFile(str(path), "missing; `make bench` makes it") from None
    except OSError as error:
        raise CorruptFile(str(path), f"cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise CorruptFile(str(path), f"{where}: {first['msg']}") from None
