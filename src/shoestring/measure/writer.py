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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from shoestring.errors import BadRunError, MissingError
from shoestring.measure import records
from shoestring.measure.records import Row, file_sha256, read_lines, read_object

if TYPE_CHECKING:
    from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunWriter:
    """The one writer of a run folder; a lock keeps a second one out.

    Use :meth:`create` for a new run and :meth:`resume` for one that was cut.
    """

    def __init__(self, path: Path, config: dict[str, Any], rows: list[Row]) -> None:
        self.path = path
        self.config = config
        self.rows = rows
        self._lock = _lock(path)
        self._requests = _open_lines(path / records.REQUESTS)
        self._telemetry = _open_lines(path / records.TELEMETRY)
        environment = path / records.ENVIRONMENT
        self._environment: dict[str, Any] = (
            read_object(environment)
            if environment.is_file()
            else {"schema_version": records.SCHEMA_VERSION, "sessions": []}
        )

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> Self:
        """Make the folder and write what will be done, before anything is done.

        Raises:
            MissingError: the folder cannot be made or written.
        """
        try:
            path.mkdir(parents=True)
            write_object(path / records.CONFIG, config)
            return cls(path, config, [])
        except OSError as error:
            raise MissingError(f"cannot write a run into {path}: {error.strerror}") from error

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Open a cut run: its torn last lines are dropped, its whole rows are kept.

        Raises:
            BadRunError: it is damaged elsewhere, or another process writes it.
        """
        config = read_object(path / records.CONFIG)
        (path / records.MANIFEST).unlink(missing_ok=True)
        rows = _drop_torn_line(path / records.REQUESTS)
        _drop_torn_line(path / records.TELEMETRY)
        return cls(path, config, rows)

    @property
    def next_session(self) -> int:
        """The number of the session that would begin now."""
        return len(self._environment["sessions"]) + 1

    @property
    def done(self) -> set[str]:
        """The ids of the measured requests that have their row."""
        return {row["id"] for row in self.rows if row["phase"] == "measure"}

    def append_row(self, row: Row) -> None:
        """Append one request's row and have it on the disk before returning.

        Raises:
            MissingError: the disk is full; the rows before this one are whole.
        """
        self._append(self._requests, row, sync=True)
        self.rows.append(row)

    def append_sample(self, sample: Row) -> None:
        """Append one telemetry sample. Raises as :meth:`append_row` does."""
        self._append(self._telemetry, sample, sync=False)

    def write_session(self, session: dict[str, Any]) -> None:
        """Write or replace the environment of one session. Raises as :meth:`append_row` does."""
        others = [s for s in self._environment["sessions"] if s["session"] != session["session"]]
        self._environment["sessions"] = [*others, session]
        self._write_object(records.ENVIRONMENT, self._environment)

    def finish(self, reason: str | None) -> str:
        """Write the manifest: complete, or incomplete for a reason.

        Returns:
            The status.

        Raises:
            MissingError: the disk is full; the run stays without a manifest, that is, cut.
        """
        os.fsync(self._telemetry)
        planned = len(self.config["requests"])
        # From the disk: a signal may have come between the write of a row and our note of it.
        rows, _ = read_lines(self.path / records.REQUESTS)
        measured = [row for row in rows if row["phase"] == "measure"]
        if reason is None and len(measured) < planned:
            reason = f"{planned - len(measured)} requests were not sent"
        status = "complete" if reason is None else "incomplete"
        ok = sum(row["status"] == "ok" for row in measured)
        manifest = {
            "schema_version": records.SCHEMA_VERSION,
            "run_id": self.config["run_id"],
            "status": status,
            "reason": reason,
            "finished_utc": utc_now(),
            "sessions": len(self._environment["sessions"]),
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
        os.close(self._requests)
        os.close(self._telemetry)
        os.close(self._lock)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _write_object(self, name: str, value: dict[str, Any]) -> None:
        try:
            write_object(self.path / name, value)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise self._full() from error

    def _append(self, file: int, row: Row, *, sync: bool) -> None:
        data = (json.dumps(row, separators=(",", ":")) + "\n").encode()
        size = os.fstat(file).st_size
        try:
            written = os.write(file, data)
            if sync:
                os.fsync(file)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            written = 0
        if written < len(data):
            os.ftruncate(file, size)
            raise self._full()

    def _full(self) -> MissingError:
        return MissingError(
            f"the disk of {self.path} is full: {len(self.rows)} rows are safe; "
            "free some space and resume the run"
        )


def write_object(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file so that a reader sees the old one or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def utc_now() -> str:
    """Return the wall-clock time, for records that people read; never used to measure."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _open_lines(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _drop_torn_line(path: Path) -> list[Row]:
    rows, whole_bytes = read_lines(path)
    if path.is_file() and path.stat().st_size > whole_bytes:
        os.truncate(path, whole_bytes)
    return rows


def _lock(path: Path) -> int:
    """Lock the folder itself: no extra file, and the kernel frees it when its holder dies."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        raise BadRunError(f"{path} is being written by another process: wait for it") from error
    return folder
