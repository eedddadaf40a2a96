"""For what is planned: devices that were named, or this machine, and what was measured of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shoestring.engines.discovery import find_program
from shoestring.errors import MissingError
from shoestring.hardware.device_words import parse_devices
from shoestring.hardware.devices import detect_devices
from shoestring.hardware.machine import describe_machine
from shoestring.hardware.memory_speed import measure_memory_speed
from shoestring.measure.speed_trials import CALIBRATION, measure_speed
from shoestring.models.outline import outline_of_shape
from shoestring.paths import cache_dir
from shoestring.plan.machines import machine_of
from shoestring.plan.memory import Settings
from shoestring.plan.speed_constants import HERE_NAME, load_constants, save_calibration
from shoestring.plan.speed_here import Measured, fit_here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shoestring.hardware.devices import Device
    from shoestring.measure.speed_trials import SpeedTrial
    from shoestring.plan.speed_constants import SpeedConstants


def find_devices(
    texts: Sequence[str], say: Callable[[str], None]
) -> tuple[tuple[Device, ...], SpeedConstants]:
    """Return the devices, and the constants that hold for them.

    A calibration holds for the machine on which it was made, and for no device that is named.

    Args:
        texts: as after ``--device``; none: this machine.
        say: told what is measured, and what was left out.

    Raises:
        BadValueError: a text is no device, or the calibration is damaged.
    """
    if texts:
        return parse_devices(texts), load_constants()
    constants = load_constants(_calibration_path())
    if constants.here is not None and constants.here.machine != _machine_title():
        say(f"the calibration is of another machine, {constants.here.machine}: it is left aside")
        constants = load_constants()
    if constants.here is not None:
        return detect_devices(say=say), constants
    say("measuring how fast memory is read, a second; for better figures: plan --calibrate")
    try:
        read_bytes_per_s: float | None = measure_memory_speed().read_bytes_per_s
    except MissingError as error:  # memory can be planned all the same
        say(str(error))
        read_bytes_per_s = None
    return detect_devices(say=say, ram_bytes_per_s=read_bytes_per_s), constants


def calibrate_here(engine: str, say: Callable[[str], None]) -> None:
    """Run the calibration's models one after the other, and keep what was fitted.

    Args:
        engine: ``embedded`` or ``llama-server``; ``auto`` takes the latter where it is installed.
        say: told how far it is, and what was measured.

    Raises:
        EngineLostError: a model could not be run.
    """
    if engine == "auto":
        engine = "embedded" if find_program("llama-server") is None else "llama-server"
    trials = [measure_speed(shape, engine=engine, say=say) for shape in CALIBRATION]
    for trial in trials:
        say(
            f"{trial.shape:26} decode {trial.decode_tokens_per_s:7.1f} tokens/s   "
            f"prefill {trial.prefill_tokens_per_s:7.1f} tokens/s"
        )
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    published = load_constants().processor
    fit = fit_here([_measured(trial) for trial in trials], published, _machine_title(), day)
    save_calibration(fit, _calibration_path())
    say(f"kept in {_calibration_path()}")


def _measured(trial: SpeedTrial) -> Measured:
    return Measured(
        trial.shape,
        outline_of_shape(trial.shape),
        Settings(context=trial.prompt_tokens),
        trial.prompt_tokens,
        trial.decode_tokens_per_s,
        trial.prefill_tokens_per_s,
    )


def _calibration_path() -> Path:
    return cache_dir() / HERE_NAME


def _machine_title() -> str:
    machine = machine_of(describe_machine())
    return "an unknown machine" if machine is None else machine.title
