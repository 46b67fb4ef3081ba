"""From published files to a model's folder: convert the weights, write ``model.json``.

An encoder's folder::

    model.json   tokenizer.json   ct2/                     what is served
    source/model.safetensors      source/config.json       what it was made from, for fine-tuning

A generative model's folder::

    model.json   model.gguf       source/<published>.gguf  only where it was re-quantized
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sprat.errors import CorruptFile, InvalidInput, UnsupportedModel
from sprat.manifest import (
    MODEL_MANIFEST,
    ModelManifest,
    list_files,
    write,
)
from sprat.progress import Progress
from sprat.published import WEIGHTS
from sprat.static_table import QUANTIZATIONS

ENCODER_QUANTIZATIONS = ("int8", "float32")
_KEPT = (WEIGHTS, "config.json")
_NOT_GENERATIVE = ("clip", "gemma-embedding", "t5encoder")
_GGUF_TYPE = re.compile(r"i?q\d\w*|b?f16|f32|mxfp4")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a manifest says of where a model comes from.

    Attributes
    ----------
    name : str
        Name in the store.
    licence, source : str
        As in `sprat.manifest.ModelManifest`.
    """

    name: str
    licence: str
    source: str


def encoder(folder: Path, origin: Origin, quantization: str, progress: Progress) -> None:
    """Build an encoder from the published files in ``folder/source``.

    Parameters
    ----------
    quantization : str
        ``int8`` or ``float32``.

    Raises
    ------
    InvalidInput
        Another quantization.
    UnsupportedModel
        An architecture, module or pooling that sprat does not know.
    CorruptFile
        A file is not what its format says.
    """
    from sprat.quantize import ct2

    source = folder / "source"
    if quantization not in ENCODER_QUANTIZATIONS:
        raise InvalidInput(
            f"quantization: expected {' or '.join(ENCODER_QUANTIZATIONS)} for an encoder, "
            f"got {quantization!r}",
            field="quantization",
        )
    pooling = read_pooling(source)
    progress.phase(f"convert to {quantization}")
    facts = ct2.convert(source, folder / "ct2", quantization=quantization)
    limit = _read_json(source / "sentence_bert_config.json").get("max_seq_length")
    max_tokens = min(facts.max_positions, limit) if isinstance(limit, int) else facts.max_positions
    (source / "tokenizer.json").rename(folder / "tokenizer.json")
    for path in source.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in _KEPT:
            path.unlink()
    _write_manifest(
        folder,
        origin,
        kind="encoder",
        engine="ct2",
        architecture=facts.architecture,
        quantization=quantization,
        weights="ct2",
        source_weights=f"source/{WEIGHTS}",
        pooling=pooling,
        max_tokens=max_tokens,
        dimension=facts.dimension,
    )


def generative(folder: Path, origin: Origin, quantization: str | None, progress: Progress) -> None:
    """Build a generative model from the one GGUF file in ``folder/source``.

    Parameters
    ----------
    quantization : str or None
        ``q8_0``, or the type that the file has already; None keeps the file as it is.

    Raises
    ------
    InvalidInput
        Another quantization.
    UnsupportedModel, CorruptFile
        The file is not a GGUF model that can be loaded.
    """
    from sprat.quantize import gguf

    (published,) = (folder / "source").iterdir()
    weights = folder / "model.gguf"
    facts = gguf.inspect(published)
    own = facts.quantization
    if "bert" in facts.architecture or facts.architecture in _NOT_GENERATIVE:
        raise UnsupportedModel(
            f"{published}: architecture {facts.architecture} generates nothing; an encoder is "
            f"pulled from its {WEIGHTS}"
        )
    if quantization in (None, own):
        published.rename(weights)
        published.parent.rmdir()
        source_weights = None
    elif quantization == "q8_0":
        progress.phase(f"re-quantize {own} to {quantization}")
        facts = gguf.requantize(published, weights, quantization="q8_0")
        source_weights = f"source/{published.name}"
    else:
        raise InvalidInput(
            f"quantization: expected q8_0, or {own} as it was published, got {quantization!r}",
            field="quantization",
        )
    _write_manifest(
        folder,
        origin,
        kind="generative",
        engine="llama",
        architecture=facts.architecture,
        quantization=facts.quantization,
        weights=weights.name,
        source_weights=source_weights,
        pooling=None,
        max_tokens=facts.context_length,
        dimension=0,
    )


def check_quantization(quantization: str | None, *, encoder: bool | None) -> None:
    """Refuse what cannot be made, before anything is downloaded.

    Parameters
    ----------
    encoder : bool or None
        Whether the model is one; None: not known yet.

    Raises
    ------
    InvalidInput
        ``quantization`` is no weight type of this kind of model.
    """
    of_encoders = quantization in QUANTIZATIONS  # of static models too
    of_ggufs = quantization is not None and bool(_GGUF_TYPE.fullmatch(quantization))
    if quantization is None or (of_encoders and encoder is not False) or (of_ggufs and not encoder):
        return
    choices = []
    if encoder is not False:
        choices.append(
            f"{' or '.join(ENCODER_QUANTIZATIONS)} for an encoder, float16 too for a static model"
        )
    if not encoder:
        choices.append("q8_0, or the type it was published in, for a GGUF file")
    raise InvalidInput(
        f"quantization: expected {'; '.join(choices)}; got {quantization!r}", field="quantization"
    )


def read_pooling(source: Path) -> Literal["mean", "cls"]:
    """How a sentence-transformers folder makes one vector of many.

    Without a pooling module, as in a plain BERT checkpoint, it is the mean: what
    sentence-transformers does with one.

    Raises
    ------
    UnsupportedModel
        Another way of pooling, or a module that sprat would have to leave out.
    """
    for module in _read_json(source / "modules.json", default=[]):
        kind = str(module.get("type")).rpartition(".")[2]
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise UnsupportedModel(f"modules.json: module {kind!r} is not supported")
    configs = sorted(source.glob("*_Pooling/config.json"))
    if not configs:
        return "mean"
    config = _read_json(configs[0])
    # A string since sentence-transformers 5.4, one flag for each mode before.
    modes = [config["pooling_mode"]] if "pooling_mode" in config else _flagged_modes(config)
    if modes == ["mean"] or modes == ["mean_tokens"]:
        return "mean"
    if modes == ["cls"] or modes == ["cls_token"]:
        return "cls"
    raise UnsupportedModel(f"{configs[0].name}: expected mean or cls pooling, found {modes}")


def _flagged_modes(config: dict[str, Any]) -> list[str]:
    prefix = "pooling_mode_"
    return [k.removeprefix(prefix) for k, v in config.items() if k.startswith(prefix) and v is True]


def _read_json(path: Path, default: Any = None) -> Any:
    """An optional JSON file, or the default (an empty object)."""
    empty: Any = {} if default is None else default
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return empty
    except ValueError:
        raise CorruptFile(str(path), "not JSON") from None
    if type(document) is not type(empty):
        raise CorruptFile(str(path), f"expected {type(empty).__name__}")
    return document


def _write_manifest(folder: Path, origin: Origin, **facts: Any) -> None:
    manifest = ModelManifest(
        name=origin.name,
        licence=origin.licence,
        source=origin.source,
        files=list_files(folder),
        **facts,
    )
    write(folder / MODEL_MANIFEST, manifest)
