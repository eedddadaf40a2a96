"""A run in one file, to be carried from one session to the next: ``RUN_ID.tar.gz``.

Inside are the files of the record, up to the last whole line of those that still grow, and before
them ``bundle.json``::

    {"schema_version": 1, "run_id": "...", "made_utc": "...", "rows": 17,
     "files": {"config.json": {"sha256": "...", "bytes": 5120}, ...}}

``rows`` counts the lines of ``requests.jsonl``, warm-ups and failures included. An engine's log is
left out: it may hold paths of the machine. Owners, modes and times are the same everywhere, so the
same state packed at the same moment is the same bytes.
A bundle is written beside the old one and put in its place when it is on the disk: a kill or a
full disk leaves the old one. ``measure.restoring`` reads it back.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadRunError, DiskFullError, MissingError, ShoestringError
from shoestring.measure import records
from shoestring.measure.records import read_object
from shoestring.measure.writer import NO_SPACE, utc_now
from shoestring.models.downloads import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shoestring.measure.lease import Lease

SCHEMA_VERSION = 1
LISTING = "bundle.json"
SUFFIX = ".tar.gz"
# The environment comes after the rows: it then names each session that they name.
MEMBERS = (*records.HASHED, records.MANIFEST)
LEVEL = 6
GROWING = (records.REQUESTS, records.TELEMETRY)


@dataclass(frozen=True)
class Part:
    """What of one file goes into a bundle.

    Attributes:
        path: where it lies; of a file that is replaced while we pack, ``data`` holds what counts.
        size_bytes: of what goes in.
        sha256: of the same, hexadecimal.
        lines: how many whole lines that is, of a file that grows by lines.
        data: the content of a small file.
    """

    path: Path
    size_bytes: int
    sha256: str
    lines: int | None = None
    data: bytes | None = None


def pack_run(run: Path, folder: Path, *, made_utc: str | None = None) -> Path:
    """Pack a run, whole or cut or just being made, and return the bundle's path.

    Args:
        run: its folder.
        folder: gets the bundle; made where it is not there.
        made_utc: the moment that the bundle names; default now.

    Raises:
        BadRunError: it is no run, or was changed after it ended.
        DiskFullError: no space is left; the bundle that was there before still is.
        MissingError: the folder cannot be written.
    """
    run_id = _check(run)
    try:
        parts = [_part(run / name) for name in MEMBERS if (run / name).is_file()]
    except OSError as error:
        raise BadRunError(f"{run} cannot be packed: {error}") from error
    target = folder / f"{run_id}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{target.name}.*.partial"):  # by a kill
            left.unlink(missing_ok=True)
        _write(target, _listing(run_id, made_utc or utc_now(), parts), parts)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFullError(
                f"the disk of {folder} is full: a bundle that was there before is whole; "
                "free some space"
            ) from error
        raise MissingError(
            f"cannot write the bundle {target}: {error.strerror or error}; give another folder"
        ) from error
    return target


class Keeper:
    """Keeps bundles of the runs that are being made, and lets no failure of it end a run.

    Args:
        lease: where to, and how often.
        say: told where a bundle could not be made.
    """

    def __init__(self, lease: Lease, say: Callable[[str], None]) -> None:
        self._lease = lease
        self._say = say
        self._kept_s = lease.clock()

    def keep(self, run: Path) -> Path | None:
        """Pack a run; None where bundles are not wanted, or where it went wrong."""
        if self._lease.bundles is None:
            return None
        self._kept_s = self._lease.clock()
        try:
            return pack_run(run, self._lease.bundles)
        except ShoestringError as error:
            self._say(f"no bundle of {run.name}: {error}")
            return None

    def keep_when_due(self, run: Path) -> None:
        """Pack a run if that was last done long enough ago."""
        if self._lease.clock() - self._kept_s >= self._lease.every_s:
            self.keep(run)


def _check(run: Path) -> str:
    """Return the run's name; a run that has ended must be what its manifest describes."""
    if not (run / records.CONFIG).is_file():
        raise BadRunError(f"{run} is not a run folder: it has no {records.CONFIG}")
    run_id = str(read_object(run / records.CONFIG)["run_id"])
    if not records.RUN_ID.fullmatch(run_id):
        raise BadRunError(f"{run / records.CONFIG} is damaged: run_id {run_id[:99]!r} is no name")
    if (run / records.MANIFEST).is_file():
        records.check_hashes(run, read_object(run / records.MANIFEST))
    return run_id


def _part(path: Path) -> Part:
    if path.name not in GROWING:
        data = path.read_bytes()
        return Part(path, len(data), hashlib.sha256(data).hexdigest(), data=data)
    digest, size_bytes, lines = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):  # torn, or just being written
                break
            digest.update(line)
            size_bytes += len(line)
            lines += 1
    return Part(path, size_bytes, digest.hexdigest(), lines)


def _listing(run_id: str, made_utc: str, parts: Sequence[Part]) -> bytes:
    rows = next((part.lines for part in parts if part.path.name == records.REQUESTS), None)
    value: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "made_utc": made_utc,
        "rows": rows or 0,
        "files": {p.path.name: {"sha256": p.sha256, "bytes": p.size_bytes} for p in parts},
    }
    return (json.dumps(value, indent=1) + "\n").encode()


def _write(target: Path, listing: bytes, parts: Sequence[Part]) -> None:
    # The number of the process: two that pack the same run at once do not write into one file.
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as raw:
            with (
                gzip.GzipFile(
                    filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=LEVEL
                ) as packed,
                tarfile.open(mode="w", fileobj=packed, format=tarfile.USTAR_FORMAT) as tar,
            ):
                tar.addfile(_member(LISTING, len(listing)), io.BytesIO(listing))
                for part in parts:
                    _add(tar, part)
            raw.flush()
            os.fsync(raw.fileno())
        partial.replace(target)
        sync(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _add(tar: tarfile.TarFile, part: Part) -> None:
    member = _member(part.path.name, part.size_bytes)
    if part.data is not None:
        tar.addfile(member, io.BytesIO(part.data))
        return
    with part.path.open("rb") as file:
        tar.addfile(member, file)


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    """Return a header without owner and time: those of this machine are nobody's business."""
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    member.mode = 0o644
    return member
