"""Builds the package map and the native kernels; everything else is in pyproject.toml.

Environment
-----------
SPRAT_DEBUG=1
    Native code unoptimized, with debug symbols and with the assertions of the C++ library.
SPRAT_SANITIZE=1
    The same under AddressSanitizer and UndefinedBehaviorSanitizer. Python then needs their library
    and that of C++, for its exceptions, from the start: see tests/kernels/test_sanitized.py.
"""

from __future__ import annotations

import os
from glob import glob

import numpy as np
from Cython.Build import cythonize
from pybind11.setup_helpers import Pybind11Extension
from setuptools import Extension, setup

PACKAGES = {
    "sprat": "runtime",
    "sprat.cli": "runtime/cli",
    "sprat.client": "runtime/client",
    "sprat.codec": "runtime/codec",
    "sprat.demo": "runtime/demo",
    "sprat.endpoints": "runtime/endpoints",
    "sprat.engine": "runtime/engine",
    "sprat.model": "runtime/model",
    "sprat.scheduler": "runtime/scheduler",
    "sprat.server": "runtime/server",
    "sprat.tasks": "runtime/tasks",
    "sprat.text": "runtime/text",
    "sprat.train": "runtime/train",
    "sprat.kernels": "kernels",
    "sprat.kernels.reference": "kernels/reference",
    "sprat.quantize": "quantize",
    "sprat.proto": "proto",
    "sprat.proto.v1": "proto/v1",
    "sprat.benchmarks": "benchmarks",
}

DEBUG = ["-O0", "-g", "-UNDEBUG", "-D_GLIBCXX_ASSERTIONS"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def switch(variable: str) -> bool:
    """Whether an environment variable is 1; unset, empty and 0 say no."""
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"{variable}: expected 0 or 1, got {value!r}")
    return value == "1"


def extensions() -> list[Extension]:
    """List the native modules: what each is built from, with one set of flags for all."""
    sanitize = switch("SPRAT_SANITIZE")
    compile_flags = DEBUG if sanitize or switch("SPRAT_DEBUG") else ["-O3", "-g0"]
    link_flags = SANITIZE if sanitize else []
    shared = {
        "include_dirs": ["kernels/include", "kernels", np.get_include()],
        "depends": sorted(glob("kernels/**/*.hpp", recursive=True)),
        "extra_compile_args": ["-std=c++17", "-Wall", "-Wextra", *compile_flags, *link_flags],
        "extra_link_args": link_flags,
        "language": "c++",
    }
    return [
        Pybind11Extension("sprat.kernels._array", ["kernels/_array.cpp"], **shared),
        Pybind11Extension("sprat.kernels._labels", ["kernels/_labels.cpp"], **shared),
        Pybind11Extension("sprat.kernels._logits", ["kernels/_logits.cpp"], **shared),
        *cythonize(
            [
                Extension("sprat.kernels._text", ["kernels/_text.pyx"], **shared),
                Extension("sprat.kernels._wordpiece", ["kernels/_wordpiece.pyx"], **shared),
            ],
            build_dir="build/cython",
            quiet=True,
        ),
    ]


setup(package_dir=PACKAGES, packages=list(PACKAGES), ext_modules=extensions())
