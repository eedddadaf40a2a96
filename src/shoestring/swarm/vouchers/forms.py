"""What comes from strangers, read strictly: addresses, networks, amounts, channels, signatures.

x402's own readers take whatever a dictionary holds. These let through what its contract would take.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from eth_utils.address import is_checksum_address, to_checksum_address
from x402.mechanisms.evm.batch_settlement import (
    MAX_WITHDRAW_DELAY,
    MIN_WITHDRAW_DELAY,
    ChannelConfig,
    VoucherFields,
    VoucherPayload,
)
from x402.mechanisms.evm.batch_settlement.constants import PAYLOAD_TYPE_VOUCHER
from x402.mechanisms.evm.batch_settlement.utils import is_canonical_channel_id

from shoestring.errors import BadValueError
from shoestring.swarm.ledger.accounts import MOST
from shoestring.swarm.words import WORD_BYTES, WordError, read_word

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
NETWORK: Final = re.compile(r"eip155:[1-9][0-9]{0,17}")
AMOUNT: Final = re.compile(r"0|[1-9][0-9]{0,15}")
BYTES32: Final = re.compile(r"0x[0-9a-f]{64}")
SIGNATURE: Final = re.compile(r"0x[0-9a-f]{130}")
HALF_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2
"""Of secp256k1 (SEC 2): of the two signatures with one meaning, contracts take that below."""
ENDS: Final = (27, 28)
PARTIES: Final = ("payer", "payerAuthorizer", "receiver", "receiverAuthorizer", "token")
CONFIG_FIELDS: Final = {*PARTIES, "withdrawDelay", "salt"}
SHOWN: Final = 80


def read_object(text: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object that came as text of at most 64 KiB.

    Raises:
        BadValueError: it is none.
    """
    if len(text) > WORD_BYTES:
        raise BadValueError(f"no {what}: longer than the {WORD_BYTES} bytes that are read")
    try:
        return read_word(text)
    except WordError as error:
        raise BadValueError(f"no {what}: {error}; give the JSON that was made for it") from error


def check_fields(word: Any, fields: Collection[str], what: str) -> dict[str, Any]:
    """Return an object that has these fields and no others.

    Raises:
        BadValueError: it has not.
    """
    if not isinstance(word, dict) or word.keys() != set(fields):
        raise BadValueError(f"no {what}: it is an object of {', '.join(sorted(fields))}")
    return word


def read_address(text: Any, what: str) -> str:
    """Return an address in its checksummed form.

    Raises:
        BadValueError: it is none, the zero address, or one of capitals that do not check.
    """
    if isinstance(text, str) and ADDRESS.fullmatch(text) and int(text, 16):
        is_mixed = text[2:] not in {text[2:].lower(), text[2:].upper()}
        if not is_mixed or is_checksum_address(text):
            return str(to_checksum_address(text))
    raise BadValueError(
        f"{what} {text!a:.{SHOWN}}: an address is 0x and 40 hexadecimal digits; copy it whole"
    )


def read_network(text: Any) -> str:
    """Return a network's name as CAIP-2 has it for chains of EVM.

    Raises:
        BadValueError: it is none.
    """
    if isinstance(text, str) and NETWORK.fullmatch(text):
        return text
    raise BadValueError(f"network {text!a:.{SHOWN}}: it is eip155: and a chain's number")


def read_channel_id(text: Any) -> str:
    """Return a channel's id in small letters.

    Raises:
        BadValueError: it is none.
    """
    if is_canonical_channel_id(text):
        return str(text).lower()
    raise BadValueError(f"channel {text!a:.{SHOWN}}: an id is 0x and 64 hexadecimal digits")


def check_amount(amount: Any, what: str) -> int:
    """Return an amount in micro-credits, of which each is one unit of a token of six decimals.

    Raises:
        BadValueError: it is none.
    """
    if isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount <= MOST:
        return amount
    raise BadValueError(f"{what} {amount!a:.{SHOWN}}: whole micro-credits, 0 to {MOST}")


def read_amount(text: Any, what: str) -> int:
    """Return an amount that x402 writes as decimal text.

    Raises:
        BadValueError: it is none.
    """
    if not isinstance(text, str) or not AMOUNT.fullmatch(text):
        raise BadValueError(f"{what} {text!a:.{SHOWN}}: decimal digits, as text")
    return check_amount(int(text), what)


def read_config(word: Any) -> ChannelConfig:
    """Return what a channel is made of, in one form only.

    Raises:
        BadValueError: it is none, or one whose vouchers nobody could check without a chain.
    """
    given = check_fields(word, CONFIG_FIELDS, "channel")
    parties = {name: read_address(given[name], name) for name in PARTIES}
    return ChannelConfig.from_dict({
        **parties,
        "withdrawDelay": check_delay(given["withdrawDelay"]),
        "salt": check_salt(given["salt"]),
    })  # fmt: skip


def check_delay(delay_s: Any) -> int:
    """Return a delay that x402's contract takes, in seconds.

    Raises:
        BadValueError: it takes it not.
    """
    is_whole = isinstance(delay_s, int) and not isinstance(delay_s, bool)
    if is_whole and MIN_WITHDRAW_DELAY <= delay_s <= MAX_WITHDRAW_DELAY:
        return int(delay_s)
    raise BadValueError(
        f"withdrawal delay {delay_s!a:.{SHOWN}}: {MIN_WITHDRAW_DELAY} to {MAX_WITHDRAW_DELAY} s"
    )


def check_salt(salt: Any) -> str:
    """Return what tells apart two channels of the same parties.

    Raises:
        BadValueError: it is no 32 bytes in hexadecimal.
    """
    if isinstance(salt, str) and BYTES32.fullmatch(salt):
        return salt
    raise BadValueError(f"salt {salt!a:.{SHOWN}}: 0x and 64 hexadecimal digits in small letters")


def read_payload(word: Mapping[str, Any]) -> VoucherPayload:
    """Return a voucher and its channel, of the right form; whether it is good is not yet known.

    Raises:
        BadValueError: it is none.
    """
    given = check_fields(word, ("type", "channelConfig", "voucher"), "voucher")
    if given["type"] != PAYLOAD_TYPE_VOUCHER:
        raise BadValueError(f"type {given['type']!a:.{SHOWN}}: a voucher's is 'voucher'")
    said = check_fields(
        given["voucher"], ("channelId", "maxClaimableAmount", "signature"), "voucher"
    )
    payload = VoucherPayload()
    payload.channel_config = read_config(given["channelConfig"])
    payload.voucher = VoucherFields(
        channel_id=read_channel_id(said["channelId"]),
        max_claimable_amount=str(read_amount(said["maxClaimableAmount"], "maxClaimableAmount")),
        signature=read_signature(said["signature"]),
    )
    return payload


def read_signature(text: Any) -> str:
    """Return a signature of which there is no other form.

    eth-account recovers the signer from two more, which contracts of today refuse (EIP-2, and
    OpenZeppelin's ECDSA): a node that took one would work and never be paid.

    Raises:
        BadValueError: it is none, or another form.
    """
    if isinstance(text, str) and SIGNATURE.fullmatch(text):
        raw = bytes.fromhex(text[2:])
        if int.from_bytes(raw[32:64], "big") <= HALF_ORDER and raw[64] in ENDS:
            return text
    raise BadValueError(
        f"signature {text!a:.{SHOWN}}: 65 bytes in small hexadecimal, s in the lower half, "
        "27 or 28 at the end"
    )
