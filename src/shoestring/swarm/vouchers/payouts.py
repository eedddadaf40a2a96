"""How a node is paid, and which channels do so: those of strangers are refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from x402.mechanisms.evm.batch_settlement import SCHEME_BATCH_SETTLEMENT
from x402.mechanisms.evm.batch_settlement.errors import (
    ERR_RECEIVER_AUTHORIZER_MISMATCH,
    ERR_RECEIVER_MISMATCH,
    ERR_TOKEN_MISMATCH,
)
from x402.mechanisms.evm.batch_settlement.facilitator.utils import validate_channel_config
from x402.schemas import PaymentRequirements

from shoestring.errors import BadValueError
from shoestring.swarm.vouchers.channels import DELAY_S
from shoestring.swarm.vouchers.forms import check_delay, read_address, read_network

if TYPE_CHECKING:
    from shoestring.swarm.vouchers.channels import Channel

TIMEOUT_S: Final = 60
"""x402's field for its requests over HTTP, of which there are none here."""
Reason = Literal["channel", "payee", "token", "delay", "deposit", "lower", "owed", "signature"]
FOREIGN: Final[dict[str, tuple[Reason, str]]] = {
    ERR_RECEIVER_MISMATCH: ("payee", "it pays {receiver}, not {payee}"),
    ERR_RECEIVER_AUTHORIZER_MISMATCH: (
        "payee", "{receiver_authorizer} may claim and refund it, not {payee}"
    ),
    ERR_TOKEN_MISMATCH: ("token", "it pays in token {token}, not in {asked}"),
}  # fmt: skip


class RefusedVoucherError(BadValueError):
    """A voucher that is not taken, or (``owed``) one that is kept and not enough.

    Attributes:
        reason: in one word.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Payout:
    """How a node is paid.

    Attributes:
        payee: its address.
        token: address of a token with six decimals, whose unit is a micro-credit.
        network: the chain.
        least_delay_s: that a payer must wait for the rest; within it the node must claim.

    Raises:
        BadValueError: a value cannot be used.
    """

    payee: str
    token: str
    network: str
    least_delay_s: int = DELAY_S

    def __post_init__(self) -> None:
        object.__setattr__(self, "payee", read_address(self.payee, "payee"))
        object.__setattr__(self, "token", read_address(self.token, "token"))
        read_network(self.network)
        check_delay(self.least_delay_s)


def check_payout(channel: Channel, payout: Payout) -> None:
    """Hold a channel to how a node is paid.

    Raises:
        RefusedVoucherError: it pays somebody else, in something else, or gives the rest back too
            soon.
    """
    asked = PaymentRequirements(
        scheme=SCHEME_BATCH_SETTLEMENT,
        network=payout.network,
        asset=payout.token,
        amount="0",
        pay_to=payout.payee,
        max_timeout_seconds=TIMEOUT_S,
        extra={"receiverAuthorizer": payout.payee},
    )
    code = validate_channel_config(channel.config, channel.id, asked)
    if code is None:
        _check_delay(channel, payout)
        return
    reason, text = FOREIGN.get(code, ("channel", code))
    said = text.format(**vars(channel.config), payee=payout.payee, asked=payout.token)
    raise RefusedVoucherError(reason, f"channel {channel.id}: {said}")


def _check_delay(channel: Channel, payout: Payout) -> None:
    if channel.config.withdraw_delay < payout.least_delay_s:
        raise RefusedVoucherError(
            "delay",
            f"channel {channel.id}: the payer has the rest back {channel.config.withdraw_delay} s "
            f"after asking, and {payout.least_delay_s} s at least are wanted here",
        )
