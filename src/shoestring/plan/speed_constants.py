"""The constants of the law of speed: those of published rows, and those of the machine at hand.

``speed_constants.json`` is made by ``scripts/fit_speeds.py`` from ``published_speeds.csv`` and the
catalogue of cards, the same bytes each time. A calibration writes a file of its own, which takes
the place of the processor's part of it.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError, MissingError
from shoestring.models.downloads import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

PUBLISHED_PATH = Path(__file__).with_name("speed_constants.json")
HERE_NAME = "speed_here.json"
"""Of a calibration, in the user's cache folder."""
SCHEMA = 1
NEW_GENERATION, NEW_DRIVER = "new generation", "new driver"
"""Half-widths where the fit has seen nothing of a generation, or of a driver."""
FEW = 2
"""A generation of fewer devices is taken for a new one."""


@dataclass(frozen=True)
class Fit:
    """Constants and how far to trust them.

    Attributes:
        values: each constant by its name, for :mod:`shoestring.plan.speed_terms`.
        decode_spread: half-width of the 80 % interval, as a logarithm, by driver.
        prefill_spread: likewise.
        devices: how many devices of each driver and each generation were in the fit.
        about: what was fitted, for readers.
        machine: of a calibration: where it was made; empty: of published rows.
    """

    values: Mapping[str, float]
    decode_spread: Mapping[str, float]
    prefill_spread: Mapping[str, float]
    devices: Mapping[str, int]
    about: str
    machine: str = ""

    def spread(self, which: Mapping[str, float], driver: str, generation: str) -> float:
        """Return the half-width for a chip: the wider, the less was seen of its like."""
        if driver not in which:
            return which[NEW_DRIVER]
        if self.devices.get(generation, 0) < FEW:
            return max(which[driver], which[NEW_GENERATION])
        return which[driver]


@dataclass(frozen=True)
class SpeedConstants:
    """All that predictions of speed rest on.

    Attributes:
        gpu: the fit for cards, and for what nobody knows.
        processor: the fit for processors of published rows.
        here: the fit of a calibration; None: there was none.
        vendors: of each generation; ``cpu`` for processors.
        matrix_ratio: by how much matrix units are faster than ordinary ones, by generation.
        operations_per_byte: of what lists no rate, ``gpu`` and ``cpu``: operations for each byte of
            bandwidth.
        operations_spread: half-width of it, as a logarithm.
    """

    gpu: Fit
    processor: Fit
    here: Fit | None
    vendors: Mapping[str, str]
    matrix_ratio: Mapping[str, float]
    operations_per_byte: Mapping[str, float]
    operations_spread: Mapping[str, float]


def load_constants(here: Path | None = None) -> SpeedConstants:
    """Return the constants of published rows, with those of a calibration where there is one.

    Args:
        here: the file of a calibration; None, or one that is not there: only published ones.

    Raises:
        BadValueError: the file is not one of a calibration.
    """
    read = _published()
    return SpeedConstants(
        gpu=Fit(**read["fits"]["gpu"]),
        processor=Fit(**read["fits"]["processor"]),
        here=None if here is None else _read_here(here),
        vendors=read["vendors"],
        matrix_ratio=read["matrix_ratio"],
        operations_per_byte=read["operations_per_byte"],
        operations_spread=read["operations_spread"],
    )


def save_calibration(fit: Fit, path: Path) -> None:
    """Write the constants of this machine, whole or not at all.

    Raises:
        MissingError: there is no space for it, or no right to it.
    """
    text = json.dumps({"schema_version": SCHEMA, **asdict(fit)}, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise MissingError(
            f"{path}: the calibration cannot be written: {error.strerror}; "
            "set SHOESTRING_CACHE to a folder with room"
        ) from error


@functools.cache
def _published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PUBLISHED_PATH.read_text(encoding="utf-8"))
    return found


def _read_here(path: Path) -> Fit | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _explain(path, "cannot be read") from error
    try:
        found = json.loads(text)
        version = found.pop("schema_version")
        fit = Fit(**found)
        constants = (*fit.values.values(), *fit.decode_spread.values())
        sound = all(isinstance(value, float) for value in constants)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _explain(path, "is no calibration") from error
    if version != SCHEMA or not sound or not fit.machine:
        raise _explain(path, "is no calibration of this version")
    return fit


def _explain(path: Path, problem: str) -> BadValueError:
    return BadValueError(f"{path}: {problem}; calibrate again: shoestring plan --calibrate")
