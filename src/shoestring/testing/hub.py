"""A model hub on this machine that speaks the hub's protocol, and its faults on demand.

Two servers on 127.0.0.1: the hub, which knows what a file is, and its CDN, which has the bytes of
large files. Two ports are two origins, so a token that leaks to the CDN is seen here. Every
request is recorded with its headers. ::

    with running_hub({"owner/repo": {"model.gguf": content}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.faults.cut_after = [1_000_000]  # the first body ends after so many bytes
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HOLD_TIMEOUT_S = 60.0  # a test that forgets to go on fails, and does not hang
PIECE_BYTES = 1 << 16
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)")


@dataclass(frozen=True)
class Seen:
    """One request: at which server, what, and with which headers (names in lower case)."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Refusal:
    """What a server answers once instead of what was asked for.

    Attributes:
        server: ``hub`` or ``cdn``.
        status: of the answer.
        headers: of the answer, for example ``Retry-After`` or ``X-Error-Code``.
    """

    server: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Faults:
    """What goes wrong; change it at any time. Lists are used up from the front, one a request.

    Attributes:
        token: without it as Bearer, 401 (as for a repository that does not exist).
        gated: of these repositories no file is given, 403 and ``GatedRepo``.
        refusals: answers instead of the next ones.
        cut_after: bytes after which a body is cut, one for each of the next bodies.
        hold_after: bytes after which a body waits for ``go_on``, once ``reached`` is set.
        ignore_range: a body is always sent whole.
        cdn_etag: what the CDN calls the bytes; None: it does not say.
        cdn_content: what the CDN has, if it is not what the hub names.
        undeclared: the CDN gives no ``Content-Length``, and ends the body by closing.
        bare: the hub names neither digest nor size.
    """

    token: str | None = None
    gated: set[str] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    hold_after: int | None = None
    ignore_range: bool = False
    cdn_etag: str | None = '"cdn-1"'
    cdn_content: bytes | None = None
    undeclared: bool = False
    bare: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class LocalHub:
    """The state that both servers share.

    Args:
        repos: repository → file → content; change it to push another version.
        small: files that the hub sends itself, named by git's SHA-1.
    """

    def __init__(self, repos: dict[str, dict[str, bytes]], small: frozenset[str]) -> None:
        self.repos, self.small = repos, small
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.renamed: dict[str, str] = {}
        self.endpoint = self.cdn = ""
        self._lock = threading.Lock()

    def commit(self, repo: str) -> str:
        """Return the commit that ``main`` of a repository is now: of all its contents."""
        digest = hashlib.sha1(usedforsecurity=False)
        for file, content in sorted(self.repos[repo].items()):
            digest.update(file.encode())
            digest.update(content)
        return digest.hexdigest()

    def bodies(self) -> list[Seen]:
        """Return the requests that asked for bytes."""
        return [s for s in self.seen if s.method == "GET" and not s.path.startswith("/api/")
                and (s.server == "cdn" or s.path.rsplit("/", 1)[-1] in self.small)]  # fmt: skip

    def record(self, seen: Seen) -> Refusal | None:
        """Keep a request; return the refusal that it is to meet."""
        with self._lock:
            self.seen.append(seen)
            for number, refusal in enumerate(self.faults.refusals):
                if refusal.server == seen.server:
                    return self.faults.refusals.pop(number)
        return None

    def next_cut(self) -> int | None:
        """Return after how many bytes the next body is cut."""
        with self._lock:
            return self.faults.cut_after.pop(0) if self.faults.cut_after else None


@contextmanager
def running_hub(
    repos: dict[str, dict[str, bytes]], *, small: frozenset[str] = frozenset()
) -> Iterator[LocalHub]:
    """Run a hub and its CDN on 127.0.0.1 until the block ends."""
    hub = LocalHub(repos, small)
    servers = [_start(hub, _HubHandler), _start(hub, _CdnHandler)]
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server, _ in servers)
    try:
        yield hub
    finally:
        hub.faults.go_on.set()
        for server, thread in servers:
            server.shutdown()
            server.server_close()
            thread.join()


def _start(hub: LocalHub, handler: type[_Handler]) -> tuple[ThreadingHTTPServer, threading.Thread]:
    bound = type(handler.__name__, (handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = False  # server_close() waits for their ends
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    return server, thread


class _Handler(ABC, BaseHTTPRequestHandler):
    """What both servers do: record, refuse if told so, answer; one request a connection."""

    protocol_version = "HTTP/1.1"
    server_name = ""
    hub: LocalHub

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
        """Keep quiet."""

    @abstractmethod
    def answer(self, path: str) -> None:
        """Answer a request that is not refused."""

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        refusal = self.hub.record(Seen(self.server_name, self.command, path, headers))
        try:
            if refusal is not None:
                self.say(refusal.status, dict(refusal.headers))
            else:
                self.answer(path)
        except OSError:  # the client went away, as a killed one does
            self.close_connection = True

    def say(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        """Send an answer whose length is declared, unless ``headers`` say another one."""
        self.begin(status, {"Content-Length": str(len(body))} | headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send the head of an answer."""
        self.send_response(status)
        for name, value in (headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()

    def send_content(self, content: bytes, etag: str | None) -> None:
        """Send a content, or the rest of it that was asked for, with the faults that are due."""
        faults = self.hub.faults
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range") in {None, etag}
        first = int(asked[1]) if asked and fresh and not faults.ignore_range else 0
        headers = {"Accept-Ranges": "bytes"} | ({"ETag": etag} if etag else {})
        if first >= len(content) and first:
            self.say(416, headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        body = content[first:]
        if not faults.undeclared:
            headers["Content-Length"] = str(len(body))
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.begin(206 if first else 200, headers)
        if self.command != "HEAD":
            self._write_body(body)

    def _write_body(self, body: bytes) -> None:
        faults, cut = self.hub.faults, self.hub.next_cut()
        hold = faults.hold_after
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            if cut is not None and start + len(piece) > cut:
                self.wfile.write(piece[: cut - start])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(piece)
            if hold is not None and start + len(piece) >= hold:
                hold = None
                self.wfile.flush()
                faults.reached.set()
                faults.go_on.wait(HOLD_TIMEOUT_S)


class _HubHandler(_Handler):
    """Knows repositories, commits, digests, and who may read."""

    server_name = "hub"

    def answer(self, path: str) -> None:
        faults = self.hub.faults
        found = RESOLVE.fullmatch(path) or TREE.fullmatch(path)
        if found is None:
            self.say(404, {})
            return
        repo, revision = found[1], unquote(found[2])
        if repo in self.hub.renamed:
            self.say(307, {"Location": path.replace(repo, self.hub.renamed[repo])})
            return
        given = self.headers.get("Authorization")
        if faults.token is not None and given != f"Bearer {faults.token}":
            message = "Invalid credentials in Authorization header" if given else ""
            self.say(401, {"X-Error-Message": message} if given else {})
        elif repo not in self.hub.repos:
            self.say(401 if given is None else 404, {"X-Error-Code": "RepoNotFound"})
        elif repo in faults.gated:
            self.say(403 if given else 401, {"X-Error-Code": "GatedRepo"})
        elif revision not in {"main", "v1", self.hub.commit(repo)}:
            self.say(404, {"X-Error-Code": "RevisionNotFound"})
        elif found.re is TREE:
            self._list(repo)
        else:
            self._resolve(repo, unquote(found[3]))

    def _list(self, repo: str) -> None:
        entries = [{"type": "file", "path": path, "size": len(content)}
                   for path, content in self.hub.repos[repo].items()]  # fmt: skip
        self.say(200, {"Content-Type": "application/json"}, json.dumps(entries).encode())

    def _resolve(self, repo: str, file: str) -> None:
        content = self.hub.repos[repo].get(file)
        if content is None:
            self.say(404, {"X-Error-Code": "EntryNotFound"})
        elif self.hub.faults.bare:
            self.say(200, {}, content)
        elif file in self.hub.small:
            digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
            digest.update(content)
            self.send_content(content, f'"{digest.hexdigest()}"')
        else:
            self.say(302, {
                "Location": f"{self.hub.cdn}/{repo}/{file}?signature=abc",
                "X-Repo-Commit": self.hub.commit(repo),
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "x-linked-size": str(len(content)),
            }, b"Found. Redirecting")  # fmt: skip


class _CdnHandler(_Handler):
    """Has bytes, asks nobody who he is."""

    server_name = "cdn"

    def answer(self, path: str) -> None:
        owner, repo, file = unquote(path).lstrip("/").split("/", 2)
        faults = self.hub.faults
        content = self.hub.repos[f"{owner}/{repo}"][file]
        if faults.cdn_content is not None:
            content = faults.cdn_content
        self.send_content(content, faults.cdn_etag)
