"""Static models: from a folder in the format of model2vec, or from an encoder of the store.

A static model's folder::

    model.json   model.safetensors   config.json   tokenizer.json
    source/model.safetensors         only where it was quantized here
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import cast

from sprat import static_table
from sprat.build import Origin
from sprat.errors import InvalidInput, UnsupportedModel
from sprat.manifest import (
    MODEL_MANIFEST,
    ModelManifest,
    list_files,
    write,
)
from sprat.progress import Progress, Silent
from sprat.static_table import CONFIG, QUANTIZATIONS, TOKENIZER, WEIGHTS, Quantization
from sprat.store import Store

_MADE_ANEW = ("model_type", "architectures", "hidden_dim", "embedding_dtype")


def published(folder: Path, origin: Origin, quantization: str | None, progress: Progress) -> None:
    """Build a static model from the published files in ``folder/source``.

    Parameters
    ----------
    quantization : str or None
        ``int8``, ``float16`` or ``float32``; None keeps the table as it is.

    Raises
    ------
    CorruptFile, UnsupportedModel
        Its files are malformed or do not fit one another.
    InvalidInput
        A table that is int8 cannot become ``quantization``.
    """
    from sprat.quantize.static import quantize

    source = folder / "source"
    table = static_table.read(source)
    if quantization in (None, table.quantization):
        for name in (WEIGHTS, CONFIG):
            (source / name).rename(folder / name)
    else:
        progress.phase(f"quantize {table.quantization} to {quantization}")
        config = static_table.read_config(source)
        notes = {key: value for key, value in config.items() if key not in _MADE_ANEW}
        table = quantize(table, cast(Quantization, quantization))
        static_table.write(folder, table, notes)
    (source / TOKENIZER).rename(folder / TOKENIZER)
    for path in source.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != WEIGHTS:
            path.unlink()
    is_kept = (source / WEIGHTS).is_file()
    if not is_kept:
        source.rmdir()
    _write_manifest(folder, origin, f"source/{WEIGHTS}" if is_kept else None)


def distilled(
    base: str,
    name: str,
    store: Store,
    *,
    dimension: int | None = None,
    quantization: str = "int8",
    replace: bool = False,
    progress: Progress | None = None,
) -> ModelManifest:
    """Distil an encoder of the store into a static model, and add it to the store.

    Parameters
    ----------
    base : str
        An encoder of the store.
    name : str
        Of the static model.
    dimension : int, optional
        Length of its vectors, from 1 to that of the encoder's. Absent: that, at most
        `sprat.quantize.static.DIMENSION`.
    quantization : str
        ``int8``, ``float16`` or ``float32``.
    replace : bool
        Make it again over what is there. Else what is there is returned as it is.
    progress : Progress, optional
        Told of phases and tokens.

    Raises
    ------
    NotFound
        ``base`` is not in the store.
    UnsupportedModel
        ``base`` is no encoder, or a static one already.
    InvalidInput
        ``dimension`` or ``quantization`` is out of range.
    StoreError
        The store cannot be written.
    """
    progress = Silent() if progress is None else progress
    if quantization not in QUANTIZATIONS:
        raise InvalidInput(
            f"quantization: expected {', '.join(QUANTIZATIONS)}, got {quantization!r}",
            field="quantization",
        )
    encoder, base_folder = store.model(base, check=True)
    if encoder.engine != "ct2":
        what = "static already" if encoder.engine == "static" else f"a {encoder.kind} model"
        raise UnsupportedModel(f"{base} is {what}; a static model is distilled from an encoder")
    origin = Origin(name, encoder.licence, f"distilled from {base} {encoder.version}")

    def make(folder: Path) -> None:
        _distil(folder, encoder, base_folder, dimension, quantization, progress)
        _write_manifest(folder, origin, None)

    manifest, _ = store.add_model(name, make, replace=replace)
    return manifest


def _distil(
    folder: Path,
    encoder: ModelManifest,
    base_folder: Path,
    dimension: int | None,
    quantization: Quantization,
    progress: Progress,
) -> None:
    from sprat.budget import detect
    from sprat.engine.ct2 import Ct2Encoder
    from sprat.quantize import static

    assert encoder.pooling is not None
    vocabulary = static.read_vocabulary(base_folder / TOKENIZER)
    engine = Ct2Encoder(
        base_folder / encoder.weights,
        pooling=encoder.pooling,
        max_tokens=encoder.max_tokens,
        workers=detect().threads,
    )
    embed = partial(engine.encode, threads=engine.alone_threads)
    try:
        table = static.distil(vocabulary, embed, dimension=dimension, progress=progress)
    finally:
        engine.close()
    notes = {
        "tokenizer_name": encoder.name,
        "apply_pca": table.values.shape[1],
        "sif_coefficient": static.SIF,
        "pooling": encoder.pooling,
    }
    static_table.write(folder, static.quantize(table, quantization), notes)
    plain = static.plain_tokenizer(base_folder / TOKENIZER)
    (folder / TOKENIZER).write_text(plain, encoding="utf-8")


def _write_manifest(folder: Path, origin: Origin, source_weights: str | None) -> None:
    """Load what was built, which checks it, and describe it."""
    from sprat.engine.static import StaticEncoder

    engine = StaticEncoder(folder)
    manifest = ModelManifest(
        name=origin.name,
        kind="encoder",
        engine="static",
        architecture="model2vec",
        quantization=engine.quantization,
        weights=WEIGHTS,
        source_weights=source_weights,
        pooling="mean",
        max_tokens=engine.max_tokens,
        dimension=engine.dimension,
        licence=origin.licence,
        source=origin.source,
        files=list_files(folder),
    )
    write(folder / MODEL_MANIFEST, manifest)
