"""The note in an engine's folder: what it is, how it came, and the SHA-256 of every file.

An engine without a note is one that somebody made by hand, or no engine. One whose files differ
from the note is damaged and is made anew.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.digests import file_sha256
from shoestring.models.downloads import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoestring.engines.install.pins import Pin

NAME = "installed.json"
LINK = "link to "


@dataclass(frozen=True)
class Marker:
    """What the note holds.

    Attributes:
        engine: its name.
        version: the pinned one.
        how: ``vendor``, ``source`` or ``adopted``.
        source: ``sha256:HEX`` of the archive it was made of, ``h1:...`` of a Go module, or None
            where it was adopted and so nothing is known of it.
        installed_at: UTC, ISO 8601.
        files: the SHA-256 of each file by its path in the folder; ``link to ...`` for links.
    """

    engine: str
    version: str
    how: str
    source: str | None
    installed_at: str
    files: Mapping[str, str]


def write_marker(folder: Path, pin: Pin, *, how: str, source: str | None) -> Marker:
    """Hash what lies in a folder, and note it there."""
    marker = Marker(
        engine=pin.name,
        version=pin.version,
        how=how,
        source=source,
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files={str(path.relative_to(folder)): _state(path) for path in sorted(_files(folder))},
    )
    write_whole(folder / NAME, json.dumps(asdict(marker), indent=2) + "\n")
    return marker


def read_marker(folder: Path) -> Marker | None:
    """Read the note; None where there is none, or one that cannot be understood."""
    try:
        marker = Marker(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return marker if isinstance(marker.files, dict) else None


def find_damage(folder: Path, marker: Marker, pin: Pin) -> str | None:
    """Compare a folder with its note; return the first difference, or None."""
    unknown = [path for path in pin.programs if path not in marker.files]
    if unknown:
        return f"{unknown[0]} is not in {NAME}"
    for name, state in marker.files.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if _state(path) != state:
            return f"{name} was changed"
    return None


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        names = [name for name in (*files, *folders) if name != NAME]
        paths = (Path(root, name) for name in names)
        yield from (path for path in paths if path.is_symlink() or path.is_file())


def _state(path: Path) -> str:
    return f"{LINK}{path.readlink()}" if path.is_symlink() else file_sha256(path)
