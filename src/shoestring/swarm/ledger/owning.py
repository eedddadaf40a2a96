"""Whose device is it? A statement of two hands: an owner's key and a device's, until a day.

``{"device", "made_s", "owner", "until_s"}`` in the form of RFC 8785, signed by the owner for the
purpose ``owner`` and by the device for ``device``. With one signature it says nothing: an owner
could claim anybody's device, a device anybody's wallet.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.ledger.rules import LAST_S
from shoestring.swarm.words import read_word

if TYPE_CHECKING:
    from shoestring.swarm.identity import Identity

PREFIX: Final = "shoe-device:"
OWNERS: Final = "owner"
DEVICES: Final = "device"
LONGEST_TEXT: Final = 2_048
LONGEST_S: Final = 10 * 366 * 86_400
AHEAD_S: Final = 600
"""How far another clock may be ahead of ours."""
SIGNATURE_CHARACTERS: Final = 128


@dataclass(frozen=True)
class Ownership:
    """That a device is an owner's.

    Attributes:
        owner: the key of a wallet, written as a peer id.
        device: peer id.
        made_s: like all times here in whole seconds since 1970.
        until_s: from then on it says nothing.
        by_owner: signature in hexadecimal; empty: not yet signed.
        by_device: likewise.

    Raises:
        BadValueError: a value cannot be used.
    """

    owner: str
    device: str
    made_s: int
    until_s: int
    by_owner: str = ""
    by_device: str = ""

    def __post_init__(self) -> None:
        public_key_of(self.owner)
        public_key_of(self.device)
        if self.owner == self.device:
            raise BadValueError(f"{self.owner} is a wallet and a device: each has a key of its own")
        times = (self.made_s, self.until_s)
        if not all(type(time_s) is int and 0 <= time_s <= LAST_S for time_s in times):
            raise BadValueError(
                "times of an ownership are whole seconds of this era: have it made anew"
            )
        if not 0 < self.until_s - self.made_s <= LONGEST_S:
            raise BadValueError("an ownership holds for ten years at most: give fewer days")

    def signed_by_owner(self, identity: Identity) -> Ownership:
        """Return it with the owner's signature."""
        return replace(self, by_owner=identity.sign(OWNERS, self._said()).hex())

    def signed_by_device(self, identity: Identity) -> Ownership:
        """Return it with the device's signature."""
        return replace(self, by_device=identity.sign(DEVICES, self._said()).hex())

    def owner_fault(self) -> str | None:
        """Say what is wrong with the owner's signature; None: nothing."""
        return None if _is_signed(self.owner, OWNERS, self._said(), self.by_owner) else (
            "the owner's key has not signed it"
        )  # fmt: skip

    def fault(self, now_s: float) -> str | None:
        """Say why it shows nothing now; None: the device is the owner's."""
        if not _is_signed(self.device, DEVICES, self._said(), self.by_device):
            return self.owner_fault() or "the device's key has not signed it"
        if self.until_s <= now_s:
            return "it has expired"
        if self.made_s > now_s + AHEAD_S:
            return "it is of the future: set the clock"
        return self.owner_fault()

    def text(self) -> str:
        """Return what :func:`read_ownership` reads."""
        content = json.dumps(asdict(self), separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(content).decode().rstrip("=")

    def _said(self) -> bytes:
        import rfc8785

        said = asdict(self)
        return rfc8785.dumps(
            {name: said[name] for name in ("device", "made_s", "owner", "until_s")}
        )


def read_ownership(text: str) -> Ownership:
    """Read an ownership as it was pasted; its signatures are not looked at.

    Raises:
        BadValueError: it is none.
    """
    packed = text.strip().removeprefix(PREFIX)
    if len(packed) > LONGEST_TEXT or packed == text.strip():
        raise BadValueError(f"this is no ownership: it begins with {PREFIX}; copy it whole")
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        return ownership_of(read_word(raw))
    except (ValueError, TypeError) as error:
        raise BadValueError("this ownership was cut or changed: copy it whole") from error


def ownership_of(record: dict[str, Any]) -> Ownership:
    """Return the ownership that a word or a file holds.

    Raises:
        BadValueError: a value cannot be used.
        TypeError: it has not an ownership's fields.
    """
    if not all(type(record.get(name)) is str for name in ("owner", "device")):
        raise TypeError("an ownership without owner or device")
    return Ownership(**record)


def _is_signed(key: str, purpose: str, said: bytes, signature: str) -> bool:
    if type(signature) is not str or len(signature) != SIGNATURE_CHARACTERS:
        return False
    try:
        return is_signed_by(key, purpose, said, bytes.fromhex(signature))
    except ValueError:  # no hexadecimal, or no key that signs
        return False
