"""Commands and server processes for the end-to-end tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from sprat.store import Store

TASK = "tickets"
ENCODER = "minilm-l6"
GENERATOR = "smollm2-135m"


def environment(store: Store) -> dict[str, str]:
    """The environment of a command that uses the test store."""
    return {**os.environ, "SPRAT_HOME": str(store.root), "PYTHONUNBUFFERED": "1"}


def sprat(store: Store, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a `sprat` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "sprat", *arguments],
        env=environment(store),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


@dataclass
class Server:
    """A server process."""

    process: subprocess.Popen[str]
    address: str

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, then the exit status."""
        self.process.terminate()
        return self.process.wait(timeout_s)


def start_server(store: Store, *arguments: str, env: dict[str, str] | None = None) -> Server:
    """Start `sprat serve` and wait for its `ready` line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sprat", "-v", "serve", *arguments],
        env={**environment(store), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = process.stdout.readline()
    if not ready.startswith("ready "):
        assert process.stderr is not None
        raise AssertionError(f"no server: {process.stderr.read()}")
    return Server(process, ready.split()[1])
