"""What we promised to whom: the channels that we opened, and how much of each we signed away.

What is kept is written before a voucher is handed out, so that none is forgotten by a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from x402.mechanisms.evm.batch_settlement import VoucherPayload

from shoestring.errors import BadValueError
from shoestring.swarm.vouchers.channels import Channel, read_channel
from shoestring.swarm.vouchers.forms import check_amount, check_fields, read_channel_id
from shoestring.swarm.vouchers.keeping import Kept

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.swarm.vouchers.keys import EvmKey

PURSE_FOLDER: Final = "vouchers-signed"
MEND: Final = "restore a copy, or remove it and open channels anew; what payees hold they can claim"
FIELDS: Final = ("channel", "signed")


@dataclass(frozen=True)
class Opened:
    """A channel of ours.

    Attributes:
        channel: and what was deposited in it.
        signed: micro-credits of it that the payee may have by now.
    """

    channel: Channel
    signed: int = 0

    def word(self) -> dict[str, Any]:
        """Return it as it is kept and shown."""
        return {"channel": self.channel.word(), "signed": self.signed}


class Purse:
    """The channels that a key pays from.

    Args:
        folder: of the files that keep them.
        key: whose vouchers it signs.
    """

    def __init__(self, folder: Path, key: EvmKey) -> None:
        self._kept = Kept(folder, _read_opened, MEND)
        self._key = key

    def opened(self) -> list[Opened]:
        """Return all channels.

        Raises:
            BadValueError: a file cannot be used.
        """
        return self._kept.all()

    def open(self, channel: Channel) -> Opened:
        """Keep a channel, or what its deposit is now.

        Raises:
            BadValueError: another key pays from it, more than the deposit is signed away already,
                or there are too many.
        """
        self._check_key(channel)
        with self._kept.changing(channel.id):
            before = self._kept.one(channel.id) or Opened(channel)
            if channel.deposit < before.signed:
                raise BadValueError(
                    f"deposit {channel.deposit}: {before.signed} micro-credits of channel "
                    f"{channel.id} are signed away already; deposit that at least"
                )
            now = replace(before, channel=channel)
            self._kept.keep(now)
        return now

    def sign(self, channel_id: str, amount: int) -> VoucherPayload:
        """Return a voucher over all that the payee may have of a channel so far.

        Args:
            channel_id: of a channel that is open.
            amount: micro-credits, cumulative: never less than before, at most the deposit.

        Raises:
            BadValueError: it is less or more, or there is no such channel of this key.
        """
        wanted = read_channel_id(channel_id)
        check_amount(amount, "amount")
        self._open(wanted)  # a mistyped one leaves no lock
        with self._kept.changing(wanted):
            one = self._open(wanted)
            _check_bounds(one, amount)
            payload = VoucherPayload()
            payload.channel_config = one.channel.config
            payload.voucher = self._key.sign_voucher(wanted, amount, one.channel.network)
            self._kept.keep(replace(one, signed=amount))
        return payload

    def _open(self, channel_id: str) -> Opened:
        one = self._kept.one(channel_id)
        if one is None:
            raise BadValueError(f"channel {channel_id}: not opened here; `voucher list` shows all")
        self._check_key(one.channel)
        return one

    def _check_key(self, channel: Channel) -> None:
        if channel.config.payer_authorizer != self._key.address:
            raise BadValueError(
                f"channel {channel.id}: {channel.config.payer_authorizer} signs for it, "
                f"and this key is {self._key.address}"
            )


def _check_bounds(one: Opened, amount: int) -> None:
    if amount < one.signed:
        raise BadValueError(
            f"amount {amount}: {one.signed} micro-credits are signed away already, and amounts are "
            "of all answers so far; a lower voucher would change nothing"
        )
    if amount > one.channel.deposit:
        raise BadValueError(
            f"amount {amount}: the deposit is {one.channel.deposit} micro-credits; raise it by "
            "depositing more, then `voucher open` with the same --salt"
        )


def _read_opened(record: dict[str, Any]) -> Opened:
    given = check_fields(record, FIELDS, "channel")
    opened = Opened(read_channel(given["channel"]), check_amount(given["signed"], "signed"))
    if opened.signed > opened.channel.deposit:
        raise BadValueError("signed is more than the deposit")
    return opened
