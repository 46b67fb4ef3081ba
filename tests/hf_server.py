"""A Hugging Face hub on loopback: enough of its protocol for `huggingface_hub`, and its faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote

LARGE = 10_000
"""From this size on, a file is stored apart and named by its sha256, as git-lfs does."""


@dataclass
class Repository:
    files: dict[str, bytes]
    commit: str
    licence: str | None
    token: str | None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    offset: int
    authorization: str | None


@dataclass
class Hub:
    """Repositories, what was asked for, and what goes wrong.

    Attributes
    ----------
    requests : list of Request
        In the order of their arrival.
    cuts : dict of str to list of int
        By file name: the next download of it ends after so many bytes, without a word.
    stalls : dict of str to int
        By file name: downloads of it stop after so many bytes and wait for `released`.
    stalled, released : threading.Event
        A download has stopped; it may go on.
    lies : dict of str to bytes
        By file name: what is sent in place of the content.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    stalls: dict[str, int] = field(default_factory=dict)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    lies: dict[str, bytes] = field(default_factory=dict)

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        licence: str | None = None,
        token: str | None = None,
    ) -> str:
        """Publish a repository; returns its commit."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories[name] = Repository(dict(files), commit, licence, token)
        return commit

    def downloads(self, file: str) -> list[Request]:
        """The requests for the content of a file, wherever it was stored."""
        return [r for r in self.requests if r.method == "GET" and r.path.endswith(f"/{file}")]

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def _handle(self) -> None:
        path = unquote(self.path.partition("?")[0])
        header = self.headers.get("Range")
        offset = int(header.removeprefix("bytes=").partition("-")[0]) if header else 0
        authorization = self.headers.get("Authorization")
        self.state.requests.append(Request(self.command, path, offset, authorization))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._model_info("/".join(parts[2:4]), parts[5] if parts[4:5] == ["revision"] else None)
        elif parts[0] == "blobs":
            self._blob("/".join(parts[1:3]), "/".join(parts[3:]), offset)
        elif parts[2:3] == ["resolve"]:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._answer(404, {})

    def _repository(self, name: str, revision: str | None) -> Repository | None:
        """The repository, or None after the error was sent."""
        found = self.state.repositories.get(name)
        if found is None or (
            found.token and self.headers.get("Authorization") != f"Bearer {found.token}"
        ):
            self._answer(401, {"X-Error-Message": "Invalid username or password."})
            return None
        if revision not in (None, "main", found.commit):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return found

    def _model_info(self, name: str, revision: str | None) -> None:
        if found := self._repository(name, revision):
            document = {
                "id": name,
                "sha": found.commit,
                "siblings": [{"rfilename": path} for path in found.files],
                "cardData": {"license": found.licence} if found.licence else {},
            }
            self._answer(200, {}, json.dumps(document).encode())

    def _resolve(self, name: str, revision: str, file: str) -> None:
        found = self._repository(name, revision)
        if found is None:
            return
        if file not in found.files:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found.commit})
            return
        content = found.files[file]
        headers = {"X-Repo-Commit": found.commit, "Accept-Ranges": "bytes"}
        if len(content) >= LARGE:
            headers |= {
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
                # Another host, as the real hub's storage is.
                "Location": f"http://localhost:{self.state.port}/blobs/{name}/{file}",
            }
            self._answer(302, headers)
        else:
            blob = b"blob %d\0" % len(content) + content
            self._answer(200, {**headers, "ETag": f'"{hashlib.sha1(blob).hexdigest()}"'}, content)

    def _blob(self, name: str, file: str, offset: int) -> None:
        content = self.state.lies.get(file, self.state.repositories[name].files[file])
        rest = content[offset:]
        self.send_response(206 if offset else 200)
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.state.cuts[file]:
            self.wfile.write(rest[: self.state.cuts[file].pop(0)])
            self.close_connection = True
            return
        if file in self.state.stalls:
            self.wfile.write(rest[: self.state.stalls[file]])
            self.wfile.flush()
            self.state.stalled.set()
            self.state.released.wait(60)
            self.close_connection = True
            return
        self.wfile.write(rest)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
