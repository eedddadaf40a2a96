"""Whatever happens in whatever order: the book is what a plain model says, and survives SIGKILL."""

import random
import signal
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoestring.swarm.identity import KEY_FILE, load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import WORLD, held, income, wallet
from shoestring.swarm.ledger.book import DoubleClaimError, RefusedEntryError
from shoestring.swarm.ledger.correcting import correct
from shoestring.swarm.ledger.reading import BOOK_FILE, open_reading
from shoestring.swarm.ledger.verifying import verify
from shoestring.swarm.ledger.wallets import collect
from shoestring.testing.ledger_histories import ANA, BEN, NODES, a_book, play, steps

OWNERS = st.sampled_from((ANA, BEN))
REFERENCES = st.integers(0, 5).map("a{}".format)
SHARES = st.dictionaries(st.sampled_from(NODES), st.integers(0, 60), max_size=3)
STEPS = 400
ENDLESS = 1_000_000
"""Steps: the pipe is full, and the writer waits, long before it is through with them."""


class Histories(RuleBasedStateMachine):
    """A book beside a model of plain dictionaries, which knows nothing of files."""

    def __init__(self):
        """Both are empty."""
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.place = Path(self.folder.name)
        self.identity = load_identity(self.place / KEY_FILE)
        self.open()
        self.free = dict.fromkeys((ANA, BEN), 0)
        self.earned = dict.fromkeys(NODES, 0)
        self.given = 0
        self.holds = {}
        self.done = set()
        self.captures = {}
        self.refunded = set()

    def open(self):
        """Open the book."""
        self.opened = a_book(self.place, self.identity)
        self.book = self.opened.__enter__()

    def expects(self, allowed, kind, reference, deed):
        """Do it; it is booked if the model allows it, and refused if not."""
        before = self.book.end()
        if (kind, reference) in self.done:
            with pytest.raises(DoubleClaimError):
                deed()
        elif not allowed:
            with pytest.raises(RefusedEntryError):
                deed()
        else:
            deed()
            self.done.add((kind, reference))
            return True
        assert before == self.book.end()
        return False

    @rule(owner=OWNERS, micro=st.integers(-5, 300), reference=REFERENCES)
    def fund(self, owner, micro, reference):
        """Credits come from outside."""
        deed = lambda: answers.fund(self.book, owner, micro, reference=reference)  # noqa: E731
        # What has not the form is refused before it is looked up.
        if micro <= 0:
            with pytest.raises(RefusedEntryError):
                deed()
        elif self.expects(True, "fund", reference, deed):
            self.free[owner] += micro
            self.given += micro

    @rule(owner=OWNERS, micro=st.integers(1, 300), reference=REFERENCES)
    def hold(self, owner, micro, reference):
        """The bill before."""
        deed = lambda: answers.hold(self.book, owner, micro, reference=reference)  # noqa: E731
        if self.expects(micro <= self.free[owner], "hold", reference, deed):
            self.free[owner] -= micro
            self.holds[owner, reference] = micro

    @rule(owner=OWNERS, shares=SHARES, reference=REFERENCES)
    def capture(self, owner, shares, reference):
        """The bill after."""
        deed = lambda: answers.capture(self.book, owner, shares, reference=reference)  # noqa: E731
        if not shares:
            with pytest.raises(RefusedEntryError):
                deed()
            return
        there = self.holds.get((owner, reference), 0)
        if self.expects(sum(shares.values()) <= there, "capture", reference, deed):
            if there:
                self.holds[owner, reference] = there - sum(shares.values())
            self.captures[reference] = owner, shares
            for node, part in shares.items():
                self.earned[node] += part

    @rule(owner=OWNERS, reference=REFERENCES)
    def release(self, owner, reference):
        """The rest; there may be none."""
        rest = self.holds.pop((owner, reference), 0)
        entry = answers.release(self.book, owner, reference=reference)
        assert (entry is None) == (rest == 0)
        self.free[owner] += rest

    @rule(owner=OWNERS, shares=SHARES, reference=REFERENCES)
    def refund(self, owner, shares, reference):
        """Some of what nodes got."""
        deed = lambda: answers.refund(self.book, owner, shares, reference=reference)  # noqa: E731
        payer, got = self.captures.get(reference, (None, {}))
        allowed = bool(shares) and payer == owner and all(
            0 < part <= min(got.get(node, 0), self.earned[node])
            and (node, reference) not in self.refunded
            for node, part in shares.items()
        )  # fmt: skip
        if not allowed:
            before = self.book.end()
            with pytest.raises(RefusedEntryError):
                deed()
            assert before == self.book.end()
            return
        deed()
        for node, part in shares.items():
            self.earned[node] -= part
            self.refunded.add((node, reference))
        self.free[owner] += sum(shares.values())

    @rule(data=st.data(), owner=OWNERS, micro=st.integers(1, 300), shares=SHARES)
    def several_in_one_transaction(self, data, owner, micro, shares):
        """What is refused among them leaves nothing of itself, and takes nothing else with it."""
        with self.book.writing():
            self.fund(owner, micro, data.draw(REFERENCES))
            self.hold(owner, 10 * micro, data.draw(REFERENCES))
            self.capture(owner, shares, data.draw(REFERENCES))
            self.refund(owner, shares, data.draw(REFERENCES))
            self.hold(owner, micro, data.draw(REFERENCES))

    @rule(data=st.data())
    def correct(self, data):
        """Take an earlier entry back: a fund, if the wallet still has it."""
        number = data.draw(st.integers(1, self.book.end()[0] + 1))
        found = self.book.kind_of(number)
        kind, postings = found or (None, ())
        owner = postings[-1][0].removeprefix("wallet:") if kind == "fund" else None
        micro = postings[-1][1] if kind == "fund" else 0
        deed = lambda: correct(self.book, number)  # noqa: E731
        if kind not in {"fund", None, "hold", "capture", "release", "correct"}:
            return
        if self.expects(owner is not None and micro <= self.free[owner], "correct",
                        str(number), deed):  # fmt: skip
            self.free[owner] -= micro
            self.given -= micro

    @rule(owner=OWNERS, node=st.sampled_from(NODES))
    def collect(self, owner, node):
        """A device's income goes to a wallet."""
        entry = collect(self.book, owner, node)
        assert (entry is None) == (self.earned[node] == 0)
        self.free[owner] += self.earned[node]
        self.earned[node] = 0

    @precondition(lambda self: self.done)
    @rule()
    def open_anew(self):
        """Close and open."""
        self.opened.__exit__(None, None, None)
        self.open()

    @invariant()
    def balances_are_the_models(self):
        """Every account, and none besides."""
        expected = {wallet(owner): micro for owner, micro in self.free.items()}
        expected |= {income(node): micro for node, micro in self.earned.items()}
        expected |= {held(*named): micro for named, micro in self.holds.items()}
        expected[WORLD] = -self.given
        assert {name: micro for name, micro in expected.items() if micro} == self.book.balances()

    def teardown(self):
        """The whole history verifies."""
        self.opened.__exit__(None, None, None)
        with open_reading(self.place / BOOK_FILE) as reading:
            assert verify(reading, self.identity.id).fault is None
        self.folder.cleanup()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("seed", range(3))
def test_a_book_whose_writer_is_killed_holds_a_whole_beginning_of_its_history(tmp_path, seed):
    """All that was said to be booked, at most one entry more, and nothing half; then it goes on."""
    identity = load_identity(tmp_path / KEY_FILE)
    kill_at = random.Random(seed).randrange(1, 60)
    command = (sys.executable, "-m", "shoestring.testing.ledger_histories")
    with subprocess.Popen(
        [*command, str(tmp_path), str(seed), str(ENDLESS)], stdout=subprocess.PIPE, text=True
    ) as child:
        said = [child.stdout.readline().split() for _ in range(kill_at)]
        child.send_signal(signal.SIGKILL)
        said += [line.split() for line in child.stdout]
    assert child.returncode == -signal.SIGKILL
    (tmp_path / "other").mkdir()
    with open_reading(tmp_path / BOOK_FILE) as reading:
        right = verify(reading, identity.id)
        booked = [(entry.number, entry.sha256().hex()) for entry in reading.entries()]
    with a_book(tmp_path / "other", identity) as book:
        undisturbed = islice(play(book, steps(seed, ENDLESS)), len(booked))
        expected = [(entry.number, entry.sha256().hex()) for entry in undisturbed]
    told = [(int(words[0]), words[1]) for words in said if len(words) == 2]
    assert right.fault is None
    assert booked == expected
    assert len(told) <= len(booked) <= len(told) + 1
    assert told == booked[: len(told)]
    with a_book(tmp_path, identity) as book:  # the same history, from its beginning
        list(play(book, steps(seed, STEPS)))
        assert book.end()[0] >= len(booked)
    with open_reading(tmp_path / BOOK_FILE) as reading:
        assert verify(reading, identity.id).fault is None
