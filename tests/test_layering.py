"""The import rules of the design, read from the sources: imports inside functions count too.

A rule says which of our modules may import a target; any other import of it is a violation.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOPS = {
    "sprat": "runtime",
    "sprat.kernels": "kernels",
    "sprat.quantize": "quantize",
    "sprat.proto": "proto",
    "sprat.benchmarks": "benchmarks",
}


@dataclass(frozen=True)
class Import:
    """One import: who, in which line, what."""

    importer: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


@dataclass(frozen=True)
class Only:
    """`targets` may be imported by `importers` only. Patterns; ``x.*`` matches x too."""

    targets: tuple[str, ...]
    importers: tuple[str, ...]

    def broken_by(self, found: Import) -> bool:
        return matches(found.target, self.targets) and not matches(found.importer, self.importers)


@dataclass(frozen=True)
class Within:
    """`importers` may import, of ours, `targets` only."""

    importers: tuple[str, ...]
    targets: tuple[str, ...]

    def broken_by(self, found: Import) -> bool:
        return (
            matches(found.importer, self.importers)
            and matches(found.target, ("sprat.*",))
            and not matches(found.target, self.targets)
        )


def matches(module: str, patterns: Iterable[str]) -> bool:
    return any(
        fnmatchcase(module, pattern)
        or (pattern.endswith(".*") and fnmatchcase(module, pattern.removesuffix(".*")))
        for pattern in patterns
    )


LEAVES = ("sprat.errors", "sprat.values")
FOUNDATION = (
    *("sprat.config", "sprat.task_config", "sprat.endpoint_config"),
    *("sprat.manifest", "sprat.bundle_manifest", "sprat.asked_manifest", "sprat.tuning_manifest"),
    *("sprat.catalog", "sprat.store"),
)
BENCHMARKS = "sprat.benchmarks.*"  # measures every layer from outside
SERVER = ("sprat.server.*", "sprat.client.*")

RULES: dict[str, Only | Within] = {
    "errors and values import nothing of ours": Within(LEAVES, ()),
    "the foundation imports errors, values and itself": Within(FOUNDATION, LEAVES + FOUNDATION),
    "kernels import nothing else of ours": Within(("sprat.kernels.*",), ("sprat.kernels.*",)),
    "proto imports nothing else of ours": Within(("sprat.proto.*",), ("sprat.proto.*",)),
    "few modules import kernels": Only(
        ("sprat.kernels.*",),
        (
            "sprat.kernels.*",
            "sprat.tokenizer",
            "sprat.text.*",
            "sprat.batching",
            "sprat.tagger",
            "sprat.head",
            "sprat.engine.*",
            "sprat.train.*",
            "sprat.quantize.*",
            "sprat.cli.doctor",  # reports which implementation is in use
            BENCHMARKS,
        ),
    ),
    "codec, server and client import proto": Only(
        ("sprat.proto.*", "google.*"),
        ("sprat.proto.*", "sprat.codec.*", *SERVER, BENCHMARKS),
    ),
    "server and client import grpc": Only(
        ("grpc.*", "grpc_*"), ("sprat.proto.*", *SERVER, BENCHMARKS)
    ),
    "scheduler and budget know threads": Only(
        ("threading", "_thread", "queue", "concurrent.*", "multiprocessing.*"),
        ("sprat.scheduler.*", "sprat.budget", BENCHMARKS),
    ),
    "engine/ct2 and its twin know ctranslate2": Only(
        ("ctranslate2.*",), ("sprat.engine.ct2*", "sprat.quantize.ct2*", BENCHMARKS)
    ),
    "engine/llama and its twin know llama.cpp": Only(
        ("llama_cpp.*", "llguidance.*", "gguf.*"),
        ("sprat.engine.llama*", "sprat.quantize.gguf*", BENCHMARKS),
    ),
    "remote knows the HTTP client": Only(("httpx2.*",), ("sprat.remote",)),
    "server/metrics knows the HTTP server": Only(
        ("prometheus_client.*", "socketserver.*", "wsgiref.*", "http.*"),
        ("sprat.server.metrics", BENCHMARKS),
    ),
    "only programs import cli": Only(
        ("sprat.cli.*",), ("sprat.cli.*", "sprat.demo.*", "sprat.__main__")
    ),
    "nothing imports the demo": Only(("sprat.demo.*",), ("sprat.demo.*",)),
    "only its command imports benchmarks": Only(
        ("sprat.benchmarks.*",), ("sprat.cli.*", BENCHMARKS)
    ),
    "mapped folders are never imported by their own name": Only(
        ("runtime.*", "kernels.*", "quantize.*", "proto.*", "benchmarks.*"), ()
    ),
}


def modules(root: Path) -> dict[str, Path]:
    """Map the name of each of our modules to its file."""
    found = {}
    for package, top in TOPS.items():
        for file in sorted((root / top).rglob("*.py")):
            parts = (package, *file.relative_to(root / top).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imports(module: str, file: Path, known: Iterable[str]) -> Iterator[Import]:
    """Yield every import of a file, wherever in the file it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if file.name == "__init__.py" else module.rpartition(".")[0]
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            for alias in node.names:
                member = f"{base}.{alias.name}"
                yield Import(module, node.lineno, member if member in known else base)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield Import(module, node.lineno, str(node.args[0].value))


def all_imports(root: Path) -> list[Import]:
    known = modules(root)
    return [found for name, file in known.items() for found in imports(name, file, known)]


def violations(root: Path) -> list[str]:
    return [
        f"{found}: {rule}"
        for found in all_imports(root)
        for rule, check in RULES.items()
        if check.broken_by(found)
    ]


def reached(root: Path, start: str) -> set[str]:
    """Find what modules that match `start` import, and what those import, and so on.

    The package `sprat` itself is a shop window: it imports its front doors when asked for them.
    """
    edges: dict[str, set[str]] = {}
    for found in all_imports(root):
        edges.setdefault(found.importer, set()).add(found.target)
    pending = [name for name in edges if matches(name, (start,))]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in seen and name != "sprat":
            seen.add(name)
            pending += edges.get(name, ())
    return seen


def test_layering_holds() -> None:
    assert violations(ROOT) == []


def test_layering_server_never_reaches_train() -> None:
    assert [
        name for name in reached(ROOT, "sprat.server.*") if matches(name, ("sprat.train.*",))
    ] == []


def test_layering_sees_every_module() -> None:
    names = modules(ROOT)
    assert {"sprat", "sprat.errors", "sprat.kernels", "sprat.proto.v1.sprat_pb2"} <= names.keys()
    assert len(names) == len(set(names.values()))


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("runtime/errors.py", "import sprat.values", "sprat.errors:1 imports sprat.values"),
        ("runtime/store.py", "from . import model", "sprat.store:1 imports sprat.model"),
        ("runtime/store.py", "from sprat import model", "sprat.store:1 imports sprat.model"),
        (
            "runtime/codec/common.py",
            "def f():\n    import grpc",
            "sprat.codec.common:2 imports grpc",
        ),
        ("runtime/model.py", "import grpc_health.v1", "sprat.model:1 imports grpc_health.v1"),
        (
            "runtime/tasks/embed.py",
            "import threading as t",
            "sprat.tasks.embed:1 imports threading",
        ),
        (
            "runtime/engine/ct2.py",
            "from concurrent.futures import Future",
            "sprat.engine.ct2:1 imports concurrent.futures",
        ),
        (
            "runtime/engine/llama.py",
            "try:\n    from ctranslate2 import Encoder\nexcept ImportError: pass",
            "sprat.engine.llama:2 imports ctranslate2",
        ),
        (
            "runtime/tasks/classify.py",
            "from ..kernels import pool",
            "sprat.tasks.classify:1 imports sprat.kernels",
        ),
        (
            "runtime/tasks/classify.py",
            "from sprat.proto.v1 import sprat_pb2",
            "sprat.tasks.classify:1 imports sprat.proto.v1",
        ),
        (
            "kernels/__init__.py",
            "if True:\n  from sprat.errors import SpratError",
            "sprat.kernels:2 imports sprat.errors",
        ),
        ("runtime/service.py", "from sprat.cli import main", "sprat.service:1 imports sprat.cli"),
        (
            "quantize/ct2.py",
            "import importlib\nimportlib.import_module('sprat.benchmarks.load')",
            "sprat.quantize.ct2:2 imports sprat.benchmarks.load",
        ),
        ("runtime/model.py", "import kernels", "sprat.model:1 imports kernels"),
    ],
)
def test_layering_catches_a_planted_violation(
    file: str, source: str, found: str, tmp_path: Path
) -> None:
    for module in (file, "runtime/model.py"):
        path = tmp_path / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / file).write_text(source)
    assert [line.partition(": ")[0] for line in violations(tmp_path)] == [found]


def test_layering_catches_train_behind_a_detour(tmp_path: Path) -> None:
    sources = {
        "server/app.py": "from sprat import service",
        "service.py": "def f():\n    from sprat.helper import g",
        "helper.py": "from sprat.train import fit",
        "train/fit.py": "",
    }
    for file, source in sources.items():
        path = tmp_path / "runtime" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert "sprat.train.fit" in reached(tmp_path, "sprat.server.*")


HEAVY = {
    "ctranslate2",
    "httpx2",
    "huggingface_hub",
    "jinja2",
    "llama_cpp",
    "matplotlib",
    "prometheus_client",
    "scipy",
    "sklearn",
    "torch",
}


@pytest.mark.parametrize("module", ["sprat", "sprat.server.app", "sprat.client", "sprat.cli.app"])
def test_layering_start_path_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == set()
