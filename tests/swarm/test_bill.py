"""Bills: the most that an answer may cost, and what it did cost, exactly and once rounded."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.report.tabular import plain_text
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import income, wallet
from shoestring.swarm.ledger.bills import Leg, Line, as_json, as_table, bill_after, bill_before
from shoestring.testing.ledger_histories import ANA, NODES, a_book

CALM = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
ROUTE = (Leg(NODES[0], 10, 100_000, 400_000), Leg(NODES[1], 6, 50_000, 333_333))
COUNTS = st.integers(0, 10**6)
PRICES = st.integers(0, 10**9)


def test_the_bill_before_is_the_most_and_tells_each_node():
    """(1,000 * 0.1 + 500 * 0.4) * 10 and (1,000 * 0.05 + 500 * 0.333333) * 6, rounded up."""
    bill = bill_before(ROUTE, most_in=1_000, most_out=500)
    assert {NODES[0]: 3_000, NODES[1]: 1_300} == bill.shares()
    assert bill.micro == 4_300


def test_a_bill_is_shown_exactly():
    """No digit of an amount is left out, whatever its size."""
    bill = bill_after([Line(NODES[0], 10, 123_456_789, 1, 1_000_001, 7)])
    text = plain_text(as_table(bill))
    assert "1234.569125" in text
    assert bill.micro == 1_234_569_125
    assert as_json(bill)["lines"][0] == {
        "node": NODES[0], "layers": 10, "tokens_in": 123_456_789, "tokens_out": 1,
        "price_in": 1_000_001, "price_out": 7, "micro": 1_234_569_125,
    }  # fmt: skip
    assert plain_text(as_table(bill_before((), most_in=1, most_out=1))) == "No node is paid.\n"


@CALM
@given(
    st.lists(st.builds(Leg, st.sampled_from(NODES), st.integers(1, 200), PRICES, PRICES),
             min_size=1, max_size=4),
    COUNTS, COUNTS, st.data(),
)  # fmt: skip
def test_what_it_did_cost_is_never_more_than_what_it_may(route, most_in, most_out, data):
    """As long as no node computed more than was announced."""
    before = bill_before(route, most_in=most_in, most_out=most_out)
    after = bill_after([
        Line(leg.node, leg.layers, data.draw(st.integers(0, most_in)),
             data.draw(st.integers(0, most_out)), leg.price_in, leg.price_out)
        for leg in route
    ])  # fmt: skip
    assert after.micro <= before.micro
    assert sum(after.shares().values()) == after.micro


def test_a_bill_is_held_before_and_paid_after(tmp_path):
    """From one to the other through the book."""
    before = bill_before(ROUTE, most_in=1_000, most_out=500)
    after = bill_after([Line(leg.node, leg.layers, 900, 20, leg.price_in, leg.price_out)
                        for leg in ROUTE])  # fmt: skip
    with a_book(tmp_path, load_identity(tmp_path / "identity.key")) as book:
        answers.fund(book, ANA, 10_000, reference="f")
        answers.hold(book, ANA, before.micro, reference="session")
        answers.capture(book, ANA, after.shares(), reference="session")
        answers.release(book, ANA, reference="session")
        assert book.balance(wallet(ANA)) == 10_000 - after.micro
        assert book.balance(income(NODES[0])) == after.shares()[NODES[0]] == 980
