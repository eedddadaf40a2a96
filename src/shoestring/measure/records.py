"""The run record: what is on disk, read back and checked.

The format is in ``docs/record-format.md``. This module only reads; ``measure.writer`` writes.
Everything above (analysis, report) sees a run through :class:`Run` and never opens its files, so
what they index is checked here, once, against ``measure.shapes``: damage is one line and no
traceback.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.digests import file_sha256
from shoestring.errors import BadRunError
from shoestring.measure.shapes import MORE_OF_ROW, OBJECTS, ROW, SAMPLE, misfit

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 2
"""What is written; older versions are read, for all that was added may be absent."""

CONFIG = "config.json"
REQUESTS = "requests.jsonl"
TELEMETRY = "telemetry.jsonl"
ENVIRONMENT = "environment.json"
MANIFEST = "manifest.json"
HASHED = (CONFIG, REQUESTS, TELEMETRY, ENVIRONMENT)

Row = dict[str, Any]

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Reports and published runs are written under this name, so it may not lead anywhere else."""


@dataclass(frozen=True)
class Run:
    """One run, whole or cut.

    Attributes:
        path: its folder.
        config: what was to be done.
        rows: one a request, in the order in which they ended; warm-ups and failures included.
        telemetry: one a sample.
        environment: the sessions that contributed.
        manifest: None where the run was killed before it could write one.
    """

    path: Path
    config: dict[str, Any]
    rows: tuple[Row, ...]
    telemetry: tuple[Row, ...]
    environment: dict[str, Any]
    manifest: dict[str, Any] | None

    @property
    def run_id(self) -> str:
        """The name that the run was given when it began."""
        return str(self.config["run_id"])

    @property
    def complete(self) -> bool:
        """Whether the manifest says that every planned request has its row; its hashes held."""
        return self.manifest is not None and self.manifest["status"] == "complete"

    @property
    def incomplete_reason(self) -> str | None:
        """Why the run is not complete, or None where it is."""
        if self.complete:
            return None
        if self.manifest is None:
            return "killed before it ended"
        return str(self.manifest.get("reason") or "unknown")

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The lives of the harness that contributed, in order."""
        return list(self.environment["sessions"])

    @property
    def measured(self) -> list[Row]:
        """The rows that count: no warm-ups; failures included."""
        return [row for row in self.rows if row["phase"] == "measure"]


def read_run(path: Path) -> Run:
    """Read and check the run in a folder.

    Raises:
        BadRunError: it is no run, was damaged, or was written by a newer version.
    """
    if not (path / CONFIG).is_file():
        raise BadRunError(f"{path} is not a run folder: it has no {CONFIG}")
    config = read_object(path / CONFIG)
    if not RUN_ID.fullmatch(config["run_id"]):
        raise BadRunError(
            f"{path / CONFIG} is damaged: run_id {config['run_id']!r} is no name of a run: use "
            "letters, digits, '.', '_' and '-', at most 100"
        )
    manifest = read_object(path / MANIFEST) if (path / MANIFEST).is_file() else None
    if manifest is not None:
        check_hashes(path, manifest)
    rows, _ = read_lines(path / REQUESTS)
    check_rows(path / REQUESTS, rows)
    telemetry, _ = read_lines(path / TELEMETRY)
    for number, sample in enumerate(telemetry, start=1):
        if fault := misfit(sample, SAMPLE):
            raise BadRunError(f"{path / TELEMETRY}, line {number} is damaged: {fault}")
    environment_path = path / ENVIRONMENT
    environment = read_object(environment_path) if environment_path.is_file() else {"sessions": []}
    return Run(path, config, tuple(rows), tuple(telemetry), environment, manifest)


def read_object(path: Path) -> dict[str, Any]:
    """Read one JSON object of a run, of a schema that this version knows and of the right shape.

    Raises:
        BadRunError: it is damaged, or of a newer schema.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadRunError(
            f"{path} is damaged: {error}; take the run from its source again"
        ) from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(version, int):
        raise BadRunError(f"{path} is damaged: it has no schema_version")
    if version > SCHEMA_VERSION:
        raise BadRunError(
            f"{path} has schema version {version}, this shoestring reads up to {SCHEMA_VERSION}: "
            "update shoestring"
        )
    if fault := misfit(value, OBJECTS.get(path.name, dict)):
        raise BadRunError(f"{path} is damaged: {fault}")
    return dict(value)


def read_lines(path: Path) -> tuple[list[Row], int]:
    """Read a JSON Lines file that may have been cut while its last line was written.

    Returns:
        The rows, and the length in bytes of the whole lines (what follows was torn off).

    Raises:
        BadRunError: a line other than the torn last one is not a JSON object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise BadRunError(f"{path} cannot be read: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRunError(f"{path}, line {number} is damaged: {error}") from error
        if not isinstance(row, dict):
            raise BadRunError(f"{path}, line {number} is damaged: not an object")
        rows.append(row)
    return rows, whole


def check_hashes(path: Path, manifest: dict[str, Any]) -> None:
    """Check that the files of a run are those that its manifest describes.

    Raises:
        BadRunError: one is missing or was changed.
    """
    if set(manifest["files"]) != set(HASHED):
        raise BadRunError(f"{path / MANIFEST} is damaged: it does not hold the hash of each file")
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file() or file_sha256(file) != expected:
            raise BadRunError(
                f"{file} is not the file that {MANIFEST} describes: the run was changed or damaged"
            )


def check_rows(path: Path, rows: list[Row]) -> None:
    """Check that every row has what all readers need, and that none stands twice.

    Raises:
        BadRunError: naming the line.
    """
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        missing = ", ".join(sorted(ROW.keys() - row.keys()))
        fault = f"no {missing}" if missing else _row_fault(row)
        if fault is None and row["id"] in seen:
            fault = f"{row['id']} stands twice"
        if fault is not None:
            raise BadRunError(f"{path}, line {number} is damaged: {fault}")
        seen.add(row["id"])


def _row_fault(row: Row) -> str | None:
    fault = misfit(row, {**ROW, **MORE_OF_ROW})
    if fault is None and (row["status"] == "ok") != (row["failure"] is None):
        fault = f"status is {row['status']!r} and failure is {row['failure']}"
    if fault is None and not all(_is_event(event) for event in row["events"]):
        fault = "events are no list of [t_ns, kind, bytes]"
    return fault


def _is_event(event: Any) -> bool:
    # By hand and not as a shape: there are hundreds in each row.
    return isinstance(event, list) and [*map(type, event)] == [int, str, int]
