"""Vouchers of a payer, and the payee who takes good ones only; no chain here."""

import copy
import json
from dataclasses import replace
from functools import cache

import pytest
from eth_account import Account
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.vouchers.channels import open_channel
from shoestring.swarm.vouchers.forms import read_object, read_payload
from shoestring.swarm.vouchers.keys import EvmKey
from shoestring.swarm.vouchers.payouts import Payout, RefusedVoucherError
from shoestring.swarm.vouchers.purse import Purse
from shoestring.swarm.vouchers.till import Till

PAYER, PAYEE, STRANGER = (EvmKey(Account.from_key("0x" + pair * 32)) for pair in ("11", "22", "33"))
TOKEN = Account.from_key("0x" + "44" * 32).address
NETWORK, ELSEWHERE = "eip155:84532", "eip155:8453"
PAYOUT = Payout(PAYEE.address, TOKEN, NETWORK)
DEPOSIT = 12
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def channel_to(payee=PAYEE, *, network=NETWORK, salt="0x" + "00" * 32, **given):
    """A channel of PAYER's."""
    return open_channel(
        PAYER.address, payee.address, token=TOKEN, network=network, deposit=DEPOSIT, salt=salt,
        **given,
    )  # fmt: skip


CHANNEL = channel_to()
SECOND = channel_to(salt="0x" + "01" * 32)


def payload_of(channel, amount, signature):
    """A voucher, read as it comes from a payer."""
    word = {
        "type": "voucher",
        "channelConfig": channel.config.to_dict(),
        "voucher": {
            "channelId": channel.id, "maxClaimableAmount": str(amount), "signature": signature,
        },
    }  # fmt: skip
    return read_payload(word)


@cache
def signature_of(how, amount):
    """A signature that is good, or which is the one thing wrong with a voucher of CHANNEL."""
    if how == "forged":
        return STRANGER.sign_voucher(CHANNEL.id, amount, NETWORK).signature
    if how == "of another channel":
        return PAYER.sign_voucher(SECOND.id, amount, NETWORK).signature
    if how == "of another chain":
        return PAYER.sign_voucher(CHANNEL.id, amount, ELSEWHERE).signature
    if how == "of another amount":
        return PAYER.sign_voucher(CHANNEL.id, amount + 1, NETWORK).signature
    return PAYER.sign_voucher(CHANNEL.id, amount, NETWORK).signature


@pytest.fixture
def till(tmp_path):
    """A node's, which knows CHANNEL."""
    till = Till(tmp_path / "held")
    till.admit(CHANNEL.config, DEPOSIT, PAYOUT)
    return till


BAD = ("forged", "of another channel", "of another chain", "of another amount")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("good", "good", "good", *BAD)),
        st.integers(0, DEPOSIT + 2),
        st.integers(0, DEPOSIT),
    ),
    max_size=10,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_the_highest_good_voucher_is_held_whatever_comes(tmp_path_factory, steps):
    """As a model says that has a deposit, an amount and what is owed; and it outlives the node."""
    folder = tmp_path_factory.mktemp("held")
    Till(folder).admit(CHANNEL.config, DEPOSIT, PAYOUT)
    amount = most_owed = 0
    for how, wanted, owed in steps:
        if wanted > DEPOSIT:
            reason = "deposit"
        elif wanted < amount:
            reason = "lower"
        elif how != "good":
            reason = "signature"
        else:  # kept, whether it is enough or not
            most_owed = owed if wanted == amount else max(owed, most_owed)
            amount = wanted
            reason = "owed" if amount < most_owed else None
        voucher = payload_of(CHANNEL, wanted, signature_of(how, wanted))
        if reason is None:
            Till(folder).take(voucher, owed)
        else:
            with pytest.raises(RefusedVoucherError) as error:
                Till(folder).take(voucher, owed)
            assert error.value.reason == reason
        [held] = Till(folder).held()
        assert (held.amount, held.owed) == (amount, most_owed)
        assert held.claimable + held.short == held.owed
        assert held.claimable <= min(held.amount, held.channel.deposit)


@settings(max_examples=20, deadline=None)
@given(amounts=st.lists(st.integers(0, DEPOSIT + 2), max_size=8))
def test_a_payer_never_signs_less_than_before_or_more_than_lies_there(tmp_path_factory, amounts):
    """And the payee takes each that was signed."""
    folder = tmp_path_factory.mktemp("both")
    purse, till = Purse(folder / "signed", PAYER), Till(folder / "held")
    purse.open(CHANNEL)
    till.admit(CHANNEL.config, DEPOSIT, PAYOUT)
    signed = 0
    for amount in amounts:
        if signed <= amount <= DEPOSIT:
            text = json.dumps(purse.sign(CHANNEL.id, amount).to_dict()).encode()
            assert till.take(read_payload(read_object(text, "voucher")), amount).amount == amount
            signed = amount
        else:
            with pytest.raises(BadValueError, match=f"amount {amount}: "):
                purse.sign(CHANNEL.id, amount)
        assert Purse(folder / "signed", PAYER).opened()[0].signed == signed


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_voucher_with_any_byte_changed_is_refused(tmp_path_factory, data):
    """Or says the very same (JSON and hexadecimal have more than one form)."""
    till = Till(tmp_path_factory.mktemp("held"))
    till.admit(CHANNEL.config, DEPOSIT, PAYOUT)
    good = payload_of(CHANNEL, 7, signature_of("good", 7))
    text = bytearray(json.dumps(good.to_dict()).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))

    try:
        payload = read_payload(read_object(bytes(text), "voucher"))
        till.take(payload, 0)
    except BadValueError:
        assert till.held()[0].amount == 0
    else:
        assert payload == good


def twisted(signature, form):
    """Other writings of a signature, from which the same signer is recovered."""
    raw = bytes.fromhex(signature[2:])
    if form == "high":
        other = (ORDER - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big")
        return "0x" + (raw[:32] + other + bytes([55 - raw[64]])).hex()
    if form == "short end":
        return "0x" + (raw[:64] + bytes([raw[64] - 27])).hex()
    return signature.upper().replace("0X", "0x")


@pytest.mark.parametrize("form", ["high", "short end", "capitals"])
def test_a_signature_has_one_form(form):
    """eth-account would take the others, and a contract would not pay for two of them."""
    with pytest.raises(BadValueError, match="65 bytes in small hexadecimal"):
        payload_of(CHANNEL, 5, twisted(signature_of("good", 5), form))


def test_a_voucher_of_a_channel_that_was_not_admitted_leaves_no_trace(till, tmp_path):
    """Not even a lock: strangers must not fill a disk."""
    before = sorted(tmp_path.rglob("*"))
    voucher = payload_of(SECOND, 5, signature_of("of another channel", 5))

    with pytest.raises(RefusedVoucherError, match="none that was admitted here") as error:
        till.take(voucher, 0)

    assert error.value.reason == "channel"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_voucher_under_anothers_channel_is_refused(till):
    """The id is one that pays us; what it is said to be made of is not."""
    good = payload_of(CHANNEL, 5, signature_of("good", 5))
    other = copy.deepcopy(good)
    other.channel_config = replace(other.channel_config, receiver=STRANGER.address)

    with pytest.raises(RefusedVoucherError, match="none that was admitted") as error:
        till.take(other, 0)
    assert error.value.reason == "channel"


def test_a_channel_is_admitted_only_if_it_pays_us_in_our_token(tmp_path):
    """Each refusal names both sides."""
    till = Till(tmp_path)
    to_stranger = channel_to(STRANGER)
    theirs = replace(CHANNEL.config, receiver_authorizer=STRANGER.address)
    token = replace(CHANNEL.config, token=STRANGER.address)

    for config, reason, said in (
        (to_stranger.config, "payee", f"it pays {STRANGER.address}, not {PAYEE.address}"),
        (theirs, "payee", f"{STRANGER.address} may claim and refund it"),
        (token, "token", f"in token {STRANGER.address}, not in {TOKEN}"),
    ):
        with pytest.raises(RefusedVoucherError, match=said) as error:
            till.admit(config, DEPOSIT, PAYOUT)
        assert error.value.reason == reason
    assert till.held() == []


def test_more_may_be_promised_once_more_lies_there(till, tmp_path):
    """On both sides, and what was promised before stays."""
    purse = Purse(tmp_path / "signed", PAYER)
    purse.open(CHANNEL)
    till.take(purse.sign(CHANNEL.id, DEPOSIT), DEPOSIT)

    purse.open(replace(CHANNEL, deposit=20))
    till.admit(CHANNEL.config, 20, PAYOUT)

    assert till.take(purse.sign(CHANNEL.id, 20), 15).claim().total_claimed == "15"
    with pytest.raises(BadValueError, match="signed away already; deposit that at least"):
        purse.open(CHANNEL)


def test_what_is_claimed_is_what_is_owed(till):
    """A payer may sign more than that; a node claims no more than receipts say."""
    assert till.held()[0].claim() is None
    till.take(payload_of(CHANNEL, 9, signature_of("good", 9)), 6)

    claim = till.held()[0].claim()
    assert (claim.max_claimable_amount, claim.total_claimed) == ("9", "6")


def test_a_voucher_below_what_is_owed_is_kept_and_claimed(till):
    """0.5 was held, 1.2 are owed and 1.19 signed: 1.19 are claimed, 0.01 are short."""
    till.take(payload_of(CHANNEL, 5, signature_of("good", 5)), 4)
    with pytest.raises(RefusedVoucherError, match="it is kept, and receipts say that 10 ") as error:
        till.take(payload_of(CHANNEL, 9, signature_of("good", 9)), 10)

    [held] = till.held()
    assert error.value.reason == "owed"
    assert (held.claim().total_claimed, held.short) == ("9", 1)


def test_what_was_said_to_be_owed_by_mistake_is_mended_by_the_same_voucher(till):
    """A later one never lowers it: receipts are cumulative."""
    voucher = payload_of(CHANNEL, 9, signature_of("good", 9))
    with pytest.raises(RefusedVoucherError, match="12 micro-credits are owed"):
        till.take(voucher, 12)
    assert till.take(voucher, 6).owed == 6
    assert till.take(payload_of(CHANNEL, 10, signature_of("good", 10)), 5).owed == 6


def test_no_more_is_claimed_than_lies_in_the_channel(till):
    """The contract reverts the whole claim otherwise; what it does not have is short."""
    till.take(payload_of(CHANNEL, 11, signature_of("good", 11)), 10)
    till.admit(CHANNEL.config, 7, PAYOUT)  # as the chain says now

    [held] = till.held()
    assert (held.claim().total_claimed, held.claim().max_claimable_amount) == ("7", "11")
    assert held.short == 3
    till.admit(CHANNEL.config, 0, PAYOUT)
    assert (till.held()[0].claim(), till.held()[0].short) == (None, 10)


def test_a_channel_that_gives_back_too_soon_is_refused(tmp_path):
    """A payee that looks at the chain once a day would have lost what it did not claim."""
    till, soon = Till(tmp_path), channel_to(delay_s=900)
    with pytest.raises(RefusedVoucherError, match="900 s after asking, and 86400 s") as error:
        till.admit(soon.config, DEPOSIT, PAYOUT)
    assert (error.value.reason, till.held()) == ("delay", [])
    till.admit(soon.config, DEPOSIT, replace(PAYOUT, least_delay_s=900))
    assert till.held()[0].channel.config.withdraw_delay == 900
    with pytest.raises(BadValueError, match="withdrawal delay 5"):
        replace(PAYOUT, least_delay_s=5)


def test_a_purse_signs_only_for_its_own_channels(tmp_path):
    """Neither opened nor signed for is one of another key, nor signed for one that is not open."""
    with pytest.raises(BadValueError, match=f"{PAYER.address} signs for it, and this key is"):
        Purse(tmp_path, STRANGER).open(CHANNEL)
    with pytest.raises(BadValueError, match="not opened here"):
        Purse(tmp_path, PAYER).sign(CHANNEL.id, 1)
    assert list(tmp_path.iterdir()) == []
    Purse(tmp_path, PAYER).open(CHANNEL)
    with pytest.raises(BadValueError, match=f"and this key is {STRANGER.address}"):
        Purse(tmp_path, STRANGER).sign(CHANNEL.id, 1)


def test_a_damaged_file_is_said_and_kept(till, tmp_path):
    """One channel's damage is not another's."""
    till.admit(SECOND.config, DEPOSIT, PAYOUT)
    path = tmp_path / "held" / f"{SECOND.id}.json"
    path.write_text(path.read_text().replace(SECOND.id, CHANNEL.id))

    with pytest.raises(BadValueError, match="is of channel"):
        till.held()
    till.take(payload_of(CHANNEL, 3, signature_of("good", 3)), 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"payee": PAYER.address}, "is the payer"),
        ({"payee": "0x" + "00" * 20}, "an address is 0x"),
        ({"payee": PAYEE.address.swapcase().replace("0X", "0x")}, "an address is 0x"),
        ({"token": "usdc"}, "token 'usdc'"),
        ({"network": "eip155:0"}, "eip155: and a chain's number"),
        ({"network": "solana:1"}, "eip155: and a chain's number"),
        ({"deposit": -1}, "deposit -1"),
        ({"deposit": 1 << 53}, "whole micro-credits"),
        ({"delay_s": 899}, "withdrawal delay 899: 900 to 2592000 s"),
        ({"salt": "0x1"}, "salt '0x1'"),
    ],
)
def test_a_channel_of_bad_values_is_refused_in_one_line(changed, said):
    """Naming the value and what it should be."""
    values = {"payee": PAYEE.address, "token": TOKEN, "network": NETWORK, "deposit": 1} | changed
    with pytest.raises(BadValueError, match=said) as error:
        open_channel(PAYER.address, values.pop("payee"), **values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("type",), "deposit"), (("type",), ["voucher"]), (("extra",), 1), (("voucher",), 3),
        (("voucher", "maxClaimableAmount"), 5), (("voucher", "maxClaimableAmount"), "05"),
        (("voucher", "maxClaimableAmount"), "-5"), (("voucher", "maxClaimableAmount"), "9" * 40),
        (("voucher", "channelId"), "0x12"), (("voucher", "signature"), "0x"),
        (("voucher", "signature"), None), (("channelConfig", "withdrawDelay"), True),
        (("channelConfig", "withdrawDelay"), "900"), (("channelConfig", "salt"), 0),
        (("channelConfig", "payerAuthorizer"), "0x" + "00" * 20), (("channelConfig",), []),
    ],
)  # fmt: skip
def test_what_is_no_voucher_is_refused_in_one_line(place, value):
    """Whatever a stranger sends."""
    word = payload_of(CHANNEL, 5, signature_of("good", 5)).to_dict()
    within = word
    for name in place[:-1]:
        within = within[name]
    within[place[-1]] = value

    with pytest.raises(BadValueError) as error:
        read_payload(word)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_too_long_a_voucher_is_not_read():
    """64 KiB and no more."""
    with pytest.raises(BadValueError, match="longer than the 65536 bytes"):
        read_object(b" " * 65_537, "voucher")
