"""One answer after another: routed, held for, computed, saved when a node leaves, paid, audited."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from shoestring.swarm.ledger.amounts import amount
from shoestring.swarm.simulation.places import REGIONS

if TYPE_CHECKING:
    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.market.routes import Route
    from shoestring.swarm.simulation.demand import Demand
    from shoestring.swarm.simulation.judging import Judge
    from shoestring.swarm.simulation.market import Market
    from shoestring.swarm.simulation.money import Money
    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.tally import Tally
    from shoestring.swarm.simulation.world import World

NANOSECOND_S: Final = 1e-9
NOTICED_S: Final = 1.0
"""Until it is noticed that a node is gone (docs/swarm-failover.md)."""


@dataclass(slots=True)
class Taken:
    """Layers of an answer at one node.

    Attributes:
        node: which.
        peer: its id then.
        layers: that it computes.
        first: the first of them.
        price_in: that it asked.
        price_out: likewise.
        token_s: that it takes of each token.
        tokens_in: that it reads at its beginning.
        begun: tokens of the answer that were there then.
        ended: tokens of the answer when it left; None: it stayed.
        reference: under which it is paid.
    """

    node: int
    peer: str
    layers: int
    first: int
    price_in: int
    price_out: int
    token_s: float
    tokens_in: int
    begun: int
    ended: int | None
    reference: str


@dataclass(slots=True)
class Answer:
    """One that is being computed.

    Attributes:
        number: of the request.
        request: as the market was asked.
        user: who pays.
        tokens: that it will have.
        taken: by whom.
        held: micro-credits by reference.
        resumed_s: when it went on last, and how many tokens it had then (``had``).
        token_s: of each since then.
        first_s: when its first token came; None: not yet.
        saved: nodes that left it, and were replaced.
    """

    number: int
    request: Request
    user: str
    tokens: int
    taken: list[Taken]
    held: dict[str, int]
    resumed_s: float
    had: int
    token_s: float
    first_s: float | None = None
    saved: int = 0

    def done(self, now_s: float) -> int:
        """Return how many tokens there are."""
        gone = int(max(0.0, now_s - self.resumed_s) / self.token_s)
        return min(self.tokens, self.had + gone + (now_s >= self.resumed_s and self.had == 0))

    @property
    def ends_s(self) -> float:
        """When the last token comes, if nobody leaves; the first one came at ``resumed_s``."""
        left = self.tokens - max(self.had, 1)
        return self.resumed_s + left * self.token_s

    def leaves(self, goes_s: list[float]) -> tuple[float, Taken] | None:
        """Return who leaves first before the end, and when; None: nobody."""
        ends_s = self.ends_s
        going = [
            (goes_s[one.node], one)
            for one in self.taken
            if one.ended is None and goes_s[one.node] < ends_s
        ]
        return min(going, key=lambda pair: pair[0], default=None)


class Serving:
    """All answers of a run.

    Args:
        scenario: what is simulated.
        world: its nodes.
        demand: its requests.
        market: where routes are found.
        judge: who audits.
        money: the book.
        tally: what is counted.
    """

    def __init__(
        self, scenario: Scenario, world: World, demand: Demand, market: Market, judge: Judge,
        money: Money, tally: Tally,
    ) -> None:  # fmt: skip
        self._scenario, self._world, self._demand = scenario, world, demand
        self._market, self._judge, self._money, self._tally = market, judge, money, tally
        self._users: dict[tuple[int, int], str] = {}
        self.layer_tokens = [0] * len(world)
        """That each computed since rewards were shared out last."""

    def begin(self, number: int, now_s: float) -> Answer | None:
        """Route a request; None: it is not served."""
        demand = self._demand
        place, model = int(demand.place[number]), int(demand.model[number])
        victim = demand.is_victim(number)
        route, request = self._market.route(
            place, model, int(demand.profile[number]), int(demand.size[number]),
            victim=victim, now_s=now_s,
        )  # fmt: skip
        if isinstance(route, str):
            self._tally.refused(number, route)
            return None
        reference = f"a{number}"
        slower = float(demand.slower[number])
        answer = Answer(
            number=number,
            request=request,
            user=self._user(place, int(demand.user[number])),
            tokens=max(2, round(request.output_tokens * float(demand.share[number]))),
            taken=self._take(route, place, model, request.prompt_tokens, 0, reference, slower),
            held={},
            resumed_s=now_s + route.ttft_s * slower,
            had=0,
            token_s=route.tpot_s * slower,
        )
        self._hold(answer, reference, route.price)
        return answer

    def lose(self, answer: Answer, lost: Taken, now_s: float) -> bool:
        """Replace a node that left; tell whether the answer goes on."""
        done = answer.done(now_s)
        if done and answer.first_s is None:
            answer.first_s = answer.resumed_s
        lost.ended = done
        self._market.take(lost.node, -1)
        place, model = self._where(answer)
        asked = replace(
            answer.request, first=lost.first, end=lost.first + lost.layers, prefer="latency",
            prompt_tokens=answer.request.prompt_tokens + done,
            output_tokens=max(1, answer.request.output_tokens - done),
            max_price=None, max_tpot_s=None, max_ttft_s=None, home_tpot_s=0.0, home_ttft_s=0.0,
        )  # fmt: skip
        route = self._market.route_again(asked, place, model)
        if route is None:
            return False
        answer.saved += 1
        reference = f"a{answer.number}.{answer.saved}"
        slower = float(self._demand.slower[answer.number])
        answer.taken += self._take(
            route, place, model, asked.prompt_tokens, done, reference, slower
        )
        self._hold(answer, reference, route.price)
        again_s = NOTICED_S + route.ttft_s * slower
        answer.resumed_s = max(answer.resumed_s, now_s) + again_s
        answer.had = done
        answer.token_s += route.tpot_s * slower - lost.token_s
        return True

    def end(self, answer: Answer, now_s: float, *, lost: bool) -> None:
        """Pay for an answer and audit it, whether it came to its end or not."""
        done = answer.done(now_s) if lost else answer.tokens
        if done and answer.first_s is None:
            answer.first_s = answer.resumed_s
        shares: dict[str, dict[str, int]] = {reference: {} for reference in answer.held}
        cheated: dict[str, dict[str, int]] = {}
        wrong = False
        for one in answer.taken:
            computed = (done if one.ended is None else one.ended) - one.begun
            if one.ended is None:
                self._market.take(one.node, -1)
            owed = amount(
                one.tokens_in, computed, one.layers, price_in=one.price_in, price_out=one.price_out
            )
            of = shares[one.reference]
            of[one.peer] = of.get(one.peer, 0) + owed
            positions = one.tokens_in + computed
            its_own = one.peer == self._world.ids[one.node]  # else it gave that name up
            if its_own:
                self.layer_tokens[one.node] += one.layers * positions
            bad, looked, found = self._judge.serve(one.node, one.peer, positions, one.layers, now_s)
            wrong = wrong or bad
            if found:
                cheated.setdefault(one.reference, {})[one.peer] = of[one.peer]
            if looked and its_own:
                self._market.judged(one.node, now_s)
            self._market.served_s[one.node] += one.token_s * computed
        paid = sum(
            self._money.settle(answer.user, shares[reference], most, reference)
            for reference, most in answer.held.items()
        )
        for reference, back in cheated.items():
            self._money.refund(answer.user, back, reference)
        self._count(answer, paid, done, now_s, wrong=wrong, lost=lost)

    def _count(
        self, answer: Answer, paid: int, done: int, now_s: float, *, wrong: bool, lost: bool
    ) -> None:
        place, _ = self._where(answer)
        pool = place - len(REGIONS)
        near = 0 if pool < 0 else sum(
            int(self._world.pool[one.node]) == pool for one in answer.taken
        )  # fmt: skip
        first_s = math.nan if answer.first_s is None else answer.first_s
        at_s = float(self._demand.at_s[answer.number])
        self._tally.served(
            number=answer.number, paid=paid, tokens=done, ttft_s=first_s - at_s,
            tpot_s=(now_s - first_s) / max(1, done - 1), hops=len(answer.taken), near=near,
            saved=answer.saved, wrong=wrong, lost=lost,
        )  # fmt: skip

    def _take(
        self, route: Route, place: int, model: int, tokens_in: int, begun: int, reference: str,
        slower: float,
    ) -> list[Taken]:  # fmt: skip
        rtt_ns = self._market.rtt_ns(place, model)
        taken = []
        for hop in route.hops:
            node, layers = self._market.node_at(model, hop.slot), hop.end - hop.first
            price_in, price_out = self._market.price(node)
            own_s = layers * float(self._world.layer_s[node]) + int(rtt_ns[hop.slot]) * NANOSECOND_S
            taken.append(Taken(
                node, hop.id, layers, hop.first, price_in, price_out, own_s * slower, tokens_in,
                begun, None, reference,
            ))  # fmt: skip
            self._market.take(node, 1)
        return taken

    def _hold(self, answer: Answer, reference: str, most: int) -> None:
        answer.held[reference] = most
        self._money.hold(answer.user, most, reference)

    def _where(self, answer: Answer) -> tuple[int, int]:
        demand = self._demand
        return int(demand.place[answer.number]), int(demand.model[answer.number])

    def _user(self, place: int, user: int) -> str:
        key = place, user
        if key not in self._users:
            self._users[key] = self._scenario.peer_id(f"user {place} {user}")
        return self._users[key]
