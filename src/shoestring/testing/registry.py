"""A registry of models on this machine, from which a real Ollama pulls.

It speaks what Ollama asks of one: ``GET /v2/NAMESPACE/MODEL/manifests/TAG`` and
``/v2/NAMESPACE/MODEL/blobs/DIGEST``, which sends on to another host name, where the bytes are given
in ranges; all over TLS. Ollama takes no plain HTTP without being told to, so the certificate is one
of our own; ``SSL_CERT_FILE`` has Ollama trust it.
Source: ``server/download.go`` and ``server/images.go`` of Ollama; the OCI distribution
specification.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMESPACE = "library"

PATIENCE_S = 60.0


@dataclass
class Registry:
    """A running registry.

    Attributes:
        host: ``127.0.0.1:PORT``; a model's name begins with it.
        certificate: PEM file for ``SSL_CERT_FILE``.
        asked: the paths that were asked for.
    """

    host: str
    certificate: Path
    asked: list[str] = field(default_factory=list)

    def name(self, model: str) -> str:
        """Return the name by which Ollama pulls a model from here."""
        return f"{self.host}/{NAMESPACE}/{model}"


@contextmanager
def running_registry(
    models: dict[str, bytes], folder: Path, *, go_on: threading.Event
) -> Iterator[Registry]:
    """Serve GGUF files as models, each with the tag ``latest``.

    Args:
        models: content by name.
        folder: gets key and certificate.
        go_on: the last byte of each blob waits for it, :data:`PATIENCE_S` at most.

    Raises:
        OSError: there is no ``openssl`` to make them with.
    """
    blobs: dict[str, bytes] = {}
    manifests = {name: _manifest(content, blobs) for name, content in models.items()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    registry = Registry(f"127.0.0.1:{server.server_port}", folder / "registry.pem")

    class Handler(BaseHTTPRequestHandler):
        """Answers from memory."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Send a manifest; send on to where a blob's bytes are; send these."""
            registry.asked.append(self.path)
            content = self._find()
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            elif "/blobs/" in self.path:
                self.send_response(HTTPStatus.TEMPORARY_REDIRECT)
                digest = self.path.rpartition("/")[2]
                self.send_header("Location", f"https://localhost:{server.server_port}/{digest}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                body = self._head(content)
                self.wfile.write(body[:-1])
                if "/manifests/" not in self.path:
                    go_on.wait(PATIENCE_S)
                self.wfile.write(body[-1:])

        def do_HEAD(self) -> None:
            """Say how large a blob is."""
            content = self._find()
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._head(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _find(self) -> bytes | None:
            *_, model, kind, reference = ("", "", *self.path.split("/"))
            return manifests.get(model) if kind == "manifests" else blobs.get(reference)

        def _head(self, content: bytes) -> bytes:
            """Send the head of an answer; return its body."""
            first, last = _range(self.headers.get("Range", ""), len(content))
            whole = last - first + 1 == len(content)
            self.send_response(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            return content[first : last + 1]

    server.RequestHandlerClass = Handler
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(registry.certificate, _make_key(registry.certificate))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _manifest(model: bytes, blobs: dict[str, bytes]) -> bytes:
    """Return the manifest of a model, and put what it names among the blobs."""

    def layer(kind: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    settings = json.dumps({"model_format": "gguf", "os": "linux", "architecture": "amd64"}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("application/vnd.docker.container.image.v1+json", settings),
        "layers": [layer("application/vnd.ollama.image.model", model)],
    }
    return json.dumps(manifest).encode()


def _range(asked: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte of what a client asks for."""
    first, _, last = asked.removeprefix("bytes=").partition("-")
    return int(first or 0), min(int(last or size - 1), size - 1)


def _make_key(certificate: Path) -> Path:
    """Make a key and a certificate for this machine, good for a day."""
    key = certificate.with_suffix(".key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return key
