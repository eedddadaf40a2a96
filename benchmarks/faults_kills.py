"""SIGKILLs, as the kernel kills when memory runs out: of the harness, its engine, Ollama's runner.

Every other kill comes at a moment counted from a start (of the harness, of the engine's process:
calibration, loading, warm-up), the others at one counted from a row (requests in flight, rows
being written). Real engine, real model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

from shoestring.testing.harness import Campaign

if TYPE_CHECKING:
    import random
    from pathlib import Path

LATEST_S = 6.0
"""Kills come at a moment between 0 and this after the start, or after the next row."""


def kill_harness(folder: Path, kills: int, requests: int, rng: random.Random) -> dict[str, Any]:
    """Kill the harness, start it again with ``--resume``; runs follow each other as they end."""
    campaign = Campaign(folder, "smoke", "--requests", str(requests))
    killed: list[dict[str, Any]] = []
    while campaign.faults < kills:
        moment_s = rng.uniform(0.0, LATEST_S)
        since = "row" if campaign.faults % 2 else "start"
        with campaign.start() as harness:
            if (since == "row" and not harness.wait_for_rows(1)) or harness.wait(moment_s):
                harness.end()  # complete before this kill: the next start begins a new run
                continue
        _note(killed, since, moment_s, campaign)
    campaign.complete()
    return {"kills": killed, **campaign.counts()}


def kill_engine(folder: Path, kills: int, requests: int, rng: random.Random) -> dict[str, Any]:
    """Kill llama-server, which the harness started and has to start again."""
    campaign = Campaign(folder, "smoke", "--engine", "llama-server", "--requests", str(requests))
    return _kill_computing(campaign, kills, rng)


def kill_runner(folder: Path, kills: int, requests: int, rng: random.Random) -> dict[str, Any]:
    """Kill the process that computes for Ollama, which Ollama has to start again."""
    campaign = Campaign(folder, "smoke", "--engine", "ollama", "--requests", str(requests))
    return _kill_computing(campaign, kills, rng)


def _kill_computing(campaign: Campaign, kills: int, rng: random.Random) -> dict[str, Any]:
    killed: list[dict[str, Any]] = []
    while campaign.faults < kills:
        with campaign.start() as harness:
            while campaign.faults < kills:
                moment_s = rng.uniform(0.0, LATEST_S)
                since = "row" if campaign.faults % 2 else "start"
                there = (
                    harness.wait_for_rows(1)
                    if since == "row"
                    else harness.wait_for(lambda: harness.engine() is not None)
                )
                if not there or harness.wait(moment_s):
                    break
                engine = harness.engine()
                if engine is None:
                    continue  # it is being brought back
                try:
                    engine.kill()
                except psutil.NoSuchProcess:
                    continue  # it has just been ended in order
                _note(killed, since, moment_s, campaign)
                psutil.wait_procs([engine])
            harness.end()
    campaign.complete()
    return {"kills": killed, **campaign.counts()}


def _note(killed: list[dict[str, Any]], since: str, moment_s: float, campaign: Campaign) -> None:
    killed.append({"since": since, "moment_s": round(moment_s, 3), "rows": campaign.rows()})
    campaign.note_fault(f"{moment_s:.1f} s after the {since}")
