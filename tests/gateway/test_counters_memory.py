"""One process's book never lets a limit be exceeded, and keeps nothing that is over."""

import asyncio
import math
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoestring.gateway.counters import WINDOW_S, Ask, Budget, Used
from shoestring.gateway.counters_memory import MemoryCounters

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


def test_replicas_that_cannot_see_each_other_stay_within_a_limit_together():
    """Each takes its share of what was left; one that had nothing may take one more than that."""
    shuffler = random.Random(7)
    for _ in range(200):
        replicas, limit = shuffler.randint(2, 4), shuffler.randint(4, 40)
        clock = Clock()
        books = [MemoryCounters(clock=clock) for _ in range(replicas)]
        admitted = 0
        for number in range(shuffler.randint(0, limit)):  # while the common book was there
            book = shuffler.choice(books)
            book.note(ask(f"{number}", requests_per_minute=limit))
            admitted += 1
            for other in books:
                other.saw(ask("-", requests_per_minute=limit), Used(admitted, 0, 0, 0, 0, 0))

        for number in range(4 * limit):
            one = ask(f"lost{number}", requests_per_minute=limit)
            admitted += shuffler.choice(books).decide(one, replicas).refused is None

        assert admitted <= limit + max(0, replicas - 2)


def test_a_share_is_at_least_one_request():
    """More replicas than requests in a minute: each still admits one, whatever its size."""
    book = MemoryCounters(clock=Clock())
    limits = {"requests_per_minute": 2, "tokens_per_minute": 100, "concurrent": 1}
    big = ask("big", tokens=100, budget=Budget("k:p", 100, 9.0), **limits)

    assert book.decide(big, replicas=5).refused is None
    assert book.decide(ask("more", **limits), replicas=5).refused is not None
