"""A model over peers: which layers where, the stages, and llama-server before them.

The planner lays the layers out, this machine's memory and the peers as one row; a peer that gets
none is left alone. llama-server sees one worker on loopback for each of the others.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoestring.engines.opening import open_engine
from shoestring.errors import BadValueError
from shoestring.plan.memory import Settings
from shoestring.plan.planner import Ask, make_plan
from shoestring.report.planning import offload_of
from shoestring.swarm.stage import HOST, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from shoestring.engines.outlines import Found
    from shoestring.engines.protocol import Engine
    from shoestring.hardware.devices import Device
    from shoestring.plan.planner import Plan
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.survey import Seen

PROMPT_TOKENS = 512


@dataclass(frozen=True)
class Chain:
    """A model laid over peers.

    Attributes:
        plan: with the predicted speed.
        stages: the peers that have a part, in the order of their layers.
    """

    plan: Plan
    stages: tuple[Seen, ...]


def plan_chain(
    found: Found,
    own: Sequence[Device],
    seen: Sequence[Seen],
    constants: SpeedConstants,
    *,
    context: int,
    parallel: int = 1,
    peer_layers: int | None = None,
) -> Chain:
    """Lay a model over this machine and peers.

    Args:
        found: the model.
        own: this machine's devices; its cards come after the peers, as llama.cpp orders them.
        seen: peers that answered.
        constants: of speed.
        context: tokens of each request.
        parallel: requests at once.
        peer_layers: so many layers on cards and peers, the output counted as one; None: as many as
            make a token fastest.

    Raises:
        BadValueError: it fits nowhere, or a value cannot be used.
    """
    settings = Settings(context=context, parallel=parallel)
    plan = make_plan(
        Ask(
            model=found.name, outline=found.outline, settings=settings,
            devices=(*own, *(one.device for one in seen)),
            prompt_tokens=min(PROMPT_TOKENS, context), gpu_layers=peer_layers,
        ),
        constants,
        alternatives=False,
    )  # fmt: skip
    if not plan.fits:
        raise BadValueError(
            f"{found.name} does not fit here and on {len(seen)} peers: {'; '.join(plan.rejected)}"
        )
    stages = tuple(
        one
        for placed in plan.placed
        for one in seen
        if placed.device is one.device and (placed.output or _has_layers(placed.layers))
    )
    return Chain(plan, stages)


@asynccontextmanager
async def running_chain(
    model: str,
    chain: Chain,
    identity: Identity,
    *,
    say: Callable[[str], None],
    log_path: Path | None = None,
) -> AsyncIterator[Engine]:
    """Open the stages, start llama-server before them, and end all of it with the block.

    Raises:
        UserError: the model or the engine cannot be used.
        EngineLostError: it did not take the model over the stages; ``say`` was told which failed.
    """
    settings = chain.plan.ask.settings
    async with AsyncExitStack() as stack:
        stages = [
            await stack.enter_async_context(Stage(identity, one.remote, say=say))
            for one in chain.stages
        ]
        endpoints = tuple(f"{HOST}:{stage.port}" for stage in stages)
        engine = await asyncio.to_thread(
            open_engine,
            model,
            engine="llama-server",
            context=settings.context,
            parallel=settings.parallel,
            offload=replace(offload_of(chain.plan), rpc=endpoints),
            log_path=log_path,
        )
        # Its threads wait for the stages, which are served by this loop.
        stack.push_async_callback(asyncio.to_thread, engine.stop)
        await asyncio.to_thread(engine.start)
        await asyncio.to_thread(engine.load)
        yield engine


def _has_layers(layers: tuple[int, int]) -> bool:
    first, end = layers
    return end > first
