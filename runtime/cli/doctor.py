"""``sprat doctor``: what works on this machine, and what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from sprat.bundle_manifest import BundleManifest
from sprat.cli.output import Json, megabytes, print_json, print_table
from sprat.errors import SpratError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    state : {"ok", "missing", "problem"}
        ``missing`` is an optional part that is not installed; ``problem`` needs something done.
    """

    part: str
    state: Literal["ok", "missing", "problem"]
    detail: str


def doctor(
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the sha256 of every file in the store.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="A server's TOML file: say whom it would send texts to."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report CPU, budget, kernels, engines, extras, store. Exit status 1 if something is wrong.

    Also whom a server with this configuration asks: only endpoints that a task names get anything.
    """
    findings = [
        *(*_machine(), _kernels(), _ct2(), _llama(), *_extras(), *_store(verify)),
        *_endpoints(config),
    ]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(["part", "state", "detail"], [(f.part, f.state, f.detail) for f in findings])
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def _machine() -> Iterator[Finding]:
    from sprat.budget import detect
    from sprat.measure import machine

    facts = machine()
    yield Finding("python", "ok", f"{facts['python']} ({facts['system']}, {facts['architecture']})")
    yield Finding("cpu", "ok", f"{facts['cpu']}: {' '.join(facts['flags'])}")
    yield Finding("compute threads", "ok", str(detect()))


def _check(part: str, call: Callable[[], str]) -> Finding:
    try:
        return Finding(part, "ok", call())
    except ImportError as error:
        return Finding(part, "problem", f"cannot be imported: {error}")
    except SpratError as error:
        return Finding(part, "problem", error.message)


def _kernels() -> Finding:
    def describe() -> str:
        from sprat import kernels

        return f"{kernels.implementation}, {kernels.isa}"

    return _check("kernels", describe)


def _ct2() -> Finding:
    def describe() -> str:
        from sprat.engine.ct2 import describe

        return describe()

    return _check("engine ct2", describe)


def _llama() -> Finding:
    if find_spec("llama_cpp") is None:
        return Finding("engine llama", "missing", 'generators need: pip install "sprat[llama]"')

    def describe() -> str:
        from sprat.engine.llama_lib import describe

        return describe()

    return _check("engine llama", describe)


def _extras() -> Iterator[Finding]:
    for extra, module, purpose in (
        ("train", "sklearn", "sprat train"),
        ("bench", "psutil", "make bench"),
    ):
        if find_spec(module) is None:
            hint = f'{purpose} needs: pip install "sprat[{extra}]"'
            yield Finding(f"extra {extra}", "missing", hint)
        else:
            yield Finding(f"extra {extra}", "ok", purpose)
    if find_spec("pip") is None:
        yield Finding("pip", "missing", "sprat pull from a package index needs pip")


def _store(verify: bool) -> Iterator[Finding]:
    from sprat.store import Store

    store = Store()
    folder = store.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    try:
        models, bundles, adapters = store.models(), store.bundles(), store.adapters()
    except SpratError as error:
        yield Finding("store", "problem", error.message)
        return
    yield Finding(
        "store",
        "ok",
        f"{store.root}: {len(models)} models, {len(bundles)} bundles, {len(adapters)} adapters, "
        f"{megabytes(free)} free",
    )
    for manifest, _ in models:
        yield _check(
            f"model {manifest.name}",
            lambda name=manifest.name: store.model(name, check=verify)[0].quantization,  # type: ignore[misc]
        )
    known = {manifest.digest for manifest, _ in models}
    for bundle, _ in bundles:
        part = f"bundle {bundle.name}"
        stale = [ref.name for ref in bundle.bases if ref.digest not in known]
        if stale:
            yield Finding(part, "problem", f"made with another {stale[0]}; train it again")
        else:
            yield _check(
                part,
                lambda name=bundle.name: _bases(store.bundle(name, check=verify)[0]),  # type: ignore[misc]
            )
    for adapter, _ in adapters:
        part = f"adapter {adapter.name}"
        if adapter.base.digest not in known:
            yield Finding(part, "problem", f"made for another {adapter.base.name}; add it again")
        else:
            yield _check(
                part,
                lambda name=adapter.name: f"for {store.adapter(name, check=verify)[0].base.name}",  # type: ignore[misc]
            )


def _endpoints(config: Path | None) -> Iterator[Finding]:
    """Whom a server would ask; nothing is sent to find out."""
    from sprat.config import load
    from sprat.endpoints.opening import open_endpoint
    from sprat.store import Store
    from sprat.task_config import TaskConfig

    try:
        loaded = load(config)
    except SpratError as error:
        yield Finding("configuration", "problem", error.message)
        return
    users: dict[str, list[str]] = {}
    for name, task in loaded.tasks.items():
        for tier in task.tiers.values() if isinstance(task, TaskConfig) else ():
            if tier.endpoint:
                users.setdefault(tier.endpoint, []).append(name)
    if not users:
        yield Finding("outbound", "ok", "no task names an endpoint: nothing leaves this machine")
    for name, tasks in sorted(users.items()):
        if name not in loaded.endpoints:
            yield Finding(f"endpoint {name}", "problem", f"task {tasks[0]} names it: not there")
            continue
        url = loaded.endpoints[name].url

        def check(name: str = name, url: str = url, tasks: list[str] = tasks) -> str:
            open_endpoint(name, loaded.endpoints[name], Store().endpoints)
            return f"{url} gets texts of {', '.join(tasks)}"

        yield _check(f"endpoint {name}", check)


def _bases(bundle: BundleManifest) -> str:
    return "on " + ", ".join(tier.model_name for tier in bundle.tiers)
