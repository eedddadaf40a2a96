"""A budget: held before, paid by receipts, never exceeded, and the rest given back."""

import fcntl
import json
import re
import sys
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.engines.launch import free_port
from shoestring.errors import BadValueError
from shoestring.hardware.devices import Device
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.audit.standing import STANDING_FILE
from shoestring.swarm.billing import Billing
from shoestring.swarm.booking import Booking
from shoestring.swarm.cli_wallet import wallet as wallet_command
from shoestring.swarm.home import Home
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import held, income, wallet
from shoestring.swarm.ledger.bills import Leg
from shoestring.swarm.ledger.book import RefusedEntryError
from shoestring.swarm.ledger.heads import head_path
from shoestring.swarm.ledger.places import book_of, book_path, reading_of
from shoestring.swarm.ledger.verifying import verify
from shoestring.swarm.ledger.wallets import WALLET_FILE
from shoestring.swarm.offering import make_offers, most_of_an_answer
from shoestring.swarm.proof.agreeing import FREE, Price
from shoestring.swarm.proof.figures import Figures, Layers, Window
from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
from shoestring.swarm.proof.paying import Payer
from shoestring.swarm.proof.receipts import (
    Hand,
    amount,
    countersign,
    next_receipt,
    sign,
)
from shoestring.swarm.proof.terms import Terms
from shoestring.swarm.remote import Remote
from shoestring.swarm.settling import LOCK_FILE, settle_left
from shoestring.swarm.survey import Seen
from shoestring.testing.engines import need_program
from tests.swarm.test_receipts import Link, graph
from tests.swarm.test_swarm_cli import Person, serving

CALM = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PRICE = Price(price_in=1_000_000, price_out=2_000_000)
"""With one layer, a token is one micro-credit, or two."""
SESSION = "0123456789abcdef"
MODEL = "pypi:gemma3-270m"
CREDIT = 1_000_000


@pytest.fixture
def home(tmp_path):
    """Of a client whose wallet has 1,000 micro-credits."""
    found = Home(tmp_path / "swarm")
    owner = load_identity(found.folder / WALLET_FILE)
    with book_of(found) as book:
        answers.fund(book, owner.id, 1_000, reference="f1")
    return found


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """Who is paid."""
    return load_identity(tmp_path_factory.mktemp("node") / "identity.key")


def owner_of(home):
    """Return the id of a home's wallet."""
    return load_identity(home.folder / WALLET_FILE).id


def receipts_of(home, node, tokens, *, session=SESSION, price=PRICE, client=None):
    """Return a session's receipts, by both hands: so many tokens of an answer in each window."""
    client, before, found = client or home.identity(), None, []
    terms = Terms(session=session, client=client.id, node=node.id, model=None, engine="0" * 64,
                  rpc="7.0", price_in=price.price_in, price_out=price.price_out,
                  window_steps=32)  # fmt: skip
    for count in tokens:
        figures = Figures(frames=1, steps=count, tokens_out=count)
        window = Window(figures, Layers(3, 3), bytes(32), bytes(32), ())
        before = next_receipt(terms, before, window, step=0, at_s=1)
        found.append(countersign(node, before, sign(client, before)))
    return found


def state_of(home):
    """Return the balances of a home's book, which must be whole."""
    with reading_of(book_path(home)) as book:
        assert verify(book, home.identity().id, [], lambda _: None).fault is None
        return book.balances()


def seen(name, price, node="a" * 52):
    """Return a peer that answered."""
    device = Device(f"peer:{name}", "peer", "x", 1 << 30, None, None, None, 0.01, None, "told")
    return Seen(Remote(name, PeerAddress(node, "127.0.0.1", 1), b""), device, "", 1, price=price)


def test_each_node_is_offered_what_it_said_and_dear_ones_are_left_out():
    """Never more than it asks, for a node answers with its own price."""
    most = Price(10, 20)
    fair, dear = seen("fair", Price(10, 20), "a" * 52), seen("dear", Price(10, 21), "q" * 52)
    offers = make_offers([fair, dear], {}, most)
    assert (offers.seen, offers.prices) == ((fair,), {"a" * 52: Price(10, 20)})
    (line,) = offers.left_out
    assert "dear is left out: it asks 0.00001 credits in and 0.000021 out" in line
    assert "raise --max-price" in line
    cheaper = make_offers([fair], {"a" * 52: Price(10, 19)}, most)
    assert cheaper.seen == ()
    assert "its own quote says" in cheaper.left_out[0]


def test_without_a_budget_free_nodes_alone_are_asked_and_that_is_said():
    """As before there were budgets."""
    free, priced = seen("free", FREE, "a" * 52), seen("priced", Price(1, 0), "q" * 52)
    offers = make_offers([free, priced], {}, None)
    assert offers.seen == (free,)
    assert "priced is left out" in offers.left_out[0]
    assert "--budget" in offers.left_out[0]


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 10**7), st.integers(0, 10**7)),
             max_size=4),
    st.integers(1, 200), st.integers(1, 300), st.data(),
)  # fmt: skip
def test_no_answer_costs_more_than_the_bill_before(legs, context, max_tokens, data):
    """Whatever prompt and answer share the context."""
    route = [Leg(str(number), *leg) for number, leg in enumerate(legs)]
    tokens_out = data.draw(st.integers(0, min(context, max_tokens)))
    tokens_in = data.draw(st.integers(0, context - tokens_out))
    lines = most_of_an_answer(route, context, max_tokens)
    spent = sum(
        replace(line, tokens_in=tokens_in, tokens_out=tokens_out).micro for line in lines.lines
    )
    assert spent <= lines.micro


def earn(book, receipt, fresh):
    """Book what a node earned."""
    terms, reference = receipt.terms, f"{receipt.terms.session}.{receipt.window}"
    answers.earn(book, terms.client, terms.node, fresh, reference=reference)


def earned(book, receipt):
    """Return what it earned in a session."""
    return book.parts_of("earn", receipt.terms.session)


def booking_of(home, say=print):
    """Return what books a node's sessions."""
    return Booking(partial(book_of, home), earn, earned, say)


@CALM
@given(
    st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=5), min_size=1, max_size=3),
    st.data(),
)
def test_sessions_are_booked_once_whatever_is_tried_again(tmp_path_factory, node, sessions, data):
    """Some windows by a process that died, then all from the files, twice: each counts once."""
    home = Home(tmp_path_factory.mktemp("client"))
    chains = [
        receipts_of(home, node, tokens, session=f"{number:016x}")
        for number, tokens in enumerate(sessions)
    ]
    owed = sum(amount(chain[-1].receipt) for chain in chains)
    said = []
    with closing(ReceiptFiles(tmp_path_factory.mktemp("receipts"), said.append)) as files:
        for chain in chains:
            for signed in chain:
                files.keep(signed)
    for count in (data.draw(st.integers(0, 5)), 0, 0):
        with closing(booking_of(home, said.append)) as booking:
            for chain in chains:
                for signed in chain[:count]:
                    booking.keep(signed)
            if not count:
                booking.make_up(files).result()
    with book_of(home) as book:
        assert book.balance(income(node.id)) == owed
    assert said == []


class Watched(ReceiptFiles):
    """Notes which files are read from their first receipt on; then does what it is told."""

    def __init__(self, folder, then=lambda: None):
        super().__init__(folder, print)
        self.read_whole = []
        self.then = then

    def read(self, path):
        """Note it first."""
        self.read_whole.append(path)
        self.then()
        return super().read(path)


def keep_two(files, home, node, tokens):
    """Keep receipts of two sessions that another asked this home's node for; return the files."""
    for session in ("a" * 16, "b" * 16):
        for one in receipts_of(home, home.identity(), tokens, session=session, client=node):
            files.keep(one)
    files.close()
    return files.sessions()


def test_what_is_booked_is_not_proved_again(home, node, tmp_path):
    """A node that starts reads the files whole of which something is missing in its book."""
    files = Watched(tmp_path / "receipts")
    first, second = keep_two(files, home, node, [10, 5])
    whole = second.read_bytes()
    second.write_bytes(whole.splitlines(keepends=True)[0])
    for expected in ([first, second], []):
        with closing(booking_of(home)) as booking:
            assert booking.make_up(files).result() == 0
        assert files.read_whole == expected
        files.read_whole.clear()
    second.write_bytes(whole)
    with closing(booking_of(home)) as booking:
        booking.make_up(files).result()
    assert files.read_whole == [second]
    assert state_of(home)[income(home.identity().id)] == 2 * 30
    book_path(home).unlink()
    head_path(book_path(home)).unlink()
    with closing(booking_of(home)) as booking:
        booking.make_up(files).result()
    assert state_of(home)[income(home.identity().id)] == 2 * 30, "of a new book, too"


def test_a_node_that_ends_waits_for_one_file_at_most(home, node, tmp_path):
    """The rest is made up for by the next start."""
    booking = booking_of(home)
    ending = threading.Thread(target=booking.close)

    def end():
        ending.start()
        while not booking._is_closing:
            pass

    files = Watched(tmp_path / "receipts", end)
    first, _ = keep_two(files, home, node, [10])
    assert booking.make_up(files).result() == 0
    ending.join()
    assert files.read_whole == [first]


def test_a_budget_is_held_then_paid_by_receipts_and_the_rest_is_free_again(home, node):
    """What is paid is what the last receipt says."""
    owner, said, over = owner_of(home), [], []
    with Billing(home, 400, over.append, said.append) as billing:
        (reference,) = [
            one.removeprefix(held(owner, "")) for one in state_of(home) if "held" in one
        ]
        assert state_of(home)[wallet(owner)] == 600
        for signed in receipts_of(home, node, [10, 5]):
            assert billing.allows(signed.receipt)
            billing.keep(signed)
        assert billing.line() == (
            "0 tokens in, 15 out: 0.00003 credits, 1 node; 0.00037 left of 0.0004"
        )
        assert billing.line().startswith("0 tokens in, 0 out: 0 credits, 0 nodes")
        assert billing.bill().micro == 30
    assert state_of(home) == {wallet(owner): 970, income(node.id): 30, "world": -1_000}
    assert over == []
    assert said == ["paid 0.00003 credits to 1 node; 0.00037 of the budget are free again"]
    files = ReceiptFiles(home.folder / FOLDER / reference, said.append)
    (chain,) = [files.read(path) for path in files.sessions()]
    assert amount(chain[-1].receipt) == 30


def test_nothing_above_the_budget_is_signed_and_that_is_told_once(home, node):
    """What was signed before stays paid, and free windows go on."""
    over, first = [], receipts_of(home, node, [10, 5, 5])
    other = receipts_of(home, node, [3], session="f" * 16)
    free = receipts_of(home, node, [9], session="e" * 16, price=FREE)
    with Billing(home, 29, over.append, lambda _: None) as billing:
        assert [billing.allows(one.receipt) for one in first] == [True, False, False]
        assert billing.allows(other[0].receipt), "it is within what is left"
        assert billing.allows(free[0].receipt)
        assert billing.left == 29 - 20 - 6
    (error,) = over
    assert "the budget of 0.000029 credits is used up" in str(error)


def test_a_node_that_names_two_sessions_alike_gets_no_more_than_the_budget(home, node):
    """What the first came to stays counted."""
    with Billing(home, 29, lambda _: None, lambda _: None) as billing:
        for tokens, is_signed in ((10, True), (4, True), (1, False)):
            (signed,) = receipts_of(home, node, [tokens])
            assert billing.allows(signed.receipt) is is_signed
        assert billing.left == 29 - 20 - 8


def test_sessions_of_one_name_that_are_open_at_once_get_no_more_than_the_budget(home, node):
    """Receipts that come in turns are each measured against the one before in their own chain."""
    first, other = (receipts_of(home, node, tokens) for tokens in ([1, 4, 15], [1, 19, 19]))
    said = []
    with Billing(home, 100, lambda _: None, said.append) as billing:
        turns = [(first, 0), (other, 0), (other, 1), (first, 1), (other, 2), (first, 2)]
        allowed = [billing.allows(chain[window].receipt) for chain, window in turns]
        assert allowed == [True, True, True, True, True, False], "10 and 78 are signed"
        assert billing.left == 100 - 10 - 78
        for chain, window in turns[:-1]:
            billing.keep(chain[window])
        assert (billing.bill().micro, len(billing.bill().lines)) == (10 + 78, 2)
        assert "39 out: 0.000088 credits, 1 node; 0.000012 left" in billing.line()
    assert state_of(home)[income(node.id)] <= 10 + 78


def test_a_window_that_is_not_allowed_is_not_signed_and_no_step_follows(home, node):
    """Nothing is computed that nobody would pay; it is no dispute with the node."""
    link = Link(home.identity(), node)
    hand = Hand(home.identity(), link.here.append, lambda receipt: receipt.window < 1)
    link.payer = Payer(link.terms, hand, link.disputes.append, lambda: 1_800_000_000.0)
    link.tell(graph([3]))
    link.step()
    link.settle(1)
    assert (link.payer.is_full, len(link.here)) == (False, 1)
    link.step()
    link.payer.cut(2)
    assert link.payer.claim() is None
    assert (link.payer.is_full, link.payer.has_open, link.disputes) == (True, False, [])


def test_a_budget_above_the_wallet_is_refused_and_nothing_changes(home):
    """In one line, with what there is."""
    before = state_of(home)
    with pytest.raises(BadValueError, match=r"--budget 0\.001001: the wallet has 0\.001 cr"):
        Billing(home, 1_001, print, print).__enter__()
    assert state_of(home) == before


def test_a_later_start_settles_what_a_dead_one_signed_and_leaves_a_living_one_alone(home, node):
    """Its receipts are on the disk, and only the first window was booked."""
    owner, said = owner_of(home), []
    signed = receipts_of(home, node, [10, 5])
    with book_of(home) as book:
        answers.hold(book, owner, 100, reference="budget.dead")
        part = f"{node.id[:16]}.{SESSION}.0"
        answers.capture(book, owner, {node.id: 20}, reference="budget.dead", part=part)
        answers.hold(book, owner, 7, reference="a1")
    with closing(ReceiptFiles(home.folder / FOLDER / "budget.dead", said.append)) as files:
        for one in signed:
            files.keep(one)
    with Billing(home, 50, print, lambda _: None):
        settle_left(home, said.append)
        living = [account for account in state_of(home) if account.startswith("held:")]
        assert len(living) == 2, "of the living one, and what is no budget"
    assert said == ["a run had ended before its end: budget.dead is paid, 0.00007 are free"]
    assert state_of(home) == {
        wallet(owner): 1_000 - 30 - 7, held(owner, "a1"): 7, income(node.id): 30, "world": -1_000,
    }  # fmt: skip


def kept_for(home, node, tokens, *, reference="budget.dead"):
    """Hold 100 for a run that died, and return the file of its one session's receipts."""
    with book_of(home) as book:
        answers.hold(book, owner_of(home), 100, reference=reference)
    with closing(ReceiptFiles(home.folder / FOLDER / reference, print)) as files:
        for one in receipts_of(home, node, tokens):
            files.keep(one)
    (path,) = files.sessions()
    return path


def test_what_cannot_be_booked_stays_held_and_is_tried_again(home, node):
    """Neither the run itself nor a later start gives back what receipts say is owed."""
    owner, said = owner_of(home), []
    standing = home.folder / STANDING_FILE
    with Billing(home, 50, print, said.append) as billing:
        standing.write_text("{")
        standing.chmod(0o600)
        for signed in receipts_of(home, node, [10, 5]):
            assert billing.allows(signed.receipt)
            billing.keep(signed)
    assert state_of(home)[wallet(owner)] == 1_000 - 50
    assert "2 receipts are not booked" in said[-2]
    assert "stays held" in said[-1]
    assert not any("paid" in line.split() for line in said)
    settle_left(home, said.append)
    assert state_of(home)[wallet(owner)] == 1_000 - 50
    assert "stays held" in said[-1]
    standing.unlink()
    settle_left(home, said.append)
    assert state_of(home) == {wallet(owner): 970, income(node.id): 30, "world": -1_000}
    assert "is paid, 0.00002 are free" in said[-1]


def test_a_run_that_cannot_be_settled_keeps_no_other_from_it(home, node):
    """A file of which nothing can be read is told; the money is held for it alone."""
    owner, said = owner_of(home), []
    kept_for(home, node, [10], reference="budget.a").write_bytes(b"x\n")
    kept_for(home, node, [10], reference="budget.b")
    settle_left(home, said.append)
    assert state_of(home) == {
        wallet(owner): 880, held(owner, "budget.a"): 100, income(node.id): 20, "world": -1_000,
    }  # fmt: skip
    assert "no receipt of it counts" in said[0]
    assert "move their file away" in said[1]


@pytest.mark.parametrize("written", [0, 1, -1])
def test_a_run_that_died_over_its_first_receipt_owes_nothing_for_it(home, node, written):
    """Killed before the line was whole: other sessions are paid, and the rest is free again."""
    path, said = kept_for(home, node, [10]), []
    session = f"{1:016x}"
    with closing(ReceiptFiles(path.parent, print)) as files:
        for one in receipts_of(home, node, [5], session=session):
            files.keep(one)
    path.write_bytes(path.read_bytes()[:written])
    settle_left(home, said.append)
    assert state_of(home) == {wallet(owner_of(home)): 990, income(node.id): 10, "world": -1_000}
    assert said[0].startswith(f"{path}: ")
    assert "no whole receipt" in said[0]
    assert said[1:] == ["a run had ended before its end: budget.dead is paid, 0.00009 are free"]


def test_a_release_by_hand_pays_what_the_receipts_prove(home, node, monkeypatch):
    """Not before the run has ended; and once."""
    monkeypatch.setenv("SHOESTRING_STATE", str(home.folder.parent))
    path = kept_for(home, node, [10, 5])
    release = ["release", "budget.dead"]
    with (path.parent / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = state_of(home)
        refused = CliRunner().invoke(wallet_command, release).exception
        assert isinstance(refused, BadValueError)
        assert "has not ended" in str(refused)
        assert state_of(home) == before
    assert "0.00007 credits are free again" in CliRunner().invoke(wallet_command, release).output
    assert state_of(home) == {wallet(owner_of(home)): 970, income(node.id): 30, "world": -1_000}
    again = CliRunner().invoke(wallet_command, ["release", "budget.dead"]).exception
    assert "nothing is held" in str(again)


def test_a_part_is_captured_under_its_answer_alone(home, node):
    """Another answer's money cannot be captured by a name."""
    owner = owner_of(home)
    with book_of(home) as book:
        answers.hold(book, owner, 10, reference="a1")
        answers.capture(book, owner, {node.id: 4}, reference="a1", part="w.0")
        answers.refund(book, owner, {node.id: 4}, reference="a1.w.0")
        with pytest.raises(RefusedEntryError, match="is not held for a12"):
            book.add("capture", ((held(owner, "a1"), -1), (income(node.id), 1)), reference="a12")


def amounts_of(folder):
    """Return what the last receipts below a folder say, together."""
    files = [ReceiptFiles(path, print) for path in [folder, *folder.iterdir()] if path.is_dir()]
    chains = [one.read(path) for one in files for path in one.sessions()]
    assert chains
    return sum(amount(chain[-1].receipt) for chain in chains)


def money_of(person):
    """Return a person's balance."""
    printed, said, status = person.type("swarm", "wallet", "balance", "--json")
    assert status == 0, said
    return json.loads(printed)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="rooms are made by Linux")
def test_two_answers_are_paid_by_receipts_and_a_budget_runs_out(tmp_path):
    """A node with a price, one that is too dear, and a client with a wallet: by commands alone."""
    need_program("ggml-rpc-server")
    friend = Person(tmp_path / "friend")
    owners = {"one": ("3000000", "20000000"), "dear": ("3000000", "20000001")}
    ask = ("swarm", "chat", MODEL, "--context", "512", "--peer-layers", "18", "--temperature", "0",
           "--max-price-out", "20")  # fmt: skip
    for words in (("create",), ("fund", "25")):
        friend.type("swarm", "wallet", *words)
    with ExitStack() as stack:
        for name, (price_in, price_out) in owners.items():
            owner, port = Person(tmp_path / name), free_port()
            invitation, _, _ = owner.type(
                "swarm", "invite", "--name", "friend", "--address", f"127.0.0.1:{port}"
            )
            more = ("--memory", "1GiB", "--price-in", price_in, "--price-out", price_out)
            stack.enter_context(serving(owner, port, *more))
            friend.type("swarm", "join", "--name", name, stdin=invitation)
        words = ("--budget", "1", "--max-tokens", "20")
        printed, said, status = friend.type(*ask, *words, stdin="What is a ship?\nAnd a boat?\n")
        assert status == 0, said
        assert len(printed) > 40
        assert "dear is left out: it asks 3 credits in and 20.000001 out" in said
        assert re.search(r"at most [\d.]+ credits for \d+ tokens in and \d+ out, by 1 nodes", said)
        lines = re.findall(r"(\d+) tokens in, (\d+) out: ([\d.]+) credits, 1 node;", said)
        assert len(lines) == 2
        assert all(int(tokens_out) in range(1, 30) for _, tokens_out, _ in lines)
        first = money_of(friend)
        paid = 25 * CREDIT - first["free_micro"]
        assert (first["held_micro"], paid > 0) == ({}, True)
        assert f"paid {paid / CREDIT:.6f}".rstrip("0") in said
        assert sum(round(float(cost) * CREDIT) for *_, cost in lines) <= paid

        words = ("--budget", "0.02", "-m", "Tell a long story of the sea.")
        _, said, status = friend.type(*ask, *words)
        assert (status, "Traceback" in said) == (1, False), said
        assert "the budget of 0.02 credits is used up" in said
        second = money_of(friend)
        assert second["held_micro"] == {}
        assert 0 < first["free_micro"] - second["free_micro"] <= 20_000
        _, said, status = friend.type(*ask, "--budget", "25", "-m", "No.")
        assert (status, "the wallet has" in said) == (2, True)
    paid = 25 * CREDIT - second["free_micro"]
    earned = money_of(Person(tmp_path / "one"))
    assert amounts_of(tmp_path / "friend" / "swarm" / FOLDER) == paid
    assert amounts_of(tmp_path / "one" / "swarm" / FOLDER) == paid
    assert (list(earned["income_micro"].values()), earned["free_micro"]) == ([paid], None)
    assert list(earned["owed_micro"].values()) == [paid]
    for name in ("ledger.db", "ledger.head"):
        (tmp_path / "one" / "swarm" / name).unlink()
    with serving(Person(tmp_path / "one"), free_port(), "--memory", "1GiB"):  # for nothing, now
        deadline = time.monotonic() + 60
        while money_of(Person(tmp_path / "one"))["owed_micro"] != earned["owed_micro"]:
            assert time.monotonic() < deadline, "what was earned before is booked by a free node"
    for person in (friend, Person(tmp_path / "one")):
        assert person.type("swarm", "ledger", "verify")[2] == 0
