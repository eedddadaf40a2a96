"""Bundles read back: checked as if a stranger had made them, and whole or not at all.

A bundle may come from any disk, so nothing in it is believed: its members are those of
``measure.bundles``, plain files of the size and digest that ``bundle.json`` says, and together a
run that can be read. It is unpacked beside the runs, checked, and then moved to its place.
A run that is there already is replaced only where its rows are the beginning of the bundle's.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import BadRunError, DiskFullError, ShoestringError
from shoestring.measure import records
from shoestring.measure.bundles import GROWING, LISTING, MEMBERS, SCHEMA_VERSION, SUFFIX
from shoestring.measure.records import read_lines, read_run
from shoestring.measure.shapes import misfit
from shoestring.measure.together import LOG
from shoestring.measure.writer import NO_SPACE, RunWriter
from shoestring.models.downloads import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from shoestring.measure.shapes import Shape

DEPTH = 6
"""Folders below one that is searched: Kaggle attaches an output four levels deep."""
NAME = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9._-]+" + re.escape(SUFFIX))
"""Of the files that are taken for bundles in a search: other archives are not ours."""
BLOCK_BYTES = 512
LISTING_BYTES = 1 << 16
OBJECT_BYTES = 1 << 26
LINES_BYTES = 1 << 31
CHUNK_BYTES = 1 << 20
BESIDE = ".restoring-"
REPLACED = "replaced"
SHAPE: Shape = {"schema_version": int, "run_id": str, "made_utc": str, "rows": int, "files": dict}
DAMAGE = (ValueError, RecursionError, EOFError, zlib.error, tarfile.TarError, gzip.BadGzipFile)
"""What reading a damaged archive raises."""


@dataclass(frozen=True)
class Listing:
    """What a bundle says of itself.

    Attributes:
        run_id: a plain name.
        made_utc: when it was packed.
        rows: lines of ``requests.jsonl``.
        files: of each member the SHA-256 and the size in bytes.
    """

    run_id: str
    made_utc: str
    rows: int
    files: dict[str, tuple[str, int]]


def find_bundles(folders: Iterable[Path]) -> list[Path]:
    """Return the files below the folders that are named as bundles are.

    Links are followed, for an output may be attached as one; the depth ends those that turn back.
    """
    found = []
    for top in folders:
        for folder, below, names in os.walk(top, followlinks=True):
            if len(Path(folder).relative_to(top).parts) >= DEPTH:
                below.clear()
            found += [Path(folder, name) for name in names if NAME.fullmatch(name)]
    return sorted(path for path in found if path.is_file())


def restore_bundles(out: Path, folders: Iterable[Path], say: Callable[[str], None]) -> None:
    """Restore every run of which a bundle holds more rows than ``out`` does.

    Of several bundles of a run the one with the most rows counts, then the newest. What cannot be
    restored is passed over with a line.
    """
    found: dict[str, list[tuple[int, str, Path]]] = {}
    for path in find_bundles(folders):
        try:
            listing = read_listing(path)
        except ShoestringError as error:
            say(f"passed over: {error}")
        else:
            candidate = (listing.rows, listing.made_utc, path)
            found.setdefault(listing.run_id, []).append(candidate)
    for run_id, candidates in sorted(found.items()):
        try:
            there = _whole_lines(out / run_id).count(b"\n") if (out / run_id).exists() else -1
        except BadRunError as error:
            say(f"passed over: {error}")
            continue
        for rows, _, path in sorted(candidates, reverse=True):
            if there >= rows:
                break
            try:
                restore_bundle(path, out)
            except ShoestringError as error:
                say(f"passed over: {error}")
            else:
                say(f"restored {run_id} with {rows} rows from {path}")
                break


def restore_bundle(path: Path, out: Path) -> Path:
    """Restore one bundle and return the run's folder, also where it holds as much already.

    Args:
        path: of the bundle.
        out: the folder that gets the run's folder.

    Raises:
        BadRunError: the bundle is damaged or newer than this shoestring, or a run of that name is
            there which holds rows that the bundle lacks; nothing was changed.
        DiskFullError: no space is left in ``out``; nothing was changed.
    """
    try:
        with _alone_in(out), tempfile.TemporaryDirectory(prefix=BESIDE, dir=out) as beside:
            return _move(_unpack(path, Path(beside)), out)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFullError(
                f"the disk of {out} is full: bundle {path} is not restored; free some space"
            ) from error
        raise BadRunError(f"bundle {path} cannot be restored: {error}") from error


def read_listing(path: Path) -> Listing:
    """Return what a bundle says of itself, checked as far as that goes without its files.

    Raises:
        BadRunError: it is no bundle, or is newer than this shoestring.
    """
    with _reading(path) as stream:
        return _listing(stream)


@contextmanager
def _reading(path: Path) -> Iterator[gzip.GzipFile]:
    """Open a bundle; what is wrong with it becomes one line that names it."""
    try:
        with gzip.open(path) as stream:
            yield stream
    except DAMAGE as error:
        raise BadRunError(f"bundle {path} is damaged: {error}; take another one") from error
    except BadRunError as error:
        raise BadRunError(f"bundle {path}: {error}") from error
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise BadRunError(f"bundle {path} cannot be read: {error}") from error


def _listing(stream: gzip.GzipFile) -> Listing:
    name, size_bytes = _next_member(stream)
    if name != LISTING:
        raise ValueError(f"it does not begin with {LISTING}")
    value = json.loads(_exactly(stream, size_bytes))
    _exactly(stream, -size_bytes % BLOCK_BYTES)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BadRunError(
            f"it has schema version {version}, this shoestring reads up to {SCHEMA_VERSION}: "
            "update shoestring"
        )
    if fault := misfit(value, SHAPE):
        raise ValueError(f"{LISTING}: {fault}")
    if not records.RUN_ID.fullmatch(value["run_id"]):
        raise ValueError(f"run_id {value['run_id'][:99]!r} is no plain name")
    files = {name: _declared(name, told) for name, told in value["files"].items()}
    if not {records.CONFIG, records.REQUESTS} <= files.keys():
        raise ValueError(f"{LISTING} lacks {records.CONFIG} or {records.REQUESTS}")
    return Listing(value["run_id"], value["made_utc"], value["rows"], files)


def _declared(name: str, told: object) -> tuple[str, int]:
    """Return digest and size of a member, of the fixed names and within bounds."""
    if name not in MEMBERS:
        raise ValueError(f"{name[:99]!r} belongs in no bundle")
    if fault := misfit(told, {"sha256": str, "bytes": int}):
        raise ValueError(f"{LISTING}: {name}: {fault}")
    assert isinstance(told, dict), "it has that shape"
    return told["sha256"], _within_bounds(name, told["bytes"])


def _within_bounds(name: str, size_bytes: int) -> int:
    """Return the size of a member; a header can also hold a negative one, which would read all."""
    limit = LISTING_BYTES if name == LISTING else OBJECT_BYTES
    limit = LINES_BYTES if name in GROWING else limit
    if not 0 <= size_bytes <= limit:
        raise ValueError(f"{name} of {size_bytes} bytes, 0 to {limit} are restored")
    return size_bytes


def _next_member(stream: gzip.GzipFile) -> tuple[str, int]:
    """Return name and size of the next member, a plain file; its content follows in the stream.

    Headers are read here and not by ``tarfile``: it would follow the extensions of the format,
    which our bundles do not use, and take their sizes on trust.
    """
    member = tarfile.TarInfo.frombuf(_exactly(stream, BLOCK_BYTES), "ascii", "strict")
    if member.type != tarfile.REGTYPE:
        raise ValueError(f"{member.name!r} is no plain file")
    if member.name not in (LISTING, *MEMBERS):
        raise ValueError(f"{member.name!r} belongs in no bundle")
    return member.name, _within_bounds(member.name, member.size)


def _exactly(stream: gzip.GzipFile, size_bytes: int) -> bytes:
    data = stream.read(size_bytes)
    if len(data) < size_bytes:
        raise EOFError("it is cut")
    return data


def _unpack(path: Path, beside: Path) -> Path:
    """Unpack into a new folder, named as the run, and return it when all of it is right."""
    with _reading(path) as stream:
        listing = _listing(stream)
        folder = beside / listing.run_id
        folder.mkdir()
        for _ in listing.files:
            name, size_bytes = _next_member(stream)
            if name not in listing.files or (folder / name).exists():
                raise ValueError(f"{name} stands twice, or not in {LISTING}")
            if size_bytes != listing.files[name][1]:
                raise ValueError(f"{name} has {size_bytes} bytes, {LISTING} says otherwise")
            _unpack_member(stream, folder / name, *listing.files[name])
        if any(_exactly(stream, 2 * BLOCK_BYTES)):
            raise ValueError(f"it holds more than {LISTING} says")
        _check_run(folder, listing)
    sync(folder)
    return folder


def _unpack_member(stream: gzip.GzipFile, path: Path, sha256: str, size_bytes: int) -> None:
    digest, left_bytes = hashlib.sha256(), size_bytes
    with path.open("xb") as file:
        while left_bytes:
            chunk = _exactly(stream, min(left_bytes, CHUNK_BYTES))
            digest.update(chunk)
            file.write(chunk)
            left_bytes -= len(chunk)
        file.flush()
        os.fsync(file.fileno())
    _exactly(stream, -size_bytes % BLOCK_BYTES)
    if digest.hexdigest() != sha256:
        raise ValueError(f"{path.name} is not the file that {LISTING} describes")


def _check_run(folder: Path, listing: Listing) -> None:
    run = read_run(folder)
    if run.run_id != listing.run_id:
        raise ValueError(f"{records.CONFIG} is of run {run.run_id}")
    if len(run.rows) != listing.rows:
        raise ValueError(f"{len(run.rows)} rows, {LISTING} says {listing.rows}")


def _move(fresh: Path, out: Path) -> Path:
    """Move a checked run to its place, unless as much of it is there."""
    target = out / fresh.name
    if not os.path.lexists(target):
        fresh.rename(target)
        sync(out)
        return target
    if not (target / records.CONFIG).is_file():
        raise BadRunError(f"{target} is there and is no run: move it away")
    there, new = _whole_lines(target), _whole_lines(fresh)
    if there.startswith(new):
        return target
    if not new.startswith(there):
        raise BadRunError(
            f"{target} holds rows that the bundle of {fresh.name} lacks: they went on apart; "
            "give another --out"
        )
    with RunWriter.resume(target):  # nobody else writes it
        if (target / LOG).is_file():
            shutil.copyfile(target / LOG, fresh / LOG)
        _replace(target, fresh)
    sync(out)
    return target


def _replace(target: Path, fresh: Path) -> None:
    """Put a run in the place of another; where that is cut, the other one is put back."""
    replaced = fresh.parent / REPLACED
    replaced.mkdir()
    try:
        target.rename(replaced / target.name)
        fresh.rename(target)
    finally:
        _put_back(fresh.parent, target.parent)


def _put_back(beside: Path, out: Path) -> None:
    for run in (beside / REPLACED).glob("*"):
        if not os.path.lexists(out / run.name):
            run.rename(out / run.name)


def _whole_lines(run: Path) -> bytes:
    """Return the rows of a run as they are on the disk, without a torn last line."""
    path = run / records.REQUESTS
    return path.read_bytes()[: read_lines(path)[1]] if path.is_file() else b""


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Restore one at a time; what a killed one left is cleared away."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for left in out.glob(f"{BESIDE}*"):
            _put_back(left, out)
            shutil.rmtree(left)
        yield
    finally:
        os.close(folder)
