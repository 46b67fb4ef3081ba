"""Adapters to execution libraries, and how their OpenMP threads wait.

GNU OpenMP spins at every barrier until the slowest thread arrives. When another process has that
thread's core, whole time slices are burnt: on a busy machine two llama.cpp threads then decode ten
times slower than with waiting in the kernel, which costs little on a quiet one. An operator's own
``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY`` stands. Read once, when an engine's library is loaded.
"""

from __future__ import annotations

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
