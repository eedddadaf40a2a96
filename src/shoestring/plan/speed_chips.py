"""What a device is to the law of speed: its chip, and whose constants hold for it.

A calibration holds for the processor of this machine, whatever is said of its memory. Of any other
device the bandwidth must be known; a computing rate that nobody told is taken from what cards have
for each byte of bandwidth, and makes the interval of prompts wider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.hardware.cards import find_card
from shoestring.plan.speed_here import REFERENCE
from shoestring.plan.speed_terms import PROCESSORS, USUAL_BACKENDS, Chip

if TYPE_CHECKING:
    from shoestring.hardware.devices import Device
    from shoestring.plan.speed_constants import Fit, SpeedConstants


def chip_of(
    device: Device, constants: SpeedConstants, backend: str | None
) -> tuple[Chip, Fit, float]:
    """Return a device as the law sees it, its fit, and how unsure its computing rate is.

    Args:
        device: where layers may lie.
        constants: of published rows, and of a calibration if there was one.
        backend: by what the engine drives it; None: the usual one of its maker.

    Returns:
        The chip; the constants that hold for it; and the half-width, as a logarithm, of a rate
        that nobody told, else 0.

    Raises:
        BadValueError: the bandwidth is unknown.
    """
    vendor = constants.vendors.get(device.generation or "", "")
    processor = device.kind == "cpu" or vendor == PROCESSORS
    if device.kind == "cpu" and constants.here is not None:
        return REFERENCE, constants.here, 0.0
    if device.bandwidth_bytes_per_s is None:
        raise BadValueError(
            f"--device {device.name}: its bandwidth is unknown; "
            f"give it as {device.name}:8GiB:256GB/s"
        )
    kind = "cpu" if processor else "gpu"
    flops = device.compute_flops
    guessed = 0.0 if flops else constants.operations_spread[kind]
    flops = flops or device.bandwidth_bytes_per_s * constants.operations_per_byte[kind]
    generation = device.generation or ""
    used = backend or USUAL_BACKENDS.get(vendor)
    driver = f"{vendor}-{used}" if vendor and used else ""
    chip = Chip(
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        compute_flops=flops,
        fp32_flops=flops / constants.matrix_ratio.get(generation, 1.0),
        driver=PROCESSORS if processor else driver,
        generation=generation,
        card=_card(device),
    )
    return chip, constants.processor if processor else constants.gpu, guessed


def _card(device: Device) -> str:
    """Return the catalogue's name of a device, if it is what that card is."""
    card = find_card(device.title)
    same = card is not None and (card.generation, card.bandwidth_bytes_per_s) == (
        device.generation,
        device.bandwidth_bytes_per_s,
    )
    return card.name if card is not None and same else ""


def fitted_on(fit: Fit, chip: Chip) -> str:
    """Say for readers what a prediction for a chip rests on."""
    if fit.machine:
        return fit.about
    like = fit.devices.get(chip.driver, 0)
    same = fit.devices.get(chip.generation, 0)
    driven = f"{like} of them {chip.driver}" if chip.driver else "of no known maker"
    own = ", itself among them" if f"card/{chip.driver}/{chip.card}" in fit.values else ""
    return f"{fit.about}, {driven}, {same} of generation {chip.generation or 'unknown'}{own}"
