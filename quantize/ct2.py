"""Published encoder weights (safetensors) to a CTranslate2 model, with numpy alone.

Three families share one shape, a post-norm Transformer encoder over learned positions: BERT,
RoBERTa (XLM-RoBERTa and CamemBERT are the same network) and DistilBERT. What sprat never uses is
left out: poolers and task heads. Sentence vectors are pooled from the last hidden states by
`sprat.kernels.pool`, and sprat puts heads of its own on them.

Token types are left out as well. sprat encodes single texts, whose tokens are all of type 0, so
the vector of type 0 is added to every position once, here, instead of to every token later.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from sprat.errors import ConfigError, CorruptFile, StoreError, UnsupportedModel
from sprat.values import FloatArray

#: Weight types that `convert` can write.
QUANTIZATIONS = ("int8", "float32")


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What `convert` found.

    Attributes
    ----------
    architecture : str
        ``model_type`` of config.json, such as ``bert``.
    layers, heads : int
        Transformer layers; attention heads in each.
    dimension : int
        Length of a hidden vector, and so of a sentence vector.
    max_positions : int
        Most tokens of a text, special tokens included, that the model has positions for.
    vocabulary_size : int
        Rows of the embedding table; token ids are below it.
    """

    architecture: str
    layers: int
    heads: int
    dimension: int
    max_positions: int
    vocabulary_size: int


@dataclass(frozen=True, slots=True)
class _Family:
    """Names under which a family publishes what all of them have."""

    prefix: str
    layers: str
    heads: str
    dimension: str
    inner: str
    activation: str
    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    inner_dense: str
    output_dense: str
    output_norm: str
    has_token_types: bool
    pads_positions: bool
    """Positions count from ``pad_token_id + 1``."""


_BERT = _Family(
    prefix="bert.",
    layers="num_hidden_layers",
    heads="num_attention_heads",
    dimension="hidden_size",
    inner="intermediate_size",
    activation="hidden_act",
    layer="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    inner_dense="intermediate.dense",
    output_dense="output.dense",
    output_norm="output.LayerNorm",
    has_token_types=True,
    pads_positions=False,
)
_ROBERTA = replace(_BERT, prefix="roberta.", pads_positions=True)
_DISTILBERT = _Family(
    prefix="distilbert.",
    layers="n_layers",
    heads="n_heads",
    dimension="dim",
    inner="hidden_dim",
    activation="activation",
    layer="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    inner_dense="ffn.lin1",
    output_dense="ffn.lin2",
    output_norm="output_layer_norm",
    has_token_types=False,
    pads_positions=False,
)
_FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}

# Each name with its member of ctranslate2.specs.Activation. The three tanh forms are one function.
_ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_fast": "GELUTanh",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "relu": "RELU",
    "silu": "SWISH",
    "swish": "SWISH",
}

# Tensors that may be there and are left out, by the beginning of their name without the prefix.
_EXTRAS = (
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.dense.",
    "classifier.",
    "cls.",
    "lm_head.",
    "pre_classifier.",
    "qa_outputs.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "vocab_transform.",
)

_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def convert(source: Path, out: Path, *, quantization: Literal["int8", "float32"]) -> EncoderFacts:
    """Write the CTranslate2 form of an encoder.

    Parameters
    ----------
    source : Path
        Folder with model.safetensors (float32, float16 or bfloat16), config.json, and
        tokenizer.json or vocab.txt.
    out : Path
        Folder to make; it appears only when it is complete. It may exist if it is empty.
    quantization : {"int8", "float32"}
        Weight type: int8 with one scale for each row of a matrix, or as published.

    Returns
    -------
    EncoderFacts
        What the model is.

    Raises
    ------
    CorruptFile
        A file that is cut, malformed or holds values that are not finite.
    UnsupportedModel
        An architecture, activation, tensor or shape that sprat does not know, named in the message.
    ConfigError
        Another ``quantization``.
    StoreError
        `out` cannot be written.

    Examples
    --------
    >>> convert(Path("all-MiniLM-L6-v2"), Path("ct2"), quantization="int8")  # doctest: +SKIP
    EncoderFacts(architecture='bert', layers=6, heads=12, dimension=384, max_positions=512, ...)
    """
    if quantization not in QUANTIZATIONS:
        raise ConfigError(
            "quantization", f"expected {' or '.join(QUANTIZATIONS)}, got {quantization!r}"
        )
    config = _Config(source / "config.json")
    weights = _Weights(source / "model.safetensors", config.family.prefix)
    spec, facts = _build(config, weights)
    weights.check_rest()
    tokens = _vocabulary(source, facts.vocabulary_size)
    spec.register_vocabulary(tokens)
    spec.config.unk_token = next((t for t in ("[UNK]", "<unk>") if t in tokens), tokens[0])
    spec.validate()
    spec.optimize(quantization=quantization)
    _save(spec, out)
    return facts


class _Config:
    """config.json, read strictly."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values = _read_json(path)
        self.architecture = str(self._values.get("model_type"))
        if self.architecture not in _FAMILIES:
            raise UnsupportedModel(
                f"{path}: model_type {self.architecture!r} is not supported; supported are "
                f"{', '.join(_FAMILIES)}"
            )
        self.family = _FAMILIES[self.architecture]
        for key, wanted in {"position_embedding_type": "absolute", "is_decoder": False}.items():
            found = self._values.get(key, wanted)
            if found != wanted:
                raise UnsupportedModel(f"{path}: {key} {found!r} is not supported, only {wanted!r}")

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number, at least ``least``."""
        value = self._values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UnsupportedModel(
                f"{self._path}: {key}: expected a whole number of at least {least}, found {value!r}"
            )
        return value

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        value = self._values.get("layer_norm_eps", 1e-12)
        if not isinstance(value, float | int) or not 0 < value < 1:
            raise UnsupportedModel(
                f"{self._path}: layer_norm_eps: expected a number in (0, 1), found {value!r}"
            )
        return float(value)

    @property
    def activation(self) -> str:
        """The activation's name in CTranslate2."""
        name = self._values.get(self.family.activation, "gelu")
        if name not in _ACTIVATIONS:
            raise UnsupportedModel(
                f"{self._path}: {self.family.activation} {name!r} is not supported; supported are "
                f"{', '.join(_ACTIVATIONS)}"
            )
        return _ACTIVATIONS[name]


class _Weights:
    """The tensors of a safetensors file, each taken once."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        if not path.is_file():
            raise UnsupportedModel(
                f"{path}: missing; only safetensors weights are read, never pickled ones"
            )
        try:
            # Opening checks the header, the offsets and the size of the file.
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise CorruptFile(str(path), f"not a whole safetensors file ({error})") from None
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        start = 8 + int.from_bytes(self._bytes[:8].tobytes(), "little")
        self._data = self._bytes[start:]
        header: dict[str, dict[str, Any]] = json.loads(self._bytes[8:start].tobytes())
        header.pop("__metadata__", None)
        self._prefix = prefix if any(name.startswith(prefix) for name in header) else ""
        self._left = {
            _modern(name.removeprefix(self._prefix)): entry for name, entry in header.items()
        }

    def take(self, name: str, *shape: int) -> FloatArray:
        """A tensor as a float32 array of its own.

        Raises
        ------
        UnsupportedModel
            It is missing, or has another shape or a type that is not a float.
        CorruptFile
            It holds an infinity or a NaN.
        """
        where = f"{self._path}: tensor {self._prefix}{name}"
        entry = self._left.pop(name, None)
        if entry is None:
            raise UnsupportedModel(f"{where} is missing")
        if tuple(entry["shape"]) != shape:
            raise UnsupportedModel(f"{where}: expected shape {list(shape)}, found {entry['shape']}")
        if entry["dtype"] not in _FLOATS:
            raise UnsupportedModel(
                f"{where}: expected type {' or '.join(_FLOATS)}, found {entry['dtype']}"
            )
        begin, end = entry["data_offsets"]
        stored = self._data[begin:end].view(_FLOATS[entry["dtype"]]).reshape(shape)
        if entry["dtype"] == "BF16":
            # The upper half of a float32.
            values = (stored.astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.array(stored, dtype=np.float32)
        if not np.isfinite(values).all():
            raise CorruptFile(str(self._path), f"tensor {self._prefix}{name} is not finite")
        return values

    def check_rest(self) -> None:
        """Refuse tensors that nobody took, unless they are known extras."""
        unknown = sorted(n for n in self._left if not n.startswith(_EXTRAS))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UnsupportedModel(
                f"{self._path}: tensor {self._prefix}{unknown[0]}{more}: not a part of this "
                "architecture"
            )


def _modern(name: str) -> str:
    """A name with the words of today for the two halves of a layer norm."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _build(config: _Config, weights: _Weights) -> tuple[Any, EncoderFacts]:
    # Imports torch where there is one, which takes seconds: only when something is converted.
    from ctranslate2 import specs

    family = config.family
    layers = config.integer(family.layers)
    heads = config.integer(family.heads)
    width = config.integer(family.dimension)
    inner = config.integer(family.inner)
    rows = config.integer("vocab_size")
    if width % heads:
        raise UnsupportedModel(f"{family.dimension} {width} cannot be divided among {heads} heads")

    encoder = specs.TransformerEncoderSpec(
        layers,
        heads,
        pre_norm=False,
        activation=specs.Activation[config.activation],
        layernorm_embedding=True,
    )
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = weights.take("embeddings.word_embeddings.weight", rows, width)
    encoder.position_encodings.encodings = positions = _positions(config, weights, width)
    _set_norm(encoder.layernorm_embedding, weights, "embeddings.LayerNorm", width)

    for index, layer in enumerate(encoder.layer):
        at = f"{family.layer}.{index}."
        attention, ffn = layer.self_attention, layer.ffn
        queries_keys_values = [at + part for part in (family.query, family.key, family.value)]
        attention.linear[0].weight = np.concatenate(
            [weights.take(f"{name}.weight", width, width) for name in queries_keys_values]
        )
        attention.linear[0].bias = np.concatenate(
            [weights.take(f"{name}.bias", width) for name in queries_keys_values]
        )
        _set_dense(attention.linear[1], weights, at + family.attention_output, width, width)
        _set_norm(attention.layer_norm, weights, at + family.attention_norm, width)
        _set_dense(ffn.linear_0, weights, at + family.inner_dense, inner, width)
        _set_dense(ffn.linear_1, weights, at + family.output_dense, width, inner)
        _set_norm(ffn.layer_norm, weights, at + family.output_norm, width)

    spec = specs.TransformerEncoderModelSpec(encoder, pooling_layer=False)
    spec.config.layer_norm_epsilon = config.epsilon
    return spec, EncoderFacts(config.architecture, layers, heads, width, len(positions), rows)


def _positions(config: _Config, weights: _Weights, width: int) -> FloatArray:
    rows = config.integer("max_position_embeddings")
    values = weights.take("embeddings.position_embeddings.weight", rows, width)
    if config.family.pads_positions:
        first = config.integer("pad_token_id", 1, least=0) + 1
        if first >= rows:
            raise UnsupportedModel(f"pad_token_id {first - 1} leaves none of {rows} positions")
        values = values[first:]
    if config.family.has_token_types:
        types = config.integer("type_vocab_size")
        values = values + weights.take("embeddings.token_type_embeddings.weight", types, width)[0]
    return values


def _set_dense(spec: Any, weights: _Weights, name: str, rows: int, columns: int) -> None:
    spec.weight = weights.take(f"{name}.weight", rows, columns)
    spec.bias = weights.take(f"{name}.bias", rows)


def _set_norm(spec: Any, weights: _Weights, name: str, width: int) -> None:
    spec.gamma = weights.take(f"{name}.weight", width)
    spec.beta = weights.take(f"{name}.bias", width)


def _vocabulary(source: Path, rows: int) -> list[str]:
    """The token of each row of the embedding table; rows without one get a name of their own."""
    path = source / "tokenizer.json"
    if path.is_file():
        pairs = _tokenizer_pairs(path)
    else:
        path = source / "vocab.txt"
        if not path.is_file():
            raise UnsupportedModel(f"{source}: neither tokenizer.json nor vocab.txt is there")
        try:
            # Not splitlines: some vocabularies hold other line separators as tokens.
            lines = path.read_bytes().decode().removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise CorruptFile(str(path), f"byte {error.start} is not UTF-8") from None
        pairs = {row: line.rstrip("\r") for row, line in enumerate(lines)}
    if not pairs:
        raise CorruptFile(str(path), "holds no tokens")
    if min(pairs) < 0 or max(pairs) >= rows:
        raise UnsupportedModel(
            f"{path}: token ids go from {min(pairs)} up to {max(pairs)}, "
            f"the embedding table has {rows} rows"
        )
    return [pairs.get(row, f"[unused row {row}]") for row in range(rows)]


def _tokenizer_pairs(path: Path) -> dict[int, str]:
    document = _read_json(path)
    try:
        entries = document["model"]["vocab"]
        if isinstance(entries, Mapping):
            pairs = {int(token_id): str(token) for token, token_id in entries.items()}
        else:
            pairs = {row: str(token) for row, (token, _) in enumerate(entries)}
        added = document.get("added_tokens") or []
        return pairs | {int(token["id"]): str(token["content"]) for token in added}
    except (KeyError, TypeError, ValueError):
        raise CorruptFile(str(path), "model.vocab or added_tokens is malformed") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnsupportedModel(f"{path}: missing") from None
    except (ValueError, OSError) as error:
        raise CorruptFile(str(path), f"not JSON ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise CorruptFile(str(path), f"expected an object, found {type(document).__name__}")
    return document


def _save(spec: Any, out: Path) -> None:
    staging = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        spec.save(str(staging))
        staging.rename(out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
