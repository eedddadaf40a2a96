"""The key that signs vouchers: secp256k1, as the chains of EVM have it, made once and kept private.

It is not the node's or the owner's ed25519 key, which no such chain can check; a statement of both
binds them (:mod:`~shoestring.swarm.vouchers.binding`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from eth_account import Account
from eth_account.messages import encode_defunct
from x402.mechanisms.evm.batch_settlement.client.voucher import sign_voucher
from x402.mechanisms.evm.signers import EthAccountSigner

from shoestring.errors import BadValueError
from shoestring.swarm.private_files import make_once, read_private

if TYPE_CHECKING:
    from pathlib import Path

    from eth_account.signers.local import LocalAccount
    from x402.mechanisms.evm.batch_settlement import VoucherFields

KEY_FILE: Final = "evm.key"
KEY: Final = re.compile(rb"[0-9a-f]{64}\n?")
HEX: Final = "0x"


@dataclass(frozen=True)
class EvmKey:
    """A key for vouchers; it does not show itself.

    Attributes:
        address: by which a chain knows it, in the checksummed form of EIP-55.
    """

    address: str = field(init=False)
    _account: LocalAccount = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", str(self._account.address))

    def sign_voucher(self, channel_id: str, amount: int, network: str) -> VoucherFields:
        """Return a voucher over so much of a channel's deposit, in the words of x402."""
        return sign_voucher(EthAccountSigner(self._account), channel_id, amount, network)

    def sign_text(self, text: bytes) -> str:
        """Return the signature (EIP-191) of a text, in hexadecimal; it moves no money."""
        return HEX + bytes(self._account.sign_message(encode_defunct(text)).signature).hex()


def load_evm_key(path: Path) -> EvmKey:
    """Return the key that a file keeps; made by whichever process comes first.

    Raises:
        BadValueError: the file is open to others, damaged, or cannot be made or read.
    """
    kept = read_private(path)
    if kept is None:
        make_once(path, bytes(Account.create().key).hex().encode() + b"\n")
        kept = read_private(path)
    if not KEY.fullmatch(kept or b""):
        raise _damaged(path)
    try:
        return EvmKey(Account.from_key((kept or b"").decode().strip()))
    except ValueError as error:  # 0, or beyond the curve's order
        raise _damaged(path) from error


def _damaged(path: Path) -> BadValueError:
    return BadValueError(
        f"{path} is no key for vouchers: restore a copy; without it nothing more can be signed "
        "for its channels, and what is left in them is lost"
    )
