"""A server of the same gRPC that computes nothing: what a call costs before sprat does anything.

``python -m sprat.benchmarks.empty --listen ADDRESS``
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import Any

import grpc
import grpc.aio

from sprat import codec
from sprat.values import Classification, ClassifyResult, LabelScore, Timings

METHOD = ("sprat.v1.Sprat", "Classify")
LABELS = 6
"""As many as the task has that is served beside this one."""


def answer() -> bytes:
    """A serialized ClassifyResponse of the size that a real one has."""
    scores = tuple(LabelScore(f"label-{index}", 1 / LABELS) for index in range(LABELS))
    item = Classification(scores[0].label, scores[0].score, scores, input_tokens=16)
    result = ClassifyResult(
        items=(item,),
        errors=(),
        model="minilm-l6",
        model_version="0" * 12,
        task_version="0" * 12,
        calibrated=True,
        timings=Timings(1, 1, 1, 1),
    )
    return codec.classify_response(result).SerializeToString()


async def serve(address: str) -> None:
    """Serve until SIGTERM."""
    reply = answer()

    async def classify(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return reply

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server()
    service, name = METHOD
    handler = grpc.unary_unary_rpc_method_handler(classify)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: handler}),)
    )
    server.add_insecure_port(address)
    await server.start()
    print(f"ready {address} (0.00 s)", flush=True)
    await stop.wait()
    await server.stop(None)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="address, such as unix:/tmp/empty.sock")
    asyncio.run(serve(parser.parse_args().listen))


if __name__ == "__main__":
    main()
