"""Which of many options are worth looking at: those that no other beats in everything.

Quality is a proxy, since nothing comparable is published for all models and quantisations: the
weights that one token uses, less what the quantisation takes away::

    effective = weights / ratio ** (1 / SLOPE)

where ``ratio`` is the published perplexity ratio (:mod:`shoestring.plan.quality_loss`), and SLOPE
how perplexity falls with size in one family: of Llama 2, 5.795 with 6.74 billion weights and 3.431
with 68.98 (``tools/perplexity/README.md`` of llama.cpp). Where no ratio of the model is published
the one of another stands in, and the option says so. It is *not* a measure of answers: it knows
nothing of a model's data, age, language or training to think, it is no bridge between families,
and of a model of experts it is a lower bound. Options of one family are ordered by it well enough
to say which quantisation of which size to try first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from shoestring.plan.quality_loss import STAND_IN, find_loss, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.plan.speed import Interval

Wish: TypeAlias = Literal["speed", "quality", "context"]
SLOPE = math.log(5.7946 / 3.4313) / math.log(68.98 / 6.74)
"""0.225: twice the weights, 14 % less perplexity."""


@dataclass(frozen=True)
class Quality:
    """A proxy of quality; the module says of what.

    Attributes:
        effective_parameters: None: the quantisation is unknown.
        perplexity_ratio: published for this model; None: for none of its family and size.
        basis: where the ratio is from that was used.
    """

    effective_parameters: float | None
    perplexity_ratio: float | None
    basis: str


@dataclass(frozen=True)
class Option:
    """A model in a quantisation at a context, on a given machine.

    Attributes:
        model: title.
        quantisation: lower case.
        context: tokens for each request.
        memory_bytes: on all places together.
        decode_tokens_per_s: None: no prediction.
        quality: by :func:`estimate_quality`.
    """

    model: str
    quantisation: str
    context: int
    memory_bytes: int
    decode_tokens_per_s: Interval | None
    quality: Quality


def estimate_quality(shape: str, quantisation: str, active_parameters: int) -> Quality:
    """Return the proxy for a model.

    Args:
        shape: a name of :data:`shoestring.models.shapes.SHAPES`.
        quantisation: lower case.
        active_parameters: weights that one token uses.
    """
    found = find_loss(shape, quantisation)
    if found.loss is not None:
        ratio = found.loss.perplexity_ratio
        return Quality(active_parameters / ratio ** (1 / SLOPE), ratio, found.reason)
    other = stand_in(quantisation)
    if other is None:
        return Quality(None, None, found.reason)
    effective = active_parameters / other.perplexity_ratio ** (1 / SLOPE)
    return Quality(effective, None, f"{found.reason}; that of {STAND_IN} stands in")


def pareto(options: Iterable[Option], wish: Wish) -> list[Option]:
    """Return the options that no other beats, the best by the wish first.

    One beats another if it is as good in speed, quality and context, and better in one; equal ones
    stay, the one of less memory first. What is unknown counts as the worst.

    Args:
        options: of one machine, all of which fit.
        wish: what to sort by; ties are sorted by the two others.
    """
    kept: list[Option] = []
    # Sorted so, an option can only be beaten by one before it.
    for option in sorted(options, key=lambda each: _order(each, wish)):
        if not any(_beats(_merits(other), _merits(option)) for other in kept):
            kept.append(option)
    return kept


class _Merits(NamedTuple):
    speed: float
    quality: float
    context: float


def _merits(option: Option) -> _Merits:
    speed, effective = option.decode_tokens_per_s, option.quality.effective_parameters
    return _Merits(
        speed=-math.inf if speed is None else speed.value,
        quality=-math.inf if effective is None else effective,
        context=option.context,
    )


def _beats(one: _Merits, other: _Merits) -> bool:
    pairs = [*zip(one, other, strict=True)]
    return all(mine >= its for mine, its in pairs) and one != other


def _order(option: Option, wish: Wish) -> tuple[float | str, ...]:
    merits = _merits(option)
    others = [value for name, value in merits._asdict().items() if name != wish]
    figures = (getattr(merits, wish), *others)
    names = (option.model, option.quantisation)
    return (*(-figure for figure in figures), option.memory_bytes, *names)
