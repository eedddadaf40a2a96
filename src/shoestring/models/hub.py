"""``hf:OWNER/REPO/FILE.gguf``: a model of the hub, fetched so that a cut line costs little.

::

    hf:OWNER/REPO/FILE.gguf        of the branch main
    hf:OWNER/REPO@REV/FILE.gguf    of a branch, a tag or a commit (slashes in it as %2F)

What the hub names (SHA-256, or git's SHA-1 for small files) is what the file must have: it is
checked at the end over the bytes on the disk, then the file is moved to its place, with its
SHA-256 beside it as ``sha256sum`` writes it. A later use asks the hub whether the branch has moved,
and hashes the file again; a commit cannot move, so nobody is asked. Without a network, or with
``HF_HUB_OFFLINE=1``, the cached file is used. One file is kept for each revision: a branch that
moves replaces its file, so that a small disk does not fill up with old versions.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.digests import file_sha256
from shoestring.errors import BadModelError, MissingError
from shoestring.models.downloads import (
    CHUNK_BYTES,
    Origin,
    Partial,
    check_space,
    explain_disk,
    git_blob_sha1,
    locked,
    write_whole,
)
from shoestring.models.header import read_header
from shoestring.models.hub_client import MOST_TRIES, Hub, origin_of
from shoestring.models.hub_refusals import BusyError, HubName, UnreachableError
from shoestring.models.progress import MEGABYTE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.models.fetch import ModelFile
    from shoestring.models.hub_client import Remote

WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REPO = re.compile(rf"({WORD})/({WORD})(?:@((?:[A-Za-z0-9._-]|%2F)+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
SHA256_DIGITS = 64
YES = {"1", "ON", "YES", "TRUE"}  # as the hub's own tools read their switches


def fetch_hub_file(
    owner_repo: str,
    file: str,
    *,
    cache: Path,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
    free_bytes: Callable[[Path], int],
    wait: Callable[[float], None] = time.sleep,
) -> ModelFile:
    """Bring a model of the hub here, if it is not yet, and check it.

    Args:
        owner_repo: ``OWNER/REPO`` or ``OWNER/REPO@REVISION``.
        file: the path of a GGUF file in it.
        cache: the cache folder; these models lie in ``models/hub/OWNER/REPO/REVISION/``.
        progress: called with bytes done and bytes in all while something is downloaded.
        say: given lines for the user: each wait, each start anew, the use of a cached file.
        free_bytes: free space on the disk of a folder.
        wait: sleeps so many seconds, before a request is tried again.

    Raises:
        BadModelError: the name, repository, revision or file is wrong, or it is no whole GGUF.
        MissingError: no network, no space, no permission, or bytes that are not those of the hub.
    """
    from shoestring.models.fetch import ModelFile

    name = parse_hub_name(owner_repo, file)
    path = cache / "models" / "hub" / name.repo / name.revision / name.file
    try:
        with Hub(say, wait=wait) as hub:
            fetch = _Fetch(hub, name, path, progress, say, free_bytes, wait)
            sha256 = fetch.bring()
            return ModelFile(name.text, path, sha256, path.stat().st_size)
    except OSError as error:
        raise MissingError(explain_disk(path.parent, error)) from error


def parse_hub_name(owner_repo: str, file: str) -> HubName:
    """Check the two parts of a hub name.

    Raises:
        BadModelError: one of them is not what the hub has, or the file is a part of a model.
    """
    text = f"hf:{owner_repo}/{file}"
    found = REPO.fullmatch(owner_repo)
    folders = file.split("/")
    clean = file.isprintable() and "\\" not in file and not {"", ".", ".."} & set(folders)
    dots = found is not None and found[3] is not None and not found[3].strip(".")
    if found is None or dots or not clean or not file.lower().endswith(".gguf"):
        raise BadModelError(
            f"{text[:80]!a} names no file of the hub: write hf:OWNER/REPO/FILE.gguf, "
            "or hf:OWNER/REPO@REVISION/FILE.gguf"
        )
    part = PART.search(file)
    if part is not None and int(part[1]) > 1:
        raise BadModelError(
            f"{text} is one of {int(part[1])} parts of a split model, which this version does not "
            "join: take a file in one piece, or merge the parts with llama-gguf-split --merge "
            "and use file:PATH"
        )
    return HubName(f"{found[1]}/{found[2]}", found[3] or "main", file, text)


@dataclass(frozen=True)
class _Fetch:
    """One file on its way from the hub to its place."""

    hub: Hub
    name: HubName
    path: Path
    progress: Callable[[int, int], None]
    say: Callable[[str], None]
    free_bytes: Callable[[Path], int]
    wait: Callable[[float], None]

    def bring(self) -> str:
        """Return the SHA-256 of the file, which is at its place then."""
        held = self._cached_sha256()
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in YES
        if held is not None and (offline or COMMIT.fullmatch(self.name.revision)):
            return held
        if offline:
            raise MissingError(
                f"{self.name.text} is not in the cache, or not whole, and HF_HUB_OFFLINE is set: "
                "unset it, or use file:PATH"
            )
        try:
            remote = self.hub.describe(self.name, tries=1 if held else MOST_TRIES)
        except UnreachableError as error:
            if held is None:
                raise
            self.say(f"using the cached {self.name.file}: {error}")
            return held
        if held is not None and self._is_that(self.path, held, remote):
            return held
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path, self.say):
            held = self._cached_sha256()
            if held is not None and self._is_that(self.path, held, remote):
                return held  # another process fetched it while this one waited
            partial = self._prepare(remote)
            self._transfer(partial, remote)
            return self._settle(partial, remote)

    def _cached_sha256(self) -> str | None:
        """Return the SHA-256 of the cached file, or None if there is none or it has rotted."""
        beside = _sha256_path(self.path)
        if not (self.path.is_file() and beside.is_file()):
            return None
        sha256 = file_sha256(self.path)
        return sha256 if beside.read_bytes().startswith(sha256.encode()) else None

    def _is_that(self, path: Path, sha256: str, remote: Remote) -> bool:
        """Tell whether a file with this SHA-256 is what the hub names."""
        if len(remote.digest) == SHA256_DIGITS:
            return sha256 == remote.digest
        return git_blob_sha1(path) == remote.digest

    def _prepare(self, remote: Remote) -> Partial:
        """Keep what is there of this file; forget what is there of another one."""
        partial = Partial(self.path)
        held, origin = partial.held_bytes(), partial.origin()
        if origin is None or origin.digest != remote.digest or held > remote.file_bytes:
            if held:
                self.say(f"the hub has another {self.name.file} by now: starting anew")
            partial.begin(Origin(remote.digest))
            held = 0
        folder = self.path.parent
        check_space(
            self.name.text,
            folder,
            needed=remote.file_bytes - held,
            free=self.free_bytes(folder),
        )
        return partial

    def _transfer(self, partial: Partial, remote: Remote) -> None:
        """Fetch what is missing; go on after each cut, as long as there is some progress."""
        import requests

        failures, furthest = 0, partial.held_bytes()
        while partial.held_bytes() < remote.file_bytes:
            cause: Exception | None = None
            try:
                with self.hub.open_body(self.name, remote, partial.resume_headers) as body:
                    partial.take(
                        body,
                        digest=remote.digest,
                        server=origin_of(body.url),
                        file_bytes=remote.file_bytes,
                        progress=self.progress,
                        say=self.say,
                    )
            except BusyError:
                raise  # it was already asked again and again
            except (requests.RequestException, UnreachableError) as error:
                cause = error
            now = partial.held_bytes()
            if now == remote.file_bytes:
                return
            # Counted from the furthest point ever: starting anew again and again is no progress.
            failures = 0 if now - furthest >= CHUNK_BYTES else failures + 1
            furthest = max(furthest, now)
            where = f"{now / MEGABYTE:.1f} of {remote.file_bytes / MEGABYTE:.1f} MB"
            if failures == MOST_TRIES:
                raise MissingError(
                    f"the download of {self.name.text} broke {failures} times at {where}: what is "
                    "there is kept; check the network and run the same again to go on"
                ) from cause
            self.say(f"the download broke at {where}: going on")
            self.wait(float(2**failures))

    def _settle(self, partial: Partial, remote: Remote) -> str:
        """Check the whole file as it is on the disk, and move it to its place."""
        sha256 = file_sha256(partial.path)
        if not self._is_that(partial.path, sha256, remote):
            partial.remove()
            raise MissingError(
                f"{self.name.text} came with sha256 {sha256}, which is not the content that the "
                f"hub names ({remote.digest}): it was removed; check proxies and the disk, then "
                "try again"
            )
        try:
            read_header(partial.path)
        except BadModelError as error:
            partial.remove()
            reason = str(error).removeprefix(str(partial.path)).strip()
            raise BadModelError(
                f"{self.name.text} came as the hub has it, but it {reason}; take another file"
            ) from error
        write_whole(_sha256_path(self.path), f"{sha256}  {self.path.name}\n")
        partial.finish(self.path)
        return sha256


def _sha256_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
