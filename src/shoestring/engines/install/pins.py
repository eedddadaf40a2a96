"""Which engines are brought, in which version, with which hashes; read from ``pins.toml``."""

from __future__ import annotations

import os
import platform
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Probe:
    """How a program is asked what it is.

    Attributes:
        argument: the only one that it is started with.
        expected: what its answer holds when it is the right one, in any case.
    """

    argument: str
    expected: str


@dataclass(frozen=True)
class Release:
    """An archive of the vendor's."""

    address: str
    sha256: str


@dataclass(frozen=True)
class Pin:
    """One engine in one version.

    Attributes:
        name: as ``shoestring engines install`` takes it.
        version: as its folder shows it.
        programs: by path in the folder.
        source: what the build needs to know; each recipe has its own keys.
        releases: by platform, for example ``linux-x86_64``.
    """

    name: str
    version: str
    programs: Mapping[str, Probe]
    source: Mapping[str, str]
    releases: Mapping[str, Release]

    def folder(self, cache: Path) -> Path:
        """Return where the engine lies, whether or not it is there."""
        return cache / "engines" / f"{self.name}-{self.version}"

    def path_of(self, program: str) -> str | None:
        """Return a program's path in the folder; None where the engine has no such program."""
        return next((path for path in self.programs if PurePosixPath(path).name == program), None)


@cache
def load_pins() -> dict[str, Pin]:
    """Read the pins, in the order in which the engines are brought."""
    text = (resources.files(__package__) / "pins.toml").read_text(encoding="utf-8")
    return {
        name: Pin(
            name=name,
            version=table["version"],
            programs={path: Probe(*probe) for path, probe in table["programs"].items()},
            source=table["source"],
            releases={key: Release(**release) for key, release in table["releases"].items()},
        )
        for name, table in tomllib.loads(text).items()
    }


def find_pin(name: str) -> Pin:
    """Return the pin of an engine, named itself or by one of its programs.

    Raises:
        BadValueError: there is none; the line lists what there is.
    """
    pins = load_pins()
    for pin in pins.values():
        if name == pin.name or pin.path_of(name):
            return pin
    raise BadValueError(f"no engine {name[:80]!a} can be installed: there are {', '.join(pins)}")


def find_pinned_program(program: str, cache_folder: Path) -> Path | None:
    """Return a program of an engine that was brought into the cache, if it lies there."""
    for pin in load_pins().values():
        relative = pin.path_of(program)
        path = pin.folder(cache_folder) / relative if relative else None
        if path and path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def platform_key() -> str:
    """Return what the releases are keyed by, for example ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine()}"
