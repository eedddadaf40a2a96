"""How does a token's time grow with the round trip, over 1, 2 and 4 peers?

Between any two of the laboratory's hosts, the user's too, is the same round trip. On each of the
others stand a stock worker and a node of ours. Two stock llama-servers stay loaded over the first
1, 2 and 4 of them, as many layers on each, and answer the same question in turns:

| arm | activations go | round trips a token, over N peers |
|---|---|---|
| ``raw`` | llama.cpp's own RPC: from each worker to the user, and on to the next | N |
| ``star`` | through our stages and nodes, likewise | N |
| ``chain`` | from node to node, and from the last to the user | (N + 1) / 2 |

A token's time is the median between two parts of the stream, by the user's clock: the first token
of an answer, whose graph is sent anew, does not count. Each block has all arms at all round trips,
and who is first turns. Beside them: the round trip that a greeting measures over the link, and what
the planner predicts of an even split over the same peers.

    python benchmarks/swarm_scaling.py [--blocks 5] [--model pypi:gemma3-270m] [--peers 1 2 4]
                                       [--rtt-ms 0 2 10 20 50] [--tokens 12] [--json-out FILE]

Needs what the laboratory needs. 0 ms is the laboratory alone: its router takes a part of a
millisecond. ``ways`` counts of each row which way activations went. The status is 1 where a text
differs, or where in some answer of ``chain`` most came by the user.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from swarm_chain import is_chain, over_nodes
from swarm_hosts import running_swarm
from swarm_user import CONTEXT, hear, llama_server

from results import write_result
from shoestring.engines.outlines import find_model
from shoestring.errors import EngineLostError
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.plan.memory import Settings
from shoestring.plan.planner import Ask, make_plan
from shoestring.report.plan_machine import find_devices
from shoestring.swarm.survey import greet
from shoestring.testing.lab_plan import HOME
from shoestring.testing.lab_workers import start_workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm_chain import Ways
    from swarm_hosts import Swarm
    from swarm_user import Heard

    from shoestring.hardware.devices import Device
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.swarm.stage import Stage
    from shoestring.testing.live_server import LiveServer

PROMPT: Final = "A ship left the harbour at noon."
SEED: Final = 1
WARM: Final = 2
"""Answers that only warm up, and teach the chain what is carried."""
Row = dict[str, Any]


def main() -> int:
    """Measure all, and write what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=5)
    arguments.add_argument("--model", default="pypi:gemma3-270m")
    arguments.add_argument("--peers", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--rtt-ms", type=float, nargs="+", default=[0, 2, 10, 20, 50])
    arguments.add_argument("--tokens", type=int, default=12)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-scaling.json")
    )
    given = arguments.parse_args()
    if min(given.blocks, given.tokens - 2, *given.peers) < 1 or min(given.rtt_ms) < 0:
        arguments.error("--blocks, --peers: at least 1; --tokens: at least 3; --rtt-ms: at least 0")
    model = resolve_model(given.model, cache=cache_dir()).path
    devices, constants = find_devices((), lambda line: print(line, file=sys.stderr))
    own = [one for one in devices if one.kind == "cpu"]
    rows: list[Row] = []
    with running_swarm(max(given.peers), rtt_s=0.0) as swarm:
        for peers in given.peers:
            some = replace(swarm, nodes=swarm.nodes[:peers])
            rows += asyncio.run(measure(given, some, model, own, constants))
    figures = {
        "how": {"model": given.model, "blocks": given.blocks, "tokens": given.tokens,
                "prompt": PROMPT, "threads": 1, "order": "who is first turns",
                "clock": "the user's, at the stream"},
        "same_text": all(row["same_text"] for row in rows),
        "is_chain": all(row["is_chain"] for row in rows), "rows": rows,
    }  # fmt: skip
    write_result(given.json_out, "swarm-scaling", figures)
    return 0 if figures["same_text"] and figures["is_chain"] else 1


async def measure(
    given: argparse.Namespace,
    swarm: Swarm,
    model: Path,
    own: Sequence[Device],
    constants: SpeedConstants,
) -> list[Row]:
    """Load both servers over these nodes; return a row for each round trip."""
    assert swarm.laboratory is not None
    set_round_trip(swarm, 0.0)
    workers = start_workers(swarm.laboratory, [node.name for node in swarm.nodes], threads=1)
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.callback(worker.process.wait)
            stack.callback(worker.process.kill)
        raw = await stack.enter_async_context(
            llama_server([one.endpoint for one in workers], model, swarm.folder / "raw.log")
        )
        server, stages, ways = await stack.enter_async_context(over_nodes(swarm, model))
        arms = {"raw": raw, "star": server}
        if len(swarm.nodes) > 1:  # from one node nothing goes to another
            arms["chain"] = server
        rows = [
            await begin_row(given, swarm, rtt_ms / 1e3, own, constants) for rtt_ms in given.rtt_ms
        ]
        set_round_trip(swarm, 0.0)
        for _ in range(WARM):
            await asyncio.to_thread(take_turns, arms, stages, ways, given.tokens, 0)
        for block in range(given.blocks):
            for number, row in enumerate(rows):
                set_round_trip(swarm, row["rtt_s"])
                took = await asyncio.to_thread(
                    take_turns, arms, stages, ways, given.tokens, block + number
                )
                for arm, (heard, went) in took.items():
                    row["token_s"].setdefault(arm, []).append(heard.token_s())
                    row["ways"][arm] = dict(Counter(row["ways"].get(arm, {})) + went)
                    row["is_chain"] &= arm != "chain" or is_chain(went)
                row["same_text"] &= len({heard.text for heard, _ in took.values()}) == 1
            row["load_average_1min"] = os.getloadavg()[0]
            print(f"{row['peers']} peers: block {block + 1} of {given.blocks}", file=sys.stderr)
    return rows


async def begin_row(
    given: argparse.Namespace,
    swarm: Swarm,
    rtt_s: float,
    own: Sequence[Device],
    constants: SpeedConstants,
) -> Row:
    """Greet the nodes at a round trip; return a row without times, with what is predicted."""
    set_round_trip(swarm, rtt_s)
    seen = [await greet(swarm.identity, node.remote) for node in swarm.nodes]
    return {
        "peers": len(seen), "rtt_s": rtt_s, "same_text": True, "is_chain": True, "token_s": {},
        "ways": {},
        "greeted_rtt_s": median(one.device.link_latency_s for one in seen),
        "predicted": predict(given.model, own, [one.device for one in seen], constants),
    }  # fmt: skip


def predict(
    model: str, own: Sequence[Device], peers: Sequence[Device], constants: SpeedConstants
) -> dict[str, Any]:
    """Return the planner's time of a token with as many layers on each; or why it has none."""
    found = find_model(model)
    plan = make_plan(
        Ask(
            model=found.name, outline=found.outline, settings=Settings(context=CONTEXT),
            devices=(*own, *peers), prompt_tokens=CONTEXT, shares=(1.0,) * len(peers),
            keeps_output=True,
        ),
        constants,
        alternatives=False,
    )  # fmt: skip
    if plan.predicted is None:
        return {"token_s": None, "why": plan.no_speed or "; ".join(plan.rejected)}
    speed = plan.predicted.decode_tokens_per_s
    return {"token_s": 1 / speed.value, "low_s": 1 / speed.high, "high_s": 1 / speed.low}


def set_round_trip(swarm: Swarm, rtt_s: float) -> None:
    """Have it between any two hosts: a quarter at each end of each way."""
    assert swarm.laboratory is not None
    for name in (HOME, *(node.name for node in swarm.nodes)):
        swarm.laboratory.change(name, delay_s=rtt_s / 4)


def take_turns(
    servers: dict[str, LiveServer], stages: list[Stage], ways: Ways, tokens: int, turn: int
) -> dict[str, tuple[Heard, Counter[str]]]:
    """Ask every arm once; who is first is told by the turn. Beside each: which way it went.

    Raises:
        EngineLostError: an answer broke off.
    """
    arms = list(servers)
    first = turn % len(arms)
    took = {}
    for arm in arms[first:] + arms[:first]:
        for stage in stages:
            stage.routes.is_used = arm == "chain"
        before = ways.now()
        heard = hear(servers[arm], SEED, tokens=tokens, prompt=PROMPT)
        if heard.error is not None:
            raise EngineLostError(f"{arm}: {heard.error}")
        took[arm] = heard, ways.now() - before
    return took


if __name__ == "__main__":
    sys.exit(main())
