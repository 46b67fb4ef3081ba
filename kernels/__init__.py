"""Our own compute kernels: C++ behind thin bindings, each with a twin in numpy or plain Python.

Environment
-----------
SPRAT_KERNELS : {"native", "reference"}, default "native"
    Which implementation this package re-exports.
SPRAT_ISA : {"avx2", "baseline"}, optional
    Forces a variant of the native kernels. By default the best one for this CPU. A kernel has an
    AVX2 variant only where that is 1.3 times as fast; else it runs on the instruction set that the
    compiler targets (SSE2 on x86-64).

Both are read once, at import; another value is a ValueError.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

implementation: Literal["native", "reference"]
"""The implementation in use."""

isa: str
"""The variant of the native kernels in use; ``"python"`` under the reference implementation."""


def _choice(variable: str, choices: tuple[str, ...]) -> str:
    value = os.environ.get(variable, choices[0])
    if value not in choices:
        raise ValueError(f"{variable}: expected {' or '.join(sorted(choices))}, got {value!r}")
    return value


if _choice("SPRAT_KERNELS", ("native", "reference")) == "reference" and not TYPE_CHECKING:
    from sprat.kernels.reference import (
        Embedded,
        NgramIndex,
        Ragged,
        StaticEmbedding,
        StopMatcher,
        Utf8Stream,
        WordPiece,
        WordPieceSettings,
        argmax,
        bias_logits,
        chunk,
        classify_head,
        embedding_bag,
        length_order,
        log_softmax,
        mask_logits,
        pack,
        penalize_logits,
        pool,
        sample,
        score_trie,
        viterbi,
    )

    implementation = "reference"
    isa = "python"
else:
    try:
        from sprat.kernels._array import (
            AVX2,
            chunk,
            classify_head,
            embedding_bag,
            length_order,
            pack,
            pool,
        )
        from sprat.kernels._labels import score_trie, viterbi
        from sprat.kernels._logits import (
            argmax,
            bias_logits,
            log_softmax,
            mask_logits,
            penalize_logits,
            sample,
        )
        from sprat.kernels._text import NgramIndex, StopMatcher, Utf8Stream
        from sprat.kernels._wordpiece import (
            Embedded,
            Ragged,
            StaticEmbedding,
            WordPiece,
            WordPieceSettings,
        )
    except ImportError as error:
        raise ImportError(
            f"the native kernels of sprat cannot be loaded ({error}). Install sprat again for this"
            " Python: pip install --force-reinstall --no-deps sprat, or pip install . in a source"
            " tree, with g++ present. SPRAT_KERNELS=reference runs the slower Python twins instead"
        ) from error
    implementation = "native"
    isa = _choice("SPRAT_ISA", ("avx2", "baseline") if AVX2 else ("baseline", "avx2"))
    if isa == "avx2" and not AVX2:
        raise ValueError(
            "SPRAT_ISA: avx2 was asked for, but this CPU does not have AVX2, FMA and F16C"
        )

__all__ = [
    "Embedded",
    "NgramIndex",
    "Ragged",
    "StaticEmbedding",
    "StopMatcher",
    "Utf8Stream",
    "WordPiece",
    "WordPieceSettings",
    "argmax",
    "bias_logits",
    "chunk",
    "classify_head",
    "embedding_bag",
    "implementation",
    "isa",
    "length_order",
    "log_softmax",
    "mask_logits",
    "pack",
    "penalize_logits",
    "pool",
    "sample",
    "score_trie",
    "viterbi",
]
