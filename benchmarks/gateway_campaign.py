"""Two replicas of the gateway on one Redis under mixed load, while their surroundings are killed.

Streams, whole answers, cancels, cached questions, keys with limits and bad requests, at random
(seeded), before the known-truth server. Meanwhile each of these happens several times: the engine
killed, Redis killed, a replica killed, a replica ended in order (SIGTERM); each comes back seconds
later. Every request must end in the right words or in a clear error; a killed replica's own
connections are counted apart, as ``reset``. No limit may be exceeded by more than one request
across the replicas, by what the engine saw (``gateway_counts.py``).

    python benchmarks/gateway_campaign.py [--seconds 900] [--seed 1] [--clients 16] [--faults 3]
                                          [--json-out FILE]

The status is 1 where anything is not as it should be: ``wrong`` says what.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_asks import draw_ask, judge_answer
from gateway_counts import Sightings, describe_limits
from gateway_faults import ENDED, KILLED, Fault, Surroundings, make_faults, see_what_is_left
from load import Line, Site, run

from results import write_result
from shoestring.engines.discovery import find_program
from shoestring.engines.protocol import monotonic_ns

if TYPE_CHECKING:
    from gateway_asks import Asked, Verdict

MEAN_PAUSE_S = 0.25
ASKED_WHILE_DOWN = 0.1
"""A balancer would leave a replica alone that is down; some requests meet it all the same."""
ANSWER_LIMIT_S = 30.0
MEMORY_LIMIT_BYTES = 150 * 2**20
SHOWN = 20
FINE = {"answered", "refused", "stream error", "left"}


@dataclass
class Tally:
    """What has become of the requests."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    rows: list[tuple[int, int, str, Asked, Verdict]] = field(default_factory=list)
    """Sent, ended (ns), replica, and what came of what, of those that are not fine."""
    answered_ns: list[tuple[int, int]] = field(default_factory=list)
    """Sent and ended, of each right answer that came from the engine."""
    begun_ns: int = field(default_factory=monotonic_ns)
    sightings: Sightings = field(default_factory=Sightings)


def main() -> int:
    """Run the campaign and write its counts."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=900.0, help="of load")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--clients", type=int, default=16)
    arguments.add_argument("--faults", type=int, help="of each kind; default: one in two minutes")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/gateway-campaign.json")
    )
    given = arguments.parse_args()
    times = given.faults or max(2, round(given.seconds / 120))
    if min(given.clients, times) < 1 or given.seconds < 10:
        arguments.error("--clients and --faults: at least 1; --seconds: at least 10")
    if find_program("redis-server") is None:
        arguments.error("redis-server is missing: apt-get install redis-server")
    with tempfile.TemporaryDirectory() as name, Surroundings(Path(name)) as around:
        tally, faults = run(campaign(given, times, around))
        figures = describe(tally, faults, around)
    figures = {"seconds": given.seconds, "seed": given.seed, "clients": given.clients, **figures}
    write_result(given.json_out, "gateway-campaign", figures)
    print("; ".join(figures["wrong"]) or "clean")
    return 1 if figures["wrong"] else 0


async def campaign(
    given: argparse.Namespace, times: int, around: Surroundings
) -> tuple[Tally, list[Fault]]:
    """Ask and disturb until the time is over and all faults are made; then see what is left."""
    tally, over = Tally(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(given.clients):
            draw = random.Random(f"{given.seed}-{number}")
            group.create_task(ask_on(draw, around, tally, over))
        faults = await make_faults(around, random.Random(given.seed), times, given.seconds)
        over.set()
    await see_what_is_left(around)
    return tally, faults


async def ask_on(
    draw: random.Random, around: Surroundings, tally: Tally, over: asyncio.Event
) -> None:
    """Be one client: ask either replica over a new connection, think, ask again."""
    while not over.is_set():
        replica = draw.choice([name for name, one in around.replicas.items()
                               if one.is_up or draw.random() < ASKED_WHILE_DOWN])  # fmt: skip
        asked = draw_ask(draw)
        site = Site(around.replicas[replica].base_url, around.secrets.get(asked.key))
        request = site.post(asked.path, asked.body)
        if asked.method == "GET":
            request = site.get(asked.path)
        line, begun_ns = Line(site), monotonic_ns()
        answer = await line.ask(request, limit_s=ANSWER_LIMIT_S, leave_after=asked.leave_after)
        line.close()
        verdict, end_ns = judge_answer(asked, answer), answer.exchange.end_ns
        tally.sightings.note(asked, answer)
        tally.outcomes[asked.kind, verdict.outcome] += 1
        if verdict.outcome == "refused":
            tally.refusals[f"{asked.kind}: {verdict.detail}"] += 1
        hit = verdict.outcome == "answered" and verdict.detail.lower() == "hit"
        tally.hits += hit
        if verdict.outcome == "answered" and not hit:
            tally.answered_ns.append((begun_ns, end_ns))
        if verdict.outcome not in FINE:
            tally.rows.append((begun_ns, end_ns, replica, asked, verdict))
        await asyncio.sleep(draw.expovariate(1 / MEAN_PAUSE_S))


def describe(tally: Tally, faults: list[Fault], around: Surroundings) -> dict[str, Any]:
    """Return all counts, and what is wrong."""
    resets, bad = Counter[str](), []
    for row in tally.rows:
        reason = excuse(row, faults)
        if reason is None:
            bad.append(row)
        else:
            resets[reason] += 1
    redis_away = [(fault.from_ns, fault.to_ns) for fault in faults if fault.kind == "redis killed"]
    limits = describe_limits(tally.sightings.by_key(around.log), redis_away, tally.begun_ns)
    memory = {name: replica.peak_bytes() for name, replica in around.replicas.items()}
    shown = [
        f"{asked.kind} at {replica}: {verdict.outcome}, {verdict.detail}"
        for _, _, replica, asked, verdict in bad[:SHOWN]
    ]
    found = {
        "requests": tally.outcomes.total(),
        "outcomes": nested(tally.outcomes),
        "refusals": dict(sorted(tally.refusals.items())),
        "cache_hits": tally.hits,
        "reset": dict(resets),
        "limits": limits,
        "faults": [fault.describe(tally.begun_ns, tally.answered_ns) for fault in faults],
        "peak_memory_bytes": memory,
        "left_over": around.left_over,
    }
    return {"wrong": what_is_wrong(found, shown, len(bad)), **found}


def excuse(row: tuple[int, int, str, Asked, Verdict], faults: list[Fault]) -> str | None:
    """Return by which fault a replica's own connection was lost; None where it was by none.

    A killed replica takes all its connections with it. One that is ended in order answers what it
    has taken on, so only connections that it had not answered at all yet are excused.
    """
    begun_ns, end_ns, replica, _, verdict = row
    for fault in faults:
        if fault.replica != replica or end_ns < fault.from_ns or begun_ns > fault.to_ns:
            continue
        if verdict.outcome == "no answer" and fault.kind in (KILLED, ENDED):
            return f"{fault.kind}: no answer"
        if verdict.outcome == "cut" and fault.kind == KILLED:
            return f"{fault.kind}: cut"
    return None


def what_is_wrong(found: dict[str, Any], shown: list[str], bad: int) -> list[str]:
    """Say all that is not as it should be."""
    outcomes = found["outcomes"]
    answered = {kind for kind, counts in outcomes.items() if counts.get("answered")}
    least = {kind: counts for kind, counts in outcomes.items() if kind not in ("bad", "leave")}
    kept = {name: limit["kept"] for name, limit in found["limits"].items()}
    high = [name for name, peak in found["peak_memory_bytes"].items()
            if peak is None or peak > MEMORY_LIMIT_BYTES]  # fmt: skip
    unseen = [fault for fault in found["faults"] if fault["seen_in_metrics"] is False]
    lame = [fault for fault in found["faults"] if fault["answered_after_s"] is None]
    wrong = [
        (f"{bad} requests without a right end", bad == 0),
        (f"never answered: {sorted(least.keys() - answered)}", least.keys() <= answered),
        ("nothing came out of the cache", found["cache_hits"] > 0),
        (f"limits exceeded: {[name for name, fine in kept.items() if fine is False]}",
         False not in kept.values()),
        (f"no figure for limits: {[name for name, fine in kept.items() if fine is None]}",
         None not in kept.values()),
        (f"{len(unseen)} outages of Redis were not in the metrics", not unseen),
        (f"{len(lame)} faults after which nothing was answered", not lame),
        (f"memory above {MEMORY_LIMIT_BYTES} bytes: {high}", not high),
        (f"still at work after the load: {found['left_over']}", not found["left_over"]),
    ]  # fmt: skip
    return [what for what, fine in wrong if not fine] + shown


def nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Return the outcomes of each kind."""
    kinds: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(counts.items()):
        kinds.setdefault(kind, {})[outcome] = count
    return kinds


if __name__ == "__main__":
    sys.exit(main())
