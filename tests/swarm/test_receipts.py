"""Receipts: what both ends count, what they sign, and what is refused."""

import hashlib
import itertools
import json
from dataclasses import asdict, replace

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.agreeing import (
    FREE,
    Asked,
    Price,
    agreed_terms,
    read_asked,
    read_terms,
)
from shoestring.swarm.proof.books import ReceiptBook, check_chain, check_stages, read_good
from shoestring.swarm.proof.earning import ACCEPTED, Earner
from shoestring.swarm.proof.figures import Figures, Layers, Window
from shoestring.swarm.proof.graphs import Seen
from shoestring.swarm.proof.merkle import root_of
from shoestring.swarm.proof.reading import read_receipt, read_signed
from shoestring.swarm.proof.receipts import (
    BY_NODE,
    Hand,
    Signed,
    amount,
    canonical,
    countersign,
    next_receipt,
    sign,
)
from shoestring.swarm.proof.tally import Tally
from shoestring.swarm.splitting import Answers, Splitter
from shoestring.swarm.wire import (
    OFFSET_AT,
    SETTLE_ANSWER_BYTES,
    SETTLE_BYTES,
    TWO_U64,
    U32,
    U64,
    BadFrameError,
    Command,
    Frame,
    request,
)
from tests.swarm.receipts import (
    AGAIN,
    ENGINE,
    NOW_S,
    PRICE,
    WIDTH,
    Link,
    activation,
    frame_of,
    graph,
    parties_in,
    positions,
    read,
    set_copy,
)

FEW = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    """Client, node, and another."""
    return parties_in(tmp_path_factory.mktemp("parties"))


@pytest.fixture
def link(parties):
    """One that has computed its first graph."""
    made = Link(*parties[:2])
    made.tell(graph([3]))
    return made


def test_the_root_is_that_of_rfc_6962():
    """Of none, one, two and three leaves."""

    def sha256(data):
        return hashlib.sha256(data).digest()

    one, two, three = (sha256(b"\0" + leaf) for leaf in (b"a", b"b", b"c"))
    assert root_of([]) == sha256(b"")
    assert root_of([b"a"]) == one
    assert root_of([b"a", b"b"]) == sha256(b"\1" + one + two)
    assert root_of([b"a", b"b", b"c"]) == sha256(b"\1" + sha256(b"\1" + one + two) + three)


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_the_root_is_that_of_the_halves(leaves):
    """As RFC 6962 defines it, by the largest power of two."""

    def plain(some):
        if len(some) < 2:
            return hashlib.sha256(b"".join(b"\0" + one for one in some)).digest()
        half = 1 << (len(some) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + plain(some[:half]) + plain(some[half:])).digest()

    assert root_of(leaves) == plain(leaves)


def test_what_one_stage_gives_out_the_next_is_given(parties):
    """Also where it went from node to node; with another byte on its way, it is seen."""
    chains = {}
    for changed in (0, 1):
        first, second = Link(*parties[:2]), Link(*parties[::2])
        first.tell(graph([3]))
        second.tell(graph([4]))
        for number in range(4):
            first.step(number, layer=3)
            second.step(number + 1 + (changed and number == 2), layer=4)
        for link in (first, second):
            link.settle(5)
        chains[changed] = [first.here, second.here]
    assert check_stages(chains[0]) == 1
    with pytest.raises(BadValueError, match="other activations than window 0"):
        check_stages(chains[1])
    with pytest.raises(BadValueError, match="does not follow layer 4"):
        check_stages(chains[0][::-1])


@pytest.fixture(scope="module")
def receipts(parties):
    """Return a session's receipts."""
    link = Link(*parties[:2])
    link.tell(graph([3]))
    for number in range(4):
        link.step(number)
        link.settle(number + 1)
    assert link.here == link.there
    return link.here


def test_a_session_is_hash_chained_and_owes_what_its_last_receipt_says(receipts):
    """Figures are cumulative."""
    check_chain(receipts)
    assert [signed.receipt.window for signed in receipts] == [0, 1, 2, 3]
    assert [signed.receipt.figures.tokens_out for signed in receipts] == [2, 3, 4, 5]
    book = ReceiptBook()
    assert book.claim(receipts[:2]) + book.claim(receipts) == amount(receipts[-1].receipt)


@FEW
@given(st.data())
def test_any_other_byte_is_refused(receipts, data):
    """Anywhere in a file of receipts: changed, added, or taken out."""
    whole = b"".join(signed.line + b"\n" for signed in receipts)
    assert read_good(whole) == (receipts, None)
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != whole[at]))
    kind = data.draw(st.sampled_from(["changed", "added", "gone"]))
    tail = whole[at if kind == "added" else at + 1 :]
    middle = b"" if kind == "gone" else bytes([byte])
    good, why = read_good(whole[:at] + middle + tail)
    assert why is not None
    assert good == receipts[: len(good)]
    assert len(good) == whole.count(b"\n", 0, at)


@FEW
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_only_the_whole_chain_in_its_order_passes(receipts, order):
    """Dropped, repeated or moved receipts are refused; a chain without its end owes less."""
    chosen = [receipts[number] for number in order]
    if order == list(range(len(order))):
        check_chain(chosen)
        return
    with pytest.raises(BadValueError, match=r"missing|moved"):
        check_chain(chosen)


def test_a_chain_without_receipts_is_none():
    """Nothing was proved."""
    with pytest.raises(BadValueError, match="nothing to check"):
        check_chain([])


def test_nobody_signs_for_both(parties, receipts):
    """Neither by the other's purpose, nor as the other, nor alone."""
    client, node, other = parties
    receipt = receipts[0].receipt
    ours, theirs = receipts[0].by_client, receipts[0].by_node
    forged = [
        Signed(receipt, ours, client.sign(BY_NODE, receipt.body)),
        Signed(receipt, node.sign(BY_NODE, receipt.body), theirs),
        Signed(receipt, ours, ours),
        Signed(receipt, ours, b""),
        Signed(receipt, theirs, ours),
        Signed(receipt, ours, other.sign(BY_NODE, receipt.body)),
    ]
    for signed in forged:
        with pytest.raises(BadValueError, match="no good signature"):
            check_chain([signed])
        with pytest.raises(BadValueError):
            read_signed(signed.line)
    with pytest.raises(BadValueError, match="both sides"):
        replace(receipt.terms, node=client.id)
    with pytest.raises(BadValueError, match="not the client"):
        sign(node, receipt)
    with pytest.raises(BadValueError, match="not the node"):
        countersign(other, receipt, ours)
    with pytest.raises(BadValueError, match="no good signature"):
        countersign(node, receipt, theirs)


def signed_by_both(parties, receipt):
    """Return what two parties who agree can make of anything."""
    client, node = parties[:2]
    return countersign(node, receipt, sign(client, receipt))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"figures": Figures()}, "falls behind"),
        ({"step": 0}, "falls behind"),
        ({"at_s": 0}, "falls behind"),
        ({"window": 2}, "missing or moved"),
        ({"prev": "00" * 32}, "missing or moved"),
    ],
)
def test_also_what_both_signed_must_be_a_chain(parties, receipts, change, why):
    """Figures never fall, and every receipt names the one before."""
    changed = signed_by_both(parties, replace(receipts[1].receipt, **change))
    with pytest.raises(BadValueError, match=why):
        check_chain([receipts[0], changed])


def test_terms_do_not_change(parties, receipts):
    """Price, engine and parties are those of the first receipt."""
    receipt = receipts[1].receipt
    for terms in (
        replace(receipt.terms, price_out=1),
        replace(receipt.terms, engine="cd" * 32),
        replace(receipt.terms, session="f" * 16),
    ):
        changed = signed_by_both(parties, replace(receipt, terms=terms))
        with pytest.raises(BadValueError, match="another session, party, price or engine"):
            check_chain([receipts[0], changed])
        first = signed_by_both(parties, replace(receipts[0].receipt, terms=terms))
        with pytest.raises(BadValueError, match="not the first of its session"):
            check_chain([first])


def test_nothing_is_claimed_twice(parties, receipts):
    """Not the same receipts, not older ones, and not other ones of the same session."""
    book = ReceiptBook()
    book.claim(receipts[:3])
    for again in (receipts[:3], receipts[:2]):
        with pytest.raises(BadValueError, match="was claimed before"):
            book.claim(again)
    other = []
    for signed in receipts:
        receipt = signed.receipt
        if other:
            receipt = replace(receipt, prev=other[-1].receipt.digest)
        figures = replace(receipt.figures, bytes_in=receipt.figures.bytes_in + 1)
        other.append(signed_by_both(parties, replace(receipt, figures=figures)))
    check_chain(other)
    with pytest.raises(BadValueError, match="other figures"):
        book.claim(other)


def test_who_does_not_sign_is_stopped_after_one_window(link):
    """The node computes so many steps, and no more."""
    for _ in range(7):
        link.step()
    assert link.payer.is_full, "the client would wait for a signature now"
    with pytest.raises(BadFrameError, match="8 steps are not signed for") as refused:
        link.tell(AGAIN)
    assert refused.value.reason == "unpaid"


def test_graphs_that_come_at_once_count_before_they_are_metered(link):
    """Frames are metered once they have gone on; what they compute fills a window all the same."""
    frame, body = frame_of(AGAIN)
    for _ in range(6):  # after the first graph
        link.payer.note(frame, body, Entry(frame, body))
        link.earner.note(frame)
    assert not link.payer.is_full
    link.payer.note(frame, body, Entry(frame, body))
    link.earner.note(frame)
    assert link.payer.is_full
    with pytest.raises(BadFrameError, match="8 steps are not signed for"):
        link.earner.note(frame)


def test_what_is_set_is_metered_with_its_graph_or_when_there_is_much(link, monkeypatch):
    """So nothing is metered before a graph goes on, and nobody fills a memory."""
    monkeypatch.setattr("shoestring.swarm.proof.earning.MOST_BEHIND", 8)
    monkeypatch.setattr("shoestring.swarm.proof.paying.MOST_BEHIND", 8)
    frame, body = frame_of(positions(1))
    again = frame_of(AGAIN)[0]
    for ready in (again, None):
        for _ in range(3 if ready else 8):
            assert not link.payer.is_due
            assert not link.earner.is_due
            link.payer.note(frame, body, Entry(frame, body))
            link.earner.note(frame)
        if ready:
            link.payer.note(ready, b"", Entry(ready, b""))
            link.earner.note(ready)
        assert link.payer.is_due
        assert link.earner.is_due
        link.payer.catch_up()
        link.earner.catch_up()
    link.earner.hear(bytes(1 << 20))
    assert link.earner.is_due


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_however_frames_come_both_ends_meter_the_same(parties, bursts):
    """One by one, or many in a read: leaves, figures and where windows end are the same."""
    signed = []
    for sizes in ([1], bursts):
        link = Link(*parties[:2], window_steps=64)
        link.tell(graph([3]))
        link.bursts = itertools.cycle(sizes)
        for number in range(6):
            link.step(number)
            link.tell(positions(1))
            link.tell(AGAIN)  # of which nothing is read, as of a graph that is one of several
            if number % 2:
                assert link.settle(number)[:1] == ACCEPTED
        signed.append([(one.receipt.figures, one.receipt.wire_root) for one in link.there])
    assert signed[0] == signed[1]


def test_what_is_not_signed_for_is_known_until_it_is(parties, link):
    """In steps; without a price nothing is owed."""
    for _ in range(3):
        link.step()
    assert link.earner.unsigned_steps == 4
    link.settle(4)
    assert link.earner.unsigned_steps == 0
    free = Link(*parties[:2], price=FREE)
    free.tell(graph([3]))
    assert free.earner.unsigned_steps == 0
    assert Earner(None, Hand(parties[1], [].append)).unsigned_steps == 0


def test_a_signature_opens_the_next_window(link):
    """Also one for steps before those that were told since."""
    for _ in range(4):
        link.step()
    link.payer.cut(5)
    for _ in range(3):
        link.step()
    answer = link.earner.judge(link.payer.claim())
    link.payer.hear(answer)
    assert answer[:1] == ACCEPTED
    assert not link.payer.is_full
    for _ in range(4):
        link.step()
    link.settle(9)
    assert [signed.receipt.figures.steps for signed in link.there] == [5, 12]


def test_without_terms_a_node_with_a_price_computes_nothing(parties):
    """But it may be told weights."""
    earner = Earner(None, Hand(parties[1], [].append))
    earner.note(frame_of(positions(1))[0])
    with pytest.raises(BadFrameError, match="nothing is computed without terms"):
        earner.note(frame_of(AGAIN)[0])


@pytest.mark.parametrize(
    ("heard", "name"),
    [
        (activation(2, 1, 9), "SET_TENSOR l_out-2"),
        (set_copy("l_out-2", bytes(16), ne=(WIDTH, 1, 1, 2)), "SET_TENSOR l_out-2"),
    ],
)
def test_a_dispute_names_the_first_frame_that_differs(link, heard, name):
    """Data or head; nothing is kept of it at either end, nor of what follows."""
    link.step()
    link.settle(2)
    link.step()
    link.step(heard=heard)
    link.settle(4)
    assert link.disputes == [f"it refused a receipt: frame 5 of the window differs, {name}"]
    assert len(link.here) == len(link.there) == 1
    link.payer.cut(5)
    assert (link.payer.claim(), link.payer.has_open, link.payer.is_full) == (None, False, False)


def test_a_dispute_about_figures_names_them(link):
    """Every frame is the same, and what they come to is not."""
    link.step()
    link.earner._tally._steps._graphs[0] = Seen(positions=7)
    link.tell(AGAIN)
    link.settle()
    assert "every frame is the same, not tokens_in 6 there, 0 here" in link.disputes[0]


@given(st.binary(max_size=200))
@FEW
def test_no_answer_of_a_node_breaks_the_client(parties, answer):
    """What is no signature is a dispute, whatever it is."""
    link = Link(*parties[:2])
    link.step()
    link.payer.cut(1)
    link.payer.claim()
    link.payer.hear(answer)
    assert (len(link.disputes), link.here) == (1, [])


@given(st.binary(max_size=300))
@FEW
def test_no_claim_of_a_client_breaks_the_node(parties, claim):
    """It is refused with a reason."""
    link = Link(*parties[:2])
    link.step()
    answer = link.earner.judge(claim)
    assert answer[:1] != ACCEPTED
    assert json.loads(answer[5:])["reason"] == "receipt"


def test_a_claim_counts_once_and_not_too_early(link):
    """Neither replayed, nor before the answers that it is about."""
    link.step()
    link.payer.cut(2)
    claim = link.payer.claim()
    assert link.earner.judge(claim)[:1] == ACCEPTED
    assert b"frames" in link.earner.judge(claim)
    early = Link(link.payer._hand.identity, link.earner._hand.identity)
    frame, body = frame_of(read("l_out-3", 16))
    early.payer.note(frame, body, Entry(frame, body, reply=Reply(frame, 0.0)))
    early.payer.cut(1)
    assert early.payer.claim() is None
    early.earner.note(frame)
    window = Window(Figures(frames=1), Layers(), *[root_of([])] * 2, (bytes(32),))
    receipt = next_receipt(early.terms, None, window, step=1, at_s=1)
    body = receipt.body + sign(early.payer._hand.identity, receipt)
    assert b"not answered yet" in early.earner.judge(body)


def test_after_a_refusal_nothing_is_claimed_any_more(link):
    """A client whose receipt was refused cannot have the node compare, or send, again and again."""
    link.step()
    link.step(heard=activation(2, 1, 9))
    link.payer.cut(3)
    claim = link.payer.claim()
    answer = link.earner.judge(claim)
    said = json.loads(answer[5 : 5 + U32.unpack_from(answer, 1)[0]])
    assert said["reason"] == "differs"
    with pytest.raises(BadFrameError) as refused:
        link.earner.judge(claim)
    assert refused.value.reason == "disputed"


@pytest.mark.parametrize("what", ["signature", "terms"])
def test_nothing_is_compared_before_it_is_signed_for(parties, link, monkeypatch, what):
    """Neither under no signature, nor under other terms with another's."""
    link.step()
    link.payer.cut(2)
    claim = bytearray(link.payer.claim())
    if what == "signature":
        claim[-1] ^= 1
    else:
        other = Link(parties[2], parties[1])
        other.step()
        other.payer.cut(1)
        claim = other.payer.claim()
    monkeypatch.setattr(Tally, "window", lambda *_: pytest.fail("it was compared"))
    answer = link.earner.judge(bytes(claim))
    assert json.loads(answer[5:])["reason"] == "receipt"
    assert len(answer) < 600


@pytest.mark.parametrize("off_s", [-86_401, 86_401])
def test_a_receipt_of_another_day_is_not_signed(link, off_s):
    """The client's clock is looked at."""
    link.step()
    link.node_s = NOW_S + off_s
    link.settle(2)
    assert "more than a day from this node's clock" in link.disputes[0]
    assert link.there == []


def test_a_session_that_is_never_settled_takes_no_room(parties, monkeypatch):
    """A free node meters no more; one with a price computes no more."""
    monkeypatch.setattr("shoestring.swarm.proof.tally.MOST_RECORDS", 4)
    for price in (FREE, PRICE):
        link = Link(*parties[:2], price=price)
        for _ in range(5):
            link.tell(positions(1))
        if price is FREE:
            link.tell(AGAIN)
            assert len(link.earner._tally._records) == 0
            (why,) = link.disputes
            assert "are not signed for: nothing more is counted" in why
        else:
            with pytest.raises(BadFrameError, match="not signed for"):
                link.tell(AGAIN)


@pytest.mark.parametrize("told", [4, 5])
def test_a_step_that_came_with_too_many_frames_is_owed(link, monkeypatch, told):
    """It went to the worker in one write with them, before anything was metered."""
    monkeypatch.setattr("shoestring.swarm.proof.tally.MOST_RECORDS", 5)
    for number in range(told):  # after the first graph
        if number == told - 1:
            link.earner.note(frame_of(positions(1))[0])
        else:
            link.tell(positions(1))
    link.earner.note(frame_of(AGAIN)[0])
    link.earner.catch_up()
    assert link.earner.unsigned_steps == 2
    with pytest.raises(BadFrameError, match="not signed for"):
        link.earner.note(frame_of(AGAIN)[0])


def test_terms_are_the_nodes_price_or_none(parties):
    """A client that offers less is told both; what it is told must be what it asked for."""
    client, node, other = parties
    cheap = Asked(Price(PRICE.price_in, PRICE.price_out - 1))
    with pytest.raises(BadValueError, match=r"takes 3000 in and 20000 .* 3000 in and 19999"):
        read_asked(cheap.words(), PRICE)
    asked = read_asked(Asked(PRICE, 64).words(), FREE)
    terms = agreed_terms(
        asked, FREE, session="ab" * 8, client=client.id, node=node.id, engine=ENGINE
    )
    assert (terms.price_out, terms.window_steps) == (0, 32)
    told = {"session": "ab" * 8, "engine_sha256": ENGINE, "terms": asdict(terms)}
    assert read_terms(told, asked, client=client.id, node=node.id) == terms
    assert read_terms(told, None, client=client.id, node=node.id) is None
    assert read_asked(None, PRICE) is None
    for change in ({"client": other.id}, {"session": "cd" * 8}, {"engine": "cd" * 32},
                   {"price_in": 10**9}, {"more": 1}, {"window_steps": True},
                   {"window_steps": 16}, {"rpc": "6.0"}):  # fmt: skip
        wrong = {**told, "terms": {**asdict(terms), **change}}
        with pytest.raises(BadValueError):
            read_terms(wrong, asked, client=client.id, node=node.id)


@pytest.mark.parametrize(
    "said", [1, {}, {**Asked().words(), "price_in": -1}, {**Asked().words(), "price_out": 1.0},
             {**Asked().words(), "window_steps": 1}, {**Asked().words(), "model": "x"}]
)  # fmt: skip
def test_terms_that_are_none_are_refused(said):
    """With a line about them."""
    with pytest.raises(BadValueError):
        read_asked(said, FREE)


@pytest.mark.parametrize(
    "change",
    [
        {"window": -1}, {"window": True}, {"window": 1.0}, {"step": 1 << 53}, {"prev": "AB" * 32},
        {"layers": Layers(3, 2)}, {"layers": Layers(None, 2)}, {"layers": Layers(0, 10_000)},
        {"layers": Layers(0, 1, 1)}, {"layers": Layers(0, 1, computed=-1)},
        {"figures": Figures(bytes_in=-1)}, {"prev": None},
    ],
)  # fmt: skip
def test_what_cannot_be_is_no_receipt(receipts, change):
    """Ranges and types."""
    with pytest.raises(BadValueError, match="no such can be signed"):
        replace(receipts[0].receipt, **change)


def test_only_the_signed_form_is_read(receipts):
    """Other spaces, another order, fields more or less: nobody signed these bytes."""
    body = receipts[0].receipt.body
    assert read_receipt(body) == receipts[0].receipt
    said = json.loads(body)
    less = {name: value for name, value in said.items() if name != "step"}
    for wrong in (
        json.dumps(said).encode(), canonical({**said, "more": 1}), canonical(less),
        canonical({**said, "version": 1}), canonical({**said, "terms": 1}), b"[]", b"{",
        b"[" * 4000, body + b" " * 5_000,
    ):  # fmt: skip
        with pytest.raises(BadValueError):
            read_receipt(wrong)


def test_a_settle_is_bounded_on_the_wire():
    """Its claim and its answer, in pieces as small as can be."""
    least, most = SETTLE_BYTES
    for size in (least - 1, most + 1):
        with pytest.raises(BadFrameError):
            Splitter().feed(request(Command.SETTLE, bytes(size)))
    claim = request(Command.SETTLE, bytes(100))
    splitter = Splitter()
    (frame,) = [one for at in range(len(claim)) for one in splitter.feed(claim[at : at + 1])]
    assert frame == Frame(Command.SETTLE, 100, bytearray(100))
    said = U64.pack(65) + bytes(65) + U64.pack(0) + U64.pack(8) + bytes(8)
    for part in (1, 7, len(said)):
        answers = Answers()
        answers.expect(frame)
        answers.expect(frame)
        answers.expect(Frame(Command.PING, 8, bytearray(8)))
        got = [
            one for at in range(0, len(said), part) for one in answers.feed(said[at : at + part])
        ]
        assert [(one.command, len(one.payload)) for one in got] == [
            (Command.SETTLE, 65), (Command.SETTLE, 0), (Command.PING, 8)
        ]  # fmt: skip
    answers = Answers()
    answers.expect(frame)
    with pytest.raises(BadFrameError):
        answers.feed(U64.pack(SETTLE_ANSWER_BYTES + 1))


def test_a_pushed_activation_is_metered_as_if_it_had_been_sent():
    """Its bytes count, and its root is the same."""
    data = b"\7" * 16
    windows = []
    set_frame, body = frame_of(set_copy("l_out-2", data, ne=(WIDTH, 1, 1, 1)))
    head = set_frame.head[:OFFSET_AT] + TWO_U64.pack(0, len(data)) + U64.pack(1)
    for frame, its in ((set_frame, body), (Frame(int(Command.SET_PUSHED), len(head), head), data)):
        tally = Tally()
        record = tally.note(frame)
        record.add(its)
        record.end()
        windows.append(tally.window(1))
    assert windows[0].in_root == windows[1].in_root == root_of([blake3(data).digest()])
    sizes = [window.figures.bytes_in for window in windows]
    assert sizes[1] - sizes[0] == len(head) - len(set_frame.head)
