"""From the logits of a batch to tokens: masks, scores and drafts of several sequences at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.engine.llama_sampler import choose
from sprat.engine.llama_sequence import LiveSequence
from sprat.kernels import log_softmax, mask_logits
from sprat.values import FloatArray, IntArray, TokenChoice, TokenLogprob


def choose_all(sequences: Sequence[LiveSequence], logits_bv: FloatArray) -> set[LiveSequence]:
    """Choose the next tokens of each sequence, as many as its draft turns out right, and one more.

    Parameters
    ----------
    sequences : sequence of LiveSequence
        Each grows by what is chosen for it.
    logits_bv : float32[B, V]
        For each sequence in turn ``1 + len(draft)`` rows. Overwritten.

    Returns
    -------
    set of LiveSequence
        Those for which there was nothing to choose.
    """
    failed: set[LiveSequence] = set()
    counts = [1 + len(sequence.draft) for sequence in sequences]
    starts = (np.cumsum(counts) - counts).tolist()
    at = 0
    active = list(zip(sequences, starts, strict=True))
    while active:
        if len(active) == len(logits_bv):
            rows_bv = logits_bv
        else:
            rows_bv = logits_bv[[start + at for _, start in active]]
        going_on = []
        for (sequence, start), token in zip(active, _choose(active, rows_bv), strict=True):
            if token is None:
                failed.add(sequence)
                continue
            sequence.grow(*token)
            draft = sequence.draft
            if sequence.reason is None and at < len(draft) and draft[at] == token[0]:
                going_on.append((sequence, start))
        active = going_on
        at += 1
    return failed


def _choose(
    active: Sequence[tuple[LiveSequence, int]], logits_bv: FloatArray
) -> list[tuple[int, TokenChoice | None] | None]:
    sequences = [sequence for sequence, _ in active]
    mask_bw = _masks(sequences)
    # The sampler's penalty changes rows in place.
    kept = [
        row.copy() if sequence.logprobs is not None else None
        for sequence, row in zip(sequences, logits_bv, strict=True)
    ]
    tokens = choose([sequence.sampler for sequence in sequences], logits_bv, mask_bw)
    chosen: list[tuple[int, TokenChoice | None] | None] = []
    for index, (sequence, token) in enumerate(zip(sequences, tokens, strict=True)):
        if token is None:
            chosen.append(None)
            continue
        row_v, top = kept[index], sequence.logprobs
        scored = None
        if row_v is not None and top is not None:
            if mask_bw is not None:
                mask_logits(row_v[None], mask_bw[index][None])
            scored = _score(sequence, row_v, token, top)
        chosen.append((token, scored))
    return chosen


def _masks(sequences: Sequence[LiveSequence]) -> IntArray | None:
    """What each sequence allows, as `mask_logits` takes it; None when that is everything."""
    masks = [None if s.matcher is None else s.matcher.mask() for s in sequences]
    width = next((len(mask) for mask in masks if mask is not None), None)
    if width is None:
        return None
    everything = np.full(width, -1, np.int32)
    return np.stack([everything if mask is None else mask for mask in masks])


def _score(sequence: LiveSequence, row_v: FloatArray, token: int, top: int) -> TokenChoice:
    best = np.argpartition(row_v, -top)[-top:] if top else np.empty(0, np.int64)
    best = best[np.argsort(-row_v[best], kind="stable")]
    ids = np.array([token, *best.tolist()], np.int32)
    logs = log_softmax(row_v[None], ids, np.array([0, len(ids)])).tolist()
    piece = sequence.vocabulary.piece
    scored = [
        TokenLogprob(piece(each), min(log, 0.0))
        for each, log in zip(ids.tolist(), logs, strict=True)
        if log > -np.inf
    ]
    return TokenChoice(scored[0], tuple(scored[1:]))
