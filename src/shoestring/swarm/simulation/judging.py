"""Audits: which windows are run again, who is found to cheat, and what is thought of each node.

Of the windows of a session it is drawn how many are wrong, and how many of these and of the others
are audited: so a session of ``w`` windows, a share ``q`` of them wrong, is found with probability
``1 - (1 - p q)^w``. What one audit finds is told to all: a pool whose users do not tell each other
finds each cheat once for each of them. Who is found is excluded for good.

An audit of a wrong window finds it, and one of a right window is a false alarm with a probability
that is assumed: of 10,000 measured audits of honest nodes (docs/swarm-audit.md) none was, which
allows three in 10,000 (the "rule of three", 95 %).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.measured import Record, faded
from shoestring.swarm.simulation.scenario import BEGUN_S

if TYPE_CHECKING:
    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.world import World

WINDOW_TOKENS: Final = 64
KNOWN_GOOD: Final = 10.0
"""Audits that those who are no newcomers have behind them."""


@dataclass(slots=True)
class Cheat:
    """What one cheat did until it was found.

    Attributes:
        wrong_share: of its windows.
        begun_s: when it served first.
        windows: that it served.
        found_s: when it was excluded; None: never.
    """

    wrong_share: float
    begun_s: float
    windows: int = 0
    found_s: float | None = None


class Judge:
    """Who audits, and remembers.

    Args:
        scenario: what is simulated.
        world: its nodes.

    Attributes:
        excluded: by node.
        windows: that all served.
        audits: windows that were run again.
        sessions_audited: in which there was one.
        audited_layer_tokens: that this took.
        cheats: by peer id, those who served.
        honest_excluded: nodes that never were wrong, and were excluded by a false alarm.
    """

    def __init__(self, scenario: Scenario, world: World) -> None:
        self._audit_share, self._false_alarms = scenario.audit_share, scenario.false_alarms
        self._world = world
        self._draws = scenario.draws("audits")
        self._records = [
            Record(peer, good=0.0 if new else KNOWN_GOOD, judged_s=BEGUN_S)
            for peer, new in zip(world.ids, world.newcomer.tolist(), strict=True)
        ]
        self.excluded = np.zeros(len(world), bool)
        self.windows = 0
        self.audits = 0
        self.sessions_audited = 0
        self.audited_layer_tokens = 0
        self.cheats: dict[str, Cheat] = {}
        self.honest_excluded = 0

    def trust(self, node: int, now_s: float) -> float:
        """Return the share of good answers to be expected of a node."""
        return self._records[node].trust(BEGUN_S + now_s)

    def serve(
        self, node: int, peer: str, positions: int, layers: int, now_s: float
    ) -> tuple[bool, bool, bool]:
        """Take note of what a node computed, and audit some of it, perhaps.

        Args:
            node: which.
            peer: its id when it began.
            positions: tokens that it read and wrote.
            layers: through which each went there.
            now_s: simulated seconds.

        Returns:
            Whether some of it was wrong, whether it was looked at, and whether it was found out.
        """
        windows = -(-positions // WINDOW_TOKENS)
        self.windows += windows
        wrong_share = float(self._world.wrong_share[node])
        wrong = self._drawn(windows, wrong_share)
        seen = self._drawn(wrong, self._audit_share)
        good = self._drawn(windows - wrong, self._audit_share)
        alarms = self._drawn(good, self._false_alarms)
        found = seen + alarms > 0
        if wrong_share:
            cheat = self.cheats.setdefault(peer, Cheat(wrong_share, now_s))
            cheat.windows += windows
            if found and cheat.found_s is None:
                cheat.found_s = now_s
        audits = seen + good
        if audits:
            self.audits += audits
            self.sessions_audited += 1
            self.audited_layer_tokens += layers * min(positions, audits * WINDOW_TOKENS)
            if peer == self._world.ids[node]:  # else it gave that name up
                self._judge(node, now_s, good=good - alarms, found=found)
        return wrong > 0, audits > 0, found

    def forget(self, node: int, now_s: float) -> None:
        """Let a node begin anew, under another identity."""
        self.excluded[node] = False
        self._records[node] = Record(self._world.ids[node], judged_s=BEGUN_S + now_s)

    def _judge(self, node: int, now_s: float, *, good: int, found: bool) -> None:
        before, at_s = self._records[node], BEGUN_S + now_s
        age_s = at_s - before.judged_s
        self._records[node] = replace(
            before, good=faded(before.good, age_s) + good,
            bad=faded(before.bad, age_s) + found, judged_s=at_s,
        )  # fmt: skip
        if found and not self.excluded[node]:
            self.excluded[node] = True
            self.honest_excluded += not self._world.wrong_share[node]

    def _drawn(self, count: int, share: float) -> int:
        """Return of how many of so many something is true that is true of a share of all."""
        return int(self._draws.binomial(count, share)) if count and share else 0
