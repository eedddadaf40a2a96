"""The boards of a simulated pool, and the routes that its users find there.

A board for each model holds all nodes that have layers of it, those that are away with no session
free. Users of one place and kind share a :class:`~shoestring.swarm.market.shortlist.Shortlist`, as
one client would hold one. Where that finds nothing, and is not fresh, it is made again; where a
fresh one finds nothing, the exact search is asked, once while the list lives, and it says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.board import NANOSECONDS, Board, Seller
from shoestring.swarm.market.routes import NoRoute, Route
from shoestring.swarm.market.routing import find_route
from shoestring.swarm.market.shortlist import Shortlist
from shoestring.swarm.simulation.attacks import shown_owners
from shoestring.swarm.simulation.behaviour import prices
from shoestring.swarm.simulation.demand import OWN, request_of
from shoestring.swarm.simulation.devices import MODELS, speed
from shoestring.swarm.simulation.places import REGIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.simulation.judging import Judge
    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.world import World

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

FRESH_S: Final = 120.0
"""So long a list is not made again, whatever it does not find."""
KEPT: Final = 48
"""Sellers on a list."""
SAMPLED: Final = 500
"""One route in so many is compared with the exact search's."""


@dataclass(slots=True)
class Listed:
    """A shortlist, of when, and what the exact search said since when it finds nothing."""

    list: Shortlist
    request: Request
    made_s: float
    why: str | None = None


class Market:
    """Boards by model, and who is free.

    Args:
        scenario: what is simulated.
        world: its nodes.
        judge: who says whom to trust.

    Attributes:
        up: by node.
        busy: sessions of each node now.
        served_s: session-seconds of each since prices were set last.
        gaps: by how much routes of lists score above the exact search's, of some.
        lists_made: how many.
        searches: how often the exact search was asked for want of a route.
    """

    def __init__(self, scenario: Scenario, world: World, judge: Judge) -> None:
        self._scenario, self._world, self._judge = scenario, world, judge
        self.up = np.zeros(len(world), bool)
        self.busy = [0] * len(world)
        self.served_s = np.zeros(len(world))
        self.gaps: list[float] = []
        self.lists_made = 0
        self.searches = 0
        self._asked = 0
        self._lists: dict[tuple[int, int, int, int, bool], Listed] = {}
        self._rtt_ns: dict[tuple[int, int], Ints] = {}
        self._sessions = world.sessions.tolist()
        self.members = [np.flatnonzero(world.model == one) for one in range(len(MODELS))]
        self.boards = [Board(MODELS[one], speed(one, 0).layers) for one in range(len(MODELS))]
        of = [self.boards[model] for model in world.model.tolist()]
        self._spots = [(board, board.put(self._seller(node))) for node, board in enumerate(of)]

    def node_at(self, model: int, slot: int) -> int:
        """Return the node at a slot of a model's board."""
        return int(self.members[model][slot])

    def price(self, node: int) -> tuple[int, int]:
        """Return what a node asks, for prompts and for answers."""
        return self._price_in[node], self._price_out[node]

    def set_prices(self, margin: Floats) -> None:
        """Let all nodes quote anew; lists of the quotes before are forgotten."""
        world = self._world
        self._price_in = prices(margin, world.cost_in).tolist()
        self._price_out = prices(margin, world.cost_out).tolist()
        for node, (board, slot) in enumerate(self._spots):
            board.set_price(slot, *self.price(node))
        self._lists.clear()

    def set_free(self, node: int) -> None:
        """Put what a node could begin now on its board."""
        board, slot = self._spots[node]
        there = self.up[node] and not self._judge.excluded[node]
        board.set_free(slot, max(0, self._sessions[node] - self.busy[node]) if there else 0)

    def take(self, node: int, sessions: int) -> None:
        """Begin, or end, a session at a node."""
        self.busy[node] += sessions
        self.set_free(node)

    def judged(self, node: int, now_s: float) -> None:
        """Put what is thought of a node on its board."""
        board, slot = self._spots[node]
        price_in, price_out = self.price(node)
        trust = self._judge.trust(node, now_s)
        board.put(replace(board.seller(slot), trust=trust, price_in=price_in, price_out=price_out))
        self.set_free(node)

    def rename(self, node: int, now_s: float) -> None:
        """Put a node on its board under its new identity, at the slot of the old one.

        All users see it at once: their lists of that model are forgotten.
        """
        model, (board, slot) = int(self._world.model[node]), self._spots[node]
        before = board.seller(slot)
        price_in, price_out = self.price(node)
        board.remove(before.id)
        trust = self._judge.trust(node, now_s)
        again = board.put(
            replace(before, id=self._world.ids[node], trust=trust, price_in=price_in,
                    price_out=price_out)
        )  # fmt: skip
        assert again == slot, "the slot that was just left"
        self.set_free(node)
        self._lists = {key: one for key, one in self._lists.items() if key[1] != model}

    def route(
        self, place: int, model: int, profile: int, size: int, *, victim: bool, now_s: float
    ) -> tuple[Route | str, Request]:
        """Return a route within the limits of a user, or why there is none."""
        key = (place, model, profile, size, victim)
        known = self._lists.get(key)
        listed = known if known is not None else self._list(key, now_s)
        found = listed.list.route()
        if isinstance(found, NoRoute) and now_s - listed.made_s >= FRESH_S:
            listed = self._list(key, now_s)
            found = listed.list.route()
        if isinstance(found, NoRoute):
            return self._search(listed, place, model), listed.request
        self._asked += 1
        if self._asked % SAMPLED == 0:
            self._compare(found, listed.request, place, model)
        return found, listed.request

    def route_again(self, request: Request, place: int, model: int) -> Route | None:
        """Return a route for a part that was lost, by the exact search; None: there is none."""
        found = find_route(self.boards[model], request, rtt_ns=self.rtt_ns(place, model))
        return found if isinstance(found, Route) else None

    def rtt_ns(self, place: int, model: int) -> Ints:
        """Return round trips from a place to the slots of a board."""
        key = place, model
        if key not in self._rtt_ns:
            rtt_s = self._world.rtt_s(place, self.members[model])
            self._rtt_ns[key] = np.rint(rtt_s * NANOSECONDS).astype(np.int64)
        return self._rtt_ns[key]

    def _list(self, key: tuple[int, int, int, int, bool], now_s: float) -> Listed:
        place, model, profile, size, victim = key
        owners = None
        if profile == OWN:
            owner = int(self._world.pool_owner[place - len(REGIONS)])
            owners = frozenset({self._world.owners[owner]})
        elif victim:
            owners = shown_owners(self._scenario, self._world, place, model)
        request = request_of(model, profile, size, owners=owners)
        rtt_ns = self.rtt_ns(place, model)
        made = Shortlist(self.boards[model], request, rtt_ns=rtt_ns, sellers=KEPT)
        self.lists_made += 1
        self._lists[key] = Listed(made, request, now_s)
        return self._lists[key]

    def _search(self, listed: Listed, place: int, model: int) -> Route | str:
        if listed.why is None:
            self.searches += 1
            rtt_ns = self.rtt_ns(place, model)
            found = find_route(self.boards[model], listed.request, rtt_ns=rtt_ns)
            if isinstance(found, Route):
                return found
            listed.why = found.why
        return listed.why

    def _compare(self, found: Route, request: Request, place: int, model: int) -> None:
        best = find_route(self.boards[model], request, rtt_ns=self.rtt_ns(place, model))
        if isinstance(best, Route):
            one, other = (
                (found.price, best.price) if request.prefer == "price"
                else (found.tpot_s, best.tpot_s)
            )  # fmt: skip
            if other:
                self.gaps.append(one / other - 1)

    def _seller(self, node: int) -> Seller:
        world = self._world
        return Seller(
            id=world.ids[node], first=int(world.first[node]), end=int(world.end[node]),
            most_layers=int(world.most[node]), price_in=0, price_out=0,
            layer_s=float(world.layer_s[node]), prompt_layer_s=float(world.prompt_layer_s[node]),
            trust=self._judge.trust(node, 0.0), free=0,
            owner=world.owners[int(world.owner[node])],
        )  # fmt: skip
