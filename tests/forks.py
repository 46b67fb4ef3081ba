"""Commands of sprat as forks of one process, which has imported what they import.

Imports are most of what a short command takes: 0.7 s of CPU, 2 s where it trains. A fork is a
process of its own like any other: arguments, environment, folder, standard streams, exit status.
What it shares with the others is the seed of string hashes; a test of what two processes make alike
starts them anew, and so do servers and benchmarks, which show that commands need no such help.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO

IMPORTS = ("sprat.cli.app", "sprat.inprocess", "sklearn.linear_model")


class Forks:
    """The process that is forked: it starts with the first command, and ends with its owner."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # By path and not by -m: then no folder but those of the installation is searched.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        input: str = "",
        timeout_s: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as `subprocess.run` does with its output captured.

        Raises
        ------
        subprocess.TimeoutExpired
            It was killed after ``timeout_s``.
        """
        request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}
        with contextlib.ExitStack() as stack:

            def file(content: str = "") -> IO[str]:
                made = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
                made.write(content)
                made.seek(0)
                return made

            asked, stdin, stdout, stderr = file(json.dumps(request)), file(input), file(), file()
            heard, said = os.pipe()
            status = stack.enter_context(os.fdopen(heard, encoding="ascii"))
            try:
                files = [each.fileno() for each in (asked, stdin, stdout, stderr)]
                socket.send_fds(self._requests, [b"."], [*files, said])
            finally:
                os.close(said)
            line = status.readline()
            assert line, "the process that commands are forked from has ended"
            pid = int(line)
            with selectors.DefaultSelector() as selector:
                selector.register(status, selectors.EVENT_READ)
                if not selector.select(timeout_s):
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(arguments), timeout_s)
            code = os.waitstatus_to_exitcode(int(status.readline()))
            for stream in (stdout, stderr):
                stream.seek(0)
            return subprocess.CompletedProcess(list(arguments), code, stdout.read(), stderr.read())

    def close(self) -> None:
        """End it."""
        self._requests.close()
        self._process.wait(30)


def _serve(requests: socket.socket) -> None:
    """Fork for every request, until nobody is left to send one."""
    before = dict(os.environ)
    for name in IMPORTS:
        import_module(name)
    gc.collect()
    gc.freeze()  # What was imported is not looked through again, neither later nor at an exit.
    # How libraries are to wait for their threads, which the engines say when they are imported.
    made = {key: value for key, value in os.environ.items() if before.get(key) != value}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody asks for the status of `_watch`.
    while True:
        data, files, *_ = socket.recv_fds(requests, 1, 5)
        if not data:
            return
        if os.fork() == 0:
            requests.close()
            _watch(files, made)
        for file in files:
            os.close(file)


def _watch(files: Sequence[int], made: Mapping[str, str]) -> None:
    """Fork once more, and say which process that is and how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, said = files
    pid = os.fork()
    if pid == 0:
        os.close(said)
        _command(streams, made)
    for file in streams:
        os.close(file)
    os.write(said, b"%d\n" % pid)
    os.write(said, b"%d\n" % os.waitpid(pid, 0)[1])
    os._exit(0)


def _command(files: Sequence[int], made: Mapping[str, str]) -> None:
    """Become ``python -m sprat``."""
    asked, *streams = files
    with os.fdopen(asked, encoding="utf-8") as file:
        request = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update({**made, **request["env"]})
    sys.modules["numpy"].random.seed()  # Python's own generator is seeded anew in a fork.
    sys.argv = ["sprat", *request["arguments"]]
    runpy.run_module("sprat", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    _serve(socket.socket(fileno=int(sys.argv[1])))
