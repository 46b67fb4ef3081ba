"""The specification of every kernel, in numpy and plain Python.

The native extensions do the same faster and carry these docstrings; tests run every kernel test on
both and compare results and exceptions. Kernels raise only ValueError, TypeError and MemoryError.

Dimension letters, as suffixes of array names:

=======  ==========================================
``b``    row of a batch
``t``    token position in a row, padding included
``h``    component of a hidden vector
=======  ==========================================
"""

from sprat.kernels.reference.pooling import pool
from sprat.kernels.reference.utf8 import Utf8Stream
from sprat.kernels.reference.wordpiece import Ragged, WordPiece
from sprat.kernels.reference.wordpiece_settings import WordPieceSettings

__all__ = ["Ragged", "Utf8Stream", "WordPiece", "WordPieceSettings", "pool"]
