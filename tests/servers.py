"""Commands and server processes for the end-to-end tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.store import Store

TASK = "tickets"
ENCODER = "minilm-l6"
GENERATOR = "smollm2-135m"
NAMED_TASKS = f"""
[tasks.colours]
kind = "classify"
model = "{GENERATOR}"
labels = ["red", {{ name = "green", description = "grass" }}]

[tasks.teams]
kind = "route"
model = "{GENERATOR}"
destinations = [{{ name = "money", target = "queue://billing" }}, "other"]

[tasks.triage]
kind = "decide"
model = "{GENERATOR}"
questions = [
  {{ name = "urgent", text = "Is it urgent?", kind = "yes_no" }},
  {{ name = "mood", text = "How do they feel?", kind = "choice", options = ["calm", "angry"] }},
]

[tasks.orders]
kind = "extract"
model = "{GENERATOR}"
max_tokens = 40
[tasks.orders.schema]
type = "object"
required = ["urgent"]
properties.urgent.type = "boolean"

[tasks.digits]
kind = "transform"
model = "{GENERATOR}"
prompt = "Say a number about {{text}}"
grammar = {{ regex = "[0-9]{{3}}" }}
"""
"""A task of each kind on the generator, as a configuration."""


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
    """A server process, and the file that holds its log."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, then the exit status."""
        self.process.terminate()
        return self.process.wait(timeout_s)


def start_server(store: Store, folder: Path, *arguments: str) -> Server:
    """Start `sprat serve` and wait for its `ready` line.

    Its log and, unless the arguments say otherwise, its socket ``s.sock`` go to ``folder``.
    """
    if "--listen" not in arguments:
        arguments += ("--listen", f"unix:{folder}/s.sock")
    log = folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "sprat", "-v", "serve", *arguments],
            env=environment(store),
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout as output:
        ready = output.readline()
    if not ready.startswith("ready "):
        process.wait(30)
        raise AssertionError(f"no server: {log.read_text()}")
    return Server(process, ready.split()[1], log)
