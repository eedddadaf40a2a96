"""One process's book never lets a limit be exceeded, and keeps nothing that is over."""

import asyncio
import math
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoestring.gateway.counters import LOST_RETRY_S, WINDOW_S, Ask, Budget
from shoestring.gateway.counters_memory import MemoryCounters
from shoestring.gateway.tallies import Share

REQUESTS, TOKENS, RUNNING, BUDGET, ADDRESS_REQUESTS, ADDRESS_RUNNING = 5, 100, 3, 400, 7, 4
PERIOD_S = 300.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def ask(request: str, **fields) -> Ask:
    """A request with no limits but those that are named."""
    return Ask(**{"id": request, "key": "k", "address": "a", "tokens": 10, **fields})


class PlainModel:
    """The same book, as slow and as plain as it can be: everything is kept and counted anew."""

    def __init__(self) -> None:
        self.hits: list[tuple[str, float]] = []
        self.spent: list[list] = []
        self.running: dict[str, tuple[str, str]] = {}
        self.budget = {"k1": 0, "k2": 0}

    def in_window(self, name: str, now_s: float) -> int:
        """Count hits."""
        return sum(who == name and at > now_s - WINDOW_S for who, at in self.hits)

    def tokens(self, key: str, now_s: float) -> int:
        """Add tokens up."""
        return sum(amount for who, at, amount, _ in self.spent
                   if who == key and at > now_s - WINDOW_S)  # fmt: skip

    def reasons(self, key: str, address: str, tokens: int, now_s: float) -> set[str]:
        """Every limit that is in the way."""
        runs = list(self.running.values())
        checks = {
            "rate_limit": self.in_window(key, now_s) >= REQUESTS,
            "token_limit": self.tokens(key, now_s) + tokens > TOKENS,
            "concurrency": sum(k == key for k, _ in runs) >= RUNNING,
            "budget": self.budget[key] + tokens > BUDGET,
            "address_rate_limit": self.in_window(address, now_s) >= ADDRESS_REQUESTS,
            "address_concurrency": sum(a == address for _, a in runs) >= ADDRESS_RUNNING,
        }
        return {reason for reason, is_full in checks.items() if is_full}


class BookMachine(RuleBasedStateMachine):
    """Drives the book and the plain model side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.book = MemoryCounters(clock=self.clock)
        self.model = PlainModel()
        self.asks: list[Ask] = []

    @rule(key=st.sampled_from(["k1", "k2"]), address=st.sampled_from(["a1", "a2"]),
          tokens=st.integers(0, 120))  # fmt: skip
    def admit(self, key: str, address: str, tokens: int) -> None:
        """Ask both; the wait is exact to a microsecond."""
        now_s, model = self.clock.now_s, self.model
        one = ask(
            f"r{len(self.asks)}", key=key, address=address, tokens=tokens,
            requests_per_minute=REQUESTS, tokens_per_minute=TOKENS, concurrent=RUNNING,
            budget=Budget(f"{key}:p", BUDGET, PERIOD_S),
            address_requests_per_minute=ADDRESS_REQUESTS, address_concurrent=ADDRESS_RUNNING,
        )  # fmt: skip
        reasons = model.reasons(key, address, tokens, now_s)
        verdict = self.book.decide(one)

        assert (verdict.refused is None) == (not reasons)
        if verdict.refused is None:
            self.asks.append(one)
            model.hits += [(key, now_s), (address, now_s)]
            model.spent.append([key, now_s, tokens, one.id])
            model.running[one.id] = (key, address)
            model.budget[key] += tokens
            return
        assert verdict.refused in reasons
        if verdict.wait_s == math.inf:
            assert tokens > TOKENS
        elif verdict.refused.endswith(("rate_limit", "token_limit")):
            later_s = now_s + verdict.wait_s
            windows = {"rate_limit", "token_limit", "address_rate_limit"}
            assert not windows & model.reasons(key, address, tokens, later_s + 1e-6)
            assert verdict.refused in model.reasons(key, address, tokens, later_s - 1e-6)

    @rule(data=st.data(), tokens=st.integers(0, 150))
    def settle(self, data: st.DataObject, tokens: int) -> None:
        """End a request, perhaps one that has ended before."""
        if not self.asks:
            return
        one, model = data.draw(st.sampled_from(self.asks)), self.model
        was_running = model.running.pop(one.id, None) is not None
        assert self.book.finish(one.id, tokens) == was_running
        if not was_running:
            return
        model.budget[one.key] += tokens - one.tokens
        if tokens > one.tokens:
            model.spent.append([one.key, self.clock.now_s, tokens - one.tokens, ""])
        else:
            next(row for row in model.spent if row[3] == one.id)[2] = tokens

    @rule(seconds=st.one_of(st.floats(0.01, 61), st.just(WINDOW_S)))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now_s += seconds

    @invariant()
    def agrees_and_never_exceeds(self) -> None:
        """What both count is the same, and no limit is exceeded."""
        now_s = self.clock.now_s
        for key in ("k1", "k2"):
            assert self.model.in_window(key, now_s) <= REQUESTS
            used = asyncio.run(self.book.budget_used(Budget(f"{key}:p", BUDGET, PERIOD_S)))
            assert used == self.model.budget[key]
        held = {one.ask.id for one in self.book.held() if one.settled_s is None}
        assert held == set(self.model.running)


TestBook = BookMachine.TestCase
TestBook.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_refused_request_leaves_nothing_behind():
    """However often it asks, whichever limit refuses, no other limit is used up."""
    book = MemoryCounters(clock=Clock())
    book.decide(ask("first", concurrent=1, requests_per_minute=3))
    for number in range(10):
        refused = book.decide(ask(f"{number}", concurrent=1, requests_per_minute=3))
        assert refused.refused == "concurrency"

    book.finish("first", 0)

    assert book.decide(ask("a", concurrent=5, requests_per_minute=3)).refused is None
    assert book.decide(ask("b", concurrent=5, requests_per_minute=3)).refused is None


def test_a_refund_counts_only_in_its_own_minute():
    """What is given back after its window is over makes no room in the next one."""
    clock = Clock()
    book = MemoryCounters(clock=clock)
    book.decide(ask("old", tokens=90, tokens_per_minute=100))
    clock.now_s += 61
    book.decide(ask("new", tokens=90, tokens_per_minute=100))

    book.finish("old", 0)

    assert book.decide(ask("more", tokens=20, tokens_per_minute=100)).refused == "token_limit"


def test_more_used_than_set_aside_counts_when_it_is_known():
    """A request cannot pass the limit by naming a small estimate and running for long."""
    clock = Clock()
    book = MemoryCounters(clock=clock)
    book.decide(ask("long", tokens=10, tokens_per_minute=100))
    clock.now_s += 300
    book.finish("long", 5000)

    verdict = book.decide(ask("next", tokens=10, tokens_per_minute=100))

    assert (verdict.refused, verdict.wait_s) == ("token_limit", 60.0)


def test_what_is_over_is_forgotten():
    """A thousand callers that went away are dropped while others ask."""
    clock = Clock()
    book = MemoryCounters(clock=clock)
    limits = {"requests_per_minute": 5000, "address_requests_per_minute": 5000}
    for number in range(1000):
        budget = Budget(f"{number}:day", 100, 10.0)
        book.decide(
            ask(f"{number}", key=f"k{number}", address=f"a{number}", budget=budget, **limits)
        )
        book.finish(f"{number}", 1)
    assert book.kept() == 4000
    clock.now_s += 3 * 86_400

    for number in range(1000):
        book.decide(ask(f"x{number}", **limits))
        book.finish(f"x{number}", 1)

    assert book.kept() == 1002  # the new requests, their key and their address


class CommonBook:
    """Of all replicas; then lost, while each goes on by its own."""

    def __init__(self, clock: Clock, replicas: int, limit: int) -> None:
        self.clock = clock
        self.limit = limit
        self.books = [MemoryCounters(clock=clock) for _ in range(replicas)]
        self.admitted: list[tuple[float, int]] = []
        self.share: Share | None = None

    def lose(self) -> None:
        """Now each is alone."""
        for book in self.books:
            book.keep()
        self.share = Share(len(self.books), self.clock.now_s + WINDOW_S)

    def used(self) -> int:
        """Tokens of all in the window."""
        return sum(n for at_s, n in self.admitted if at_s > self.clock.now_s - WINDOW_S)

    def ask(self, number: int, replica: int, tokens: int) -> None:
        """Ask the common book, or a replica's own."""
        one, book = ask(f"{number}", tokens=tokens, tokens_per_minute=self.limit), replica
        if self.share is not None:
            is_admitted = self.books[book].decide(one, self.share).refused is None
        elif is_admitted := self.used() + tokens <= self.limit:
            self.books[book].note(one)
        if is_admitted:
            self.admitted.append((self.clock.now_s, tokens))


def test_replicas_that_lose_the_common_book_stay_within_a_limit_together():
    """Whatever each had admitted, and though one had just begun, no window holds too much."""
    shuffler = random.Random(7)
    for _ in range(100):
        replicas, limit = shuffler.randint(2, 4), shuffler.randint(8, 60)
        common = CommonBook(Clock(), replicas, limit)
        loss, restart = shuffler.randint(1, 150), shuffler.randint(1, 150)
        weights = [shuffler.random() ** 3 for _ in range(replicas)]
        for number in range(500):
            common.clock.now_s += shuffler.choice([0, 0.1, 1, 2])
            if number == loss:
                common.lose()
            if number == restart < loss:
                common.books[0] = MemoryCounters(clock=common.clock)
            [replica] = shuffler.choices(range(replicas), weights)
            common.ask(number, replica, shuffler.randint(1, limit // replicas))
            assert common.used() <= limit


def test_what_a_replica_had_it_may_have_again():
    """In the minute after the loss one request may take the place of another that is over."""
    clock = Clock()
    book = MemoryCounters(clock=clock)
    limits = {"requests_per_minute": 10}
    book.decide(ask("a", **limits))
    clock.now_s += 50
    book.keep()
    lost = Share(2, clock.now_s + WINDOW_S)

    assert book.decide(ask("b", **limits), lost).wait_s == 10.0
    clock.now_s += 10
    assert book.decide(ask("c", **limits), lost).refused is None
    verdict = book.decide(ask("d", **limits), lost)
    assert (verdict.refused, verdict.wait_s) == ("rate_limit", 50.0)
    assert (verdict.requests.limit, verdict.requests.remaining) == (5, 0)
    assert verdict.requests.reset_s == 60.0
    clock.now_s += 50
    assert book.decide(ask("e", **limits), lost).refused is None


def test_of_a_key_that_is_not_known_nothing_is_free_for_a_minute():
    """The time to ask again is the end of that minute; then there is the share."""
    clock = Clock()
    book = MemoryCounters(clock=clock)
    lost = Share(2, clock.now_s + WINDOW_S)
    clock.now_s += 20
    for limits in (
        {"requests_per_minute": 10},
        {"tokens_per_minute": 100},
        {"address_requests_per_minute": 10},
    ):
        verdict = book.decide(ask("a", **limits), lost)
        assert (verdict.refused, verdict.wait_s) != (None, 0.0)
        assert verdict.wait_s == 40.0

    clock.now_s += 40

    for limit, count in ((10, 5), (2, 1), (1, 1)):
        asks = [ask(f"{limit}-{n}", key=f"k{limit}", requests_per_minute=limit) for n in range(9)]
        assert sum(book.decide(one, lost).refused is None for one in asks) == count


def test_of_a_budget_nothing_is_spent_that_is_not_known():
    """None in the first minute; then the share of what was left, if that was ever told."""
    clock = Clock()
    book = MemoryCounters(clock=clock)
    told, unknown = Budget("k:told", 1000, 900.0), Budget("k:unknown", 1000, 900.0)
    book.saw(told, 800)
    lost = Share(2, clock.now_s + WINDOW_S)
    assert book.decide(ask("a", budget=told), lost).wait_s == 60.0
    assert book.decide(ask("b", budget=unknown), lost).wait_s == 60.0

    clock.now_s += 60

    spent = [book.decide(ask(f"{n}", budget=told), lost).refused is None for n in range(30)]
    assert sum(spent) == 10
    verdict = book.decide(ask("c", budget=unknown), lost)
    assert (verdict.refused, verdict.wait_s) == ("budget", LOST_RETRY_S)


def test_one_request_may_always_run():
    """More replicas than places: each admits one; where more ran at the loss, as many."""
    clock = Clock()
    book = MemoryCounters(clock=clock)
    limits = {"concurrent": 6}
    lost = Share(2, clock.now_s + WINDOW_S)
    asks = [ask(f"{n}", **limits) for n in range(9)]

    assert sum(book.decide(one, lost).refused is None for one in asks[:4]) == 1
    book.note(asks[4])
    book.keep()
    book.finish("4", 0)
    assert sum(book.decide(one, lost).refused is None for one in asks[5:7]) == 1
    clock.now_s += WINDOW_S
    assert sum(book.decide(one, lost).refused is None for one in asks[7:]) == 1
    assert book.decide(ask("x", key="y", concurrent=1), lost).refused is None
