"""Fits the law of speed to this machine's processor, on a few models that were run on it.

Published rows of processors disagree by factors: threads, memory and builds differ. A handful of
models measured here say more. Each type of weights gets a time of its own for each byte read
(decoding) and for each weight (prompts), each layer one, each token of the vocabulary one. What was
not run is taken to cost the mean of what was, and what published rows say of the difference between
types.

Six or seven models of different types are enough: one of many small layers tells the cost of a
layer, a Gemma that of a large vocabulary, one each of Q4_0, Q4_K, Q6_K, Q8_0 and F16 the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.plan.speed_constants import NEW_DRIVER, NEW_GENERATION, Fit
from shoestring.plan.speed_fit import Noise, Timed, fit_constants, half_width, leave_out
from shoestring.plan.speed_terms import PROCESSORS, Chip, decode_terms, prefill_terms, works_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.models.outline import Outline
    from shoestring.plan.memory import Settings
    from shoestring.plan.speed_fit import Priors

REFERENCE = Chip(1e10, 1e11, 1e11, PROCESSORS, "")
"""To what a calibration's constants relate, whatever the machine's bandwidth is said to be."""
LEAST = 3
"""Models that a calibration needs."""
NARROWEST = 0.08
"""Half-width of an interval: fewer models than ten cannot vouch for less."""
NOISE = Noise(0.04, 0.1)
PRIORS: Priors = {
    "memory": (0.0, 2.0),
    "memory/driver": (0.0, 1e-3),
    "memory/generation": (0.0, 1e-3),
    "memory/type": (0.0, 0.4),
    "launch": (1.0, 1.0),
    "launch/driver": (0.0, 1e-3),
    "launch/generation": (0.0, 1e-3),
    "choice": (0.0, 1.0),
    "fill": (0.0, 2.0),
    "fill/driver": (0.0, 1e-3),
    "fill/generation": (0.0, 1e-3),
    "fill/type": (0.0, 0.5),
}
"""As of :data:`shoestring.plan.speed_fit.PRIORS`; ``memory/type/Q6_K`` and the like come from
published rows."""


@dataclass(frozen=True)
class Measured:
    """One model as it ran on this machine's processor.

    Attributes:
        name: of the model, for messages; what shares it is left out together.
        outline: the model.
        settings: of the engine; of them only ``ubatch`` counts.
        prompt_tokens: of the prompt.
        decode_tokens_per_s: from a nearly empty context.
        prefill_tokens_per_s: of the prompt.
    """

    name: str
    outline: Outline
    settings: Settings
    prompt_tokens: int
    decode_tokens_per_s: float
    prefill_tokens_per_s: float


def fit_here(rows: Sequence[Measured], published: Fit, machine: str, day: str) -> Fit:
    """Return the constants of this machine's processor.

    Args:
        rows: of several models, better of several types.
        published: the fit of processors, for types that were not run.
        machine: what was measured, for readers.
        day: when, for readers.

    Raises:
        BadValueError: there are fewer than three models, or a rate is not above 0.
    """
    names = {row.name for row in rows}
    if len(names) < LEAST:
        raise BadValueError(
            f"calibration: {len(names)} models were run; at least {LEAST} are needed"
        )
    for row in rows:
        for rate in (row.decode_tokens_per_s, row.prefill_tokens_per_s):
            if not 0 < rate < math.inf:
                raise BadValueError(f"calibration: {row.name}: {rate} tokens/s; run it again")
    answers, prompts = decode_rows(rows), prefill_rows(rows)
    priors = priors_here(published)
    return Fit(
        values=fit_constants(answers, priors, NOISE) | fit_constants(prompts, priors, NOISE),
        decode_spread=_spread(answers, priors),
        prefill_spread=_spread(prompts, priors),
        devices={PROCESSORS: 1},
        about=f"{len(names)} models run on {machine} on {day}",
        machine=machine,
    )


def priors_here(published: Fit) -> Priors:
    """Return the springs of a calibration: types differ as published rows say they do."""
    types = {name: value for name, value in published.values.items() if "/type/" in name}
    return {**PRIORS, **{
        name: (value, PRIORS[name.rpartition("/")[0]][1]) for name, value in types.items()
    }}  # fmt: skip


def decode_rows(rows: Sequence[Measured]) -> list[Timed]:
    """Return the times of answers with the law's terms."""
    return [
        Timed(
            row.name,
            tuple(decode_terms(REFERENCE, works_of(row.outline)[0])),
            1 / row.decode_tokens_per_s,
        )
        for row in rows
    ]


def prefill_rows(rows: Sequence[Measured]) -> list[Timed]:
    """Return the times of prompts with the law's terms."""
    return [
        Timed(
            row.name,
            tuple(
                prefill_terms(
                    REFERENCE,
                    works_of(row.outline)[1],
                    batch=min(row.settings.ubatch, row.prompt_tokens),
                )
            ),
            1 / row.prefill_tokens_per_s,
        )
        for row in rows
    ]


def _spread(rows: Sequence[Timed], priors: Priors) -> dict[str, float]:
    width = max(half_width(leave_out(rows, priors, NOISE)), NARROWEST)
    return dict.fromkeys((PROCESSORS, NEW_GENERATION, NEW_DRIVER), width)
