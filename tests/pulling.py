"""Pulls in a process of their own, where the environment counts from the start.

Run as a script it reads one JSON document from stdin, answers with one on stdout, and says on
stderr which phase it is in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from hf_server import Hub

from sprat.catalog import CATALOG, CatalogEntry, HubRepository, Wheel
from sprat.errors import SpratError
from sprat.manifest import FileEntry, ModelManifest
from sprat.pull import pull
from sprat.store import Store


@dataclass(frozen=True)
class Outcome:
    """A manifest, or an error; and what progress was told."""

    manifest: ModelManifest | None
    error: str
    message: str
    phases: list[tuple[str, int | None, int]]

    @property
    def pulled(self) -> ModelManifest:
        """The manifest; fails where there is an error instead."""
        assert self.manifest is not None, f"{self.error}: {self.message}"
        return self.manifest


def start_pull(
    spec: str,
    home: Path,
    *,
    environment: dict[str, str] | None = None,
    entry: CatalogEntry | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start ``pull(spec, Store(home), **options)``, with ``entry`` in the catalog."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home.with_name(f"{home.name}-hf")),
            **(environment or {}),
        },
    )
    assert process.stdin is not None
    json.dump(
        {
            "spec": spec,
            "home": str(home),
            "options": options,
            "entry": None if entry is None else _entry_to_json(entry),
        },
        process.stdin,
    )
    process.stdin.close()
    process.stdin = None
    return process


def wait_for_phase(process: subprocess.Popen[str], beginning: str) -> None:
    """Wait until a pull has come to a phase."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"ended before {beginning}")


def finish_pull(process: subprocess.Popen[str]) -> Outcome:
    """Wait for what `start_pull` started."""
    out, trouble = process.communicate(timeout=100)
    assert process.returncode == 0, trouble
    answer = json.loads(out)
    manifest = answer.pop("manifest")
    if manifest is not None:
        manifest = ModelManifest.model_validate_json(manifest)
    return Outcome(manifest=manifest, **answer)


def run_pull(spec: str, home: Path, **options: Any) -> Outcome:
    """`start_pull`, then `finish_pull`."""
    return finish_pull(start_pull(spec, home, **options))


def from_hub(hub: Hub, spec: str, store: Store, **options: Any) -> Outcome:
    """`run_pull` with ``hub`` in the place of the public one."""
    environment = {"HF_ENDPOINT": hub.url, **options.pop("environment", {})}
    return run_pull(spec, store.root, environment=environment, **options)


def in_catalog(monkeypatch: pytest.MonkeyPatch, added: CatalogEntry) -> None:
    """Let the catalog of this process have one more entry."""
    monkeypatch.setitem(CATALOG, added.name, added)


def leftovers(store: Store) -> list[Path]:
    """What is left of work in progress."""
    return [p for name in ("tmp", "downloads") for p in (store.root / name).glob("*")]


def assert_nothing_there(store: Store) -> None:
    """Neither a model nor a trace of one."""
    assert store.models() == []
    assert leftovers(store) == []


class Recorder:
    """Progress, kept and said on stderr."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None, int]] = []

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append((text, total, 0))
        print(text, file=sys.stderr, flush=True)

    def advance(self, size: int) -> None:
        text, total, done = self.phases[-1]
        self.phases[-1] = (text, total, done + size)


def _entry_to_json(entry: CatalogEntry) -> dict[str, Any]:
    return {
        **asdict(entry),
        "sources": [[type(source).__name__, asdict(source)] for source in entry.sources],
        "files": [file.model_dump() for file in entry.files],
    }


def _entry_from_json(document: dict[str, Any]) -> CatalogEntry:
    kinds: dict[str, type[Wheel | HubRepository]]
    kinds = {kind.__name__: kind for kind in (Wheel, HubRepository)}
    document["sources"] = tuple(kinds[kind](**fields) for kind, fields in document["sources"])
    document["files"] = tuple(FileEntry(**fields) for fields in document["files"])
    return CatalogEntry(**document)


def _main() -> None:
    job = json.load(sys.stdin)
    if job["entry"] is not None:
        entry = _entry_from_json(job["entry"])
        CATALOG[entry.name] = entry
    recorder = Recorder()
    answer: dict[str, Any] = {"manifest": None, "error": "", "message": ""}
    try:
        manifest = pull(job["spec"], Store(Path(job["home"])), progress=recorder, **job["options"])
        answer["manifest"] = manifest.model_dump_json()
    except SpratError as error:
        answer |= {"error": type(error).__name__, "message": error.message}
    json.dump({**answer, "phases": recorder.phases}, sys.stdout)


if __name__ == "__main__":
    _main()
