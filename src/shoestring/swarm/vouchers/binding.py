"""Whose is a key for vouchers? A statement that its owner's key and itself have signed.

Nobody can claim another's: the owner's ed25519 key signs the address, and the address the owner.
The statement moves no money and is no secret.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import rfc8785
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.vouchers.forms import (
    SHOWN,
    check_fields,
    read_address,
    read_object,
    read_signature,
)

if TYPE_CHECKING:
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.vouchers.keys import EvmKey

PURPOSE: Final = "evm-key"
WORDS: Final = "shoestring-swarm/1: this address signs vouchers for this owner"
FIELDS: Final = ("owner", "address", "made_s", "owner_signature", "address_signature")
OWNER_SIGNATURE_DIGITS: Final = 128
LATEST_S: Final = 1 << 40


@dataclass(frozen=True)
class Binding:
    """An address and its owner, as both have signed.

    Attributes:
        owner: id of the ed25519 key.
        address: of the key for vouchers.
        made_s: when, in seconds since 1970; of two, the later one holds.
        owner_signature: of the ed25519 key, in hexadecimal.
        address_signature: of the other key (EIP-191), in hexadecimal.
    """

    owner: str
    address: str
    made_s: int
    owner_signature: str
    address_signature: str

    def word(self) -> dict[str, Any]:
        """Return it as it travels."""
        return asdict(self)


def bind(owner: Identity, key: EvmKey, made_s: int) -> Binding:
    """Return the statement that a key is this owner's."""
    text = _text(owner.id, key.address, made_s)
    return Binding(
        owner=owner.id,
        address=key.address,
        made_s=made_s,
        owner_signature=owner.sign(PURPOSE, text).hex(),
        address_signature=key.sign_text(text),
    )


def read_binding(text: bytes) -> Binding:
    """Return a statement that came as JSON, once both signatures are seen to be good.

    Raises:
        BadValueError: it is none, or one of them is not.
    """
    said = check_fields(read_object(text, "statement"), FIELDS, "statement")
    made_s = said["made_s"]
    if not isinstance(made_s, int) or isinstance(made_s, bool) or not 0 <= made_s < LATEST_S:
        raise BadValueError(f"made_s {made_s!a:.{SHOWN}}: whole seconds since 1970")
    for name in ("owner", "owner_signature"):
        if not isinstance(said[name], str):
            raise BadValueError(f"{name} {said[name]!a:.{SHOWN}}: it is text")
    public_key_of(said["owner"])
    read_address(said["address"], "address")
    read_signature(said["address_signature"])
    binding = Binding(**said)
    signed = _text(binding.owner, binding.address, made_s)
    if not _owner_signed(binding, signed):
        raise BadValueError(f"{binding.owner} has not signed this: have the owner make it anew")
    if not _address_signed(binding, signed):
        raise BadValueError(f"{binding.address} has not signed this: have the owner make it anew")
    return binding


def _owner_signed(binding: Binding, text: bytes) -> bool:
    if len(binding.owner_signature) != OWNER_SIGNATURE_DIGITS:
        return False
    try:
        signature = bytes.fromhex(binding.owner_signature)
    except ValueError:
        return False
    return is_signed_by(binding.owner, PURPOSE, text, signature)


def _address_signed(binding: Binding, text: bytes) -> bool:
    signature = bytes.fromhex(binding.address_signature[2:])
    try:
        signer = Account.recover_message(encode_defunct(text), signature=signature)
    except (BadSignature, ValidationError):  # no point of the curve, or beyond its order
        return False
    return str(signer) == binding.address


def _text(owner: str, address: str, made_s: int) -> bytes:
    return rfc8785.dumps({"says": WORDS, "owner": owner, "address": address, "made_s": made_s})
