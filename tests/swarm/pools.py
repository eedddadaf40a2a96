"""A small simulated pool, whose audits call no right window wrong."""

from __future__ import annotations

from shoestring.swarm.simulation.scenario import HOUR_S, Scenario

SMALL = Scenario(
    nodes=150, requests=150, hours=8, bin_s=HOUR_S, cheats=0.05, audit_share=0.05, false_alarms=0.0
)  # fmt: skip
