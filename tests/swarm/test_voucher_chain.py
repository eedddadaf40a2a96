"""Vouchers paid out on a chain in this process; the contract on it is ours, and for tests."""

import json

import pytest
from eth_account import Account
from eth_tester.exceptions import TransactionFailed
from x402.mechanisms.evm.batch_settlement import (
    BATCH_SETTLEMENT_ADDRESS,
    VoucherClaim,
    compute_channel_id,
)

from shoestring.errors import BadValueError
from shoestring.swarm.ledger.amounts import CREDIT, amount
from shoestring.swarm.vouchers.channels import open_channel
from shoestring.swarm.vouchers.forms import read_signature
from shoestring.swarm.vouchers.keys import EvmKey
from shoestring.swarm.vouchers.payouts import Payout
from shoestring.swarm.vouchers.purse import Purse
from shoestring.swarm.vouchers.till import Till
from shoestring.testing.voucher_chain import VoucherChain

ACCOUNTS = [Account.from_key("0x" + pair * 32) for pair in ("11", "22", "33")]
PAYER, PAYEE, STRANGER = (EvmKey(one) for one in ACCOUNTS)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DELAY_S = 900
PURSE = 10 * CREDIT
DEPOSIT = 5 * CREDIT


@pytest.fixture
def chain():
    """A new chain on which PAYER has ten credits' worth of tokens."""
    chain = VoucherChain(ACCOUNTS)
    chain.mint(PAYER.address, PURSE)
    return chain


@pytest.fixture
def channel(chain):
    """A channel with five of them in it."""
    channel = open_channel(
        PAYER.address, PAYEE.address, token=chain.token, network=chain.network, deposit=DEPOSIT,
        delay_s=DELAY_S,
    )  # fmt: skip
    chain.deposit(channel.config, DEPOSIT)
    return channel


def claim_of(channel, total, *, ceiling=None, key=PAYER, network=None, signature=None):
    """A claim, of a voucher over as much unless said otherwise."""
    ceiling = total if ceiling is None else ceiling
    signed = key.sign_voucher(channel.id, ceiling, network or channel.network).signature
    return VoucherClaim(channel.config, str(ceiling), signature or signed, str(total))


def test_the_contract_has_the_names_and_the_place_that_x402_has(chain, channel):
    """So a voucher that x402's package signs is good there."""
    assert chain.channel_id(channel.config) == channel.id
    assert channel.id == compute_channel_id(channel.config, chain.network)
    assert BATCH_SETTLEMENT_ADDRESS.startswith("0x4020")
    assert chain.state(channel.id) == (DEPOSIT, 0)


def test_three_answers_are_paid_by_the_last_voucher(chain, channel, tmp_path):
    """From receipts' figures to the node's tokens, a micro-credit for a token's unit."""
    purse, till = Purse(tmp_path / "signed", PAYER), Till(tmp_path / "held")
    purse.open(channel)
    till.admit(
        channel.config,
        chain.state(channel.id)[0],
        Payout(PAYEE.address, chain.token, chain.network, DELAY_S),
    )
    for tokens_out in (100, 250, 400):  # cumulative, as in receipts
        owed = amount(1_000, tokens_out, 24, price_in=20_000_000, price_out=60_000_000)
        till.take(purse.sign(channel.id, owed), owed)
    claim = till.held()[0].claim()
    chain.claim([claim], PAYEE.address)
    chain.settle(PAYEE.address)

    assert owed == 1_056_000
    assert chain.tokens(PAYEE.address) == owed
    assert chain.state(channel.id) == (DEPOSIT, owed)

    chain.claim([claim], PAYEE.address)
    chain.settle(PAYEE.address)
    assert chain.tokens(PAYEE.address) == owed


def test_a_lower_voucher_pays_nothing_more(chain, channel):
    """As with x402's contract it is no error either."""
    chain.claim([claim_of(channel, 300)], PAYEE.address)
    chain.claim([claim_of(channel, 200)], PAYEE.address)
    chain.settle(PAYEE.address)

    assert chain.tokens(PAYEE.address) == 300


def test_what_is_not_covered_is_not_paid(chain, channel):
    """Forged, for another chain or channel, above the voucher, above the deposit, by a stranger."""
    other = open_channel(
        PAYER.address, PAYEE.address, token=chain.token, network=chain.network, deposit=1
    )
    of_other = claim_of(other, 300).signature
    for claim, said in (
        (claim_of(channel, 300, key=STRANGER), "InvalidSignature"),
        (claim_of(channel, 300, network="eip155:8453"), "InvalidSignature"),
        (claim_of(channel, 300, signature=of_other), "InvalidSignature"),
        (claim_of(channel, 300, ceiling=299), "ClaimExceedsCeiling"),
        (claim_of(channel, DEPOSIT + 1), "ClaimExceedsBalance"),
        (claim_of(other, 1), "ClaimExceedsBalance"),
    ):
        with pytest.raises(TransactionFailed, match=said):
            chain.claim([claim], PAYEE.address)
    with pytest.raises(TransactionFailed, match="NotAuthorizedToClaim"):
        chain.claim([claim_of(channel, 300)], STRANGER.address)
    chain.settle(PAYEE.address)

    assert chain.tokens(PAYEE.address) == 0
    assert chain.state(channel.id) == (DEPOSIT, 0)


def test_a_signature_that_a_node_refuses_for_its_form_is_one_that_pays_nothing(chain, channel):
    """And so a node that took it would have worked for nothing."""
    raw = bytes.fromhex(claim_of(channel, 300).signature[2:])
    high = (ORDER - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big")
    for twisted in (raw[:32] + high + bytes([55 - raw[64]]), raw[:64] + bytes([raw[64] - 27])):
        signature = "0x" + twisted.hex()
        with pytest.raises(BadValueError, match="s in the lower half"):
            read_signature(signature)
        with pytest.raises(TransactionFailed, match="InvalidSignature"):
            chain.claim([claim_of(channel, 300, signature=signature)], PAYEE.address)


def test_the_payer_gets_the_rest_after_the_delay(chain, channel):
    """Not before, not what was claimed meanwhile, and nobody else."""
    chain.ask_back(channel.config, DEPOSIT, PAYER.address)
    with pytest.raises(TransactionFailed, match="WithdrawDelayNotElapsed"):
        chain.take_back(channel.config, PAYER.address)
    chain.claim([claim_of(channel, 2 * CREDIT)], PAYEE.address)
    chain.wait(DELAY_S)
    with pytest.raises(TransactionFailed, match="NotAuthorizedToFinalizeWithdraw"):
        chain.take_back(channel.config, STRANGER.address)
    chain.take_back(channel.config, PAYER.address)
    chain.settle(PAYEE.address)

    assert chain.tokens(PAYER.address) == PURSE - 2 * CREDIT
    assert chain.tokens(PAYEE.address) == 2 * CREDIT
    assert chain.state(channel.id) == (2 * CREDIT, 2 * CREDIT)
    with pytest.raises(TransactionFailed, match="WithdrawalNotPending"):
        chain.take_back(channel.config, PAYER.address)


def test_a_payee_that_sleeps_through_the_delay_is_not_paid(chain, channel):
    """Why a node must look at the chain within the delay."""
    chain.ask_back(channel.config, DEPOSIT, PAYER.address)
    chain.wait(DELAY_S)
    chain.take_back(channel.config, PAYER.address)

    with pytest.raises(TransactionFailed, match="ClaimExceedsBalance"):
        chain.claim([claim_of(channel, CREDIT)], PAYEE.address)


def test_a_payee_can_give_the_rest_back_at_once(chain, channel):
    """Without a delay, and no more than was not claimed."""
    chain.claim([claim_of(channel, CREDIT)], PAYEE.address)
    with pytest.raises(TransactionFailed, match="NotAuthorizedToRefund"):
        chain.refund(channel.config, DEPOSIT, PAYER.address)
    chain.refund(channel.config, 2 * DEPOSIT, PAYEE.address)
    chain.settle(PAYEE.address)

    assert chain.tokens(PAYER.address) == PURSE - CREDIT
    assert chain.tokens(PAYEE.address) == CREDIT


def test_a_wallet_can_pay_while_another_key_signs(chain):
    """The key for vouchers holds no money then."""
    channel = open_channel(
        STRANGER.address, PAYEE.address, payer=PAYER.address, token=chain.token,
        network=chain.network, deposit=DEPOSIT, delay_s=DELAY_S,
    )  # fmt: skip
    chain.deposit(channel.config, DEPOSIT)
    with pytest.raises(TransactionFailed, match="InvalidSignature"):
        chain.claim([claim_of(channel, 1)], PAYEE.address)
    chain.claim([claim_of(channel, 1, key=STRANGER)], PAYEE.address)
    chain.refund(channel.config, DEPOSIT, PAYEE.address)

    assert chain.tokens(PAYER.address) == PURSE - 1


def test_the_chain_leaves_this_process_its_stack(chain):
    """What parses strangers' JSON still meets an error, not the end of the stack."""
    assert chain.token
    with pytest.raises(RecursionError):
        json.loads("[" * 100_000)
