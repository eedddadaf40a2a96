"""Writing a run record so that a kill at any moment loses at most the request in flight.

Rows are appended and fsynced one by one; small files are replaced atomically; the manifest comes
last. When the disk is full, what a failed write left behind is cut off again, so that the rows
before it stay whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from shoestring.digests import file_sha256
from shoestring.errors import BadRunError, DiskFullError, MissingError
from shoestring.measure import records
from shoestring.measure.records import Row, read_lines, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunWriter:
    """The one writer of a run folder; a lock keeps a second one out.

    Use :meth:`create` for a new run and :meth:`resume` for one that was cut.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: int) -> None:
        self.path = path
        self.config = config
        self._lock = lock
        rows, _ = read_lines(path / records.REQUESTS)
        records.check_rows(path / records.REQUESTS, rows)
        measured = [row for row in rows if row["phase"] == "measure"]
        self.done = {row["id"] for row in measured}
        self.failed = sum(row["status"] == "failed" for row in measured)
        environment = path / records.ENVIRONMENT
        self._sessions: list[dict[str, Any]] = (
            read_object(environment)["sessions"] if environment.is_file() else []
        )
        numbers = [row["session"] for row in rows] + [s["session"] for s in self._sessions]
        self.next_session = max(numbers, default=0) + 1
        self._requests = _open_lines(path / records.REQUESTS)
        self._telemetry = _open_lines(path / records.TELEMETRY)
        _sync_folder(path)

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> Self:
        """Make the folder and write what will be done, before anything is done.

        Raises:
            MissingError: the folder cannot be made or written.
        """
        try:
            path.mkdir(parents=True)
            write_object(path / records.CONFIG, config)
            return cls._locked(path, config)
        except OSError as error:
            raise MissingError(
                f"cannot write a run into {path}: {error.strerror}; give another --out"
            ) from error

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Open a cut run: its torn last lines are dropped, its whole rows are kept.

        Raises:
            BadRunError: it is damaged elsewhere, or another process writes it.
        """
        config = read_object(path / records.CONFIG)
        try:
            return cls._locked(path, config)
        except OSError as error:
            raise BadRunError(f"{path} cannot be resumed: {error}") from error

    @classmethod
    def _locked(cls, path: Path, config: dict[str, Any]) -> Self:
        """Lock first: nothing is cut off or removed under the hands of another writer."""
        lock = _lock(path)
        try:
            manifest = path / records.MANIFEST
            if manifest.is_file():
                records.check_hashes(path, read_object(manifest))
            _drop_torn_line(path / records.REQUESTS)
            _drop_torn_line(path / records.TELEMETRY)
            writer = cls(path, config, lock)
            manifest.unlink(missing_ok=True)
        except BaseException:
            os.close(lock)
            raise
        return writer

    def append_row(self, row: Row) -> None:
        """Append one request's row and have it on the disk before returning.

        Raises:
            DiskFullError: no space is left; the rows before this one are whole.
        """
        self._append(self._requests, row, sync=True)
        if row["phase"] == "measure":
            self.done.add(row["id"])
            self.failed += row["status"] == "failed"

    def append_sample(self, sample: Row) -> None:
        """Append one telemetry sample, synced only at the end; raises as :meth:`append_row`."""
        self._append(self._telemetry, sample, sync=False)

    def write_session(self, session: dict[str, Any]) -> None:
        """Write or replace the environment of one session. Raises as :meth:`append_row` does."""
        self._sessions = [s for s in self._sessions if s["session"] != session["session"]]
        self._sessions.append(session)
        self.next_session = max(self.next_session, session["session"] + 1)
        environment = {"schema_version": records.SCHEMA_VERSION, "sessions": self._sessions}
        self._write_object(records.ENVIRONMENT, environment)

    def finish(self, reason: str | None) -> str:
        """Write the manifest: complete, or incomplete for a reason.

        Returns:
            The status.

        Raises:
            DiskFullError: no space is left; the run stays without a manifest, that is, cut.
        """
        self._sync_telemetry()
        planned = len(self.config["requests"])
        # From the disk: a signal may have come between the write of a row and our note of it.
        rows, _ = read_lines(self.path / records.REQUESTS)
        measured = [row for row in rows if row["phase"] == "measure"]
        if len(measured) >= planned:
            reason = None  # whatever came after the last row has cost the run nothing
        elif reason is None:
            reason = f"{planned - len(measured)} requests were not sent"
        status = "complete" if reason is None else "incomplete"
        ok = sum(row["status"] == "ok" for row in measured)
        manifest = {
            "schema_version": records.SCHEMA_VERSION,
            "run_id": self.config["run_id"],
            "status": status,
            "reason": reason,
            "finished_utc": utc_now(),
            "sessions": len(self._sessions),
            "requests": {
                "ok": ok,
                "failed": len(measured) - ok,
                "warmup": len(rows) - len(measured),
                "planned": planned,
            },
            "files": {name: file_sha256(self.path / name) for name in records.HASHED},
        }
        self._write_object(records.MANIFEST, manifest)
        return status

    def close(self) -> None:
        """Close the files and let others write."""
        for file in (self._requests, self._telemetry, self._lock):
            os.close(file)
        # The numbers may be another file's from now on: nothing must be written to them.
        self._requests = self._telemetry = -1

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _append(self, file: int, row: Row, *, sync: bool) -> None:
        data = (json.dumps(row, separators=(",", ":")) + "\n").encode()
        size = os.fstat(file).st_size
        with self._naming_a_full_disk():
            try:
                written = os.write(file, data)
                if sync:
                    os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise
            if written < len(data):
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write_object(self, name: str, value: dict[str, Any]) -> None:
        with self._naming_a_full_disk():
            write_object(self.path / name, value)

    def _sync_telemetry(self) -> None:
        with self._naming_a_full_disk():
            os.fsync(self._telemetry)

    @contextmanager
    def _naming_a_full_disk(self) -> Iterator[None]:
        """Turn the system's errors for "no space" into one clear line; let others pass."""
        try:
            yield
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise DiskFullError(
                f"the disk of {self.path} is full: {len(self.done)} rows are safe; "
                "free some space and resume the run"
            ) from error


def write_object(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file so that a reader sees the old one or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def utc_now() -> str:
    """Return the wall-clock time, for records that people read; never used to measure."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _open_lines(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _drop_torn_line(path: Path) -> None:
    _, whole_bytes = read_lines(path)
    if path.is_file() and path.stat().st_size > whole_bytes:
        os.truncate(path, whole_bytes)


def _sync_folder(path: Path) -> None:
    """Have the names of new files on the disk, as their contents are."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lock(path: Path) -> int:
    """Lock the folder itself: no extra file, and the kernel frees it when its holder dies."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        raise BadRunError(f"{path} is being written by another process: wait for it") from error
    return folder
