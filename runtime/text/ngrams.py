"""Runs of characters as features: what a sentence vector does not see of a text.

A sentence vector says what a text is about. It hardly says that a text is full of capitals, of
digits or of odd signs, and these are what spam and abuse often look like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sprat.values import FloatArray

LONGEST = 3
"""Characters of the longest runs."""

# 64-bit odd constants: of FNV-1a, of the golden ratio, and of MurmurHash3's finalizer.
_STEP = np.uint64(0x00000100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_FINISH = np.uint64(0xFF51AFD7ED558CCD)


def with_ngrams(vectors_nd: FloatArray, texts: Sequence[str], buckets: int) -> FloatArray:
    """Sentence vectors with the features of `ngram_features` behind them.

    Parameters
    ----------
    vectors_nd : float32[N, D]
    texts : sequence of str
        N texts.
    buckets : int
        B, a power of two, or 0 for the vectors alone.

    Returns
    -------
    float32[N, D + B]
    """
    if buckets == 0:
        return vectors_nd
    return np.concatenate([vectors_nd, ngram_features(texts, buckets)], axis=1)


def ngram_features(texts: Sequence[str], buckets: int) -> FloatArray:
    """Which runs of one to three characters a text holds.

    Runs are hashed into buckets (Weinberger et al., 2009). Case counts, all digits from 0 to 9 are
    one, white space of any kind and length is one space, and one stands before and behind the text.

    Parameters
    ----------
    texts : sequence of str
        Without lone surrogates.
    buckets : int
        B, a power of two from 2.

    Returns
    -------
    float32[N, B]
        Rows of length 1: the same value in each bucket that a run of the text falls into, else 0.
    """
    shift = np.uint64(65 - buckets.bit_length())
    features_nb = np.zeros((len(texts), buckets), np.float32)
    for row, text in zip(features_nb, texts, strict=True):
        row[_hashes(text) >> shift] = 1
        row /= np.sqrt(np.count_nonzero(row))
    return features_nb


def _hashes(text: str) -> npt.NDArray[np.uint64]:
    spaced = f" {' '.join(text.split())} "
    codes = np.frombuffer(spaced.encode("utf-32-le"), "<u4").astype(np.uint64)
    codes[(codes >= ord("0")) & (codes <= ord("9"))] = ord("0")
    state = np.zeros(len(codes), np.uint64)
    hashes = []
    for length in range(1, LONGEST + 1):
        count = len(codes) - length + 1
        state = (state[:count] ^ codes[length - 1 :]) * _STEP + _SPREAD
        mixed = (state ^ (state >> np.uint64(32))) * _FINISH
        hashes.append(mixed ^ (mixed >> np.uint64(29)))
    return np.concatenate(hashes)
