"""Loaded models: an encoder, a static one or a generative one, with all that serving it takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sprat.budget import ComputePermits
from sprat.config import ModelConfig
from sprat.engine.base import GenerativeEngine
from sprat.errors import TaskNotSupported
from sprat.manifest import ModelManifest
from sprat.model.choices import Branch, Choices
from sprat.model.encoder import Encoded, EncoderModel
from sprat.model.generator import GenerativeModel
from sprat.model.static import StaticModel
from sprat.scheduler import ComputePool, EncodeScheduler, GenerateScheduler
from sprat.tokenizer import Tokenizer

__all__ = [
    "Branch",
    "Choices",
    "EmbeddingModel",
    "Encoded",
    "EncoderModel",
    "GenerativeModel",
    "Model",
    "StaticModel",
    "load",
    "require_encoder",
    "require_generative",
    "require_states",
]

EmbeddingModel = EncoderModel | StaticModel
"""What makes sentence vectors of texts."""

Model = EmbeddingModel | GenerativeModel


def load(
    manifest: ModelManifest,
    folder: Path,
    config: ModelConfig,
    *,
    adapters: Mapping[str, Path] | None = None,
    permits: ComputePermits,
    pool: ComputePool,
    queue_tokens: int,
) -> Model:
    """Load a model of the store into its engine, and warm it up.

    Parameters
    ----------
    adapters : mapping of str to Path, optional
        Verified GGUF files of LoRA adapters for a generative model, by name.

    Raises
    ------
    CorruptFile, EngineError
        When its files cannot be used here.
    """
    weights = folder / manifest.weights
    if manifest.engine == "static":
        from sprat.engine.static import StaticEncoder

        return StaticModel(manifest, StaticEncoder(folder), pool)
    if manifest.engine == "ct2":
        from sprat.engine.ct2 import Ct2Encoder

        assert manifest.pooling is not None
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
        encoder = Ct2Encoder(
            weights,
            pooling=manifest.pooling,
            max_tokens=manifest.max_tokens,
            workers=permits.permits,
        )
        scheduler = EncodeScheduler(manifest.name, encoder, permits, capacity=queue_tokens)
        return EncoderModel(manifest, tokenizer, scheduler, pool)

    def make_engine() -> GenerativeEngine:
        from sprat.engine.llama import LlamaEngine

        return LlamaEngine(
            weights,
            context_length=config.context_length,
            sequence_limit=config.sequences,
            cells=config.cells,
            choice_cells=config.choice_cells,
            threads=permits.permits,
            adapters=adapters,
        )

    generator = GenerateScheduler(manifest.name, make_engine, permits, capacity=queue_tokens)
    return GenerativeModel(manifest, generator, pool)


def require_encoder(model: Model, verb: str) -> EmbeddingModel:
    """The model as one that makes sentence vectors.

    Raises
    ------
    TaskNotSupported
        When it is none.
    """
    if isinstance(model, EncoderModel | StaticModel):
        return model
    raise TaskNotSupported(
        f"{verb} needs an encoder; model {model.info.name} is {model.info.kind}",
        metadata={"model": model.info.name, "kind": model.info.kind},
    )


def require_states(model: Model, verb: str) -> EncoderModel:
    """The model as one that has states of tokens.

    Raises
    ------
    TaskNotSupported
        When it has none.
    """
    if isinstance(model, EncoderModel):
        return model
    kind = "static" if isinstance(model, StaticModel) else model.info.kind
    raise TaskNotSupported(
        f"{verb} needs the states of an encoder's tokens; model {model.info.name} is {kind}",
        metadata={"model": model.info.name, "kind": kind},
    )


def require_generative(model: Model, verb: str) -> GenerativeModel:
    """The model as a generative one.

    Raises
    ------
    TaskNotSupported
        When it is none.
    """
    if isinstance(model, GenerativeModel):
        return model
    raise TaskNotSupported(
        f"{verb} needs a generative model; model {model.info.name} is an {model.info.kind}",
        metadata={"model": model.info.name, "kind": model.info.kind},
    )
