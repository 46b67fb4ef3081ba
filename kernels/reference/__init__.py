"""The specification of every kernel, in numpy and plain Python.

The native extensions do the same faster and carry these docstrings; tests run every kernel test on
both and compare results and exceptions. Kernels raise only ValueError, TypeError and MemoryError.

Dimension letters, as suffixes of array names:

=======  ===================================================
``b``    row of a batch
``m``    row of those that are taken from a batch
``n``    item of a flat list: the tokens of all rows, nodes
``r``    row of logits
``t``    token position in a row, padding included
``h``    component of a hidden vector
``k``    label or tag
``v``    token of the vocabulary
``w``    32 tokens of the vocabulary, as bits
=======  ===================================================
"""

from sprat.kernels.reference.chunking import chunk
from sprat.kernels.reference.embedding import embedding_bag
from sprat.kernels.reference.head import classify_head
from sprat.kernels.reference.logits import (
    argmax,
    bias_logits,
    log_softmax,
    mask_logits,
    penalize_logits,
)
from sprat.kernels.reference.ngram import NgramIndex
from sprat.kernels.reference.packing import length_order, pack
from sprat.kernels.reference.pooling import pool
from sprat.kernels.reference.sampling import sample
from sprat.kernels.reference.static import Embedded, StaticEmbedding
from sprat.kernels.reference.stop import StopMatcher
from sprat.kernels.reference.tagging import viterbi
from sprat.kernels.reference.trie import score_trie
from sprat.kernels.reference.utf8 import Utf8Stream
from sprat.kernels.reference.wordpiece import Ragged, WordPiece
from sprat.kernels.reference.wordpiece_settings import WordPieceSettings

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
