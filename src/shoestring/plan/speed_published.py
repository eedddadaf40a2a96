"""Fits the law of speed to published rows, and judges it on devices that the fit has not seen.

The judged rows are those of llama.cpp's own scoreboards (:func:`judged_rows`); a device is left out
under all its labels ("RTX 4090", "NVIDIA RTX 4090"). Beside it stands what anybody would try first,
the median efficiency of the other devices of the same generation and backend. Rows of processors
come from all sources: there are few, and their builds and threads differ.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from shoestring.hardware.cards import cards
from shoestring.plan.published_speeds import (
    FLOPS_PER_BYTE,
    judged_rows,
    processor_samples,
    samples_of,
)
from shoestring.plan.speed_constants import NEW_DRIVER, NEW_GENERATION, Fit
from shoestring.plan.speed_fit import (
    DECODE_NOISE,
    PREFILL_NOISE,
    PRIORS,
    PROCESSOR_NOISE,
    PROCESSOR_PRIORS,
    Timed,
    error_of,
    fit_constants,
    half_width,
    leave_out,
)
from shoestring.plan.speed_terms import PROCESSORS, decode_terms, prefill_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from shoestring.plan.published_speeds import Sample
    from shoestring.plan.speed_fit import Noise, Priors
    from shoestring.plan.speed_terms import Constants

FEW_ROWS = 9
"""Of a driver: its interval is then not narrower than that of all rows together."""
OWN_RATIO = 1.25
"""How much more devices of a kind differ from each other than rows of one device do."""
DIGITS = 6
"""Kept of each constant: far more than rows can tell, and the same bytes everywhere."""


def decode_times(samples: Iterable[Sample]) -> list[Timed]:
    """Return the measured times of answers, with the law's terms."""
    return [
        Timed(one.device, tuple(decode_terms(one.chip, one.work, old=one.old)), one.decode_s)
        for one in samples
        if one.decode_s is not None
    ]


def prefill_times(samples: Iterable[Sample]) -> list[Timed]:
    """Return the measured times of prompts, with the law's terms."""
    return [
        Timed(
            one.device,
            tuple(
                prefill_terms(
                    one.chip,
                    one.fill,
                    batch=one.batch,
                    flash_attention=bool(one.flash_attention),
                    old=one.old,
                )
            ),
            one.prefill_s,
        )
        for one in samples
        if one.prefill_s is not None
    ]


def fit_published() -> dict[str, Any]:
    """Return what ``speed_constants.json`` holds."""
    gpus, processors = samples_of(judged_rows()), processor_samples()
    return {
        "fits": {
            "gpu": _fit(gpus, PRIORS, DECODE_NOISE, PREFILL_NOISE, "GPUs"),
            "processor": _fit(
                processors, PROCESSOR_PRIORS, PROCESSOR_NOISE, PROCESSOR_NOISE, "processors"
            ),
        },
        **_describe_catalogue(),
    }


def _fit(
    samples: Sequence[Sample], priors: Priors, decode: Noise, prefill: Noise, what: str
) -> dict[str, Any]:
    answers, prompts = decode_times(samples), prefill_times(samples)
    values = fit_constants(answers, priors, decode) | fit_constants(prompts, priors, prefill)
    devices = Counter(
        kind
        for kind, _ in {(one.chip.driver, one.device) for one in samples}
        | {(one.chip.generation, one.device) for one in samples}
    )
    count = len({one.device for one in samples})
    answered = [one for one in samples if one.decode_s is not None]
    prompted = [one for one in samples if one.prefill_s is not None]
    own = _own(answered, answers, values, "card") | _own(prompted, prompts, values, "fill/card")
    fit = Fit(
        values=_rounded(values | own),
        decode_spread=_spreads(answered, answers, priors, decode),
        prefill_spread=_spreads(prompted, prompts, priors, prefill),
        devices=dict(sorted(devices.items())),
        about=f"{len(samples)} published rows of {count} {what}",
    )
    return dict(vars(fit))


def _own(
    samples: Sequence[Sample], rows: Sequence[Timed], constants: Constants, name: str
) -> dict[str, float]:
    """Return by what each device that was itself measured differs from what the law says of it.

    It is the mean of how far its rows are off, pulled towards 0 the more, the fewer they are.
    """
    off: dict[str, list[float]] = {}
    for one, row in zip(samples, rows, strict=True):
        key = f"{name}/{one.chip.driver}/{one.device}"
        off.setdefault(key, []).append(math.log1p(error_of(row, constants)))
    return {key: sum(found) / (len(found) + OWN_RATIO**-2) for key, found in sorted(off.items())}


def _spreads(
    samples: Sequence[Sample], rows: Sequence[Timed], priors: Priors, noise: Noise
) -> dict[str, float]:
    """Return the half-widths by driver, and those for what was never seen."""
    errors = leave_out(rows, priors, noise)
    everything = half_width(errors)
    spreads = {}
    for driver in sorted({one.chip.driver for one in samples}):
        own = [error for one, error in zip(samples, errors, strict=True)
               if one.chip.driver == driver]  # fmt: skip
        width = half_width(own)
        spreads[driver] = max(width, everything) if len(own) < FEW_ROWS else width
    spreads[NEW_GENERATION] = _width_of_new(
        rows, priors, noise, [one.chip.generation for one in samples]
    )
    drivers = [one.chip.driver for one in samples]
    # Where all have one driver there is no other to learn from.
    if len(set(drivers)) > 1:
        spreads[NEW_DRIVER] = _width_of_new(rows, priors, noise, drivers)
    return _rounded(spreads)


def _width_of_new(
    rows: Sequence[Timed], priors: Priors, noise: Noise, kinds: Sequence[str]
) -> float:
    """Return the half-width of rows of a kind that the fit saw nothing of."""
    renamed = [replace(row, group=kind) for row, kind in zip(rows, kinds, strict=True)]
    return half_width(leave_out(renamed, priors, noise))


def _describe_catalogue() -> dict[str, Any]:
    """Return what the catalogue of cards says of generations."""
    vendors: dict[str, str] = {}
    ratios: dict[str, list[float]] = {}
    known: list[float] = []
    for card in cards():
        vendors[card.generation] = PROCESSORS if card.kind == "cpu" else card.vendor
        if card.compute_flops and card.fp32_flops:
            ratios.setdefault(card.generation, []).append(card.compute_flops / card.fp32_flops)
        if card.compute_flops and card.kind == "gpu":
            known.append(card.compute_flops / card.bandwidth_bytes_per_s)
    usual = median(known)
    return {
        "vendors": dict(sorted(vendors.items())),
        "matrix_ratio": _rounded({name: median(found) for name, found in sorted(ratios.items())}),
        "operations_per_byte": _rounded({"gpu": usual, "cpu": FLOPS_PER_BYTE}),
        "operations_spread": _rounded(
            {"gpu": half_width(one / usual - 1 for one in known), "cpu": 0.0}
        ),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.{DIGITS}g}") for name, value in values.items()}


def describe_errors(errors: Sequence[float]) -> dict[str, float]:
    """Return the size of errors: how many, median, 90th percentile (linear) and the largest."""
    sizes = sorted(map(abs, errors))
    place = 0.9 * (len(sizes) - 1)
    below = math.floor(place)
    above = min(below + 1, len(sizes) - 1)
    return {
        "n": len(sizes),
        "median": median(sizes),
        "p90": sizes[below] + (place - below) * (sizes[above] - sizes[below]),
        "largest": sizes[-1],
    }


def judge_baseline(samples: Sequence[Sample], group: Callable[[Sample], Hashable]) -> list[float]:
    """Return the errors of decoding by a plain median efficiency, each device left out.

    Efficiency is bytes read for a token over what the bandwidth allows, of the same generation and
    backend; where the device was the only one, of its driver, else of all.
    """
    return [
        _efficiency([other for other in samples if group(other) != group(one)], one)
        / _share(one) - 1
        for one in samples
    ]  # fmt: skip


def _efficiency(others: Sequence[Sample], one: Sample) -> float:
    like: list[Callable[[Sample], bool]] = [
        lambda other: (
            (other.chip.generation, other.chip.driver) == (one.chip.generation, one.chip.driver)
        ),
        lambda other: other.chip.driver == one.chip.driver,
        lambda _: True,
    ]
    for is_like in like:
        shares = [_share(other) for other in others if is_like(other)]
        if shares:
            return median(shares)
    raise AssertionError


def _share(sample: Sample) -> float:
    assert sample.decode_s is not None
    read = sum(block.read_bytes for block in sample.work.blocks.values())
    return read / sample.chip.bandwidth_bytes_per_s / sample.decode_s
