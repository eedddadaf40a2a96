"""What goes wrong around the harness: the disk fills up, the clock steps, the network is cut.

All against the known-truth server, whose schedule says what each duration has to be.
"""

from __future__ import annotations

import itertools
import resource
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from shoestring.errors import MissingError
from shoestring.measure.records import ENVIRONMENT, TELEMETRY, read_lines, read_object
from shoestring.testing.faults import (
    NotAllowedError,
    ballast,
    far_network,
    far_truth_server,
    small_disk,
    stepping_clock,
)
from shoestring.testing.harness import Campaign, measured_rows
from shoestring.truth.process import running_server

if TYPE_CHECKING:
    import random

    from shoestring.testing.harness import Harness

SUITE = str(Path(__file__).with_name("faults.toml"))
TTFT_S, ITL_S, TOKENS = 0.05, 0.01, 16
MODEL = f"truth-ttft{TTFT_S * 1e3:g}-itl{ITL_S * 1e3:g}-n{TOKENS}"
DISK = "16m"
FULL = "is full"
"""What the harness says of a disk without space, and of nothing else."""
STEPS_S = (3600, 0, -3600, 0)
"""Where the wall clock is set to, seconds from the machine's, in turn: every step is an hour."""
LONGEST_CUT_S = 8.0
SOON_S = 1.0


def fill_disk(folder: Path, fills: int, requests: int, rng: random.Random) -> dict[str, Any]:
    """Fill the disk of the runs at a random moment, free it when the harness has ended, resume."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        try:
            disk: Path | None = stack.enter_context(small_disk(folder / "disk", size=DISK))
            method = f"tmpfs of {DISK}, filled up"
        except (MissingError, NotAllowedError) as error:
            disk, method = None, f"RLIMIT_FSIZE of the harness, since: {error}"
        campaign = Campaign((disk or folder) / "runs", SUITE, "--base-url", server.base_url,
                            "--model", MODEL, "--requests", str(requests))  # fmt: skip
        while campaign.faults < fills:
            with campaign.start() as harness, ExitStack() as full:
                if not harness.wait_for_rows(1) or harness.wait(rng.uniform(0.0, SOON_S)):
                    harness.end()
                    continue
                if disk is not None:
                    full.enter_context(ballast(disk))
                else:
                    _limit_files(harness, campaign)
                if FULL in harness.end():
                    campaign.note_fault("disk filled")
        campaign.complete()
        return {"method": method, "fills": campaign.faults, **campaign.counts()}


def _limit_files(harness: Harness, campaign: Campaign) -> None:
    """Let no file of the harness grow any more, as a full disk lets none."""
    size = max(path.stat().st_size for path in campaign.out.glob("*/*"))
    resource.prlimit(harness.process.pid, resource.RLIMIT_FSIZE, (size, size))


def step_clock(folder: Path, steps: int, requests: int, rng: random.Random) -> dict[str, Any]:
    """Step the harness's wall clock by hours; hold all durations against the server's schedule.

    The same suite without steps, under the same shim, tells what durations are without them.
    """
    clock = stepping_clock(folder)
    with running_server() as server:
        options = ("--base-url", server.base_url, "--model", MODEL, "--requests", str(requests))
        print("a run without steps, to compare with", flush=True)
        steady = Campaign(folder / "steady", SUITE, *options, environment=clock.environment)
        with steady.start() as harness:
            harness.end()
        stepped = Campaign(folder / "stepped", SUITE, *options, environment=clock.environment)
        places = itertools.cycle(STEPS_S)
        while stepped.faults < steps:
            with stepped.start() as harness:
                while stepped.faults < steps and harness.wait_for_rows(1):
                    if harness.wait(rng.uniform(0.0, SOON_S)):
                        break
                    clock.step_to(place_s := next(places))
                    stepped.note_fault(f"clock set to {place_s:+d} s")
                harness.end()
        stepped.complete()
    return {
        "steps": stepped.faults, "step_s": 3600, **stepped.counts(),
        "times": _times(stepped), "times_without_steps": _times(steady),
    }  # fmt: skip


def _times(campaign: Campaign) -> dict[str, Any]:
    """Hold a campaign's times against the schedule; differences are measured minus true."""
    runs = sorted(path.parent for path in campaign.out.glob(f"*/{ENVIRONMENT}"))
    ttfts_s, wholes_s = [], []
    for row in (row for run in runs for row in measured_rows(run) if row["status"] == "ok"):
        first_ns = next(at_ns for at_ns, kind, _ in row["events"] if kind == "answer")
        ttfts_s.append((first_ns - row["intended_ns"]) / 1e9 - TTFT_S)
        whole_s = (row["end_ns"] - row["intended_ns"]) / 1e9
        wholes_s.append(whole_s - TTFT_S - (TOKENS - 1) * ITL_S)
    samples = [read_lines(run / TELEMETRY)[0] for run in runs]
    pairs = [pair for one in samples for pair in itertools.pairwise(one)]
    sessions = [session for run in runs for session in read_object(run / ENVIRONMENT)["sessions"]]
    return {
        "ttft_error_s": _spread(ttfts_s),
        "whole_error_s": _spread(wholes_s),
        "telemetry_backwards": sum(
            old["session"] == new["session"] and new["t_ns"] <= old["t_ns"] for old, new in pairs
        ),
        "telemetry_largest_gap_s": max(
            (new["t_ns"] - old["t_ns"]) / 1e9
            for old, new in pairs
            if old["session"] == new["session"]
        ),
        "utc_start_to_end_s": [_utc_s(session) for session in sessions],
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"least": min(values), "median": median(values), "most": max(values)}


def _utc_s(session: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(session[key]) for key in ("started_utc", "ended_utc"))
    return (ended - began).total_seconds()


def cut_network(folder: Path, cuts: int, requests: int, rng: random.Random) -> dict[str, Any]:
    """Cut the network to the server: once for longer than the harness waits, then for seconds."""
    with far_network() as network, far_truth_server(network) as base_url:
        campaign = Campaign(folder, SUITE, "--base-url", base_url, "--model", MODEL,
                            "--requests", str(requests))  # fmt: skip
        with campaign.start() as harness:
            harness.wait_for_rows(1)
            network.cut()
            print("network cut until the harness gives up, a minute", flush=True)
            given_up = harness.end()
        network.mend()
        lengths_s: list[float] = []
        while campaign.faults < cuts:
            with campaign.start() as harness:
                while campaign.faults < cuts and harness.wait_for_rows(1):
                    if harness.wait(rng.uniform(0.0, SOON_S)):
                        break
                    lengths_s.append(rng.uniform(0.0, LONGEST_CUT_S))
                    network.cut()
                    harness.wait(lengths_s[-1])
                    network.mend()
                    campaign.note_fault(f"network cut for {lengths_s[-1]:.1f} s")
                harness.end()
        campaign.complete()
        return {"cuts_s": [round(length, 3) for length in lengths_s], "long_cut": given_up,
                **campaign.counts()}  # fmt: skip
