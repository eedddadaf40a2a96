"""Synthetic models in the cache: made once, then found again.

``models/shapes/NAME.gguf`` is written as ``NAME.gguf.partial`` and moved to its place when it is
whole and on the disk; whatever stops the making, nothing is left (a killed maker's remains go the
next time). ``NAME.gguf.json``, written last, says what recipe it was made by, its SHA-256, its
size and its time. A later use compares these and does
not hash the file again: 4.9 GB would take as long as to make them anew, and a byte that rotted in
random weights changes no measurement.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

from shoestring.errors import MissingError
from shoestring.models.downloads import check_space, explain_disk, locked, sync, write_whole
from shoestring.models.fetch import ModelFile, say_on_stderr
from shoestring.models.shape_names import parse_shape_name
from shoestring.models.synthesis import Synthetic, describe_shape, write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fetch_shape(
    name: str,
    *,
    cache: Path,
    progress: Callable[[int, int], None],
    free_bytes: Callable[[Path], int],
    say: Callable[[str], None] = say_on_stderr,
) -> ModelFile:
    """Make a synthetic model, if it is not in the cache yet.

    Args:
        name: what follows ``shape:``.
        cache: the cache folder.
        progress: called with the bytes written and those in all.
        free_bytes: free space on the disk of a folder.
        say: told that another process is being waited for.

    Raises:
        BadModelError: the name is unknown, or its ``config.json`` cannot be used.
        MissingError: the disk is full, or the cache cannot be written.
    """
    model = describe_shape(name)
    path = shape_path(name, model, cache)
    try:
        sha256 = _known_sha256(path, model)
        if sha256 is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path, say):
                # Another process may have made it while this one waited
                sha256 = _known_sha256(path, model)
                if sha256 is None:
                    sha256 = make_file(name, model, path, progress=progress, free_bytes=free_bytes)
                    facts = _facts_beside(model, path.stat().st_mtime_ns) | {"sha256": sha256}
                    write_whole(_beside(path), json.dumps(facts))
    except OSError as error:
        raise MissingError(explain_disk(path.parent, error)) from error
    return ModelFile(f"shape:{name}", path, sha256, model.header.file_bytes)


def find_shape(name: str, model: Synthetic, cache: Path) -> Path | None:
    """Return the file of a synthetic model if it is in the cache.

    Raises:
        MissingError: the cache cannot be looked into.
    """
    path = shape_path(name, model, cache)
    try:
        return None if _known_sha256(path, model) is None else path
    except OSError as error:
        raise MissingError(explain_disk(path.parent, error)) from error


def shape_path(name: str, model: Synthetic, cache: Path) -> Path:
    """Return where a synthetic model lies; a ``config.json`` is told apart by its content."""
    parsed = parse_shape_name(name)
    mark = f"-{hashlib.sha256(repr(model.shape).encode()).hexdigest()[:12]}"
    depth = "" if parsed.layers is None else f"-{parsed.layers}-layers"
    base = f"{model.shape.name}{mark if parsed.is_config else ''}{depth}-{model.quant}"
    return cache / "models" / "shapes" / f"{base}.gguf"


def _known_sha256(path: Path, model: Synthetic) -> str | None:
    """Return the digest of a file that is here, whole and of this recipe."""
    try:
        facts = json.loads(_beside(path).read_text())
        found = path.stat()
    except (FileNotFoundError, ValueError):  # absent, or torn: it is made anew
        return None
    expected = _facts_beside(model, found.st_mtime_ns)
    if not isinstance(facts, dict) or found.st_size != model.header.file_bytes:
        return None
    sha256 = facts.pop("sha256", None)
    return sha256 if facts == expected and isinstance(sha256, str) else None


def make_file(
    name: str,
    model: Synthetic,
    path: Path,
    *,
    progress: Callable[[int, int], None],
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> str:
    """Make the file of a synthetic model, whole or not at all, and return its SHA-256.

    Args:
        name: what follows ``shape:``.
        model: what the name means.
        path: of the file; one that is there is replaced.
        progress: called with the bytes written and those in all.
        free_bytes: free space on the disk of a folder.

    Raises:
        MissingError: there is too little space.
        OSError: the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a maker that was killed
    free = free_bytes(path.parent)
    check_space(f"shape:{name}", path.parent, needed=model.header.file_bytes, free=free)
    try:
        with partial.open("wb") as out:
            sha256 = write_model(model, out, progress)
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)
    return sha256


def _facts_beside(model: Synthetic, mtime_ns: int) -> dict[str, Any]:
    return {
        "recipe": model.recipe,
        "file_bytes": model.header.file_bytes,
        "mtime_ns": mtime_ns,
    }


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
