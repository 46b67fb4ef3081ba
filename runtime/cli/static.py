"""``sprat static``: a static model from an encoder."""

from __future__ import annotations

from typing import Annotated

import typer

from sprat.cli.output import Json, megabytes, print_json, progress


def static(
    model: Annotated[str, typer.Argument(help="Encoder in the store.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Name of the static model.")],
    dimension: Annotated[
        int | None,
        typer.Option(
            "--dimension",
            min=1,
            help="Length of its vectors. Absent: the encoder's, at most 384. Fewer are smaller and "
            "faster, and a little less accurate.",
        ),
    ] = None,
    quantization: Annotated[
        str, typer.Option("--quantization", help="Type of its table: int8, float16 or float32.")
    ] = "int8",
    replace: Annotated[
        bool, typer.Option("--replace", help="Make it again over what is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Distil an encoder into a static model: a table of token vectors, hundreds of times as fast.

    A text's vector is then the mean of its tokens' rows: word order counts for nothing, and the
    meaning of a word does not depend on the others. `sprat embed`, `sprat train --base NAME` and
    the server take it like any encoder. The files are in the format of the model2vec library.

        sprat static minilm-l6 -o minilm-static
        sprat train tickets.jsonl --base minilm-static -o tickets-static
    """
    from sprat.build_static import distilled
    from sprat.store import Store

    with progress(f"distil {model}") as bar:
        manifest = distilled(
            model,
            out,
            Store(),
            dimension=dimension,
            quantization=quantization,
            replace=replace,
            progress=bar,
        )
    if as_json:
        print_json({**manifest.model_dump(mode="json"), "version": manifest.version})
    else:
        typer.echo(
            f"{manifest.name}: {manifest.source}, {manifest.dimension} dimensions, "
            f"{manifest.quantization}, {megabytes(manifest.size_bytes)}, "
            f"licence {manifest.licence}, version {manifest.version}"
        )
