"""``sprat adapters``: LoRA adapters on this machine, ``sprat adapters add`` and ``remove``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.output import Json, megabytes, print_json, print_table

if TYPE_CHECKING:
    from sprat.manifest import AdapterManifest

app = typer.Typer()


@app.callback(invoke_without_command=True)
def adapters(context: typer.Context, as_json: Json = False) -> None:
    """List the LoRA adapters on this machine; add or remove one.

    `fits` says whether the model that an adapter was made for is here, in the very same version.
    """
    if context.invoked_subcommand is not None:
        return
    from sprat.store import Store

    store = Store()
    found = [manifest for manifest, _ in store.adapters()]
    digests = {manifest.digest for manifest, _ in store.models()}
    if as_json:
        print_json(
            [_described(adapter) | {"fits": adapter.base.digest in digests} for adapter in found]
        )
        return
    print_table(
        ["adapter", "base", "fits", "rank", "size", "licence", "version"],
        [
            (
                adapter.name,
                f"{adapter.base.name} {adapter.base.digest[:12]}",
                "yes" if adapter.base.digest in digests else "no",
                adapter.rank,
                megabytes(adapter.size_bytes),
                adapter.licence,
                adapter.version,
            )
            for adapter in found
        ],
        right="rank size",
    )


def _described(adapter: AdapterManifest) -> dict[str, object]:
    return {**adapter.model_dump(mode="json", exclude={"files"}), "version": adapter.version}


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A GGUF file with a LoRA adapter; it is copied.")],
    base: Annotated[
        str, typer.Option("--base", help="The model in the store that it was made for.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name in the store. Absent: made from the file's name."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Absent: as the file states it.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Add it over what is there.")] = False,
    as_json: Json = False,
) -> None:
    """Check a LoRA adapter and add it for one model, whose version is recorded.

    It is loaded with that version only: on another model of the same shape it would make nonsense.
    """
    from sprat.adapter import add as add_adapter
    from sprat.store import Store

    adapter = add_adapter(file, Store(), base=base, name=name, licence=licence, replace=replace)
    if as_json:
        print_json(_described(adapter))
    else:
        typer.echo(
            f"{adapter.name}: for {adapter.base.name} version {adapter.base.digest[:12]}, rank "
            f"{adapter.rank}, {megabytes(adapter.size_bytes)}, licence {adapter.licence}, "
            f"version {adapter.version}"
        )


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of an adapter in the store.")],
) -> None:
    """Remove a LoRA adapter from this machine."""
    from sprat.store import Store

    Store().remove_adapter(name)
    typer.echo(f"removed {name}")
