"""The families of encoders that sprat converts, and the names under which they publish."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Family:
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


_BERT = Family(
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
_DISTILBERT = Family(
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
FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}

# Each name with its member of ctranslate2.specs.Activation. The three tanh forms are one function.
ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_fast": "GELUTanh",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "relu": "RELU",
    "silu": "SWISH",
    "swish": "SWISH",
}
