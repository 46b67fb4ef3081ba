"""Where the server listens: a private Unix socket, or TCP with the protection that it needs."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from filelock import FileLock, Timeout

from sprat.config import ServerConfig
from sprat.errors import ConfigError
from sprat.store import home

WHERE = "server.listen"
MAX_SOCKET_PATH_BYTES = 107
_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock")


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP address; port 0 lets the kernel choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def default_address() -> str:
    """``unix:`` and the socket below the sprat home."""
    return f"unix:{home() / 'run' / 'sprat.sock'}"


def parse(text: str) -> UnixAddress | TcpAddress:
    """Read ``unix:PATH`` or ``HOST:PORT``.

    Raises
    ------
    ConfigError
        For anything else.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and (name := rest.removeprefix("//")):
        path = Path(name).absolute()
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise ConfigError(
                WHERE,
                f"a socket path has at most {MAX_SOCKET_PATH_BYTES} bytes, "
                f"{path} has {len(os.fsencode(path))}",
            )
        return UnixAddress(path)
    return parse_tcp(text, WHERE, expected="unix:PATH or HOST:PORT")


def parse_tcp(text: str, where: str, *, expected: str = "HOST:PORT") -> TcpAddress:
    """Read ``HOST:PORT`` of the setting ``where``.

    Raises
    ------
    ConfigError
        For anything but what is ``expected``.
    """
    host, _, port = text.rpartition(":")
    is_port = re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535
    if not is_port or not _is_host(host):
        raise ConfigError(
            where, f"expected {expected} (an IPv6 HOST in square brackets), got {text!r}"
        )
    return TcpAddress(host, int(port))


def _is_host(text: str) -> bool:
    if not text.startswith("["):
        # gRPC takes the names of its schemes for more than names of hosts.
        return text not in _SCHEMES and re.fullmatch(r"[A-Za-z0-9.-]+", text) is not None
    try:
        return text.endswith("]") and ipaddress.ip_address(text[1:-1]).version == 6
    except ValueError:
        return False


def check_exposure(address: UnixAddress | TcpAddress, config: ServerConfig) -> None:
    """Refuse TCP beyond loopback without both TLS and a token file, unless insecure is set.

    Raises
    ------
    ConfigError
        Says what is missing.
    """
    if isinstance(address, UnixAddress) or address.is_loopback or config.insecure:
        return
    missing = [
        name
        for name, value in (
            ("server.tls_certificate and server.tls_key", config.tls_certificate),
            ("server.token_file", config.token_file),
        )
        if value is None
    ]
    if missing:
        raise ConfigError(
            WHERE,
            f"{address} can be reached from other machines: {' and '.join(missing)} needed "
            "(or --insecure, on a network that you trust)",
        )


def credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """TLS credentials from the configured PEM files; None without TLS.

    Raises
    ------
    ConfigError
        Names the setting whose file cannot be read or used.
    """
    if config.tls_certificate is None or config.tls_key is None:
        return None
    key = _read("server.tls_key", config.tls_key)
    certificate = _read("server.tls_certificate", config.tls_certificate)
    client_ca = (
        None
        if config.tls_client_ca is None
        else _read("server.tls_client_ca", config.tls_client_ca)
    )
    _check_tls(config.tls_certificate, config.tls_key, config.tls_client_ca)
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def _check_tls(certificate: Path, key: Path, client_ca: Path | None) -> None:
    """Refuse what gRPC would only refuse when it binds, and then without a reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    where = "server.tls_certificate"
    try:
        # The password keeps OpenSSL from asking the terminal for one.
        context.load_cert_chain(certificate, key, password="")
        if client_ca is not None:
            where = "server.tls_client_ca"
            context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        files = f"{certificate} with {key}" if where == "server.tls_certificate" else client_ca
        raise ConfigError(where, f"{files} cannot be used ({error.reason})") from None


def _read(where: str, path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(where, f"{path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ConfigError(where, f"{path} is no PEM file")
    return data


@contextlib.contextmanager
def bound(
    server: grpc.aio.Server,
    address: UnixAddress | TcpAddress,
    tls: grpc.ServerCredentials | None,
) -> Iterator[str]:
    """Bind a server that has not started; yields the address to connect to.

    A Unix socket is 0600 in a folder that is made 0700; it is removed at the end. A socket left
    behind by a killed server is taken over, one in use is not.

    Raises
    ------
    ConfigError
        When the address is in use or cannot be bound.
    """
    if isinstance(address, TcpAddress):
        port = _bind(server, str(address), tls)
        yield str(TcpAddress(address.host, port))
        return
    path = address.path
    lock = FileLock(f"{path}.lock", timeout=0, mode=0o600)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ConfigError(WHERE, f"{address} is in use by another sprat server") from None
    except OSError as error:
        raise ConfigError(WHERE, f"{address} cannot be made: {error.strerror}") from None
    try:
        _remove_stale(path)
        mask = os.umask(0o177)
        try:
            _bind(server, str(address), tls)
        finally:
            os.umask(mask)
        try:
            yield str(address)
        finally:
            path.unlink(missing_ok=True)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _bind(server: grpc.aio.Server, address: str, tls: grpc.ServerCredentials | None) -> int:
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls)
    except RuntimeError:
        raise ConfigError(
            WHERE, f"{address} cannot be bound: in use, not permitted, or not of this machine"
        ) from None


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody serves; anything else in its place is an error."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(WHERE, f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        # A full backlog must not block; anything but a refusal is somebody's socket.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise ConfigError(WHERE, f"unix:{path} is in use by another process")
