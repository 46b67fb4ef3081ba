"""``sprat train`` and ``sprat eval``: a bundle from examples, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from sprat.cli.output import Json, progress
from sprat.values import FloatArray

if TYPE_CHECKING:
    from sprat.inprocess import Runtime

EMBED_BATCH = 256


def train(
    data: Annotated[
        Path, typer.Argument(help="JSONL or CSV with `text` and `label`, 20 or more rows a label.")
    ],
    base: Annotated[str, typer.Option("--base", help="Encoder in the store.")] = "minilm-l6",
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="Name of the bundle in the store, or a path with a slash."
        ),
    ] = ...,  # type: ignore[assignment]
    kind: Annotated[str, typer.Option("--kind", help="Kind of task: classify.")] = "classify",
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Held-out rows. Absent: a share of the data is held out."),
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0.05, max=0.5, help="Share that is held out.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Of splits and resampling.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the bundle.")] = False,
    as_json: Json = False,
) -> None:
    """Fit a classifier head on a frozen encoder, calibrate it, and evaluate it on held-out rows.

    The head is a multinomial logistic regression on sentence vectors. Its temperature is fitted on
    out-of-fold scores, so that no row is spent on calibration alone.
    """
    from sprat.inprocess import Runtime
    from sprat.manifest import ModelRef
    from sprat.store import Store
    from sprat.train.data import read
    from sprat.train.head import train_classifier

    if kind != "classify":
        raise typer.BadParameter(f"expected classify, got {kind}", param_hint="--kind")
    store = Store()
    rows = read(data)
    held = read(test) if test is not None else None
    manifest, _ = store.model(base)
    reference = ModelRef(name=manifest.name, digest=manifest.digest)
    with Runtime(models=[base], store=store) as runtime:
        embed = embedder(runtime, base, "embed texts")

        def build(folder: Path) -> object:
            return train_classifier(
                rows,
                embed=embed,
                base=reference,
                name=name,
                out=folder,
                held_out=held_out,
                test=held,
                seed=seed,
            )

    raise AssertionError


def embedder(
    runtime: Runtime, model: str, description: str
) -> Callable[[Sequence[str]], FloatArray]:
    """A function from texts to vectors with a progress bar; texts that are too long are cut."""

    def embed(texts: Sequence[str]) -> FloatArray:
        parts = []
        with progress(description, total=len(texts)) as update:
            for start in range(0, len(texts), EMBED_BATCH):
                batch = texts[start : start + EMBED_BATCH]
                parts.append(runtime.embed(model, batch, truncation="truncate").vectors)
                update(advance=len(batch))
        return np.concatenate(parts)

    return embed
