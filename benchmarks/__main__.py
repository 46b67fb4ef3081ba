"""``python -m sprat.benchmarks``: run the benchmarks one after another, and say what they gave."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sprat.benchmarks import harness, report
from sprat.errors import SpratError


def main() -> int:
    """Run the cases; 0 when all of them ran and met their goals."""
    parser = argparse.ArgumentParser(
        prog="python -m sprat.benchmarks",
        description="Measures sprat on this machine, one case at a time. Keep the machine quiet.",
    )
    parser.add_argument(
        "--case",
        action="append",
        choices=tuple(harness.CASES),
        help="a case to run; may be repeated; absent: all of them",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for the JSON files; absent: benchmarks/results of the checkout, or ./results",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="try the code with little work; the figures mean nothing; needs --results",
    )
    given = parser.parse_args()
    if given.quick and given.results is None:
        parser.error("--quick needs --results: its figures must not replace real ones")
    folder: Path = given.results or default_folder()
    all_met = True
    for name in given.case or harness.CASES:
        case = harness.find(name)
        print(f"{case.name}: {case.title}", file=sys.stderr, flush=True)
        try:
            result = harness.run_isolated(case, folder, quick=given.quick)
        except SpratError as error:
            print(f"error: {error.message}", file=sys.stderr)
            return 1
        print(report.render(result), flush=True)
        all_met = all_met and (given.quick or result.met is not False)
    print(f"Results are in {folder}.", file=sys.stderr)
    return 0 if all_met else 1


def default_folder() -> Path:
    """Where results go: into the checkout, where there is one."""
    tree = harness.checkout()
    return Path("results") if tree is None else tree / "benchmarks" / "results"


if __name__ == "__main__":
    sys.exit(main())
