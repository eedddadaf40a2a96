"""Which model, in which quantisation, at which context: every one that fits, less what is beaten.

Each current model is planned in each quantisation at each context that it was trained for, on the
devices at hand; of what fits, the Pareto set by speed, a proxy of quality, and context is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoestring.models.outline import outline_of_shape
from shoestring.plan.current_models import CURRENT_MODELS, count_parameters
from shoestring.plan.pareto import Option, estimate_quality, pareto
from shoestring.plan.planner import Ask, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shoestring.hardware.devices import Device
    from shoestring.plan.current_models import CurrentModel
    from shoestring.plan.memory import Settings
    from shoestring.plan.pareto import Wish
    from shoestring.plan.planner import Plan
    from shoestring.plan.speed_constants import SpeedConstants

LEAST_TOKENS_PER_S = 3.0
"""Of decoding: about two words a second, the slowest that a chat is any use at."""
QUANTISATIONS = ("q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "q8_0")
CONTEXTS = (2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


@dataclass(frozen=True)
class Choice:
    """One entry of the Pareto set.

    Attributes:
        models: all of this shape that were trained for the context, the newest first.
        option: what was weighed; it bears the name of the newest.
        plan: where it goes.
    """

    models: tuple[CurrentModel, ...]
    option: Option
    plan: Plan

    @property
    def uses(self) -> tuple[str, ...]:
        """What their makers made them for, each once."""
        return tuple(dict.fromkeys(use for model in self.models for use in model.uses))


def choose(
    devices: tuple[Device, ...],
    settings: Settings,
    wish: Wish,
    constants: SpeedConstants,
    *,
    models: Iterable[CurrentModel] = CURRENT_MODELS,
    contexts: Sequence[int] = CONTEXTS,
    least_tokens_per_s: float = LEAST_TOKENS_PER_S,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[list[Choice], int]:
    """Return the Pareto set, the best by the wish first, and how many fit and are fast enough.

    Models that share a shape are one choice, since memory and speed are the same. The speed of a
    choice is that with its context full: a longer one is paid for.

    Args:
        devices: as for a plan.
        settings: of the engine; their context is replaced.
        wish: what to sort by.
        constants: of speed.
        models: to choose from.
        contexts: tokens of each request, rising.
        least_tokens_per_s: slower ones are left out; what has no prediction stays.
        progress: called with shapes done and in all.
    """
    by_shape: dict[str, list[CurrentModel]] = {}
    for model in sorted(models, key=lambda one: one.released, reverse=True):
        by_shape.setdefault(model.shape, []).append(model)
    found: dict[Option, Choice] = {}
    for number, (shape, sharing) in enumerate(by_shape.items()):
        progress(number, len(by_shape))
        for quantisation in QUANTISATIONS:
            for plan in _plans(shape, quantisation, devices, settings, constants, contexts):
                able = [one for one in sharing if one.context >= plan.ask.settings.context]
                if not able:
                    break
                speed = plan.filled_tokens_per_s
                if speed is None or speed.value >= least_tokens_per_s:
                    choice = _choice(tuple(able), quantisation, plan)
                    found[choice.option] = choice
    progress(len(by_shape), len(by_shape))
    return [found[option] for option in pareto(found, wish)], len(found)


def _plans(
    shape: str,
    quantisation: str,
    devices: tuple[Device, ...],
    settings: Settings,
    constants: SpeedConstants,
    contexts: Sequence[int],
) -> Iterable[Plan]:
    """Plan a shape at each context until it fits no more: a longer one needs no less."""
    name = f"{shape}:{quantisation}"
    outline = outline_of_shape(name)
    for context in contexts:
        asked = Ask(
            model=f"shape:{name}",
            outline=outline,
            settings=replace(settings, context=context),
            devices=devices,
        )
        plan = make_plan(asked, constants, alternatives=False)
        if not plan.fits:
            return
        yield plan


def _choice(models: tuple[CurrentModel, ...], quantisation: str, plan: Plan) -> Choice:
    shape = models[0].shape
    option = Option(
        models[0].title,
        quantisation,
        plan.ask.settings.context,
        sum(placed.total_bytes for placed in plan.placed),
        plan.filled_tokens_per_s,
        estimate_quality(shape, quantisation, count_parameters(shape)[1]),
    )
    return Choice(models, option, plan)
