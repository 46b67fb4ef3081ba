"""sprat: small, quantized language models on ordinary CPUs, privately, behind gRPC.

`Client` and `AsyncClient` talk to a server, `Runtime` does the same work in this process;
`sprat.values` are what they take and return, `sprat.errors` what they raise.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sprat.values import (
    Destination,
    ExtractSpec,
    Grammar,
    Label,
    LabelSet,
    Message,
    Question,
    QuestionSet,
    RouteSet,
    Sampling,
    TransformSpec,
)

if TYPE_CHECKING:
    from sprat.client import AsyncClient, Client
    from sprat.inprocess import Runtime

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Client",
    "Destination",
    "ExtractSpec",
    "Grammar",
    "Label",
    "LabelSet",
    "Message",
    "Question",
    "QuestionSet",
    "RouteSet",
    "Runtime",
    "Sampling",
    "TransformSpec",
    "__version__",
]

_HOMES = {"Client": "sprat.client", "AsyncClient": "sprat.client", "Runtime": "sprat.inprocess"}


def __getattr__(name: str) -> Any:
    # gRPC and the engines are imported by who uses them: `sprat --help` needs neither.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
