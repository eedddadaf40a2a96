"""Invitations: a text that lets one stranger become a peer, once and for a while.

``shoe-invite:`` and base64url of four check bytes (of SHA-256) and JSON. It has the inviter's peer
id, so that whoever joins knows whom it speaks with before it says anything, and a secret of 128
random bits, of which the inviter keeps the SHA-256 alone: that cannot be guessed as a password can.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.peers import Right, check_addresses, check_name, check_rights
from shoestring.swarm.private_files import OwnersFile, changing, read_records, write_records
from shoestring.swarm.words import read_word

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PREFIX: Final = "shoe-invite:"
INVITATIONS_FILE: Final = "invitations.json"
SECRET_BYTES: Final = 16
CHECK_BYTES: Final = 4
LONGEST_TEXT: Final = 4_096
LONGEST_S: Final = 365 * 86_400
KEPT_S: Final = 30 * 86_400  # after their end, for the owner's list
MAX_KEPT: Final = 1_024
INVITATION_ID: Final = re.compile(r"[0-9a-f]{16}")
MEANING: Final[dict[Right, Right]] = {"serve": "use", "use": "serve"}
"""What a right of the invited one is for the invited one: its right to use us is our serving it."""


class RefusedInvitationError(ShoestringError):
    """An invitation opens nothing; why is for the inviter's log, never for who showed it."""


@dataclass(frozen=True)
class Invitation:
    """What the invited one holds.

    Attributes:
        peer_id: the inviter's.
        addresses: where the inviter listens, ``HOST:PORT``.
        invitation_id: public.
        secret: 16 bytes.
        expires_s: seconds since 1970.
        rights: what the invited one gets, as the inviter's file will have it.

    Raises:
        BadValueError: a value cannot be used.
    """

    peer_id: str
    addresses: tuple[str, ...]
    invitation_id: str
    secret: bytes = field(repr=False)
    expires_s: float
    rights: tuple[Right, ...]

    def __post_init__(self) -> None:
        public_key_of(self.peer_id)
        check_addresses(self.addresses)
        check_rights(self.rights)
        if not self.addresses:
            raise BadValueError("an invitation without an address: give one where we listen")
        if len(self.secret) != SECRET_BYTES or not INVITATION_ID.fullmatch(self.invitation_id):
            raise BadValueError("an invitation without its secret: have another one made")

    def rights_of_inviter(self) -> tuple[Right, ...]:
        """Return the inviter's rights as the file of the invited one has them."""
        return tuple(right for right in MEANING if MEANING[right] in self.rights)

    def text(self) -> str:
        """Return what :func:`read_invitation` reads."""
        held = {
            "v": 1,
            "id": self.peer_id,
            "at": self.addresses,
            "n": self.invitation_id,
            "s": self.secret.hex(),
            "until": self.expires_s,
            "rights": self.rights,
        }
        content = json.dumps(held, separators=(",", ":")).encode()
        packed = base64.urlsafe_b64encode(_check(content) + content)
        return PREFIX + packed.decode().rstrip("=")


def read_invitation(text: str) -> Invitation:
    """Read an invitation as it was pasted.

    Raises:
        BadValueError: it is none, was cut or changed; its text is not repeated, it is a secret.
    """
    packed = text.strip().removeprefix(PREFIX)
    if len(packed) > LONGEST_TEXT or packed == text.strip():
        raise BadValueError(f"this is no invitation: it begins with {PREFIX}; copy it whole")
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _cut() from error
    content = raw[CHECK_BYTES:]
    if not hmac.compare_digest(raw[:CHECK_BYTES], _check(content)):
        raise _cut()
    try:
        held = read_word(content)
        invitation = Invitation(
            peer_id=held["id"],
            addresses=tuple(held["at"]),
            invitation_id=held["n"],
            secret=bytes.fromhex(held["s"]),
            expires_s=float(held["until"]),
            rights=tuple(held["rights"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadValueError(
            "this invitation was made by another version: have one made by the same version"
        ) from error
    return invitation


def _check(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:CHECK_BYTES]


def _cut() -> BadValueError:
    return BadValueError("this invitation was cut or changed on its way: copy it whole")


@dataclass(frozen=True)
class Kept:
    """What the inviter keeps of an invitation.

    Attributes:
        id: the invitation's.
        name: what the peer will be called.
        rights: what it will get.
        secret_sha256: of the secret, hexadecimal.
        made_s: like all times here in seconds since 1970.
        expires_s: from then on it opens nothing.
        used_by: the peer that came with it.
        ended_s: when it was used or withdrawn.
    """

    id: str
    name: str
    rights: tuple[Right, ...]
    secret_sha256: str = field(repr=False)
    made_s: float
    expires_s: float
    used_by: str | None = None
    ended_s: float | None = None

    def closed(self, now_s: float) -> str | None:
        """Return why it opens nothing; None: it does."""
        if self.ended_s is not None:
            return "withdrawn" if self.used_by is None else f"used by {self.used_by}"
        return "expired" if self.expires_s <= now_s else None


class Invitations(OwnersFile):
    """The inviter's file of them; every call reads it anew, as each is rare.

    Args:
        path: the file; it may come later.
        now: seconds since 1970.
    """

    def make(
        self,
        peer_id: str,
        *,
        name: str,
        addresses: Sequence[str],
        rights: tuple[Right, ...],
        lasts_s: float,
    ) -> Invitation:
        """Make an invitation; nothing else has its secret.

        Args:
            peer_id: ours.
            name: what the peer will be called here.
            addresses: where we listen, ``HOST:PORT``, as the invited one reaches us.
            rights: what the peer gets.
            lasts_s: from now; at most a year.

        Raises:
            BadValueError: a value cannot be used, or the file cannot.
        """
        check_name(name)
        if not 0 < lasts_s <= LONGEST_S:
            raise BadValueError(f"lasts_s: {lasts_s}: give seconds, at most {LONGEST_S}")
        now_s = self._now()
        invitation = Invitation(
            peer_id=peer_id,
            addresses=tuple(addresses),
            invitation_id=secrets.token_hex(8),
            secret=secrets.token_bytes(SECRET_BYTES),
            expires_s=round(now_s + lasts_s),
            rights=rights,
        )
        made = Kept(
            id=invitation.invitation_id,
            name=name,
            rights=rights,
            secret_sha256=_sha256(invitation.secret),
            made_s=now_s,
            expires_s=invitation.expires_s,
        )
        with changing(self._path):
            kept = [one for one in _read(self._path) if _end_s(one) + KEPT_S > now_s]
            if len(kept) >= MAX_KEPT:
                raise BadValueError(f"{MAX_KEPT} invitations are kept: wait until some are old")
            _write(self._path, [*kept, made])
        return invitation

    def all(self) -> tuple[Kept, ...]:
        """Return those that are open, and those that ended in the last month.

        Raises:
            BadValueError: the file cannot be used.
        """
        return tuple(_read(self._path))

    def withdraw(self, invitation_id: str) -> Kept:
        """End an invitation; one that opens nothing already stays as it is.

        Raises:
            BadValueError: there is none, or the file cannot be used.
        """
        with changing(self._path):
            kept = _read(self._path)
            found = next((one for one in kept if one.id == invitation_id), None)
            if found is None:
                raise BadValueError(f"no invitation {invitation_id[:80]!a} in {self._path}")
            if found.closed(self._now()) is None:
                found = replace(found, ended_s=self._now())
                _write(self._path, [found if one.id == found.id else one for one in kept])
        return found

    def spend(self, invitation_id: str, secret: bytes, peer_id: str) -> Kept:
        """Use an invitation up for a peer.

        What is unknown costs the same work as what is known.

        Raises:
            RefusedInvitationError: it opens nothing; the message says why.
            BadValueError: the file cannot be used.
        """
        with changing(self._path):
            kept = _read(self._path)
            found = next((one for one in kept if one.id == invitation_id), None)
            right = hmac.compare_digest(
                _sha256(secret), _NO_SECRET if found is None else found.secret_sha256
            )
            why = "unknown" if found is None else found.closed(self._now())
            if found is None or why is not None or not right:
                raise RefusedInvitationError(why or "wrong secret")
            used = replace(found, used_by=peer_id, ended_s=self._now())
            _write(self._path, [used if one.id == used.id else one for one in kept])
        return used


# Stands in for unknown invitations; no secret has this hash.
_NO_SECRET: Final = secrets.token_hex(32)


def _sha256(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _end_s(kept: Kept) -> float:
    return kept.expires_s if kept.ended_s is None else kept.ended_s


def _read(path: Path) -> list[Kept]:
    mend = "remove it; peers stay, open invitations are to be made anew"
    return read_records(path, _kept, mend=mend)


def _kept(record: dict[str, Any]) -> Kept:
    kept = Kept(
        **{**record, "rights": tuple(record["rights"]), "expires_s": float(record["expires_s"])}
    )
    check_name(kept.name)
    check_rights(kept.rights)
    return kept


def _write(path: Path, kept: Sequence[Kept]) -> None:
    write_records(path, (asdict(one) for one in kept))
