"""Do the note's examples run: 60 layers over 4 devices, Phi-3, and ten devices, five on one LAN?

Each device is a host of the laboratory with a node that offers so little memory that the model has
to be split as the note splits it. The product's own planner lays the layers out (``plan_chain``),
and its own chain serves them (``running_chain``); nothing is placed by hand.

| example | model | devices | offers |
|---|---|---|---|
| ``60 layers`` | ``note_60_layers/config.json``: 60 layers, width 1024 | 4, 2 ms away | unlike |
| ``Phi-3`` | ``shape:phi-3-mini``, whole: 32 layers, width 3072 | 4, 2 ms away | alike |
| ``five of ten`` | as the first | 10: five on a LAN, five 20 to 60 ms away | alike |

A model of 60 layers as they are published, Yi-34B, has 20 GB at 4 bits: this one is as deep, and
narrow. The weights are random; their shapes decide bytes and speed. Of the ten, the planner is also
asked to use those alone that are far, and both ways are run.

    python benchmarks/swarm_examples.py [--tokens 24] [--examples NAME ...] [--json-out FILE]

Needs what the laboratory needs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests
from swarm_hosts import running_swarm
from swarm_user import CONTEXT, Told, hear

from results import write_result
from shoestring.engines.outlines import find_model
from shoestring.errors import EngineLostError, ShoestringError
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.report.plan_machine import find_devices
from shoestring.swarm.chain import plan_chain, running_chain
from shoestring.swarm.survey import greet
from shoestring.testing.live_server import LIMIT_S, LiveServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm_hosts import Node, Swarm

    from shoestring.engines.outlines import Found
    from shoestring.engines.protocol import Engine
    from shoestring.hardware.devices import Device
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.swarm.chain import Chain
    from shoestring.swarm.survey import Seen

SIXTY: Final = f"shape:{Path(__file__).parent / 'note_60_layers/config.json'}:q4_k_m"
PHI3: Final = "shape:phi-3-mini:q4_k_m"
PROMPT: Final = "A ship left the harbour at noon."
LOG: Final = "llama.log"
SHOWN: Final = 4_000
"""Of its end, where llama-server is lost."""
NEAR_S: Final = 0.002
LAN_S: Final = 0.0005
FAR_S: Final = (0.02, 0.03, 0.04, 0.05, 0.06)


@dataclass(frozen=True)
class Example:
    """One of the note's.

    Attributes:
        model: as ``find_model`` takes it.
        told: the model, for readers.
        offers: memory of each device.
        rtt_s: of each to the user.
    """

    model: str
    told: str
    offers: Sequence[str]
    rtt_s: Sequence[float]


FOUR = Example(SIXTY, "60 layers of width 1024", ("105MiB", "170MiB", "135MiB", "140MiB"),
               (NEAR_S,) * 4)  # fmt: skip
"""Room for 10, 20, 15 and 15 layers, and for no more."""
WHOLE = Example(PHI3, "phi-3-mini, whole", ("840MiB",) * 4, (NEAR_S,) * 4)
TEN = Example(SIXTY, "60 layers of width 1024", ("140MiB",) * 10,
              tuple(one for far_s in FAR_S for one in (far_s, LAN_S)))  # fmt: skip
"""Far and near ones in turns, so that their order says nothing."""
EXAMPLES: Final = {"60 layers": FOUR, "Phi-3": WHOLE, "five of ten": TEN}


def main() -> None:
    """Run them, and write what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--tokens", type=int, default=24)
    arguments.add_argument("--examples", nargs="+", choices=EXAMPLES, default=list(EXAMPLES))
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-examples.json")
    )
    given = arguments.parse_args()
    if given.tokens < 3:
        arguments.error("--tokens: at least 3")
    devices, constants = find_devices((), lambda line: print(line, file=sys.stderr))
    own = [one for one in devices if one.kind == "cpu"]
    figures = {
        "how": {"tokens": given.tokens, "context": CONTEXT, "threads": 1,
                "clock": "the user's, at the stream"},
        "examples": {name: run_example(EXAMPLES[name], given.tokens, own, constants)
                     for name in given.examples},
    }  # fmt: skip
    write_result(given.json_out, "swarm-examples", figures)


def run_example(
    example: Example, tokens: int, own: Sequence[Device], constants: SpeedConstants
) -> dict[str, Any]:
    """Bring its devices up, lay the model over them, and have it answer."""
    resolve_model(example.model, cache=cache_dir())
    found = find_model(example.model)
    shape = found.outline.shape
    with running_swarm(len(example.offers), rtt_s=0.0, memory=example.offers) as swarm:
        assert swarm.laboratory is not None
        for node, rtt_s in zip(swarm.nodes, example.rtt_s, strict=True):
            swarm.laboratory.change(node.name, delay_s=rtt_s / 2)
        ways = asyncio.run(run_ways(example, swarm, found, own, constants, tokens))
    return {
        "model": example.told, "layers": shape.layers, "width": shape.width,
        "file_bytes": found.outline.file_bytes, "rtt_s": list(example.rtt_s), "ways": ways,
    }  # fmt: skip


async def run_ways(
    example: Example,
    swarm: Swarm,
    found: Found,
    own: Sequence[Device],
    constants: SpeedConstants,
    tokens: int,
) -> dict[str, Any]:
    """Run the planner's way; of devices some of which are on a LAN, also without these."""
    seen = [await greet(swarm.identity, node.remote) for node in swarm.nodes]
    ways = {"all are offered": seen}
    if LAN_S in example.rtt_s:
        far = {node.name for node, rtt_s in zip(swarm.nodes, example.rtt_s, strict=True)
               if rtt_s != LAN_S}  # fmt: skip
        ways["the far ones alone"] = [one for one in seen if one.remote.name in far]
    layers = found.outline.shape.layers
    found_ways = {}
    for name, offered in ways.items():
        print(f"{example.told}, {name}", file=sys.stderr, flush=True)
        try:
            chain = plan_chain(found, own, offered, constants, context=CONTEXT, peer_layers=layers)
        except ShoestringError as error:
            why = str(error).replace(found.name, example.told)  # the path is this machine's
            found_ways[name] = {"token_s": None, "planned_token_s": None, "interval_s": None,
                                "devices": [], "events": [why]}  # fmt: skip
            continue
        found_ways[name] = await run_way(swarm, found, chain, offered, tokens)
    return found_ways


async def run_way(
    swarm: Swarm, found: Found, chain: Chain, seen: Sequence[Seen], tokens: int
) -> dict[str, Any]:
    """Serve a model as planned, and return what was seen; a chain that is lost has no time."""
    told = Told()
    token_s: float | None = None
    resident: dict[str, int] = {}
    wrong = []
    try:
        token_s, resident = await answer(swarm, found, chain, told, tokens)
    except ShoestringError as error:
        if (swarm.folder / LOG).exists():
            print((swarm.folder / LOG).read_text()[-SHOWN:], file=sys.stderr, flush=True)
        wrong.append(str(error).partition(";")[0])  # the log's path is this machine's
    wrong += [f"{one.what} {one.who} {one.why}".strip() for one in told.events
              if one.what in {"lost", "differs", "misread", "silent", "no way"}]  # fmt: skip
    split, speed = chain.plan.split, chain.plan.predicted
    assert split is not None
    return {
        "token_s": token_s,
        "planned_token_s": split.token_s,
        "interval_s": None if speed is None else [1 / speed.decode_tokens_per_s.high,
                                                  1 / speed.decode_tokens_per_s.low],
        "devices": describe(chain, seen, swarm.nodes, resident),
        "events": wrong,
    }  # fmt: skip


async def answer(
    swarm: Swarm, found: Found, chain: Chain, told: Told, tokens: int
) -> tuple[float | None, dict[str, int]]:
    """Ask once to warm up and once more; return a token's time, and what each worker held.

    Raises:
        EngineLostError: llama-server was lost, or an answer broke off.
    """
    async with running_chain(
        found.name, chain, swarm.identity, tell=told, log_path=swarm.folder / LOG
    ) as engine:
        await asyncio.to_thread(ask, engine, tokens)
        token_s = await asyncio.to_thread(ask, engine, tokens)
        used = {part.members[0].remote.name for part in chain.parts}
        return token_s, {
            node.name: node.worker().memory_info().rss for node in swarm.nodes if node.name in used
        }


def ask(engine: Engine, tokens: int) -> float | None:
    """Return a token's time of one answer.

    Raises:
        EngineLostError: it broke off.
    """
    address, key = engine.address()
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {key}"
        heard = hear(LiveServer(engine.pid or 0, address.removesuffix("/v1"), session, LIMIT_S), 1,
                     tokens=tokens, prompt=PROMPT)  # fmt: skip
    if heard.error is not None:
        raise EngineLostError(heard.error)
    return heard.token_s()


def describe(
    chain: Chain, seen: Sequence[Seen], nodes: Sequence[Node], resident: dict[str, int]
) -> list[dict[str, Any]]:
    """Return of each device what it offered, what it was given, and what its worker held."""
    placed = {one.name: one for one in chain.plan.placed}
    by_name = {one.remote.name: one for one in seen}
    rows = []
    for node in nodes:
        if (one := by_name.get(node.name)) is None:
            continue
        its = placed[one.device.name]
        has_part = its.layers[1] > its.layers[0]
        rows.append({
            "name": node.name, "greeted_rtt_s": one.device.link_latency_s,
            "offered_bytes": one.device.memory_bytes, "layers": list(its.layers),
            "weights_bytes": its.weights_bytes,
            "planned_bytes": its.total_bytes if has_part else 0,
            "resident_bytes": resident.get(node.name),
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
