"""What do receipts cost a token: both ends metering, hashing and signing, beside the same without?

A node serves one session at a time, so a stock llama-server is loaded over the same nodes of the
laboratory again and again, in turns with receipts and without, and who is first turns; nothing else
computes meanwhile. Each load answers the same question some times, after one that only warms it up.
A token's time is llama-server's own, ``predicted_ms / predicted_n``, of a load the median.

- waits: what a token's frames wait for metering at both ends before they go on, also with the
  signing of windows, timed apart (``swarm_receipts_held.py``): loads of one kind differ by more.
- added: (with - without) / hosts, of each pair of loads; the median, and its bootstrap interval.
- processor: what the node's process and the client's take for a token, by the kernel's clocks, and
  how much more with receipts: before frames go on and after.
- receipts: how many were signed by both, whether all of them are whole, there are some of each
  session that had terms, and neighbours gave and got the same (``check_stages``).

    python benchmarks/swarm_receipts.py [--pairs 10] [--answers 5] [--tokens 48]
                                        [--model shape:llama-3.2-1b:q4_k_m] [--times 400]
                                        [--remotes 1 2] [--rtt-ms 2] [--threads 1]
                                        [--window-steps 32] [--output local|remote] [--star]
                                        [--json-out FILE]

Needs what the laboratory needs. ``bars`` says met or missed; the status is 1 where a text differs
or receipts are missing or not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack, closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from swarm_hosts import running_swarm
from swarm_overhead import MEMORY_BYTES, MODEL, token_time_s, with_interval
from swarm_parts import processor_s
from swarm_receipts_held import held
from swarm_token import record
from swarm_user import OUTPUT_WORDS, PROMPT, Told, llama_server

from results import write_result
from shoestring.errors import BadValueError
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.swarm.proof.agreeing import Asked
from shoestring.swarm.proof.books import check_stages
from shoestring.swarm.proof.keeping import ReceiptFiles
from shoestring.swarm.proof.paying import Paying
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.proof.terms import WINDOW_STEPS
from shoestring.swarm.spares import Need, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights

if TYPE_CHECKING:
    from swarm_hosts import Swarm

    from shoestring.swarm.proof.receipts import Signed

ADDED_BAR_S: Final = 0.0003
RECORDED: Final = 12
"""Tokens of which the last one is timed."""
ARMS: Final = ("without", "receipts")
Case = dict[str, Any]


def main() -> int:
    """Measure all cases and write what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--pairs", type=int, default=10)
    arguments.add_argument("--answers", type=int, default=5, help="of each load")
    arguments.add_argument("--model", default=MODEL)
    arguments.add_argument("--remotes", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--rtt-ms", type=float, nargs="+", default=[2.0])
    arguments.add_argument("--tokens", type=int, default=48)
    arguments.add_argument("--threads", type=int, default=1, help="of each worker")
    arguments.add_argument("--window-steps", type=int, default=WINDOW_STEPS)
    arguments.add_argument("--output", choices=OUTPUT_WORDS, default="local")
    arguments.add_argument("--times", type=int, default=400, help="a token is timed apart")
    arguments.add_argument("--star", action="store_true", help="activations all go through here")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-receipts.json")
    )
    given = arguments.parse_args()
    counts = (given.pairs, given.answers, given.tokens, *given.remotes, given.times - 1)
    if min(counts) < 1 or min(given.rtt_ms) <= 0:
        arguments.error(
            "--pairs, --answers, --tokens, --remotes: at least 1; --times: at least 2; "
            "--rtt-ms: more than 0"
        )
    model = resolve_model(given.model, cache=cache_dir()).path
    waits = time_apart(model, times=given.times, window_steps=given.window_steps)
    cases: list[Case] = []
    with running_swarm(
        max(given.remotes), rtt_s=given.rtt_ms[0] / 1e3, threads=given.threads
    ) as swarm:
        for remotes in given.remotes:
            cases += asyncio.run(measure(given, swarm, model, remotes))
    figures = {
        "how": {"model": given.model, "pairs": given.pairs, "answers": given.answers,
                "tokens": given.tokens, "threads": given.threads, "output": given.output,
                "star": given.star,
                "window_steps": given.window_steps, "order": "who is first turns",
                "clock": "llama-server's own"},
        "bars": [*judge_waits(waits), *(bar for case in cases for bar in judge(case))],
        "waits": waits, "cases": cases,
    }  # fmt: skip
    write_result(given.json_out, "swarm-receipts", figures)
    return 0 if all(case["same_text"] and not case["not_whole"] for case in cases) else 1


def time_apart(model: Path, *, times: int, window_steps: int) -> dict[str, Any]:
    """Return what a token's frames wait for metering, by those of a recorded answer."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        [heard] = asyncio.run(
            record(model, folder / "work", workers=1, tokens=RECORDED, output="local")
        )
        return held(heard, folder, tokens=times, window_steps=window_steps)


async def measure(given: argparse.Namespace, swarm: Swarm, model: Path, remotes: int) -> list[Case]:
    """Load in turns over so many hosts; return one case for each round trip."""
    laboratory = swarm.laboratory
    assert laboratory is not None
    weights = Weights(model)
    cases = []
    for rtt_ms in given.rtt_ms:
        for node in swarm.nodes[:remotes]:
            laboratory.change(node.name, delay_s=rtt_ms / 2e3)
        folder = swarm.folder / f"receipts-{remotes}-{rtt_ms:g}"
        pairs: list[dict[str, list[dict[str, Any]]]] = []
        damaged: list[str] = []
        with closing(ReceiptFiles(folder, damaged.append)) as files:
            hand = Hand(swarm.identity, files.keep)
            paying = Paying(Asked(window_steps=given.window_steps), hand)
            for number in range(given.pairs):
                order = sorted(ARMS, reverse=number % 2 == 0)
                pair = {}
                for arm in order:
                    its = paying if arm == "receipts" else None
                    pair[arm] = await load_and_ask(given, swarm, model, weights, remotes, its)
                pairs.append(pair)
                print(f"pair {number + 1} of {given.pairs}", file=sys.stderr, flush=True)
        nodes = [node.remote.address.id for node in swarm.nodes[:remotes]]
        case = describe(pairs, nodes, rtt_ms / 1e3, files, damaged)
        # Where it lay on this machine is nobody's business.
        case["not_whole"] = [why.replace(f"{folder}/", "") for why in case["not_whole"]]
        cases.append(case)
    return cases


async def load_and_ask(
    given: argparse.Namespace,
    swarm: Swarm,
    model: Path,
    weights: Weights,
    remotes: int,
    paying: Paying | None,
) -> list[dict[str, Any]]:
    """Return the answers of one load, all but the first.

    Each with ``processor_s``: a token's, of this process and the nodes', prompt and all.
    """
    members = [[node.remote] for node in swarm.nodes[:remotes]]
    asked = {"prompt": PROMPT, "n_predict": given.tokens, "temperature": 0, "ignore_eos": True,
             "cache_prompt": False}  # fmt: skip
    told = Told()
    async with AsyncExitStack() as stack:
        stages = await stack.enter_async_context(
            standing_stages(
                swarm.identity, members, Spares(), weights, needs=[Need(MEMORY_BYTES)] * remotes,
                tell=told, pushes=not given.star, paying=paying,
            )
        )  # fmt: skip
        server = await stack.enter_async_context(
            llama_server(
                [f"{HOST}:{stage.port}" for stage in stages], model,
                swarm.folder / "llama-server.log", output=given.output,
            )
        )  # fmt: skip
        for stage in stages:
            await told.until_ready(stage, 1)
        pids = [os.getpid(), *(node.pid for node in swarm.nodes[:remotes])]
        answers = []
        for _ in range(given.answers + 1):
            before = sum(map(processor_s, pids))
            answer = await asyncio.to_thread(server.complete, asked)
            spent_s = sum(map(processor_s, pids)) - before
            answers.append(answer | {"processor_s": spent_s / answer["timings"]["predicted_n"]})
    return answers[1:]


def describe(
    pairs: list[dict[str, list[dict[str, Any]]]],
    nodes: list[str],
    rtt_s: float,
    files: ReceiptFiles,
    damaged: list[str],
) -> Case:
    """Reduce the pairs of a case, and read the receipts.

    Args:
        pairs: answers of each arm.
        nodes: peer ids in the order of their layers.
        rtt_s: of the case.
        files: with its receipts.
        damaged: what they say could not be kept or read whole.
    """
    remotes = len(nodes)
    token_s = {arm: [median(map(token_time_s, pair[arm])) for pair in pairs] for arm in ARMS}
    processor = {
        arm: [median(answer["processor_s"] for answer in pair[arm]) for pair in pairs]
        for arm in ARMS
    }
    texts = {answer["content"] for pair in pairs for arm in ARMS for answer in pair[arm]}
    chains, not_whole = read_chains(files)
    not_whole += damaged
    sessions, wanted = sum(map(len, chains.values())), len(pairs) * remotes
    if sessions != wanted:
        not_whole.append(f"{wanted} sessions had terms, {sessions} have whole receipts")
    compared = 0
    # One load after another: the first session of each node is of the first load.
    for stages in zip(*(chains.get(node, []) for node in nodes), strict=False):
        try:
            compared += check_stages(stages)
        except BadValueError as error:
            not_whole.append(str(error))
    if remotes > 1 and not compared:
        not_whole.append("no windows of neighbours could be compared")
    receipts = sum(len(chain) for its in chains.values() for chain in its)
    return {
        "remotes": remotes, "rtt_s": rtt_s, "pairs": len(pairs), "same_text": len(texts) == 1,
        "load_average_1min": os.getloadavg()[0],
        "without_token_s": median(token_s["without"]),
        "receipts_token_s": median(token_s["receipts"]),
        "added_s_a_remote": _added(token_s, remotes),
        "processor_added_s_a_remote": _added(processor, remotes),
        "sessions": sessions, "receipts": receipts, "windows_compared": compared,
        "not_whole": not_whole, "token_s": token_s, "processor_s": processor,
    }  # fmt: skip


def _added(seconds: dict[str, list[float]], remotes: int) -> dict[str, Any]:
    """Return how much more each pair has with receipts, a remote."""
    both = zip(seconds["without"], seconds["receipts"], strict=True)
    return with_interval([(more - less) / remotes for less, more in both])


def read_chains(files: ReceiptFiles) -> tuple[dict[str, list[list[Signed]]], list[str]]:
    """Return the receipts of each node's sessions, the oldest first, and what is not whole."""
    chains: dict[str, list[list[Signed]]] = {}
    not_whole = []
    for path in files.sessions():
        try:
            chain = files.read(path)
        except BadValueError as error:
            not_whole.append(str(error))
        else:
            chains.setdefault(chain[0].receipt.terms.node, []).append(chain)
    return chains, not_whole


def judge_waits(waits: dict[str, Any]) -> list[dict[str, Any]]:
    """Say whether a token's frames wait too long."""
    return [
        {"bar": f"a token's frames wait at both ends, {which}, s", "value": waits[key],
         "sense": "at most", "limit": ADDED_BAR_S, "met": waits[key] <= ADDED_BAR_S}
        for key, which in (("waits_s", "median"), ("waits_with_windows_s", "mean with windows"))
    ]  # fmt: skip


def judge(case: Case) -> list[dict[str, Any]]:
    """Say whether the bar is met, by the median and by the end of its interval, if it has one."""
    where = f"{case['remotes']} remote(s), {case['rtt_s'] * 1e3:g} ms"
    values = {}
    for what, key in (
        ("added a token and remote", "added_s_a_remote"),
        ("processor time added at both ends", "processor_added_s_a_remote"),
    ):
        values[what] = case[key]["median"]
        if case[key]["ci95"] is not None:
            values[f"{what}, end of 95 %"] = case[key]["ci95"][1]
    return [
        {"bar": f"{what}, s: {where}", "value": value, "sense": "at most", "limit": ADDED_BAR_S,
         "met": value <= ADDED_BAR_S}
        for what, value in values.items()
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
