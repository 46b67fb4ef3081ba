"""``sprat pull``, ``sprat models``, ``sprat remove``: what is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.output import Json, megabytes, print_json, print_table, progress

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.manifest import ModelManifest


def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="A name of the catalog (`sprat models --known`), `hf:org/name@revision`, "
            "`hf:org/name:file.gguf`, or the path of a folder (of an encoder, or in the format of "
            "model2vec) or of a .gguf file."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the store. Absent: made from the source.")
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            "--quantization",
            help="Weight type: int8 or float32 for encoders, these or float16 for static models, "
            "q8_0 for GGUF. Absent: int8; as published for static models and your own GGUF.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Pull again over what is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch a model, verify it, and convert it for its engine.

    Catalog models are checked against pinned sha256 digests. Nothing of a failed pull stays behind,
    and a second pull of what is there returns at once.
    """
    from sprat.pull import pull as pull_model
    from sprat.store import Store

    with progress(f"pull {source}", unit="bytes") as bar:
        manifest = pull_model(
            source,
            Store(),
            name=name,
            quantization=quantization,
            replace=replace,
            progress=bar,
        )
    if as_json:
        print_json({**manifest.model_dump(mode="json"), "version": manifest.version})
    else:
        typer.echo(
            f"{manifest.name}: {manifest.architecture}, {manifest.quantization}, "
            f"{megabytes(manifest.size_bytes)}, licence {manifest.licence}, "
            f"version {manifest.version}"
        )


def models(
    known: Annotated[
        bool, typer.Option("--known", help="Also list what the catalog can pull.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models and bundles on this machine."""
    from sprat.catalog import CATALOG
    from sprat.store import Store

    store = Store()
    pairs = store.models()
    found = [manifest for manifest, _ in pairs]
    tokenizers = {manifest.name: _tokenizer(manifest, folder) for manifest, folder in pairs}
    bundles = [manifest for manifest, _ in store.bundles()]
    names = {manifest.name for manifest in found}
    missing = [entry for entry in CATALOG.values() if entry.name not in names] if known else []
    if as_json:
        print_json(
            {
                "models": [
                    {
                        **m.model_dump(mode="json", exclude={"files"}),
                        "tokenizer": tokenizers[m.name],
                        "version": m.version,
                    }
                    for m in found
                ],
                "bundles": [
                    {**b.model_dump(mode="json", exclude={"files"}), "version": b.version}
                    for b in bundles
                ],
                "known": [{"name": e.name, "summary": e.summary} for e in missing],
            }
        )
        return
    print_table(
        ["model", "kind", "engine", "weights", "tokenizer", "tokens", "size", "licence", "version"],
        [
            (
                m.name,
                m.kind,
                m.engine,
                m.quantization if m.gate is None else f"{m.quantization} (gated)",
                tokenizers[m.name],
                m.max_tokens,
                megabytes(m.size_bytes),
                m.licence,
                m.version,
            )
            for m in found
        ],
        right="tokens size",
    )
    if bundles:
        print_table(
            ["bundle", "kind", "labels", "base", "held out", "version"],
            [
                (
                    b.name,
                    b.kind,
                    len(b.labels),
                    ", ".join(tier.model_name for tier in b.tiers),
                    _held_out(b),
                    b.version,
                )
                for b in bundles
            ],
            right="labels",
        )
    if missing:
        print_table(["can be pulled", "what it is"], [(e.name, e.summary) for e in missing])


def _tokenizer(manifest: ModelManifest, folder: Path) -> str:
    """Say which tokenizer a model gets, for people."""
    from sprat.errors import CorruptFile
    from sprat.tokenizer import Tokenizer

    if manifest.kind == "generative":
        return "llama.cpp"
    try:
        return Tokenizer.from_file(folder / "tokenizer.json").name
    except CorruptFile:
        return "unreadable"


def remove(
    name: Annotated[str, typer.Argument(help="Name of a model or bundle in the store.")],
) -> None:
    """Remove a model or a bundle from this machine."""
    from sprat.store import Store

    Store().remove(name)
    typer.echo(f"removed {name}")


def _held_out(bundle: BundleManifest) -> str:
    """The first figure of each tier: that by which its kind of task is judged."""
    figures = (next(iter(tier.evaluation.metrics.items())) for tier in bundle.tiers)
    return ", ".join(f"{name} {interval.value:.3f}" for name, interval in figures)
