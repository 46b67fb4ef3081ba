"""Adapters to execution libraries, and how their OpenMP threads wait.

GNU OpenMP threads spin at every barrier until the slowest one arrives, then sleep. By default
they spin for milliseconds: when another process has a core, whole time slices are burnt. Without
spinning, the wake-ups cost more than the work. Decoding SmolLM2-135M in Q8_0 on two cores, tokens/s
on a quiet machine and beside one busy process: 0 turns 20 and 34; 1,000 turns 85 and 21; 20,000
turns 72 and 7. An operator's own ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY`` stands. Read once, when
an engine's library is loaded.
"""

from __future__ import annotations

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
