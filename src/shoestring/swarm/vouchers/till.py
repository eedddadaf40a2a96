"""What we were promised: the channels that pay us, and the highest voucher of each.

A voucher is taken only if x402's contract would pay it out as far as can be known without a chain:
how much lies in a channel is asked of the chain by the node's owner, never of the payer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from x402.mechanisms.evm.batch_settlement import VoucherClaim
from x402.mechanisms.evm.batch_settlement.facilitator.utils import (
    verify_batch_settlement_voucher_typed_data,
)
from x402.mechanisms.evm.utils import get_evm_chain_id

from shoestring.swarm.vouchers.channels import Channel, name_channel, read_channel
from shoestring.swarm.vouchers.forms import check_amount, check_fields, read_signature
from shoestring.swarm.vouchers.keeping import Kept
from shoestring.swarm.vouchers.payouts import RefusedVoucherError, check_payout

if TYPE_CHECKING:
    from pathlib import Path

    from x402.mechanisms.evm.batch_settlement import ChannelConfig, VoucherPayload

    from shoestring.swarm.vouchers.payouts import Payout

TILL_FOLDER: Final = "vouchers-held"
MEND: Final = "restore a copy, or ask each payer for its last voucher again"
FIELDS: Final = ("channel", "amount", "owed", "signature")


@dataclass(frozen=True)
class Held:
    """A channel that pays us.

    Attributes:
        channel: and what lies in it.
        amount: of its highest voucher, in micro-credits.
        owed: what receipts say; may be more than can be claimed.
        signature: of that voucher; None: there is none yet.
    """

    channel: Channel
    amount: int = 0
    owed: int = 0
    signature: str | None = None

    @property
    def claimable(self) -> int:
        """Micro-credits that x402's contract pays out.

        It reverts a claim over more than was signed, or than lies in the channel, as a whole.
        """
        return min(self.owed, self.amount, self.channel.deposit)

    @property
    def short(self) -> int:
        """Micro-credits that are owed and cannot be claimed."""
        return self.owed - self.claimable

    def claim(self) -> VoucherClaim | None:
        """Return what x402's contract takes; None: there is nothing to claim."""
        if self.signature is None or not self.claimable:
            return None
        return VoucherClaim(
            channel=self.channel.config,
            max_claimable_amount=str(self.amount),
            signature=self.signature,
            total_claimed=str(self.claimable),
        )

    def word(self) -> dict[str, Any]:
        """Return it as it is kept and shown."""
        return {
            "channel": self.channel.word(),
            "amount": self.amount,
            "owed": self.owed,
            "signature": self.signature,
        }


class Till:
    """The vouchers that a node holds.

    Args:
        folder: of the files that keep them.
    """

    def __init__(self, folder: Path) -> None:
        self._kept = Kept(folder, _read_held, MEND)

    def held(self) -> list[Held]:
        """Return all channels that were admitted.

        Raises:
            BadValueError: a file cannot be used.
        """
        return self._kept.all()

    def admit(self, config: ChannelConfig, deposit: int, payout: Payout) -> Held:
        """Know a channel from now on, or how much lies in it now.

        Args:
            config: what it is made of.
            deposit: its ``balance`` in the contract on the chain, in micro-credits.
            payout: how this node is paid.

        Raises:
            RefusedVoucherError: it pays somebody else, in something else, or gives the rest back
                too soon.
            BadValueError: the file cannot be used.
        """
        channel = name_channel(config, payout.network, deposit)
        check_payout(channel, payout)
        with self._kept.changing(channel.id):
            now = replace(self._kept.one(channel.id) or Held(channel), channel=channel)
            self._kept.keep(now)
        return now

    def take(self, payload: VoucherPayload, owed: int) -> Held:
        """Keep a voucher in the place of the one before it.

        One that is good for less than is owed is kept, too: it is more than the one before.

        Args:
            payload: of :func:`~shoestring.swarm.vouchers.forms.read_payload`.
            owed: micro-credits that receipts say its payer owes on this channel, cumulative. With
                a higher voucher it never falls; with the one that is held it counts as given, which
                mends a mistake.

        Raises:
            RefusedVoucherError: it is not taken, and what is held stays; or it is kept, and more
                is owed (reason ``owed``).
            BadValueError: the file cannot be used.
        """
        check_amount(owed, "owed")
        voucher = payload.voucher
        assert voucher is not None  # both are, in what read_payload returns
        self._admitted(payload)  # for a stranger not even a lock is made
        with self._kept.changing(voucher.channel_id):
            held = self._admitted(payload)
            amount = int(voucher.max_claimable_amount)
            _check_amount(held, amount)
            check_signature(held.channel, amount, voucher.signature)
            if amount > held.amount:
                owed = max(owed, held.owed)
            taken = replace(held, amount=amount, owed=owed, signature=voucher.signature)
            self._kept.keep(taken)
        if taken.amount < taken.owed:
            raise RefusedVoucherError(
                "owed",
                f"a voucher over {amount}: it is kept, and receipts say that {taken.owed} "
                "micro-credits are owed; the payer must sign that at least",
            )
        return taken

    def _admitted(self, payload: VoucherPayload) -> Held:
        assert payload.voucher is not None
        channel_id = payload.voucher.channel_id
        held = self._kept.one(channel_id)
        if held is None or held.channel.config != payload.channel_config:
            raise RefusedVoucherError(
                "channel",
                f"channel {channel_id}: none that was admitted here; give --deposit, --token and "
                "--network once the chain shows what lies in it",
            )
        return held


def _check_amount(held: Held, amount: int) -> None:
    if amount > held.channel.deposit:
        raise RefusedVoucherError(
            "deposit",
            f"a voucher over {amount}: {held.channel.deposit} micro-credits lie in its channel; "
            "the payer must deposit more",
        )
    if amount < held.amount:
        raise RefusedVoucherError(
            "lower",
            f"a voucher over {amount}: one over {held.amount} micro-credits is held, and amounts "
            "are of all answers so far",
        )


def check_signature(channel: Channel, amount: int, signature: str) -> None:
    """Recover who signed a voucher.

    Raises:
        RefusedVoucherError: not who signs for its channel, or not this.
    """
    is_good = verify_batch_settlement_voucher_typed_data(
        signer=None,  # type: ignore[arg-type]  # asked of contracts alone, and no payer is one here
        channel_id=channel.id,
        max_claimable_amount=str(amount),
        payer_authorizer=channel.config.payer_authorizer,
        payer=channel.config.payer,
        signature=signature,
        chain_id=get_evm_chain_id(channel.network),
    )
    if not is_good:
        raise RefusedVoucherError(
            "signature",
            f"a voucher over {amount}: not signed by {channel.config.payer_authorizer} for this "
            f"channel on {channel.network}",
        )


def _read_held(record: dict[str, Any]) -> Held:
    given = check_fields(record, FIELDS, "voucher")
    signature = given["signature"]
    return Held(
        channel=read_channel(given["channel"]),
        amount=check_amount(given["amount"], "amount"),
        owed=check_amount(given["owed"], "owed"),
        signature=None if signature is None else read_signature(signature),
    )
