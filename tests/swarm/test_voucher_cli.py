"""``shoestring swarm voucher`` as its users have it: JSON in and out, mistakes in one line."""

import json

import pytest
from click.testing import CliRunner
from eth_account import Account

from shoestring.errors import BadValueError, MissingError
from shoestring.swarm import cli_voucher
from shoestring.swarm.cli_voucher import voucher
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger.wallets import WALLET_FILE
from shoestring.swarm.vouchers.keys import KEY_FILE
from shoestring.swarm.vouchers.payouts import RefusedVoucherError

TOKEN = Account.from_key("0x" + "44" * 32).address
NETWORK = "eip155:84532"


class Person:
    """Somebody with a state folder, who types commands."""

    def __init__(self, folder):
        """A wallet is there, and nothing else."""
        self.folder = folder
        load_identity(folder / "swarm" / WALLET_FILE)

    def type(self, *words, stdin=""):
        """Return what a command printed; its errors are raised, as ``main`` gets them."""
        done = CliRunner(env={"SHOESTRING_STATE": str(self.folder)}).invoke(
            voucher, words, input=stdin, standalone_mode=False, catch_exceptions=False
        )
        return done.stdout


@pytest.fixture
def ana(tmp_path):
    """Who pays."""
    return Person(tmp_path / "ana")


@pytest.fixture
def bo(tmp_path):
    """Who is paid."""
    return Person(tmp_path / "bo")


def test_from_a_key_to_what_can_be_claimed(ana, bo):
    """The whole way that needs no chain."""
    address = json.loads(bo.type("key"))["address"]
    terms = ("--token", TOKEN, "--network", NETWORK, "--deposit", "5")
    channel = json.loads(ana.type("open", "--to", address, *terms))
    first = ana.type("sign", channel["channelId"], "0.5")
    second = ana.type("sign", channel["channelId"], "1.25")
    bo.type("check", "--owed", "0.4", *terms, stdin=first)
    held = json.loads(bo.type("check", "--owed", "1.2", stdin=second))

    for person, printed in ((ana, first + second), (bo, json.dumps(held))):
        assert (person.folder / "swarm" / KEY_FILE).read_text().strip() not in printed
    assert channel["deposit"] == 5_000_000
    assert (held["amount"], held["owed"]) == (1_250_000, 1_200_000)
    assert held["claim"]["totalClaimed"] == "1200000"
    assert json.loads(bo.type("list", "--json"))["held"] == [held]
    assert json.loads(ana.type("list", "--json"))["signed"][0]["signed"] == 1_250_000
    row = bo.type("list").splitlines()[-1].split()
    assert row[1:3] == ["pays", "us"]
    assert row[-5:] == ["5", "1.25", "1.2", "0", "86400"]


def test_what_is_refused_leaves_what_is_held(ana, bo):
    """An older voucher, one below what is owed, one of a channel that was never admitted."""
    address = json.loads(bo.type("key"))["address"]
    terms = ("--token", TOKEN, "--network", NETWORK, "--deposit", "5")
    channel = json.loads(ana.type("open", "--to", address, *terms))["channelId"]
    lower, higher = ana.type("sign", channel, "1"), ana.type("sign", channel, "2")
    with pytest.raises(RefusedVoucherError, match="none that was admitted here"):
        bo.type("check", "--owed", "1", stdin=higher)
    bo.type("check", "--owed", "1", *terms, stdin=higher)
    with pytest.raises(RefusedVoucherError, match="one over 2000000 micro-credits is held"):
        bo.type("check", "--owed", "1", stdin=lower)
    with pytest.raises(RefusedVoucherError, match="2500000 micro-credits are owed"):
        bo.type("check", "--owed", "2.5", stdin=higher)

    [held] = json.loads(bo.type("list", "--json"))["held"]
    assert (held["amount"], held["owed"], held["short"]) == (2_000_000, 2_500_000, 500_000)
    assert held["claim"]["totalClaimed"] == "2000000"


def test_the_least_delay_is_a_day_unless_it_is_given(ana, bo):
    """And means nothing without the channel's terms."""
    address = json.loads(bo.type("key"))["address"]
    terms = ("--token", TOKEN, "--network", NETWORK, "--deposit", "5")
    channel = json.loads(ana.type("open", "--to", address, "--delay", "3600", *terms))["channelId"]
    signed = ana.type("sign", channel, "1")
    with pytest.raises(RefusedVoucherError, match="86400 s at least are wanted"):
        bo.type("check", "--owed", "1", *terms, stdin=signed)
    with pytest.raises(BadValueError, match="--delay with them"):
        bo.type("check", "--owed", "1", "--delay", "3600", stdin=signed)
    bo.type("check", "--owed", "1", "--delay", "3600", *terms, stdin=signed)
    assert bo.type("list").splitlines()[-1].split()[-1] == "3600"


def test_a_statement_of_whose_key_it_is_goes_from_hand_to_hand(ana, bo):
    """And is refused once it is not what both have signed."""
    said = ana.type("key")
    forged = json.dumps(json.loads(said) | {"made_s": 1})

    assert json.loads(bo.type("key", "--check", stdin=said)) == json.loads(said)
    with pytest.raises(BadValueError, match="has not signed this"):
        bo.type("key", "--check", stdin=forged)


def test_without_a_wallet_there_is_no_owner(ana):
    """What is said names the command that makes one."""
    (ana.folder / "swarm" / WALLET_FILE).unlink()

    with pytest.raises(BadValueError, match="shoestring swarm wallet create"):
        ana.type("key")


def test_mistakes_are_said_in_one_line(ana):
    """With what would be right."""
    address = Account.from_key("0x" + "22" * 32).address
    start = ("open", "--to", address, "--token", TOKEN)
    for words, stdin, said in (
        ((*start, "--network", "base", "--deposit", "1"), "", "network 'base'"),
        ((*start, "--network", NETWORK, "--deposit", "1e3"), "", "'1e3' is no amount"),
        (("sign", "0x12", "1"), "", "channel '0x12'"),
        (("sign", "0x" + "12" * 32, "1"), "", "not opened here"),
        (("check", "--owed", "1"), "", "no voucher: a word that is no JSON"),
        (("check", "--owed", "1"), "[]", "no voucher: a word that is no object"),
        (("key", "--check"), "{}", "no statement: it is an object of"),
    ):
        with pytest.raises(BadValueError, match=said) as error:
            ana.type(*words, stdin=stdin)
        assert "\n" not in str(error.value)


def test_half_of_the_terms_is_a_mistake(ana, bo):
    """A deposit without its chain says nothing."""
    address = json.loads(bo.type("key"))["address"]
    terms = ("--token", TOKEN, "--network", NETWORK, "--deposit", "5")
    channel = json.loads(ana.type("open", "--to", address, *terms))["channelId"]
    with pytest.raises(BadValueError, match="give all three"):
        bo.type("check", "--owed", "1", "--deposit", "5", stdin=ana.type("sign", channel, "1"))


def test_no_channel_yet_teaches(ana):
    """How to begin, either way."""
    assert "shoestring swarm voucher open" in ana.type("list")


def test_what_is_missing_is_named(ana, monkeypatch):
    """And the extra that brings it."""
    monkeypatch.setattr(cli_voucher, "NEEDS", ("eth_account", "no_such_package"))

    with pytest.raises(MissingError, match="need no_such_package: pip install 'shoestring"):
        ana.type("list")
