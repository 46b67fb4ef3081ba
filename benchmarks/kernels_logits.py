"""Contests of the kernels over logits: choosing a token, and the log-probabilities of some."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import llguidance.numpy
import numpy as np
import scipy.special

from sprat.benchmarks import without_kernels
from sprat.benchmarks.contest import Contest
from sprat.kernels import argmax, log_softmax, sample

VOCABULARIES = (49_152, 151_936)
"""Of SmolLM2 and of Qwen2.5."""

TOP_P = 0.9
COIN = 0.7
ROWS = 16
TOKENS = 4
"""Tokens a row whose log-probabilities are wanted."""


def contests() -> Iterator[Contest]:
    """All of them, for each vocabulary."""
    for vocabulary in VOCABULARIES:
        logits_v = _logits(1, vocabulary)[0]
        yield _masked_argmax(logits_v)
        yield _top_p(logits_v)
        yield from _gather(_logits(ROWS, vocabulary))


def _logits(rows: int, vocabulary: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Logits spread as those of a language model are: few large ones."""
    generator = np.random.default_rng(vocabulary)
    return generator.gumbel(scale=2.0, size=(rows, vocabulary)).astype(np.float32)


def _masked_argmax(logits_v: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Contest:
    vocabulary = len(logits_v)
    generator = np.random.default_rng(0)
    mask_w = generator.integers(-(2**31), 2**31, -(-vocabulary // 32), np.int32)
    logits_bv, mask_bw = logits_v[None], mask_w[None]
    ours = partial(argmax, logits_bv, mask_bw)

    def theirs() -> int:
        masked = logits_bv.copy()
        llguidance.numpy.apply_token_bitmask_inplace(masked, mask_bw)
        return int(masked.argmax())

    def check() -> None:
        assert ours().tolist() == [theirs()]

    return Contest(
        f"masked_argmax_{vocabulary}",
        f"mask and argmax, {vocabulary:,} logits",
        "llguidance's numpy mask, numpy argmax",
        ours,
        theirs,
        check,
        at_least=10,
    )


def _top_p(logits_v: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Contest:
    vocabulary = len(logits_v)
    ours = partial(
        sample,
        logits_v[None],
        np.array([COIN], np.float64),
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        np.array([TOP_P], np.float32),
        np.zeros(1, np.float32),
    )
    theirs = partial(without_kernels.sample_top_p, logits_v, TOP_P, COIN)

    def check() -> None:
        assert ours().tolist() == [theirs()]

    return Contest(
        f"top_p_{vocabulary}",
        f"top-p sample, {vocabulary:,} logits",
        "numpy",
        ours,
        theirs,
        check,
        at_least=10,
    )


def _gather(logits_bv: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Iterator[Contest]:
    rows, vocabulary = logits_bv.shape
    generator = np.random.default_rng(0)
    ids_bn = generator.integers(0, vocabulary, (rows, TOKENS), np.int32)
    offsets = np.arange(rows + 1, dtype=np.int64) * TOKENS
    ours = partial(log_softmax, logits_bv, ids_bn.ravel(), offsets)
    numpy = partial(without_kernels.log_softmax, logits_bv, ids_bn)

    def scipys() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        found = scipy.special.log_softmax(logits_bv, axis=1)
        return np.take_along_axis(found, ids_bn, axis=1)

    def check() -> None:
        for theirs in (numpy, scipys):
            np.testing.assert_allclose(ours(), theirs().ravel(), rtol=1e-5, atol=1e-5)

    for competitor, theirs in (("numpy", numpy), ("scipy", scipys)):
        yield Contest(
            f"log_softmax_{competitor}_{vocabulary}",
            f"log-softmax of {TOKENS} tokens, {rows} rows of {vocabulary:,}",
            competitor,
            ours,
            theirs,
            check,
            at_least=5,
        )
