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
"""Of decoding; what is slower than people read is no help in a chat. It is about half of it."""
QUANTISATIONS = ("q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "q8_0")
CONTEXTS = (2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


@dataclass(frozen=True)
class Choice:
    """One model of the Pareto set.

    Attributes:
        model: what it is, and for what.
        option: what was weighed.
        plan: where it goes.
    """

    model: CurrentModel
    option: Option
    plan: Plan


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

    Models that share a shape are one option: the newest stands for them, and names the others.

    Args:
        devices: as for a plan.
        settings: of the engine; their context is replaced.
        wish: what to sort by.
        constants: of speed.
        models: to choose from.
        contexts: tokens of each request.
        least_tokens_per_s: slower ones are left out; what has no prediction stays.
        progress: called with shapes done and in all.
    """
    newest: dict[str, CurrentModel] = {}
    for model in models:
        known = newest.get(model.shape)
        if known is None or (model.released, model.context) > (known.released, known.context):
            newest[model.shape] = model
    plans: dict[Option, tuple[CurrentModel, Plan]] = {}
    for number, model in enumerate(newest.values()):
        progress(number, len(newest))
        for quantisation in QUANTISATIONS:
            for option, plan in _options(
                model, quantisation, devices, settings, constants, contexts
            ):
                speed = option.decode_tokens_per_s
                if speed is None or speed.value >= least_tokens_per_s:
                    plans[option] = (model, plan)
    progress(len(newest), len(newest))
    kept = pareto(plans, wish)
    return [Choice(plans[option][0], option, plans[option][1]) for option in kept], len(plans)


def _options(
    model: CurrentModel,
    quantisation: str,
    devices: tuple[Device, ...],
    settings: Settings,
    constants: SpeedConstants,
    contexts: Sequence[int],
) -> Iterable[tuple[Option, Plan]]:
    name = f"{model.shape}:{quantisation}"
    outline = outline_of_shape(name)
    quality = estimate_quality(model.shape, quantisation, count_parameters(model.shape)[1])
    for context in contexts:
        if context > model.context:
            return
        asked = Ask(
            model=f"shape:{name}",
            outline=outline,
            settings=replace(settings, context=context),
            devices=devices,
        )
        plan = make_plan(asked, constants)
        if not plan.fits:
            return  # a longer context needs no less
        speed = plan.predicted.decode_tokens_per_s if plan.predicted else None
        total = sum(placed.total_bytes for placed in plan.placed)
        yield Option(model.title, quantisation, context, total, speed, quality), plan
