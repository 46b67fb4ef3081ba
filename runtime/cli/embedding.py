"""Sentence vectors for training and evaluation, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import typer

from sprat.cli.output import Bar
from sprat.values import FloatArray

if TYPE_CHECKING:
    from sprat.inprocess import Runtime

EMBED_BATCH = 256


def embedder(runtime: Runtime, model: str, bar: Bar) -> Callable[[Sequence[str]], FloatArray]:
    """A function from texts to vectors; texts that are too long are cut, and it says how many."""

    def embed(texts: Sequence[str]) -> FloatArray:
        parts = []
        cut = 0
        bar.phase(f"embed {len(texts)} texts", total=len(texts))
        for start in range(0, len(texts), EMBED_BATCH):
            batch = texts[start : start + EMBED_BATCH]
            result = runtime.embed(model, batch, truncation="truncate")
            parts.append(result.vectors)
            cut += int(np.count_nonzero(result.dropped_tokens))
            bar.advance(len(batch))
        if cut:
            typer.echo(f"{cut} of {len(texts)} texts were too long and were cut", err=True)
        return np.concatenate(parts)

    return embed
