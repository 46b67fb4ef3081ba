"""The command line: ``sprat --help``. One module per group of commands; `app` binds them."""

from __future__ import annotations


def main() -> None:
    """Entry point of ``sprat`` and ``python -m sprat``."""
    from sprat.cli.app import run

    run()
