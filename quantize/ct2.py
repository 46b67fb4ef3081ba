"""Published encoder weights (safetensors) to a CTranslate2 model, with numpy alone.

Three families share one shape, a post-norm Transformer encoder over learned positions: BERT,
RoBERTa (XLM-RoBERTa and CamemBERT are the same network) and DistilBERT. What sprat never uses is
left out: poolers and task heads. Sentence vectors are pooled from the last hidden states by
`sprat.kernels.pool`, and sprat puts heads of its own on them.

Token types are left out as well. sprat encodes single texts, whose tokens are all of type 0, so
the vector of type 0 is added to every position once, here, instead of to every token later.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sprat.errors import ConfigError, CorruptFile, StoreError, UnsupportedModel
from sprat.quantize.ct2_source import Config, Weights, read_json
from sprat.values import FloatArray

QUANTIZATIONS = ("int8", "int8_unsaturated", "float32")
"""Weight types that `convert` can write.

CTranslate2 multiplies unsigned activations, up to 255, by weights of 8 bits. A CPU with AVX2 and
without VNNI adds two neighbouring products in 16 bits, and what exceeds these is cut off without a
word. ``int8_unsaturated`` is ``int8`` with each row scaled so that no two neighbours can exceed
them: its vectors are the same on every CPU.
"""

LARGEST = 127
"""Of the integers that weights are rounded to; and of sums of two neighbours before they are
rounded, where nothing may saturate: rounding adds 1 at most, and 255 * 128 fits 16 bits."""


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


def convert(source: Path, out: Path, *, quantization: str) -> EncoderFacts:
    """Write the CTranslate2 form of an encoder.

    Parameters
    ----------
    source : Path
        Folder with model.safetensors (float32, float16 or bfloat16), config.json, and
        tokenizer.json or vocab.txt.
    out : Path
        Folder to make; it appears only when it is complete. It may exist if it is empty.
    quantization : {"int8", "int8_unsaturated", "float32"}
        Weight type: integers with one scale for each row of a matrix, or as published. See
        `QUANTIZATIONS` for the difference of the first two.

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
    config = Config(source / "config.json")
    weights = Weights(source / "model.safetensors", config.family.prefix)
    spec, facts = _build(config, weights)
    weights.check_rest()
    tokens = _vocabulary(source, facts.vocabulary_size)
    spec.register_vocabulary(tokens)
    spec.config.unk_token = next((t for t in ("[UNK]", "<unk>") if t in tokens), tokens[0])
    spec.validate()
    if quantization == "int8_unsaturated":
        _round(spec)
        spec.optimize()
    else:
        spec.optimize(quantization=quantization)
    _save(spec, out)
    return facts


def _build(config: Config, weights: Weights) -> tuple[Any, EncoderFacts]:
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


def _positions(config: Config, weights: Weights, width: int) -> FloatArray:
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


def _set_dense(spec: Any, weights: Weights, name: str, rows: int, columns: int) -> None:
    spec.weight = weights.take(f"{name}.weight", rows, columns)
    spec.bias = weights.take(f"{name}.bias", rows)


def _set_norm(spec: Any, weights: Weights, name: str, width: int) -> None:
    spec.gamma = weights.take(f"{name}.weight", width)
    spec.beta = weights.take(f"{name}.bias", width)


def _round(spec: Any) -> None:
    """Make integers of every matrix, scaled so that no sum of two products saturates 16 bits.

    Products of opposite signs cannot. The embedding table is looked up, never multiplied.
    """
    from ctranslate2.specs.model_spec import NumpyVariable, visit_spec

    def quantize(layer: Any, name: str, value: Any) -> None:
        attribute = name.rpartition("/")[2]
        if not hasattr(layer, f"{attribute}_scale"):
            return
        weight = value.numpy()
        most = np.abs(weight).max(axis=1)
        if "embeddings" not in name:
            even = weight[:, : weight.shape[1] // 2 * 2 : 2]
            odd = weight[:, 1::2]
            sums = np.where(even * odd > 0, np.abs(even + odd), 0)
            most = np.maximum(most, sums.max(axis=1))
        scale = (LARGEST / np.where(most == 0, LARGEST, most)).astype(np.float32)
        rounded = np.rint(weight * scale[:, None]).astype(np.int8)
        setattr(layer, attribute, NumpyVariable(rounded))
        setattr(layer, f"{attribute}_scale", NumpyVariable(scale))

    visit_spec(spec, quantize)


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
    document = read_json(path)
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
