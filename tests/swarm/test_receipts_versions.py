"""Receipts of an older version are owed as they are, and no session begins for other ones."""

import asyncio
from contextlib import closing
from dataclasses import dataclass, replace

import pytest

from shoestring.errors import BadValueError
from shoestring.swarm.cli_audit import _work
from shoestring.swarm.home import Home
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import income, wallet
from shoestring.swarm.ledger.places import book_of
from shoestring.swarm.ledger.wallets import WALLET_FILE
from shoestring.swarm.proof.agreeing import FREE, Asked, read_asked
from shoestring.swarm.proof.books import check_chain
from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
from shoestring.swarm.proof.reading import read_receipt, read_signed
from shoestring.swarm.proof.receipts import READ, VERSION, amount, countersign, sign
from shoestring.swarm.remote import RefusedError, open_session
from shoestring.swarm.settling import settle_left
from tests.swarm.receipts import PRICE, Link, parties_in
from tests.swarm.test_billing import booking_of, receipts_of, state_of
from tests.swarm.test_receipts_unsigned import selling

OLD = 2
KEPT = (
    b'{"by_client":"764666484e6ae5c710b6d235d57844e8e1f8c0bf44f8dceebb04c8f4e889f0e3686aa86f753224'
    b'313edcbfafe56327b167736d9aa9f0f601801f3c26fbce9b0e","by_node":"5363a7a484658ad2402ca8c30c37f'
    b"9a492b63cd185d884ad97c3e50b15573a609daf5e30d44460d1bf3d5dbe1ebb81b598d66dc931d61e2d13284d940"
    b'c65f605","receipt":{"at_s":1800000000,"figures":{"bytes_in":0,"bytes_out":0,"frames":3,"step'
    b's":2,"tokens_in":4,"tokens_out":2},"in_root":"0000000000000000000000000000000000000000000000'
    b'000000000000000000","layers":{"computed":0,"first":3,"head":false,"last":3},"out_root":"0000'
    b'000000000000000000000000000000000000000000000000000000000000","prev":"c89feab2beab55392aa5b7'
    b'd22d4a9f3f627d1a22575fd10d69626881597de16d","step":2,"terms":{"client":"apz3yslzxhrbz2ude2x5'
    b'joib34bvjpcc3cjwavzv26las3x7haqq","engine":"abababababababababababababababababababababababab'
    b'abababababababab","model":null,"node":"3llgpf3yocbcktmdudkp2pj6br5nvzzlwj7kixuh5jf5qnxdhy6q"'
    b',"price_in":1000000,"price_out":2000000,"rpc":"7.0","session":"0123456789abcdef","window_ste'
    b'ps":32},"version":2,"window":0,"wire_root":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c'
    b'a495991b7852b855"}}'
)
"""A line of a file of receipts, as this program wrote it when they were of version 2."""


def of_version_2(signed, client, node):
    """Return a session's receipts as both would have signed them then."""
    found, changed = [], {"version": OLD}
    for one in signed:
        receipt = replace(one.receipt, **changed)
        found.append(countersign(node, receipt, sign(client, receipt)))
        changed["prev"] = receipt.digest
    return found


@pytest.fixture
def home(tmp_path):
    """Of a client whose wallet has 1,000 micro-credits."""
    found = Home(tmp_path / "swarm")
    with book_of(found) as book:
        owner = load_identity(found.folder / WALLET_FILE).id
        answers.fund(book, owner, 1_000, reference="f1")
    return found


@pytest.fixture
def node(tmp_path):
    """Who is paid."""
    return load_identity(tmp_path / "node" / "identity.key")


@pytest.fixture
def old(home, node):
    """Two receipts of a session, 30 micro-credits for 15 tokens."""
    return of_version_2(receipts_of(home, node, [10, 5]), home.identity(), node)


def test_a_line_of_version_2_is_read_to_the_byte(old):
    """Both signatures are over its own version."""
    signed = read_signed(KEPT)
    assert (signed.receipt.version, amount(signed.receipt), signed.line) == (OLD, 8, KEPT)
    assert read_receipt(signed.receipt.body) == signed.receipt
    check_chain(old)
    for version in READ:
        if version != OLD:
            with pytest.raises(BadValueError, match="no good signature"):
                read_signed(KEPT.replace(b'"version":2', b'"version":%d' % version))


@pytest.mark.parametrize("version", [b"1", b"4", b"2.0", b"true", b'"2"', b"null"])
def test_no_other_version_is_read(version):
    """With a line that names it."""
    with pytest.raises(BadValueError, match=r"of version .*; this reads 2 to 3"):
        read_signed(KEPT.replace(b'"version":2', b'"version":' + version))


def test_a_budget_is_paid_by_receipts_of_version_2(home, node, old):
    """What a run left that an older program had begun; the rest is free again."""
    owner, said = load_identity(home.folder / WALLET_FILE).id, []
    with book_of(home) as book:
        answers.hold(book, owner, 100, reference="budget.dead")
    with closing(ReceiptFiles(home.folder / FOLDER / "budget.dead", said.append)) as files:
        for one in old:
            files.keep(one)
    settle_left(home, said.append)
    assert said == ["a run had ended before its end: budget.dead is paid, 0.00007 are free"]
    assert state_of(home) == {wallet(owner): 970, income(node.id): 30, "world": -1_000}
    assert _work(home, 0, 2) == {node.id: 15}, "of an audit, too"


def test_income_of_version_2_is_booked(home, node, old, tmp_path):
    """Once, to who earned it."""
    with closing(ReceiptFiles(tmp_path / "receipts", print)) as files:
        for one in old:
            files.keep(one)
    for _ in range(2):
        with closing(booking_of(home)) as booking:
            assert booking.make_up(files).result() == 0
        assert state_of(home)[income(node.id)] == 30


def test_version_3_alone_is_written(tmp_path):
    """By either hand, and a claim of another is refused."""
    client, node, _ = parties_in(tmp_path)
    link = Link(client, node)
    link.step()
    link.settle()
    assert [one.receipt.version for one in link.here] == [VERSION]
    link.step()
    link.payer.cut(2)
    claim = link.payer.claim()
    receipt = replace(read_receipt(claim[:-64]), version=OLD)
    assert link.earner.judge(receipt.body + sign(client, receipt))[:1] == b"\0"


@dataclass(frozen=True)
class AskedOld(Asked):
    """What a client asks for whose receipts are of another version."""

    version: int | None = OLD

    def words(self):
        """Return the ``terms`` of a ``session`` word; before they said versions, without one."""
        said = {**super().words(), "version": self.version}
        return {name: value for name, value in said.items() if name == "model" or value is not None}


@pytest.mark.parametrize("version", [None, OLD, VERSION + 1])
def test_a_client_of_other_receipts_gets_no_session(tmp_path, version):
    """Before anything is computed that nobody would sign for, and nothing is held against it."""

    async def scenario():
        async with selling(tmp_path) as (friend, remote, owner):
            owner.said.clear()
            other = AskedOld(PRICE, version=version)
            with pytest.raises(RefusedError) as refused:
                await open_session(friend.identity, remote, asked=other)
            opened = await open_session(friend.identity, remote, asked=Asked(PRICE))
            opened.link.abort()
            return str(refused.value), owner.said

    told, said = asyncio.run(scenario())
    assert f"signs receipts of version {VERSION}, {version} was asked for" in told
    assert "\n" not in told
    assert not [line for line in said if "not signed for" in line]


def test_receipts_are_asked_for_by_their_version():
    """Of a free node, too."""
    assert Asked().words()["version"] == VERSION
    assert read_asked(Asked().words(), FREE) == Asked()
