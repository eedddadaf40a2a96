"""Files that come over HTTP in many pieces, and are either absent or whole.

The bytes of ``FILE`` go to ``FILE.partial``, which outlives the process: whoever asks next goes on
where the last one stopped, by ``Range``. ``FILE.partial.etag`` says whose bytes they are: the
digest that names the content, and the validator (``ETag``) and origin of the server that sent
them. ``If-Range`` is only sent to that same origin: another server's validator means nothing to
it and would cost a download from the start. Whatever was pieced together, the digest of the whole
decides (see :mod:`shoestring.models.hub`).
A file lock admits one process at a time; the kernel takes it back when a process dies.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from shoestring.errors import MissingError
from shoestring.models.progress import MEGABYTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from requests import Response

CHUNK_BYTES = 1 << 20
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Origin:
    """Whose bytes a partial file holds.

    Attributes:
        digest: of the whole content, as the hub names it.
        validator: the strong ``ETag`` of the server that sent the first byte, if it gave one.
        server: scheme, host and port of that server.
    """

    digest: str
    validator: str | None = None
    server: str | None = None


class Partial:
    """A file on its way; ``path`` is where it will lie when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.partial")
        self._beside = path.with_name(f"{path.name}.partial.etag")

    def held_bytes(self) -> int:
        """Return how much is there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self) -> Origin | None:
        """Return whose bytes these are; None if that is not known, so that they are of no use."""
        try:
            return Origin(**json.loads(self._beside.read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # absent, torn, or of another version
            return None

    def begin(self, origin: Origin) -> None:
        """Forget what is there; the bytes to come are those of ``origin``."""
        self.path.unlink(missing_ok=True)  # first: old bytes never lie beside a new origin
        write_whole(self._beside, json.dumps(asdict(origin)))
        self.path.touch()

    def resume_headers(self, server: str) -> dict[str, str]:
        """Return the headers that ask ``server`` for the rest only."""
        held, origin = self.held_bytes(), self.origin()
        if not held:
            return {}
        headers = {"Range": f"bytes={held}-"}
        if origin is not None and origin.validator and origin.server == server:
            headers["If-Range"] = origin.validator
        return headers

    def remove(self) -> None:
        """Leave nothing behind."""
        self.path.unlink(missing_ok=True)
        self._beside.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Move the whole file to its place, so that no crash can take it away again."""
        sync(self.path)
        self.path.replace(path)
        sync(path.parent)
        self._beside.unlink(missing_ok=True)

    def take(
        self,
        response: Response,
        *,
        digest: str,
        server: str,
        file_bytes: int,
        progress: Callable[[int, int], None],
        say: Callable[[str], None],
    ) -> None:
        """Append the body of a 206, or start anew: with that of a 200, or after a 416.

        Args:
            response: streamed, its body not yet read.
            digest: of the whole content.
            server: the origin that answered.
            file_bytes: of the whole content; never more than this is written.
            progress: called with the bytes that are there, and ``file_bytes``.
            say: given a line when bytes that were there are of no use.

        Raises:
            MissingError: the body is not of the declared file.
        """
        held = self.held_bytes()
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            say(f"{server} has no bytes from {held} on: starting anew")
            self.begin(Origin(digest))
            return
        if response.status_code == HTTPStatus.OK:
            _check_length(response, file_bytes, server)
            if held:
                say(f"{server} sends the whole file again: starting anew")
            held = 0
            self.begin(Origin(digest, _strong(response.headers.get("ETag")), server))
        else:
            _check_range(response, held, file_bytes, server)
        progress(held, file_bytes)
        with self.path.open("ab", buffering=0) as out:
            for chunk in response.iter_content(CHUNK_BYTES):
                if held + len(chunk) > file_bytes:
                    raise MissingError(
                        f"{server} sends more than the declared {file_bytes} bytes: "
                        "check HF_ENDPOINT and proxies, or try again later"
                    )
                _write_all(out.write, chunk)
                held += len(chunk)
                progress(held, file_bytes)


def _write_all(write: Callable[[memoryview], int | None], chunk: bytes) -> None:
    """Write a chunk whole: an unbuffered write may take only its beginning."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[write(rest) or 0 :]


def _strong(etag: str | None) -> str | None:
    """Return an ETag that may stand in If-Range; weak ones may not."""
    return etag if etag and not etag.startswith("W/") else None


def _check_length(response: Response, file_bytes: int, server: str) -> None:
    declared = response.headers.get("Content-Length")
    if declared is not None and declared != str(file_bytes):
        raise MissingError(
            f"{server} offers a file of {declared} bytes where the hub names {file_bytes}: "
            "check HF_ENDPOINT and proxies, or try again later"
        )


def _check_range(response: Response, held: int, file_bytes: int, server: str) -> None:
    given = response.headers.get("Content-Range", "")
    found = CONTENT_RANGE.fullmatch(given)
    if found is None or int(found[1]) != held or found[2] not in {str(file_bytes), "*"}:
        raise MissingError(
            f"{server} sends the range {given[:80]!a} where bytes {held}- of {file_bytes} were "
            "asked for: check HF_ENDPOINT and proxies, or try again later"
        )


def git_blob_sha1(path: Path) -> str:
    """Return the SHA-1 by which git names a content: of ``blob SIZE``, a zero byte, the bytes."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = b"blob %d\0" % size
        return hashlib.file_digest(file, lambda: _sha1(head)).hexdigest()


def _sha1(head: bytes) -> hashlib._Hash:
    return hashlib.sha1(head, usedforsecurity=False)


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is either the old one or the new one."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    sync(new)
    new.replace(path)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the one right to fetch this file; the kernel takes it back when a process dies."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another process is fetching {path.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_space(name: str, folder: Path, *, needed: int, free: int) -> None:
    """Refuse a download that the disk of a folder cannot hold.

    Raises:
        MissingError: with both sizes.
    """
    if free < needed:
        raise MissingError(
            f"not enough space in {folder} for {name}: {needed / MEGABYTE:.1f} MB needed, "
            f"{free / MEGABYTE:.1f} MB free; free some or set SHOESTRING_CACHE to another disk"
        )


def explain_disk(folder: Path, error: OSError) -> str:
    """Say in one line why a folder of the cache cannot be written."""
    if error.errno == errno.ENOSPC:
        return (
            f"the disk of {folder} is full: free some space or set SHOESTRING_CACHE to another disk"
        )
    return (
        f"cannot keep models in {folder}: {error.strerror}; "
        "set SHOESTRING_CACHE to a folder that you can read and write"
    )
