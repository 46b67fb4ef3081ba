"""Bearer tokens: a file of hashes, and the interceptor that asks every call for one."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from sprat.errors import ConfigError, Unauthenticated
from sprat.server import status

_LINE = re.compile(r"sha256:([0-9a-f]{64})")
OPEN_SERVICES = ("/grpc.health.v1.Health/",)
"""Probes carry no credentials, and health says nothing about anybody's data."""


def hash_token(token: str) -> str:
    """A token as it stands in a token file."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A fresh token of 256 random bits."""
    return "sprat_" + secrets.token_urlsafe(32)


def read_token_file(path: Path) -> tuple[str, ...]:
    """The hashes in a token file; blank lines and ``#`` comments are skipped.

    Raises
    ------
    ConfigError
        When it cannot be read, holds a line of another form, or no token at all.
    """
    where = "server.token_file"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(where, f"{path} cannot be read ({type(error).__name__})") from None
    hashes = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if not _LINE.fullmatch(text):
            raise ConfigError(
                where,
                f"{path}:{number}: expected `sha256:` and 64 hex digits; see `sprat token`",
            )
        hashes.append(text)
    if not hashes:
        raise ConfigError(where, f"{path} holds no token; make one with `sprat token`")
    return tuple(hashes)


class BearerTokens(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses calls without a known ``authorization: Bearer`` token.

    Parameters
    ----------
    hashes : tuple of str
        As `read_token_file` returns them.
    """

    def __init__(self, hashes: tuple[str, ...]) -> None:
        self._hashes = hashes

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Let a call through, or answer it with UNAUTHENTICATED."""
        if handler_call_details.method.startswith(OPEN_SERVICES):
            return await continuation(handler_call_details)
        given = dict(handler_call_details.invocation_metadata).get("authorization")
        if isinstance(given, str) and self._is_known(given):
            return await continuation(handler_call_details)
        what = "expected metadata `authorization: Bearer <token>`"
        error = Unauthenticated(f"{what}, got none" if given is None else "unknown token")

        async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await status.abort(context, error)

        # A stream handler reads nothing before it answers: it fits methods of every kind.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _is_known(self, value: str) -> bool:
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            return False
        given = hash_token(token.strip())
        return any(hmac.compare_digest(given, known) for known in self._hashes)
