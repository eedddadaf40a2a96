"""A simulated day, event by event in simulated time; no clock of the machine is looked at."""

from __future__ import annotations

import heapq
import math
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoestring.swarm.ledger.amounts import amount
from shoestring.swarm.ledger.rewards import Service
from shoestring.swarm.simulation.attacks import (
    BACK_AFTER_S,
    CLAIMED,
    WAR_BEGINS,
    WAR_TURNS,
    attacked_margins,
)
from shoestring.swarm.simulation.behaviour import (
    REPRICED_S,
    first_margins,
    next_margins,
    sessions_of,
)
from shoestring.swarm.simulation.demand import make_demand
from shoestring.swarm.simulation.judging import Judge
from shoestring.swarm.simulation.market import Market
from shoestring.swarm.simulation.money import Money
from shoestring.swarm.simulation.outcome import outcome_of
from shoestring.swarm.simulation.scenario import HOUR_S
from shoestring.swarm.simulation.serving import Serving
from shoestring.swarm.simulation.tally import Tally
from shoestring.swarm.simulation.world import make_world

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.serving import Answer, Taken

REWARDED_S: Final = float(HOUR_S)
SAYS: Final = 20
"""How often it is told how far it is."""
MOST_AT_ONCE: Final = 250
"""Colluding nodes that one entry of the book pays."""


def simulate(
    scenario: Scenario,
    *,
    say: Callable[[str], None] = lambda _line: None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run a scenario and return its outcome, ready for JSON.

    Args:
        scenario: what is simulated.
        say: told how far it is, a line each twentieth.
        stopped: asked before each event; once it is true the outcome is of what was until then,
            and says that it is partial.
    """
    with tempfile.TemporaryDirectory(prefix="shoestring-simulation-") as folder:
        return _Run(scenario, Path(folder), say, stopped).outcome()


class _Run:
    """One run."""

    def __init__(
        self, scenario: Scenario, folder: Path, say: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._scenario, self._say, self._stopped = scenario, say, stopped
        self._world = make_world(scenario)
        self._demand = make_demand(scenario, self._world)
        self._judge = Judge(scenario, self._world)
        self._market = Market(scenario, self._world, self._judge)
        self._money = Money(scenario, folder)
        self._tally = Tally(scenario, self._world)
        self._serving = Serving(
            scenario, self._world, self._demand, self._market, self._judge, self._money,
            self._tally,
        )  # fmt: skip
        self._sessions = [
            sessions_of(scenario, node, pooled=pool >= 0)
            for node, pool in enumerate(self._world.pool.tolist())
        ]
        self._turns = [0] * len(self._world)
        self._goes_s = [0.0] * len(self._world)
        self._up_s = np.zeros(len(self._world))
        self._counted_s = np.zeros(len(self._world))
        self._asked = self._margin = first_margins(self._world)
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def outcome(self) -> dict[str, Any]:
        """Run all events."""
        with self._money:
            self._prepare()
            partial = self._loop()
            ledger = self._money.verified()
        return outcome_of(
            self._scenario, self._world, self._demand, self._tally, self._market, self._judge,
            self._money, ledger, partial=partial,
        )  # fmt: skip

    def _prepare(self) -> None:
        for node, times in enumerate(self._sessions):
            self._at(times[0], self._turn, node)
        self._at(0.0, self._reprice)
        if self._scenario.attack == "price-war":
            for share in (WAR_BEGINS, WAR_TURNS):
                self._at(share * self._scenario.lasts_s, self._quote)
        self._at(REWARDED_S, self._reward)

    def _loop(self) -> bool:
        at_s, total = self._demand.at_s.tolist(), self._scenario.requests
        number, told = 0, 1
        events = self._events
        while not self._stopped():
            if number < total and (not events or at_s[number] < events[0][0]):
                now_s = self._money.now_s = at_s[number]
                self._begin(number, now_s)
                number += 1
                if number * SAYS >= told * total:
                    self._say(f"{number} of {total} requests, {now_s / HOUR_S:.1f} h simulated")
                    told = number * SAYS // total + 1
                continue
            if not events:
                return False
            now_s, _, what, of = heapq.heappop(events)
            self._money.now_s = now_s
            what(now_s, *of)
        return True

    def _at(self, at_s: float, what: Callable[..., None], *of: Any) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), what, of))

    def _begin(self, number: int, now_s: float) -> None:
        answer = self._serving.begin(number, now_s)
        if answer is not None:
            self._plan(answer)

    def _plan(self, answer: Answer) -> None:
        """Wait for the end of an answer, or for the first node that leaves it."""
        going = answer.leaves(self._goes_s)
        if going is None:
            self._at(answer.ends_s, self._end, answer)
        else:
            self._at(going[0], self._lose, answer, going[1])

    def _end(self, now_s: float, answer: Answer) -> None:
        self._serving.end(answer, now_s, lost=False)
        self._banish(answer, now_s)

    def _lose(self, now_s: float, answer: Answer, lost: Taken) -> None:
        if self._serving.lose(answer, lost, now_s):
            self._plan(answer)
        else:
            self._serving.end(answer, now_s, lost=True)
            self._banish(answer, now_s)

    def _banish(self, answer: Answer, now_s: float) -> None:
        """Let sybils that were found come back later under another name."""
        if self._scenario.attack != "sybil":
            return
        group, ids = self._world.groups["sybil"], self._world.ids
        for one in answer.taken:
            found = self._judge.excluded[one.node] and one.peer == ids[one.node]
            if found and group[one.node]:
                ids[one.node] = self._scenario.peer_id(f"sybil {next(self._numbers)}")
                self._at(now_s + BACK_AFTER_S, self._back, one.node)

    def _back(self, now_s: float, node: int) -> None:
        # What it did under the name before is no merit of the new one.
        self._serving.layer_tokens[node] = 0
        self._up_s[node], self._counted_s[node] = 0.0, now_s
        self._judge.forget(node, now_s)
        self._market.rename(node, now_s)
        self._tally.identities += 1

    def _turn(self, now_s: float, node: int) -> None:
        """Let a node come or go."""
        self._turns[node] += 1
        times, turn = self._sessions[node], self._turns[node]
        comes = turn % 2 == 1
        self._market.up[node] = comes
        if comes:
            self._goes_s[node] = times[turn] if turn < len(times) else math.inf
        elif not self._judge.excluded[node]:
            self._up_s[node] += now_s - max(float(self._counted_s[node]), times[turn - 2])
        if turn < len(times) and now_s < self._scenario.lasts_s:
            self._at(times[turn], self._turn, node)
        self._market.set_free(node)
        self._tally.there(now_s, 1 if comes else -1)

    def _reprice(self, now_s: float) -> None:
        if now_s:
            busy = self._market.served_s / (REPRICED_S * self._world.sessions)
            self._margin = next_margins(self._world, self._margin, self._asked, busy)
        self._market.served_s[:] = 0.0
        self._quote(now_s)
        if now_s + REPRICED_S < self._scenario.lasts_s:
            self._at(now_s + REPRICED_S, self._reprice)

    def _quote(self, now_s: float) -> None:
        """Let all ask what their strategy says, and attackers what they would."""
        self._asked = attacked_margins(self._scenario, self._world, self._margin, now_s)
        self._market.set_prices(self._asked)

    def _reward(self, now_s: float) -> None:
        """Share out what an hour of uptime and work is worth."""
        self._collude(now_s)
        for node in np.flatnonzero(self._market.up & ~self._judge.excluded).tolist():
            began_s = self._sessions[node][self._turns[node] - 1]
            self._up_s[node] += now_s - max(float(self._counted_s[node]), began_s)
        services = {
            peer: Service(int(up_s), work)
            for peer, up_s, work, excluded in zip(
                self._world.ids, self._up_s.tolist(), self._serving.layer_tokens,
                self._judge.excluded.tolist(), strict=True,
            )
            if not excluded and (up_s >= 1 or work)
        }  # fmt: skip
        self._tally.uptime += self._up_s
        self._money.reward(services, REWARDED_S, f"hour-{round(now_s / REWARDED_S)}")
        self._counted_s[:] = now_s
        self._up_s[:] = 0.0
        self._serving.layer_tokens = [0] * len(self._world)
        if now_s + REWARDED_S <= self._scenario.lasts_s:
            self._at(now_s + REWARDED_S, self._reward)

    def _collude(self, now_s: float) -> None:
        """Let colluding nodes and their own user sign for as much as the devices could compute."""
        if self._scenario.attack != "collusion":
            return
        world, user = self._world, self._scenario.peer_id("colluding user")
        group = np.flatnonzero(world.groups["collusion"] & self._market.up)
        for at in range(0, len(group), MOST_AT_ONCE):
            shares = {}
            for node in group[at : at + MOST_AT_ONCE].tolist():
                tokens = int(CLAIMED * REWARDED_S / float(world.layer_s[node]))
                # One layer of so many tokens, at a price of a thousandth of a credit a million.
                shares[world.ids[node]] = amount(0, tokens, 1, price_in=0, price_out=1_000)
                self._serving.layer_tokens[node] += tokens
            reference = f"nothing-{round(now_s)}-{at}"
            total = sum(shares.values())
            self._money.hold(user, total, reference)
            self._money.settle(user, shares, total, reference)
            self._tally.paid_to_itself += total
