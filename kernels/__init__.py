"""Our own compute kernels: C++ behind thin bindings, each with a twin in numpy or plain Python.

Environment
-----------
SPRAT_KERNELS : {"native", "reference"}, default "native"
    Which implementation this package re-exports.
SPRAT_ISA : {"baseline"}, optional
    Forces a variant of the native kernels. By default the best one for this CPU; today every
    kernel has one variant, for the instruction set that the compiler targets (SSE2 on x86-64).

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
        raise ValueError(f"{variable}: expected {' or '.join(choices)}, got {value!r}")
    return value


if _choice("SPRAT_KERNELS", ("native", "reference")) == "reference" and not TYPE_CHECKING:
    from sprat.kernels.reference import Utf8Stream, pool

    implementation = "reference"
    isa = "python"
else:
    isa = _choice("SPRAT_ISA", ("baseline",))
    try:
        from sprat.kernels._array import pool
        from sprat.kernels._text import Utf8Stream
    except ImportError as error:
        raise ImportError(
            f"the native kernels of sprat cannot be loaded ({error}). Install sprat again for this"
            " Python: pip install --force-reinstall --no-deps sprat, or pip install . in a source"
            " tree, with g++ present. SPRAT_KERNELS=reference runs the slower Python twins instead"
        ) from error
    implementation = "native"

__all__ = ["Utf8Stream", "implementation", "isa", "pool"]
