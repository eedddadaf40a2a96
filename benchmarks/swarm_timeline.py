"""When does each token of an answer come, while a node is killed, frozen or cut off?

Rounds of ``swarm_faults.py``, one of each mode and fault, with every token's time kept: of the
undisturbed answer, and of the same one with the fault in its middle. Times are seconds by the
user's clock since the answer's first token.

    python benchmarks/swarm_timeline.py [--model pypi:gemma3-270m] [--tokens 64] [--token 24]
                                        [--rtt-ms 2] [--seed 1] [--json-out FILE]

Needs what the laboratory needs. ``wrong`` says of each round what ``swarm_faults.py`` says of it;
the status is 1 where it says anything.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm_faults import BARS_S, Case, describe, play
from swarm_hosts import running_swarm
from swarm_user import Told

from results import write_result
from shoestring.errors import ShoestringError
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.swarm.weights import Weights

if TYPE_CHECKING:
    from swarm_faults import Played
    from swarm_hosts import Swarm
    from swarm_user import Heard

    from shoestring.swarm.stage import Event

FAULTS: Final = ("killed", "frozen", "cut")
SHARE: Final = 0.5
"""Of a usual gap, after the token."""
SHOWN_EVENTS: Final = frozenset({"lost", "joined", "ready", "silent"})


def main() -> int:
    """Make a round of each, and write when the tokens came."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="pypi:gemma3-270m")
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--token", type=int, default=24, help="after which it happens")
    arguments.add_argument("--rtt-ms", type=float, default=2.0)
    arguments.add_argument("--seed", type=int, default=1, help="of the answer")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-timeline.json")
    )
    given = arguments.parse_args()
    if not 0 < given.token < given.tokens or given.rtt_ms <= 0:
        arguments.error("--token: 1 to one less than --tokens; --rtt-ms: more than 0")
    model = resolve_model(given.model, cache=cache_dir()).path
    cases = [
        Case(mode, given.model, fault, given.token, SHARE, 0, given.seed)
        for mode in BARS_S
        for fault in FAULTS
    ]
    rounds: list[dict[str, Any]] = []
    lost: list[str] = []
    with running_swarm(2, rtt_s=given.rtt_ms / 1e3) as swarm:
        for case in cases:
            try:
                rounds.append(asyncio.run(one_round(swarm, case, model, given.tokens)))
                said = rounds[-1]["wrong"]
            except ShoestringError as error:
                said = [f"{case.mode}, {case.fault}: not played: {error}".partition(";")[0]]
                lost += said
            swarm.mend(swarm.nodes[case.hit])
            print(f"{case.mode}, {case.fault}: {said}", file=sys.stderr)
    wrong = [*(what for one in rounds for what in one["wrong"]), *lost]
    figures = {
        "how": {"model": given.model, "tokens": given.tokens, "rtt_s": given.rtt_ms / 1e3,
                "threads": 1, "stage": "all layers", "temperature": 1.0,
                "seed": given.seed},
        "bars": BARS_S, "wrong": wrong, "rounds": rounds,
    }  # fmt: skip
    write_result(given.json_out, "swarm-timeline", figures)
    return 1 if wrong else 0


async def one_round(swarm: Swarm, case: Case, model: Path, tokens: int) -> dict[str, Any]:
    """Play a round; return the times of its tokens, of the fault and of what was noticed."""
    told = Told()
    # Two clocks: events and the blow are on the loop's, what the user heard on its own.
    apart_s = time.perf_counter() - time.monotonic()
    played = await play(swarm, case, model, Weights(model), told, tokens=tokens)
    begun_s = played.hit.stamps_s[0]
    struck_s = played.blow.at_s
    return {
        "mode": case.mode, "fault": case.fault,
        "calm_s": since_first(played.calm), "hit_s": since_first(played.hit),
        "struck_s": None if struck_s is None else struck_s + apart_s - begun_s,
        "events": seen_events(played, told.events, apart_s),
        "wrong": describe(case, played, told.events)["wrong"],
    }  # fmt: skip


def since_first(heard: Heard) -> list[float]:
    """Return when each token came, since the first; the last part is the answer's end."""
    return [round(stamp_s - heard.stamps_s[0], 6) for stamp_s in heard.stamps_s[:-1]]


def seen_events(played: Played, events: list[Event], apart_s: float) -> list[dict[str, Any]]:
    """Return what stages told between the blow and the answer's end."""
    begun_s, end_s = played.hit.stamps_s[0], played.hit.stamps_s[-1]
    struck_s = played.blow.at_s
    return [
        {"at_s": one.at_s + apart_s - begun_s, "what": one.what, "who": one.who, "why": one.why}
        for one in events
        if one.what in SHOWN_EVENTS and struck_s is not None
        and struck_s <= one.at_s <= end_s - apart_s
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
