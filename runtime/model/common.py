"""What encoder and generative models have in common."""

from __future__ import annotations

from sprat.errors import SpratError
from sprat.manifest import ModelManifest
from sprat.values import ItemError, ModelInfo


def model_info(manifest: ModelManifest, tokenizer: str, max_tokens: int) -> ModelInfo:
    """What clients are told of a model."""
    return ModelInfo(
        name=manifest.name,
        kind=manifest.kind,
        engine=manifest.engine,
        version=manifest.version,
        architecture=manifest.architecture,
        quantization=manifest.quantization,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        dimension=manifest.dimension,
        licence=manifest.licence,
        size_bytes=manifest.size_bytes,
    )


def note(errors: list[ItemError], index: int, error: SpratError, partial: bool) -> None:
    """Raise the error of one input, or list it where the call asked for partial results."""
    if not partial:
        raise error
    errors.append(ItemError(index, error.reason, error.message))
