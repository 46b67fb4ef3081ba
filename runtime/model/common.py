"""What encoder and generative models have in common."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.errors import InvalidInput, SpratError
from sprat.manifest import ModelManifest
from sprat.tokenizer import check_text
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


def readable(texts: Sequence[str], errors: list[ItemError], partial: bool) -> list[int]:
    """Indices of the texts that a tokenizer takes; of the others the errors are noted.

    Raises
    ------
    InvalidInput
        For the first bad text, unless ``partial``.
    """
    kept: list[int] = []
    for index, text in enumerate(texts):
        try:
            check_text(text, field=f"texts[{index}]")
        except InvalidInput as error:
            note(errors, index, error, partial)
        else:
            kept.append(index)
    return kept


def note(errors: list[ItemError], index: int, error: SpratError, partial: bool) -> None:
    """Raise the error of one input, or list it where the call asked for partial results."""
    if not partial:
        raise error
    errors.append(ItemError(index, error.reason, error.message))
