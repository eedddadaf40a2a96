"""A chain of nodes beside llama.cpp's star, raw and ours, and with speculation.

On each of four hosts of the laboratory stand a stock worker and a node of ours; between any two
hosts, the user's too, is the same round trip. Two stock llama-servers stay loaded over them. They
answer the same question in turns, each a word longer than the last one, as no two users' are of one
length: over the workers (``raw``), over stages that have all activations
come to the user (``star``), and over the same stages with activations from node to node
(``chain``). Times are llama-server's own: ``prompt_ms``, and ``predicted_ms / predicted_n``.

Then a third server speculates over the chain (``--spec-type ngram-simple``), beside ``raw``: on a
text that repeats itself and on one that does not.

    python benchmarks/swarm_chain.py [--blocks 10] [--model pypi:gemma3-270m] [--hosts 4]
                                     [--rtt-ms 20] [--tokens 64] [--json-out FILE]

``bars`` says met or missed. ``ways`` counts the activations that went from node to node, and those
that came by the user, of each arm. The status is 1 where a text differs, or where in some answer of
``chain`` most came by the user.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from swarm_hosts import running_swarm
from swarm_user import Told, llama_server

from results import write_result
from shoestring.analysis.stats import bootstrap_median_ci
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.swarm.spares import Need, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights
from shoestring.testing.lab_plan import HOME
from shoestring.testing.lab_workers import start_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from swarm_hosts import Swarm

    from shoestring.swarm.routes import Route
    from shoestring.swarm.stage import Stage
    from shoestring.testing.live_server import LiveServer

MEMORY_BYTES: Final = 1 << 30
SPECULATES: Final = (
    "--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "4",
    "--spec-ngram-simple-size-m", "16",
)  # fmt: skip
TEXTS: Final[dict[str, dict[str, Any]]] = {
    "repeats": {
        "prompt": "A ship left the harbour at noon, and nobody knew where it was bound. " * 12,
        "temperature": 0,
    },
    "does not repeat": {
        "prompt": "Notes of a walk through the old town, street by street, door by door:\n" * 2,
        "temperature": 1, "seed": 5, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
    },
}  # fmt: skip
PUSHED: Final = "from node to node"
THROUGH: Final = "by the user"
TROUBLE: Final = ("misread", "no way")
Answer = dict[str, Any]


class Ways:
    """Counts which way activations went between stages.

    Args:
        stages: of one chain.
        told: what happens at them.
    """

    def __init__(self, stages: Sequence[Stage], told: Told) -> None:
        self._counts: Counter[str] = Counter()
        self._told = told
        routes = stages[0].routes
        find = routes.find

        def count(source_stage: int, target_stage: int) -> Route | None:
            route = find(source_stage, target_stage)
            self._counts[THROUGH if route is None else PUSHED] += 1
            return route

        routes.find = count  # type: ignore[method-assign]

    def now(self) -> Counter[str]:
        """Return how many there were so far, and what went wrong."""
        wrong = Counter(one.what for one in self._told.events if one.what in TROUBLE)
        return self._counts + wrong


def is_chain(ways: Mapping[str, int]) -> bool:
    """Tell whether most activations of an answer went from node to node."""
    return ways.get(PUSHED, 0) > ways.get(THROUGH, 0)


def main() -> int:
    """Measure and write what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=10)
    arguments.add_argument("--model", default="pypi:gemma3-270m")
    arguments.add_argument("--hosts", type=int, default=4)
    arguments.add_argument("--rtt-ms", type=float, default=20.0)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-chain.json")
    )
    given = arguments.parse_args()
    if min(given.blocks, given.tokens) < 1 or given.hosts < 2 or given.rtt_ms <= 0:
        arguments.error("--blocks, --tokens: at least 1; --hosts: at least 2; --rtt-ms: above 0")
    model = resolve_model(given.model, cache=cache_dir()).path
    with running_swarm(given.hosts, rtt_s=given.rtt_ms / 1e3) as swarm:
        found = asyncio.run(measure(given, swarm, model))
    bars = judge(found)
    figures = {
        "how": {"model": given.model, "blocks": given.blocks, "tokens": given.tokens,
                "hosts": given.hosts, "rtt_s": given.rtt_ms / 1e3,
                "order": "who is first turns", "clock": "llama-server's own"},
        "bars": bars, "load_average_1min": os.getloadavg()[0], **found,
    }  # fmt: skip
    write_result(given.json_out, "swarm-chain", figures)
    return 0 if found["same_text"] and found["is_chain"] else 1


async def measure(given: argparse.Namespace, swarm: Swarm, model: Path) -> dict[str, Any]:
    """Load the servers one after another; return what was found of all."""
    laboratory = swarm.laboratory
    assert laboratory is not None
    names = [node.name for node in swarm.nodes]
    workers = start_workers(laboratory, names, threads=1)
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.callback(worker.process.kill)
        raw = await stack.enter_async_context(
            llama_server([one.endpoint for one in workers], model, swarm.folder / "raw.log")
        )
        # A quarter at each end of each way: the same round trip between any two hosts.
        async with over_nodes(swarm, model) as (server, stages, ways):
            for name in (HOME, *names):
                laboratory.change(name, delay_s=given.rtt_ms / 4e3)
            plain = await asyncio.to_thread(
                take_blocks, {"raw": raw, "star": server, "chain": server}, stages, ways, given
            )
        async with over_nodes(swarm, model, SPECULATES) as (server, stages, ways):
            fast = await asyncio.to_thread(
                take_blocks, {"raw": raw, "chain": server}, stages, ways, given
            )
    every = [block for found in (plain, fast) for blocks in found.values() for block in blocks]
    return {
        "same_text": all(len({block[arm]["content"] for arm in block}) == 1 for block in every),
        "is_chain": all(is_chain(block["chain"]["ways"]) for block in every),
        "plain": {text: describe(blocks) for text, blocks in plain.items()},
        "speculating": {text: describe(blocks) for text, blocks in fast.items()},
    }


@asynccontextmanager
async def over_nodes(
    swarm: Swarm, model: Path, more: tuple[str, ...] = ()
) -> AsyncIterator[tuple[LiveServer, list[Stage], Ways]]:
    """Run a llama-server over stages, one a node; beside both comes what counts their ways."""
    told = Told()
    async with (
        standing_stages(
            swarm.identity, [[node.remote] for node in swarm.nodes], Spares(), Weights(model),
            needs=[Need(MEMORY_BYTES, on_cpu=True)] * len(swarm.nodes), tell=told,
        ) as stages,
        llama_server(
            [f"{HOST}:{stage.port}" for stage in stages], model, swarm.folder / "ours.log",
            more=more,
        ) as server,
    ):  # fmt: skip
        for stage in stages:
            await told.until_ready(stage, 1)
        yield server, stages, Ways(stages, told)


def take_blocks(
    servers: dict[str, LiveServer], stages: list[Stage], ways: Ways, given: argparse.Namespace
) -> dict[str, list[dict[str, Answer]]]:
    """Ask in turns for each text; the first two blocks only warm up, and teach the chain."""
    found: dict[str, list[dict[str, Answer]]] = {}
    for text, words in TEXTS.items():
        every = {**words, "n_predict": given.tokens, "ignore_eos": True, "cache_prompt": False}
        blocks = []
        for number in range(given.blocks + 2):
            asked = every | {"prompt": "So" + " so" * number + ". " + words["prompt"]}
            arms = sorted(servers, reverse=number % 2 == 0)
            blocks.append({arm: ask(servers[arm], asked, stages, ways, arm) for arm in arms})
            print(f"{text}: block {number} of {given.blocks + 1}", file=sys.stderr, flush=True)
        found[text] = blocks[2:]
    return found


def ask(
    server: LiveServer, asked: dict[str, Any], stages: list[Stage], ways: Ways, arm: str
) -> Answer:
    """Ask one server, with activations going as the arm says; count which way they went."""
    for stage in stages:
        stage.routes.is_used = arm == "chain"
    before = ways.now()
    return {**server.complete(asked), "ways": dict(ways.now() - before)}


def describe(blocks: list[dict[str, Answer]]) -> dict[str, Any]:
    """Reduce the blocks of one text: medians, and ratios to the chain block by block."""
    said: dict[str, Any] = {
        arm: {
            "prompt_s": median(prompt_s(block[arm]) for block in blocks),
            "token_s": median(token_s(block[arm]) for block in blocks),
        }
        for arm in blocks[0]
    }
    for arm in set(blocks[0]) - {"chain"}:
        for name, clock in (("prompt", prompt_s), ("token", token_s)):
            ratios = [clock(block["chain"]) / clock(block[arm]) for block in blocks]
            said[f"{name} chain / {arm}"] = with_interval(ratios)
    said["ways"] = {arm: dict(sum((Counter(block[arm]["ways"]) for block in blocks), Counter()))
                    for arm in blocks[0]}  # fmt: skip
    said["prompt_tokens"] = blocks[0]["chain"]["timings"]["prompt_n"]
    said["drafted"] = [block["chain"]["timings"].get("draft_n") for block in blocks]
    said["accepted"] = [block["chain"]["timings"].get("draft_n_accepted") for block in blocks]
    return said


def prompt_s(answer: Answer) -> float:
    """Return how long the prompt took."""
    return float(answer["timings"]["prompt_ms"] / 1e3)


def token_s(answer: Answer) -> float:
    """Return a token's time."""
    return float(answer["timings"]["predicted_ms"] / answer["timings"]["predicted_n"] / 1e3)


def with_interval(values: list[float]) -> dict[str, Any]:
    """Return the median of one value a block, and its interval; null below five blocks."""
    return {"median": median(values), "ci95": bootstrap_median_ci([[one] for one in values])}


def at_most(bar: str, value: float, limit: float) -> dict[str, Any]:
    """Say of one bar whether it is met."""
    return {"bar": bar, "value": value, "sense": "at most", "limit": limit, "met": value <= limit}


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Say of each bar whether it is met."""
    plain, fast = found["plain"]["repeats"], found["speculating"]
    return [
        at_most("token's time, chain / star", plain["token chain / star"]["median"], 0.8),
        at_most("prompt's time, chain / star", plain["prompt chain / star"]["median"], 0.35),
        at_most("token's time, chain that speculates / raw, text that repeats",
                fast["repeats"]["token chain / raw"]["median"], 1 / 2.5),
        at_most("token's time, chain that speculates / raw, text that does not repeat",
                fast["does not repeat"]["token chain / raw"]["median"], 1.0),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
