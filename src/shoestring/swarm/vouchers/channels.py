"""A channel: a deposit that one payer made for one payee, and the words by which x402 names it.

Its id is the EIP-712 hash of what it is made of, bound to the chain and to x402's contract there:
the same parties on another chain have another one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from x402.mechanisms.evm.batch_settlement import ChannelConfig, compute_channel_id

from shoestring.errors import BadValueError
from shoestring.swarm.vouchers.forms import (
    check_amount,
    check_delay,
    check_fields,
    check_salt,
    read_address,
    read_channel_id,
    read_config,
    read_network,
)

DELAY_S: Final = 86_400
"""Within which a payee must claim once the payer asks for the rest back; 15 min to 30 days."""
SALT_BYTES: Final = 32
FIELDS: Final = ("channelId", "network", "deposit", "channelConfig")


@dataclass(frozen=True)
class Channel:
    """A deposit for one payee.

    Attributes:
        config: what it is made of, in x402's words.
        network: the chain, as ``eip155:`` and its number.
        deposit: in micro-credits, each one unit of the token.
        id: 0x and 64 digits.
    """

    config: ChannelConfig
    network: str
    deposit: int
    id: str

    def word(self) -> dict[str, Any]:
        """Return it as it is kept and shown."""
        return {
            "channelId": self.id,
            "network": self.network,
            "deposit": self.deposit,
            "channelConfig": self.config.to_dict(),
        }


def open_channel(
    signer: str,
    payee: str,
    *,
    token: str,
    network: str,
    deposit: int,
    delay_s: int = DELAY_S,
    payer: str | None = None,
    salt: str | None = None,
) -> Channel:
    """Return a channel whose vouchers the signer signs and the payee claims; nothing is paid yet.

    Args:
        signer: address of the key for vouchers.
        payee: address that gets the money.
        token: address of a token with six decimals.
        network: the chain.
        deposit: micro-credits.
        delay_s: how long the payer must wait for what was not claimed.
        payer: address whose money it is, and to which the rest goes; the signer if None.
        salt: 32 bytes in hexadecimal; new random ones if None.

    Raises:
        BadValueError: a value cannot be used.
    """
    signer, payee = read_address(signer, "signer"), read_address(payee, "payee")
    payer = signer if payer is None else read_address(payer, "payer")
    if payee in {payer, signer}:
        raise BadValueError(f"payee {payee} is the payer: give another's address")
    config = ChannelConfig(
        payer=payer,
        payer_authorizer=signer,
        receiver=payee,
        receiver_authorizer=payee,
        token=read_address(token, "token"),
        withdraw_delay=check_delay(delay_s),
        salt="0x" + secrets.token_hex(SALT_BYTES) if salt is None else check_salt(salt),
    )
    return name_channel(config, read_network(network), deposit)


def name_channel(config: ChannelConfig, network: str, deposit: int) -> Channel:
    """Return a channel by the name that x402's contract gives it on a chain.

    Raises:
        BadValueError: the deposit is no amount.
    """
    return Channel(
        config, network, check_amount(deposit, "deposit"), compute_channel_id(config, network)
    )


def read_channel(word: Any) -> Channel:
    """Return a channel that was kept; its name is not computed again.

    Raises:
        BadValueError: it is none.
    """
    given = check_fields(word, FIELDS, "channel")
    return Channel(
        read_config(given["channelConfig"]),
        read_network(given["network"]),
        check_amount(given["deposit"], "deposit"),
        read_channel_id(given["channelId"]),
    )
