"""A model over peers: which layers where, the stages, and llama-server before them.

The planner lays the layers out, this machine's memory and the peers as one row; a peer that gets
none is a spare. Embedding and output stay here: what the output says of each word of the vocabulary
is a hundred times what a layer hands on. llama-server sees one worker on loopback for each peer
that has layers.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoestring.engines.opening import find_subject, make_engine
from shoestring.errors import BadValueError
from shoestring.plan.memory import Settings
from shoestring.plan.planner import Ask, make_plan
from shoestring.report.planning import offload_of
from shoestring.swarm.auditing import heard_by
from shoestring.swarm.borrowing import weights_of_part
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from shoestring.engines.offload import Offload
    from shoestring.engines.outlines import Found
    from shoestring.engines.protocol import Engine
    from shoestring.hardware.devices import Device
    from shoestring.plan.planner import Plan
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.swarm.audit.auditor import Auditor
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.proof.paying import Paying
    from shoestring.swarm.stage import Event
    from shoestring.swarm.survey import Seen

PROMPT_TOKENS = 512


@dataclass(frozen=True)
class Part:
    """What one stage holds.

    Attributes:
        members: the peers that hold it; the first was planned, others mirror it.
        least_bytes: that a peer must offer to hold it.
        layers: the first, and the one after the last.
    """

    members: tuple[Seen, ...]
    least_bytes: int
    layers: tuple[int, int]


@dataclass(frozen=True)
class Chain:
    """A model laid over peers.

    Attributes:
        plan: with the predicted speed.
        parts: in the order of their layers.
        spares: the peers that have none, the nearest first.
    """

    plan: Plan
    parts: tuple[Part, ...]
    spares: tuple[Seen, ...]


def plan_chain(
    found: Found,
    own: Sequence[Device],
    seen: Sequence[Seen],
    constants: SpeedConstants,
    *,
    context: int,
    parallel: int = 1,
    peer_layers: int | None = None,
    mirrors: int = 0,
) -> Chain:
    """Lay a model over this machine and peers.

    Args:
        found: the model.
        own: this machine's devices; its cards come after the peers, as llama.cpp orders them.
        seen: peers that answered.
        constants: of speed.
        context: tokens of each request.
        parallel: requests at once.
        peer_layers: so many layers on cards and peers; None: as many as make a token fastest.
        mirrors: how many more peers hold each part.

    Raises:
        BadValueError: it fits nowhere, there are too few peers, or a value cannot be used.
    """
    settings = Settings(context=context, parallel=parallel)
    plan = make_plan(
        Ask(
            model=found.name, outline=found.outline, settings=settings,
            devices=(*own, *(_offered(one, found.outline.file_bytes) for one in seen)),
            prompt_tokens=min(PROMPT_TOKENS, context), gpu_layers=peer_layers,
            keeps_output=True,
        ),
        constants,
        alternatives=False,
    )  # fmt: skip
    if not plan.fits:
        raise BadValueError(
            f"{found.name} does not fit here and on {len(seen)} peers: {'; '.join(plan.rejected)}"
        )
    first = {
        one: placed
        for placed in plan.placed
        for one in seen
        if placed.name == one.device.name and _has_layers(placed.layers)
    }
    model_bytes = found.outline.file_bytes
    spares = [one for one in seen if one not in first]
    parts = [
        Part(
            (one, *_mirrors(one, placed.total_bytes, mirrors, spares, model_bytes)),
            placed.total_bytes,
            placed.layers,
        )
        for one, placed in first.items()
    ]
    return Chain(plan, tuple(parts), tuple(spares))


def offload_over(plan: Plan, endpoints: tuple[str, ...], cards: Mapping[str, str]) -> Offload:
    """Return what a plan decides, each device by the name by which llama-server knows it.

    One that lacks a named device does not start; unnamed, that device's share would go to another.

    Args:
        plan: that fits.
        endpoints: of the stages, in the order of their layers.
        cards: llama-server's names of this machine's cards, by ours.
    """
    offload = offload_of(plan)
    devices = [placed.device for placed in plan.placed if placed.device is not None]
    names = [f"RPC{number}" for number in range(len(endpoints))]
    names += [cards[device.name] for device in devices if device.kind == "gpu"]
    return replace(offload, rpc=endpoints, devices=offload.devices or tuple(names))


@asynccontextmanager
async def running_chain(
    model: str,
    chain: Chain,
    identity: Identity,
    *,
    tell: Callable[[Event], None],
    cards: Mapping[str, str] = {},
    log_path: Path | None = None,
    paying: Paying | None = None,
    auditor: Auditor | None = None,
) -> AsyncIterator[Engine]:
    """Open the stages, start llama-server before them, and end all of it with the block.

    Args:
        model: its name.
        chain: of parts and spares.
        identity: ours.
        tell: given what happens at stages.
        cards: llama-server's names of this machine's cards, by ours; all that the plan has.
        log_path: where llama-server writes; None: nowhere.
        paying: for receipts; None: there are none.
        auditor: who has windows run again; None: nobody.

    Raises:
        UserError: the model or the engine cannot be used.
        EngineLostError: it did not take the model over the stages; ``tell`` was told what failed.
    """
    settings = chain.plan.ask.settings
    subject = await asyncio.to_thread(find_subject, model, "llama-server")
    assert subject.file is not None, "llama-server loads files"
    weights = Weights(subject.file.path)
    model_bytes = chain.plan.ask.outline.file_bytes
    spares = Spares(
        Spare(one.remote, _offered(one, model_bytes).memory_bytes, one.numerics)
        for one in chain.spares
    )
    async with AsyncExitStack() as stack:
        if auditor is not None:
            await stack.enter_async_context(auditor)
            paying = None if paying is None else heard_by(paying, auditor)
        members = [[one.remote for one in part.members] for part in chain.parts]
        loads = [
            await asyncio.to_thread(weights_of_part, subject.file.path, weights, part.layers)
            for part in chain.parts
        ]
        needs = [_need(part) for part in chain.parts]
        stages = await stack.enter_async_context(
            standing_stages(
                identity,
                members,
                spares,
                weights,
                needs=needs,
                tell=tell,
                model_bytes=model_bytes,
                loads=loads,
                lenders=[one.remote for one in chain.spares],
                paying=paying,
                auditor=auditor,
            )
        )
        endpoints = tuple(f"{HOST}:{stage.port}" for stage in stages)
        engine = make_engine(
            subject,
            context=settings.context,
            parallel=settings.parallel,
            offload=offload_over(chain.plan, endpoints, cards),
            log_path=log_path,
        )
        # Its threads wait for the stages, which are served by this loop.
        stack.push_async_callback(asyncio.to_thread, engine.stop)
        await asyncio.to_thread(engine.start)
        await asyncio.to_thread(engine.load)
        yield engine


def _offered(one: Seen, model_bytes: int) -> Device:
    """Return what a peer gives to this model."""
    device = one.device
    if one.share is None:
        return device
    return replace(device, memory_bytes=min(device.memory_bytes, int(one.share * model_bytes)))


def _need(part: Part) -> Need:
    """Return what whoever takes a member's place must have."""
    its = part.members
    return Need(part.least_bytes, its[0].numerics, on_cpu=all(one.on_cpu for one in its))


def _mirrors(
    one: Seen, least_bytes: int, count: int, spares: list[Seen], model_bytes: int
) -> list[Seen]:
    """Take peers from the spares that compute as another does: their answers are to be equal."""
    need = Need(least_bytes, one.numerics)
    found = [
        spare
        for spare in spares
        if Spare(spare.remote, _offered(spare, model_bytes).memory_bytes, spare.numerics).meets(
            need
        )
    ][:count]
    if len(found) < count:
        raise BadValueError(
            f"--mirrors {count}: {one.remote.name} has {len(found)} peers of its kind with room; "
            "give fewer, or invite more"
        )
    for spare in found:
        spares.remove(spare)
    return found


def _has_layers(layers: tuple[int, int]) -> bool:
    first, end = layers
    return end > first
