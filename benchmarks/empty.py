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
from sprat.benchmarks.answers import typical

METHOD = ("sprat.v1.Sprat", "Classify")
LABELS = 6
"""As many as the task has that is served beside this one."""


async def serve(address: str) -> None:
    """Serve until SIGTERM."""
    reply = codec.classify_response(typical(1, labels=LABELS)).SerializeToString()

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
