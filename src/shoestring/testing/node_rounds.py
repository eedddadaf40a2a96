"""Rounds of faults: a run against a node, a kill in its midst, and what came of both.

A round begins a run, kills one part of the node or of what measures it at a random moment, brings
the node back with ``shoestring up``, and resumes the run until it is complete. Clean is: the run
has exactly the requests of an undisturbed one, each once, and a failed one has its reason; the node
answers in Ollama and in Open WebUI, and refuses strangers; nothing is left running.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import ShoestringError
from shoestring.measure.lease import Lease
from shoestring.measure.records import CONFIG
from shoestring.measure.runner import run_suite
from shoestring.stack.node import OLLAMA, OPEN_WEBUI, read_node
from shoestring.testing.harness import ORPHAN_WAIT_S, POLL_S, Campaign, measured_rows, run_counts
from shoestring.testing.node_kills import (
    NotebookCampaign,
    come_back,
    kernel,
    kill_kernel,
    kill_ollama,
    kill_open_webui,
    kill_runner,
    kill_session,
)
from shoestring.testing.node_process import SUITE, Place, processes, sign_up_refused

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.testing.harness import Harness

LEAST = 3
"""So often each kind comes at least, where the rounds allow it."""
LATEST_S = 8.0
"""Kills come at a moment between 0 and this after the start (of a notebook: of its kernel), or
after the next row."""


@dataclass(frozen=True)
class Kind:
    """One part that is killed.

    Attributes:
        kill: it.
        service: of the node, that the supervisor has to start again.
        ends: words with one of which a harness may end that this kill hits.
        notebook: a notebook measures.
    """

    kill: Callable[[Place, Harness], list[str]]
    service: str | None = None
    ends: tuple[str, ...] = ()
    notebook: bool = False


OLLAMA_IS_AWAY = ("Ollama", "ollama", "the engine did not come back", "nobody answers")
KINDS = {
    "ollama": Kind(kill_ollama, service=OLLAMA, ends=OLLAMA_IS_AWAY),
    "runner": Kind(kill_runner, ends=OLLAMA_IS_AWAY),
    "open-webui": Kind(kill_open_webui, service=OPEN_WEBUI),
    "kernel": Kind(kill_kernel, ends=("the kernel died",), notebook=True),
    "session": Kind(kill_session, ends=OLLAMA_IS_AWAY),  # nobody is there when it is resumed
}


def order(rounds: int, kinds: list[str], rng: random.Random) -> list[str]:
    """Return a kind a round, each at least :data:`LEAST` times where there are rounds for that."""
    chosen = list(kinds) * min(LEAST, rounds // len(kinds))
    chosen += rng.choices(kinds, k=rounds - len(chosen))
    rng.shuffle(chosen)
    return chosen


def ids_of_an_undisturbed_run(folder: Path, model: str, place: Place) -> set[str]:
    """Measure the node once in peace; return the ids of what was asked."""
    run = run_suite(
        SUITE, model=model, base_url=place.ollama_url, out=folder / "undisturbed", lease=Lease()
    )
    if not run.complete:
        raise ShoestringError(f"the undisturbed run was cut: {run.incomplete_reason}")
    return {str(row["id"]) for row in run.measured}


def one_round(
    name: str, out: Path, model: str, place: Place, undisturbed: set[str], rng: random.Random
) -> dict[str, Any]:
    """Kill one part in the midst of a run, and see what comes of node and run."""
    kind = KINDS[name]
    campaign = (
        NotebookCampaign(out, model, place.ollama_url)
        if kind.notebook
        else Campaign(out, SUITE, "--model", model, "--base-url", place.ollama_url)
    )
    seen: dict[str, Any] = {"kind": name}
    while campaign.faults == 0:
        since, moment_s = rng.choice(("start", "row")), rng.uniform(0.0, LATEST_S)
        with campaign.start() as harness:
            if not harness.wait_for(_begun(since, kind, campaign, harness)) or harness.wait(
                moment_s
            ):
                harness.end()  # complete before the kill: the next start begins a new run
                continue
            before = _restarts(place, kind.service)
            rows = campaign.rows()
            killed_s = time.monotonic()
            killed = kind.kill(place, harness)
            if not killed:
                continue  # it was not there at that moment
            campaign.note_fault(f"{name}, {moment_s:.1f} s after the {since}")
            up, in_vain = come_back(place)
            ready_s = time.monotonic() - killed_s
            seen |= {
                "since": since, "moment_s": round(moment_s, 3), "rows_before": rows,
                "killed": sorted(killed), "ready_s": round(ready_s, 3), "up_in_vain": in_vain,
                "steps": up.spans,
                "started_again": before is None or _restarts(place, kind.service) != before,
                "sign_up_refused": sign_up_refused(place),
            }  # fmt: skip
            if kind.kill is not kill_session:
                harness.end()
    campaign.complete()
    counts = campaign.counts()
    return {**seen, **counts, "exact": all(
        {str(row["id"]) for row in measured_rows(path.parent)} == undisturbed
        and run_counts(path.parent)["rows"] == len(undisturbed)
        for path in out.glob(f"*/{CONFIG}")
    )}  # fmt: skip


def _begun(since: str, kind: Kind, campaign: Campaign, harness: Harness) -> Callable[[], bool]:
    """Return what is awaited before the moment is counted."""
    if since == "row":
        wanted = campaign.rows() + 1
        return lambda: campaign.rows() >= wanted
    if kind.notebook:
        return lambda: kernel(harness) is not None
    return lambda: True


def _restarts(place: Place, name: str | None) -> int | None:
    """Return how often a service was started again; None where none is meant."""
    node = read_node(place.folder)
    service = node.service(name) if node is not None and name is not None else None
    return None if service is None else service.restarts


def what_is_wrong(one: dict[str, Any]) -> list[str]:
    """Say all that keeps a round from being as it should be."""
    expected = KINDS[one["kind"]].ends
    said = [end["message"] for end in one["ends"]]
    foreign = [message for message in said if not any(words in message for words in expected)]
    holds = {
        "no run": one["runs"] > 0,
        "a run has other requests than an undisturbed one": one["exact"],
        "a row stands twice": one["twice"] == 0,
        "rows are not what was planned": one["rows"] == one["planned"]
        and not one["missing"] and not one["foreign"],
        "a failure without a reason": None not in one["failed_by_reason"],
        "a run stayed cut": one["complete"],
        "a process of the harness was left over": one["orphans"] == 0,
        "the service was not started again": one["started_again"],
        "sign-up is open": one["sign_up_refused"],
        f"the harness ended for no reason of the fault's: {foreign}": not foreign,
        "requests failed though Ollama was there": one["kind"] != "open-webui" or not one["failed"],
    }  # fmt: skip
    return [what for what, fine in holds.items() if not fine]


def left_over(place: Place) -> int:
    """Count the processes of the node that live when it is down, after some time to end."""
    deadline_s = time.monotonic() + ORPHAN_WAIT_S
    while (left := len(processes(place))) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)  # not our children: there is nothing to wait for
    return left
