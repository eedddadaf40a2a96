"""What attackers do otherwise, by the name of the attack.

============== ===================================================================================
price-war      two fifths of the cards of one region sell for nothing, then for thrice their price
sybil          one owner adds a tenth as many identities, cheap and half wrong; who is excluded
               comes back under a new one
collusion      a hundredth of the nodes and their own user sign receipts for work that never was
eclipse        some users are shown the quotes of one owner alone, at six times their price
eclipse-pinned likewise, and these users have a list of owners that they know
lazy           a tenth of the nodes answers all, a quarter, or a twentieth of its windows wrongly
============== ===================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.simulation.devices import MODELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.world import World

    Floats = NDArray[np.float64]

WAR_BEGINS, WAR_TURNS = 1 / 4, 1 / 2
"""Of all the time, when the war begins, and when prices are raised."""
RAISED: Final = 3.0
MONOPOLY: Final = 6.0
BACK_AFTER_S: Final = 600.0
"""A sybil that was excluded comes back so much later."""
PINNED: Final = 20
"""Owners near to them that users under an eclipse know, drawn from all of these."""
CLAIMED: Final = 1.0
"""Of what its device could compute at most, what a colluding node claims."""


def attacked_margins(scenario: Scenario, world: World, margin: Floats, at_s: float) -> Floats:
    """Return prices over costs as attackers change theirs."""
    found = margin.copy()
    if scenario.attack == "price-war" and at_s >= WAR_BEGINS * scenario.lasts_s:
        group = world.groups["price-war"]
        turned = at_s >= WAR_TURNS * scenario.lasts_s
        found[group] = world.margin[group] * RAISED if turned else 0.0
    if scenario.attack in ("eclipse", "eclipse-pinned"):
        group = world.groups["eclipse"]
        found[group] = world.margin[group] * MONOPOLY
    return found


def shown_owners(scenario: Scenario, world: World, place: int, model: int) -> frozenset[str] | None:
    """Return whose quotes a user sees who is eclipsed; None: everybody's."""
    if scenario.attack not in ("eclipse", "eclipse-pinned"):
        return None
    group = world.groups["eclipse"]
    shown = {world.owners[owner] for owner in np.unique(world.owner[group]).tolist()}
    if scenario.attack == "eclipse-pinned":
        near = (world.region == place) & (world.model == model) & ~group
        draws = scenario.draws("pinned", place * len(MODELS) + model)
        known = draws.permutation(np.unique(world.owner[near]))[:PINNED]
        shown |= {world.owners[owner] for owner in known.tolist()}
    return frozenset(shown)
