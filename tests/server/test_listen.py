"""Addresses: what is allowed, who owns a socket, and real handshakes.

One file, because sockets and TLS are tried with the same server and the same calls.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sprat.config import ServerConfig
from sprat.errors import ConfigError
from sprat.server import listen
from sprat.server.listen import TcpAddress, UnixAddress


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: socket paths are limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sprat-") as path:
        yield Path(path)


# -- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/sprat.sock", UnixAddress(Path("/run/sprat.sock"))),
        ("unix:///run/sprat.sock", UnixAddress(Path("/run/sprat.sock"))),
        ("unix:s", UnixAddress(Path("s").absolute())),
        ("127.0.0.1:8501", TcpAddress("127.0.0.1", 8501)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:8501", TcpAddress("[::1]", 8501)),
        ("0.0.0.0:65535", TcpAddress("0.0.0.0", 65535)),
        ("models.example.org:443", TcpAddress("models.example.org", 443)),
    ],
)
def test_listen_parse(text: str, expected: UnixAddress | TcpAddress) -> None:
    assert listen.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "unix://",
        "8501",
        ":8501",
        "host",
        "host:",
        "host:http",
        "host:65536",
        "host:-1",
        "::1:8501",
        ":::8501",
        "[::1]",
        "[::1:8501",
        "[]:1",
        "a b:1",
        "unix-abstract:name",
        "unix-abstract:1",
        "vsock:1:2",
        "vsock:1",
        "dns:1",
        "ipv4:127.0.0.1:80",
        "tcp://127.0.0.1:80",
        "/run/sprat.sock",
        "host:８５０１",
    ],
)
def test_listen_parse_refuses_anything_else(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        listen.parse(text)
    assert caught.value.path == "server.listen"
    assert repr(text) in caught.value.message


def test_listen_parse_refuses_paths_that_no_socket_can_have() -> None:
    assert listen.parse("unix:/" + "a" * 106) == UnixAddress(Path("/" + "a" * 106))
    with pytest.raises(ConfigError, match="at most 107 bytes") as caught:
        listen.parse("unix:/" + "a" * 107)
    assert "has 108" in caught.value.message
    with pytest.raises(ConfigError, match="has 109"):
        listen.parse("unix:/" + "ü" * 54)


def test_listen_default_is_a_socket_in_the_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAT_HOME", str(folder))
    assert listen.parse(listen.default_address()) == UnixAddress(folder / "run" / "sprat.sock")


# -- exposure --------------------------------------------------------------------------------

TLS = {"tls_certificate": Path("c.pem"), "tls_key": Path("k.pem")}
TOKENS = {"token_file": Path("tokens")}
LOOPBACK = ["127.0.0.1:1", "127.1.2.3:1", "localhost:1", "[::1]:1"]
EXPOSED = [
    "0.0.0.0:1",
    "[::]:1",
    "192.168.1.5:1",
    "10.0.0.1:1",
    "[fe80::1]:1",
    "example.org:1",
    "localhost.example.org:1",
    "127.0.0.1.example.org:1",
    "127.1:1",
]


@pytest.mark.parametrize("text", ["unix:/run/s", *LOOPBACK])
def test_listen_on_this_machine_needs_no_protection(text: str) -> None:
    listen.check_exposure(listen.parse(text), ServerConfig())


@pytest.mark.parametrize("text", EXPOSED)
@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, ["server.tls_certificate and server.tls_key", "server.token_file"]),
        (TLS, ["server.token_file"]),
        (TOKENS, ["server.tls_certificate and server.tls_key"]),
    ],
    ids=["nothing", "tls", "tokens"],
)
def test_listen_beyond_this_machine_needs_tls_and_tokens(
    text: str, given: dict[str, Any], missing: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        listen.check_exposure(listen.parse(text), ServerConfig(**given))
    assert caught.value.path == "server.listen"
    for name in ("server.tls_certificate and server.tls_key", "server.token_file"):
        assert (name in caught.value.message) is (name in missing)
    assert "--insecure" in caught.value.message


@pytest.mark.parametrize("text", EXPOSED)
@pytest.mark.parametrize("given", [{**TLS, **TOKENS}, {"insecure": True}], ids=["both", "insecure"])
def test_listen_beyond_this_machine_with_protection(text: str, given: dict[str, Any]) -> None:
    listen.check_exposure(listen.parse(text), ServerConfig(**given))


# -- binding ---------------------------------------------------------------------------------


async def echo(request: bytes, _: Any) -> bytes:
    return request


def make_server() -> grpc.aio.Server:
    methods: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    return grpc.aio.server(
        handlers=(grpc.method_handlers_generic_handler("t", methods),),
        options=[("grpc.so_reuseport", 0)],
    )


@asynccontextmanager
async def listening(text: str, tls: grpc.ServerCredentials | None = None) -> AsyncIterator[str]:
    server = make_server()
    with listen.bound(server, listen.parse(text), tls) as address:
        await server.start()
        try:
            yield address
        finally:
            await server.stop(None)


async def answers(
    address: str, credentials: grpc.ChannelCredentials | None = None, name: str = ""
) -> bool:
    options = [("grpc.ssl_target_name_override", name)] if name else []
    channel: Any = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, options)
    )
    async with channel:
        try:
            answer: bytes = await channel.unary_unary("/t/Echo")(b"x", timeout=5)
        except grpc.aio.AioRpcError:
            return False
        return answer == b"x"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_listen_socket_is_private(folder: Path) -> None:
    path = folder / "run" / "s.sock"
    before = os.umask(0)
    try:
        async with listening(f"unix:{path}") as address:
            assert address == f"unix:{path}"
            assert mode(path) == 0o600
            assert mode(path.parent) == 0o700
            assert await answers(address)
            assert os.umask(0) == 0, "the mask of the process is as before"
    finally:
        os.umask(before)


async def test_listen_socket_is_gone_afterwards_and_can_be_made_again(folder: Path) -> None:
    path = folder / "s"
    for _ in range(3):
        async with listening(f"unix:{path}") as address:
            assert await answers(address)
        assert not path.exists()


async def test_listen_socket_in_use_by_a_sprat_server(folder: Path) -> None:
    path = folder / "s"
    async with listening(f"unix:{path}") as address:
        with pytest.raises(ConfigError, match="in use by another sprat server"):
            async with listening(f"unix:{path}"):
                pass
        assert await answers(address), "the first server lost its socket"
    assert not path.exists()


async def test_listen_socket_in_use_by_a_stranger(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen(1)
        with pytest.raises(ConfigError, match="in use by another process"):
            async with listening(f"unix:{path}"):
                pass
        assert path.is_socket(), "the stranger lost its socket"


async def test_listen_socket_of_a_busy_stranger(folder: Path) -> None:
    """With its backlog full, a connection is neither taken nor refused."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(str(path))
        with pytest.raises(ConfigError, match="in use by another process"):
            async with listening(f"unix:{path}"):
                pass
        for each in waiting:
            each.close()
        assert path.is_socket()


async def test_listen_socket_of_another_kind(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind(str(path))
        with pytest.raises(ConfigError, match="in use by another process"):
            async with listening(f"unix:{path}"):
                pass
        assert path.is_socket()


async def test_listen_stale_socket_is_taken_over(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen(1)
    assert path.is_socket()
    async with listening(f"unix:{path}") as address:
        assert await answers(address)
        assert mode(path) == 0o600


KILLED = """
import asyncio, sys, grpc.aio
from sprat.server import listen

async def main():
    server = grpc.aio.server()
    with listen.bound(server, listen.parse(sys.argv[1]), None) as address:
        await server.start()
        print(address, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_listen_socket_of_a_killed_server_is_taken_over(folder: Path) -> None:
    path = folder / "s"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, f"unix:{path}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == f"unix:{path}"
    with pytest.raises(ConfigError, match="in use by another sprat server"):
        async with listening(f"unix:{path}"):
            pass
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert path.is_socket()
    async with listening(f"unix:{path}") as address:
        assert await answers(address)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_listen_leaves_what_is_no_socket_alone(folder: Path, kind: str) -> None:
    path = folder / "s"
    target = folder / "precious"
    target.write_text("data")
    if kind == "file":
        path.write_text("data")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    with pytest.raises(ConfigError, match="exists and is no socket"):
        async with listening(f"unix:{path}"):
            pass
    assert path.is_dir() if kind == "folder" else path.read_text() == "data"
    assert path.is_symlink() is (kind == "link")
    assert target.read_text() == "data"


async def test_listen_where_no_folder_can_be(folder: Path) -> None:
    (folder / "file").write_text("data")
    with pytest.raises(ConfigError) as caught:
        async with listening(f"unix:{folder}/file/run/s"):
            pass
    assert caught.value.path == "server.listen"
    assert "cannot be made" in caught.value.message


async def test_listen_after_a_failure_the_address_is_free(folder: Path) -> None:
    path = folder / "s"
    path.write_text("data")
    with pytest.raises(ConfigError):
        async with listening(f"unix:{path}"):
            pass
    path.unlink()
    async with listening(f"unix:{path}") as address:
        assert await answers(address)


async def test_listen_tcp_port_zero_is_chosen(folder: Path) -> None:
    async with listening("127.0.0.1:0") as address:
        host, port = address.split(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
        assert await answers(address)


@pytest.mark.parametrize("stranger", [True, False], ids=["stranger", "sprat"])
async def test_listen_tcp_port_in_use(stranger: bool) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        if stranger:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            with pytest.raises(ConfigError, match="cannot be bound") as caught:
                async with listening(taken):
                    pass
            assert taken in caught.value.message
            return
    async with listening("127.0.0.1:0") as address:
        with pytest.raises(ConfigError, match="cannot be bound"):
            async with listening(address):
                pass
        assert await answers(address)


async def test_listen_tcp_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match="cannot be bound"):
        async with listening("192.0.2.1:0"):
            pass


async def test_listen_tcp_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback on this machine")
    async with listening("[::1]:0") as address:
        assert address.startswith("[::1]:")
        assert await answers(address)


# -- TLS -------------------------------------------------------------------------------------


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    """An authority, a server and a client that it signed, and another authority's client."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed")
    with tempfile.TemporaryDirectory(prefix="sprat-") as path:
        folder = Path(path)
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        for authority, signed in (("ca", ("server", "client")), ("other-ca", ("intruder",))):
            openssl(
                folder, "req", "-x509", *new_key, "-days", "2", "-subj", f"/CN={authority}",
                "-keyout", f"{authority}.key", "-out", f"{authority}.pem",
            )  # fmt: skip
            for name in signed:
                openssl(
                    folder, "req", *new_key, "-subj", f"/CN={name}",
                    "-keyout", f"{name}.key", "-out", f"{name}.csr",
                )  # fmt: skip
                openssl(
                    folder, "x509", "-req", "-days", "2", "-in", f"{name}.csr",
                    "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial",
                    "-extfile", "names", "-out", f"{name}.pem",
                )  # fmt: skip
        openssl(
            folder, "ec", "-in", "server.key", "-aes256", "-passout", "pass:secret",
            "-out", "locked.key",
        )  # fmt: skip
        yield folder


def server_tls(folder: Path, *, mutual: bool = False, **changes: Path) -> ServerConfig:
    files = {"tls_certificate": folder / "server.pem", "tls_key": folder / "server.key"}
    if mutual:
        files["tls_client_ca"] = folder / "ca.pem"
    return ServerConfig(**{**files, **changes})  # type: ignore[arg-type]


def client_tls(folder: Path, name: str | None = None, ca: str = "ca") -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        (folder / f"{ca}.pem").read_bytes(),
        (folder / f"{name}.key").read_bytes() if name else None,
        (folder / f"{name}.pem").read_bytes() if name else None,
    )


def test_listen_without_certificates_there_is_no_tls() -> None:
    assert listen.credentials(ServerConfig()) is None


async def test_listen_tls(certificates: Path) -> None:
    tls = listen.credentials(server_tls(certificates))
    async with listening("127.0.0.1:0", tls) as address:
        assert await answers(address, client_tls(certificates))
        assert not await answers(address, client_tls(certificates, ca="other-ca"))
        assert not await answers(address), "plain text was answered"


async def test_listen_mutual_tls(certificates: Path) -> None:
    tls = listen.credentials(server_tls(certificates, mutual=True))
    async with listening("127.0.0.1:0", tls) as address:
        assert await answers(address, client_tls(certificates, "client"))
        assert not await answers(address, client_tls(certificates))
        assert not await answers(address, client_tls(certificates, "intruder"))


@pytest.mark.parametrize("setting", ["tls_certificate", "tls_key", "tls_client_ca"])
def test_listen_tls_file_that_cannot_be_used(certificates: Path, setting: str) -> None:
    for path, message in (
        (certificates / "none.pem", "No such file"),
        (certificates, "Is a directory"),
        (certificates / "names", "is no PEM file"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            listen.credentials(server_tls(certificates, mutual=True, **{setting: path}))
        assert caught.value.path == f"server.{setting}"


@pytest.mark.parametrize(
    "changes",
    [
        {"tls_key": "client.key"},
        {"tls_key": "server.pem"},
        {"tls_certificate": "server.key"},
        {"tls_certificate": "cut.pem"},
        {"tls_key": "locked.key"},
        {"tls_client_ca": "server.key"},
    ],
    ids=["key of another", "no key", "no certificate", "cut", "with a password", "no authority"],
)
async def test_listen_tls_files_that_do_not_fit(
    certificates: Path, changes: dict[str, str]
) -> None:
    whole = (certificates / "server.pem").read_bytes()
    (certificates / "cut.pem").write_bytes(whole[: len(whole) // 2])
    files: dict[str, Any] = {name: certificates / file for name, file in changes.items()}
    config = server_tls(certificates, **files)
    with pytest.raises(ConfigError) as caught:
        async with listening("127.0.0.1:0", listen.credentials(config)):
            pass
    setting = "tls_client_ca" if "tls_client_ca" in changes else "tls_certificate"
    assert caught.value.path == f"server.{setting}"
    assert "cannot be used" in caught.value.message
