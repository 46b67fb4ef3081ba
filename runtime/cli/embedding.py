"""Sentence vectors and token states for training and evaluation, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import typer

from sprat.cli.output import Bar
from sprat.values import FloatArray, IntArray, TokenStates

if TYPE_CHECKING:
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.features import Compute, EmbeddingCache
    from sprat.train.head import Embed, OpenEmbed
    from sprat.train.tagger import OpenStates, States
    from sprat.train.window_vectors import OpenCompute

EMBED_BATCH = 256


def computer(
    runtime: Runtime, model: str, bar: Bar, cache: EmbeddingCache | None = None
) -> Compute:
    """A function from different texts to vectors, which are kept in ``cache`` if there is one.

    Texts that are too long are cut; it says how many tokens each lost.
    """

    def compute(texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
        parts = []
        dropped = []
        bar.phase(f"embed {len(texts)} texts", total=len(texts))
        for start in range(0, len(texts), EMBED_BATCH):
            batch = texts[start : start + EMBED_BATCH]
            result = runtime.embed(model, batch, truncation="truncate")
            parts.append(result.vectors)
            dropped.append(result.dropped_tokens)
            bar.advance(len(batch))
        return np.concatenate(parts), np.concatenate(dropped)

    return compute if cache is None else lambda texts: cache.embed(texts, compute)


def embedder(compute: Compute) -> Embed:
    """A function from different texts to vectors; it prints how many were cut."""

    def embed(texts: Sequence[str]) -> FloatArray:
        vectors, dropped = compute(texts)
        if cut := int(np.count_nonzero(dropped)):
            typer.echo(f"{cut} of {len(texts)} texts were too long and were cut", err=True)
        return vectors

    return embed


def compute_opener(store: Store, bar: Bar) -> OpenCompute:
    """What loads a model of a store for as long as a `computer` of it is used."""
    from sprat.inprocess import Runtime

    @contextmanager
    def open_compute(model: str) -> Iterator[Compute]:
        with Runtime(models=[model], store=store) as runtime:
            yield computer(runtime, model, bar)

    return open_compute


def embed_opener(store: Store, bar: Bar) -> OpenEmbed:
    """What loads a model of a store for as long as an `embedder` of it is used."""
    open_compute = compute_opener(store, bar)

    @contextmanager
    def open_embed(model: str) -> Iterator[Embed]:
        with open_compute(model) as compute:
            yield embedder(compute)

    return open_embed


def state_opener(store: Store, bar: Bar) -> OpenStates:
    """What loads a model of a store for as long as a `state_reader` of it is used."""
    from sprat.inprocess import Runtime

    @contextmanager
    def open_states(model: str) -> Iterator[States]:
        with Runtime(models=[model], store=store) as runtime:
            yield state_reader(runtime, model, bar)

    return open_states


def state_reader(
    runtime: Runtime, model: str, bar: Bar
) -> Callable[[Sequence[str]], list[TokenStates]]:
    """A function from texts to the states of their tokens; each different text is read once."""

    def read(texts: Sequence[str]) -> list[TokenStates]:
        different = list(dict.fromkeys(texts))
        made: dict[str, TokenStates] = {}
        bar.phase(f"read {len(different)} texts", total=len(different))
        for start in range(0, len(different), EMBED_BATCH):
            batch = different[start : start + EMBED_BATCH]
            made.update(zip(batch, runtime.token_states(model, batch), strict=True))
            bar.advance(len(batch))
        return [made[text] for text in texts]

    return read
