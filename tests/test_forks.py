"""Forked commands are what commands are: the same output and status as of a new interpreter."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks
from servers import environment, sprat

from sprat.store import Store


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("models", "--help"), 0),
        (("inspect", "n\u00f6"), 1),
        ((), 2),
    ],
)
def test_forks_say_what_a_new_process_says(
    store: Store, arguments: tuple[str, ...], status: int
) -> None:
    forked, anew = (sprat(store, *arguments, anew=anew) for anew in (False, True))
    assert forked.returncode == anew.returncode == status
    assert (forked.stdout, forked.stderr) == (anew.stdout, anew.stderr)


def test_forks_have_a_folder_of_their_own(store: Store, tmp_path: Path) -> None:
    assert sprat(store, "token", "tokens", cwd=tmp_path).returncode == 0
    assert (tmp_path / "tokens").is_file()


def test_forks_see_no_environment_but_theirs(forks: Forks, tmp_path: Path) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        env = {**os.environ, "SPRAT_HOME": str(home)}
        done = forks.run(["inspect", "nobody"], env=env, timeout_s=60)
        assert done.returncode == 1
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    assert forks.run(["models"], env=env, timeout_s=60).returncode == 0


def test_forks_run_side_by_side(forks: Forks, store: Store) -> None:
    found: dict[str, str] = {}

    def run(name: str) -> None:
        done = forks.run(["inspect", name], env=environment(store), timeout_s=60)
        found[name] = done.stderr

    threads = [threading.Thread(target=run, args=(f"nobody-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert all(repr(name) in said for name, said in found.items())


def test_forks_that_take_too_long_are_killed(forks: Forks, store: Store) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        forks.run(["models"], env=environment(store), timeout_s=0)
    assert forks.run(["models"], env=environment(store), timeout_s=60).returncode == 0


def test_forks_of_a_process_that_is_gone_are_an_error(store: Store) -> None:
    forks = Forks()
    forks._process.kill()
    forks._process.wait(30)
    with pytest.raises((AssertionError, OSError)):
        forks.run(["models"], env=environment(store), timeout_s=60)
    forks.close()
