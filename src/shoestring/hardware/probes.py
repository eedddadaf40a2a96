"""Readings that may fail: a failure costs the fields of that reading, and the reason is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
# What psutil raises where the kernel does not let it read, or writes what it does not expect.
PROBE_ERRORS = (OSError, psutil.Error, RuntimeError, ValueError)


class Probes:
    """What could not be read, of everything that one sampler reads.

    Attributes:
        unavailable: why a field is or was None, by the field's name.
    """

    def __init__(self) -> None:
        self.unavailable: dict[str, str] = {}

    def read(self, read: Callable[[], T], *fields: str) -> T | None:
        """Read something; where that fails, note the reason for its fields and return None."""
        try:
            return read()
        except PROBE_ERRORS as error:
            self.missing(" ".join(f"{type(error).__name__}: {error}".split()), *fields)
            return None

    def missing(self, reason: str, *fields: str) -> None:
        """Note why fields are None."""
        self.unavailable.update(dict.fromkeys(fields, reason))
