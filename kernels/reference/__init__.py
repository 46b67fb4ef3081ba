"""The specification of every kernel, in numpy and plain Python.

The native extensions do the same faster and carry these docstrings; tests run every kernel test on
both and compare results and exceptions. Kernels raise only ValueError, TypeError and MemoryError.

Dimension letters, as suffixes of array names:

=======  ==========================================
``b``    row of a batch
``t``    token position in a row, padding included
``h``    component of a hidden vector
``v``    token of the vocabulary
``w``    32 tokens of the vocabulary, as bits
``n``    token of a row, rows one after the other
=======  ==========================================
"""

from sprat.kernels.reference.logits import (
    argmax,
    bias_logits,
    log_softmax,
    mask_logits,
    penalize_logits,
)
from sprat.kernels.reference.pooling import pool
from sprat.kernels.reference.sampling import sample
from sprat.kernels.reference.utf8 import Utf8Stream

__all__ = [
    "Utf8Stream",
    "argmax",
    "bias_logits",
    "log_softmax",
    "mask_logits",
    "penalize_logits",
    "pool",
    "sample",
]
