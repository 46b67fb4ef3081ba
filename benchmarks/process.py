"""A real server in a process of its own, as ``sprat serve`` starts it."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sprat import measure
from sprat.errors import SetupError

if TYPE_CHECKING:
    from typing_extensions import Self

READY = re.compile(r"ready (?P<address>\S+) \((?P<seconds>[0-9.]+) s\)\n")
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server process has used so far.

    Attributes
    ----------
    cpu_s : float or None
        CPU time of all its threads, in seconds.
    memory : Memory or None
        Its own memory.
    cgroup_bytes : int or None
        Memory of its control group.
    """

    cpu_s: float | None
    memory: measure.Memory | None
    cgroup_bytes: int | None


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, by force where it does not end by itself."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    if process.poll() is None:
        process.kill()
        process.wait()


class ListeningProcess:
    """A program that listens. Use it as a context manager.

    Parameters
    ----------
    arguments : sequence of str
        Of Python; ``--listen`` and the address are added.
    environment : mapping of str to str
        Of the program.
    listen : str, optional
        Absent: a temporary Unix socket.

    Attributes
    ----------
    address : str
        Where it listens, as it says itself.
    ready_s : float
        Seconds from before the process was started until it said that everything is loaded.
    load_s : float
        The seconds of that after the imports, as the program measured them.

    Raises
    ------
    SetupError
        When it does not get ready; the message has the last line that it logged.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, listen: str | None = None
    ) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="sprat-bench-")
        self._log = Path(self._files.name) / "log"
        address = f"unix:{self._files.name}/sprat.sock" if listen is None else listen
        command = [sys.executable, *arguments, "--listen", address]
        with self._log.open("wb") as log:
            started = time.perf_counter()
            self._process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log
            )
        try:
            line = self._first_line(started + READY_TIMEOUT_S)
            self.ready_s = time.perf_counter() - started
            ready = READY.fullmatch(line)
            if ready is None:
                raise SetupError("the server did not say that it is ready")
            self.address = ready["address"]
            self.load_s = float(ready["seconds"])
        except BaseException:
            self.close()
            raise

    def _first_line(self, deadline: float) -> str:
        """What the server says when it is ready."""
        assert self._process.stdout is not None
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.perf_counter())):
                    raise SetupError(f"the server was not ready within {READY_TIMEOUT_S:g} s")
                # Unbuffered: a buffer would hide bytes from the selector.
                block = os.read(self._process.stdout.fileno(), 4096)
                if not block:
                    raise SetupError(
                        f"the server ended with status {self._process.wait()} before it was "
                        f"ready: {self._last_logged()}"
                    )
                received += block
        return received.decode()

    def _last_logged(self) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return lines[-1] if lines else "it logged nothing"

    @property
    def pid(self) -> int:
        """Of the server process."""
        return self._process.pid

    def usage(self) -> Usage:
        """What it has used so far."""
        return Usage(
            measure.cpu_seconds(self.pid),
            measure.memory(self.pid),
            measure.cgroup_memory(self.pid),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and remove its files."""
        end(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._files.cleanup()


class ServerProcess(ListeningProcess):
    """``sprat serve``.

    Parameters
    ----------
    home : Path
        The store (``SPRAT_HOME``) that it serves from.
    tasks, models : sequence of str
        What it serves, as for ``sprat serve --task`` and ``--model``.
    config : Path, optional
        As for ``--config``.
    """

    def __init__(
        self,
        home: Path,
        *,
        tasks: Sequence[str] = (),
        models: Sequence[str] = (),
        config: Path | None = None,
    ) -> None:
        arguments = ["-m", "sprat", "serve"]
        if config is not None:
            arguments += ["--config", str(config)]
        for task in tasks:
            arguments += ["--task", task]
        for model in models:
            arguments += ["--model", model]
        # What the user set for a server of their own, such as TLS, is not for this one.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SPRAT_SERVER__")}
        # No balancer watches this server: it need not wait for one when it stops.
        environment |= {"SPRAT_HOME": str(home), "SPRAT_SERVER__DRAIN_S": "0"}
        super().__init__(arguments, environment)


class EmptyServerProcess(ListeningProcess):
    """`sprat.benchmarks.empty`: answers Classify at once, with the same answer always."""

    def __init__(self) -> None:
        super().__init__(["-m", "sprat.benchmarks.empty"], os.environ)


class ScriptedChatProcess(ListeningProcess):
    """`sprat.benchmarks.scripted_chat`: a chat endpoint on loopback that fails by a script.

    Parameters
    ----------
    answers : Path
        What it answers, as JSON: from text to the answer and its log-probability.
    """

    def __init__(self, answers: Path) -> None:
        arguments = ["-m", "sprat.benchmarks.scripted_chat", str(answers)]
        super().__init__(arguments, os.environ, listen="127.0.0.1:0")
