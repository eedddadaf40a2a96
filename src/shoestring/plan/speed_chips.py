"""What a device is to the law of speed: its chip, and whose constants hold for it.

A calibration holds for the processor of this machine, whatever is said of its memory. Of any other
device the bandwidth must be known; a computing rate that nobody told is taken from what cards have
for each byte of bandwidth, and makes the interval of prompts wider. The rate of the ordinary units
is that of the card's sheet, else a share of the whole, the same as in the fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.hardware.cards import find_card
from shoestring.plan.speed_here import REFERENCE
from shoestring.plan.speed_terms import PROCESSORS, USUAL_BACKENDS, Chip

if TYPE_CHECKING:
    from shoestring.hardware.cards import Card
    from shoestring.hardware.devices import Device
    from shoestring.plan.speed_constants import Fit, SpeedConstants

MATRIX_RATIO = 4.0
"""By how much matrix units are taken to be faster than the ordinary ones where no sheet lists both,
as they are in Ada, Blackwell and RDNA 4; Apple lists only those of its M5."""
PLAIN_GENERATIONS = frozenset({"maxwell", "pascal"})
"""Without matrix units: all that they compute the ordinary ones do."""


def chip_of(device: Device, constants: SpeedConstants) -> tuple[Chip, Fit, float]:
    """Return a device as the law sees it, its fit, and how unsure its computing rate is.

    Args:
        device: where layers may lie.
        constants: of published rows, and of a calibration if there was one.

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
    card = _card(device)
    used = USUAL_BACKENDS.get(vendor)
    driver = f"{vendor}-{used}" if used else ""
    listed = None if card is None else card.fp32_flops
    chip = Chip(
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        compute_flops=flops,
        fp32_flops=listed or flops / (1.0 if processor else _matrix_ratio(device, constants)),
        driver=PROCESSORS if processor else driver,
        generation=device.generation or "",
        card="" if card is None else card.name,
    )
    return chip, constants.processor if processor else constants.gpu, guessed


def _card(device: Device) -> Card | None:
    """Return the card of the catalogue that a device is; None: none, or not at its bandwidth."""
    card = find_card(device.title)
    same = card is not None and (card.generation, card.bandwidth_bytes_per_s) == (
        device.generation,
        device.bandwidth_bytes_per_s,
    )
    return card if same else None


def _matrix_ratio(device: Device, constants: SpeedConstants) -> float:
    """Return by how much a device's whole rate is above that of its ordinary units."""
    if device.generation in PLAIN_GENERATIONS:
        return 1.0
    return constants.matrix_ratio.get(device.generation or "", MATRIX_RATIO)


def fitted_on(fit: Fit, chip: Chip) -> str:
    """Say for readers what a prediction for a chip rests on."""
    if fit.machine:
        return fit.about
    like = fit.devices.get(chip.driver, 0)
    same = fit.devices.get(chip.generation, 0)
    driven = f"{like} of them {chip.driver}" if chip.driver else "of no known maker"
    own = ", itself among them" if f"card/{chip.driver}/{chip.card}" in fit.values else ""
    return f"{fit.about}, {driven}, {same} of generation {chip.generation or 'unknown'}{own}"
