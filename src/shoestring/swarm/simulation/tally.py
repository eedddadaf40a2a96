"""What is counted while a simulated day goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.world import World


class Tally:
    """What is counted while a run goes on.

    Args:
        scenario: what is simulated.
        world: its nodes.

    Attributes:
        uptime: seconds of each node, in hours that are over.
        identities: that sybils took on again.
        paid_to_itself: micro-credits that colluders paid each other.
    """

    def __init__(self, scenario: Scenario, world: World) -> None:
        self._scenario = scenario
        self.rows: list[tuple[float, ...]] = []
        self.wrong: list[bool] = []
        self.lost: list[bool] = []
        self.reasons: dict[int, str] = {}
        self.uptime = np.zeros(len(world))
        self.identities = 0
        self.paid_to_itself = 0
        self.there_by_bin = np.zeros(-(-scenario.lasts_s // scenario.bin_s), np.int64)

    def refused(self, number: int, why: str) -> None:
        """Count a request for which there is no route."""
        self.reasons[number] = why

    def served(
        self, *, number: int, paid: int, tokens: int, ttft_s: float, tpot_s: float, hops: int,
        near: int, saved: int, wrong: bool, lost: bool,
    ) -> None:  # fmt: skip
        """Count an answer, or what there was of it.

        Args:
            number: of the request.
            paid: micro-credits.
            tokens: that came.
            ttft_s: from the request to the first; NaN: none came.
            tpot_s: mean of the others.
            hops: nodes that took part.
            near: of them, those in the user's local network.
            saved: nodes that left and were replaced.
            wrong: some of it was.
            lost: it ended early, as a node left and none took its place.
        """
        self.rows.append((number, paid, tokens, ttft_s, tpot_s, hops, near, saved))
        self.wrong.append(wrong)
        self.lost.append(lost)

    def there(self, now_s: float, change: int) -> None:
        """Count a node that comes or goes."""
        at = int(now_s // self._scenario.bin_s)
        if at < len(self.there_by_bin):
            self.there_by_bin[at] += change
