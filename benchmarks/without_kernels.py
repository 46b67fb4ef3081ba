"""What kernels compute, without them: other people's libraries, and numpy as one would write it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from sprat.values import FloatArray, IntArray


def library_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """The ``tokenizers`` library on a tokenizer.json, set up as sprat reads texts.

    Its threads are off: `sprat.tokenizer` sees to that for the process.
    """
    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return backend


def encode(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> list[IntArray]:
    """Token ids of texts."""
    return [np.array(each.ids, np.int32) for each in backend.encode_batch_fast(list(texts))]


def pack(rows: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Padded ids and lengths."""
    lengths_b = np.array([len(row) for row in rows], np.int32)
    ids_bt = np.zeros((len(rows), lengths_b.max()), np.int32)
    for ids_t, row in zip(ids_bt, rows, strict=True):
        ids_t[: len(row)] = row
    return ids_bt, lengths_b


def pool(hidden_bth: FloatArray, lengths_b: IntArray) -> FloatArray:
    """Mean pooling with a mask, as the cards of sentence models show it."""
    mask_bt1 = (np.arange(hidden_bth.shape[1]) < lengths_b[:, None])[:, :, None]
    mean_bh = (hidden_bth * mask_bt1).sum(axis=1) / lengths_b[:, None]
    made: FloatArray = (mean_bh / np.linalg.norm(mean_bh, axis=1, keepdims=True)).astype(np.float32)
    return made


def classify_head(
    vectors_bh: FloatArray, weight_kh: FloatArray, bias_k: FloatArray, temperature: float
) -> list[tuple[list[int], list[float]]]:
    """Labels and their probabilities, best first."""
    scaled_bk = (vectors_bh @ weight_kh.T + bias_k) / temperature
    powers_bk = np.exp(scaled_bk - scaled_bk.max(axis=1, keepdims=True))
    found = []
    for probabilities_k in powers_bk / powers_bk.sum(axis=1, keepdims=True):
        order_k = np.argsort(-probabilities_k, kind="stable")
        found.append((order_k.tolist(), probabilities_k[order_k].tolist()))
    return found


def viterbi(emissions_btk: FloatArray, transitions_kk: FloatArray) -> IntArray:
    """The best tags of rows of one length, vectorized over rows and pairs of tags."""
    rows, tokens, _ = emissions_btk.shape
    best_bk = emissions_btk[:, 0]
    came_from = []
    for t in range(1, tokens):
        scores_bkk = best_bk[:, :, None] + transitions_kk
        came_from.append(scores_bkk.argmax(axis=1))
        best_bk = scores_bkk.max(axis=1) + emissions_btk[:, t]
    tags_bt = np.empty((rows, tokens), np.int32)
    tags_bt[:, -1] = best_bk.argmax(axis=1)
    for t in range(tokens - 1, 0, -1):
        tags_bt[:, t - 1] = came_from[t - 1][np.arange(rows), tags_bt[:, t]]
    return tags_bt


def sample_top_p(logits_v: FloatArray, top_p: float, coin: float) -> int:
    """Draw from the smallest set of tokens whose probabilities reach ``top_p``."""
    order_v = np.argsort(-logits_v, kind="stable")
    powers_v = np.exp(logits_v[order_v] - logits_v[order_v[0]], dtype=np.float64)
    sums_v = np.cumsum(powers_v / powers_v.sum())
    kept_n = np.sort(order_v[: int(np.searchsorted(sums_v, top_p)) + 1])
    weights_n = np.exp(logits_v[kept_n] - logits_v[order_v[0]], dtype=np.float64)
    sums_n = np.cumsum(weights_n)
    drawn = int(np.searchsorted(sums_n, coin * sums_n[-1], side="right"))
    return int(kept_n[min(drawn, len(kept_n) - 1)])


def log_softmax(logits_bv: FloatArray, ids_bn: IntArray) -> FloatArray:
    """Log-probabilities of some tokens of each row."""
    shifted_bv = logits_bv - logits_bv.max(axis=1, keepdims=True)
    sums_b1 = np.log(np.exp(shifted_bv).sum(axis=1, keepdims=True))
    found: FloatArray = np.take_along_axis(shifted_bv, ids_bn, axis=1) - sums_b1
    return found
