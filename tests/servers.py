"""Commands and server processes for the end-to-end tests."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from forks import Forks

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


@functools.cache
def _forks() -> Forks:
    made = Forks()
    atexit.register(made.close)
    return made


def sprat(
    store: Store, *arguments: str, cwd: Path | None = None, input: str = "", anew: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a `sprat` command to its end; ``anew``: in an interpreter of its own, see `forks`."""
    env = environment(store)
    if not anew:
        return _forks().run(arguments, env=env, cwd=cwd, input=input, timeout_s=120)
    return subprocess.run(
        [sys.executable, "-m", "sprat", *arguments],
        env=env,
        cwd=cwd,
        input=input,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
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


def start_server(store: Store, folder: Path, *arguments: str, drain_s: float = 0) -> Server:
    """Start `sprat serve` and wait for its `ready` line.

    Its log and, unless the arguments say otherwise, its socket ``s.sock`` go to ``folder``. When it
    stops, it waits ``drain_s`` for balancers to notice: here there are none.
    """
    if "--listen" not in arguments:
        arguments += ("--listen", f"unix:{folder}/s.sock")
    log = folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "sprat", "-v", "serve", *arguments],
            env=environment(store) | {"SPRAT_SERVER__DRAIN_S": str(drain_s)},
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
