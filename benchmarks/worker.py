"""``python -m sprat.benchmarks.worker CASE FOLDER [--quick]``: one case in this process."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sprat.benchmarks import harness
from sprat.errors import SpratError


def main() -> int:
    """Run the case; 0 when it was measured, whether or not it met its goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()

    def say(line: str) -> None:
        print(f"  {line}", file=sys.stderr, flush=True)

    try:
        harness.run_here(harness.find(given.case), given.folder, quick=given.quick, say=say)
    except SpratError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
