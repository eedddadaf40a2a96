"""How a stranger becomes a peer: four words over TLS 1.3, on which it shows no certificate.

| | says | with |
|---|---|---|
| stranger | ``join`` | its peer id; it has pinned the inviter's key before |
| inviter | ok | 32 fresh random bytes |
| stranger | proof | the invitation and its secret, its certificate, where it listens, a signature |
| inviter | ok | nothing; or one refusal for whatever was wrong |

The signature is over the random bytes, both peer ids and the invitation's id. The random bytes are
asked for once, so a proof that was recorded proves nothing later. The inviter's id is in it, so
what a stranger proves to one cannot be shown to another.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.addresses import PeerAddress, parse_place
from shoestring.swarm.certificates import (
    certificate_text,
    public_key_of,
    read_certificate,
    read_certificate_text,
)
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.invitations import RefusedInvitationError
from shoestring.swarm.link import CONNECT_S, LinkError, open_link, tls_context
from shoestring.swarm.peers import Peer, check_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.invitations import Invitation, Invitations
    from shoestring.swarm.link import Link
    from shoestring.swarm.peers import Peers

NONCE_BYTES: Final = 32
PURPOSE: Final = "join"
REFUSAL: Final = {
    "ok": False,
    "reason": "invitation",
    "message": "this invitation opens nothing (any more): ask for another one",
}
"""All that a stranger learns, whatever was wrong."""


async def join(
    identity: Identity,
    invitation: Invitation,
    peers: Peers,
    *,
    name: str,
    addresses: Sequence[str] = (),
    timeout_s: float = CONNECT_S,
    now: Callable[[], float] = time.time,
) -> Peer:
    """Use an invitation: become the inviter's peer, and keep the inviter as ours.

    Args:
        identity: ours.
        invitation: its secret goes to the key that it names, and to no other.
        peers: where the inviter is kept.
        name: what we call it.
        addresses: where we listen, ``HOST:PORT``; none: we only go to it.
        timeout_s: for each address, and for each answer.
        now: seconds since 1970.

    Raises:
        LinkError: the inviter cannot be reached or refuses.
        BadValueError: the invitation is our own, a value cannot be used, or the file cannot.
    """
    if invitation.peer_id == identity.id:
        raise BadValueError("this invitation is our own: give it to another node")
    check_addresses(addresses)
    link = await _reach(invitation, timeout_s)
    try:
        certificate = link.certificate or b""
        await link.say({"do": PURPOSE, "peer": identity.id})
        nonce = _nonce(_agreed(await link.hear(timeout_s)))
        signed = _to_sign(nonce, invitation.peer_id, identity.id, invitation.invitation_id)
        await link.say({
            "invitation": invitation.invitation_id,
            "secret": invitation.secret.hex(),
            "certificate": certificate_text(identity.certificate),
            "addresses": list(addresses),
            "signature": identity.sign(PURPOSE, signed).hex(),
        })  # fmt: skip
        _agreed(await link.hear(timeout_s))
    finally:
        link.close()
    peer = Peer(
        id=invitation.peer_id,
        name=name,
        certificate=certificate,
        addresses=invitation.addresses,
        rights=invitation.rights_of_inviter(),
        since_s=now(),
    )
    await asyncio.to_thread(peers.admit, peer)
    return peer


@dataclass(frozen=True)
class Inviter:
    """Who answers strangers.

    Attributes:
        identity: ours.
        invitations: the open ones.
        peers: where who came is kept.
        say: given one line for each that was refused, and each that was let in.
        now: seconds since 1970.
    """

    identity: Identity
    invitations: Invitations
    peers: Peers
    say: Callable[[str], None]
    now: Callable[[], float]

    async def answer(self, link: Link, place: str, timeout_s: float) -> Peer | None:
        """Hear a stranger out; None: it is still one.

        Args:
            link: after its handshake; not closed here.
            place: where it comes from, for the log.
            timeout_s: for each of its words.

        Raises:
            LinkError: it went away, was too slow, or said what is no word.
        """
        asked = await link.hear(timeout_s)
        nonce = secrets.token_bytes(NONCE_BYTES)
        if asked.get("do") != PURPOSE:
            await self._refuse(link, place, "it shows no key and does not join")
            return None
        await link.say({"ok": True, "nonce": nonce.hex()})
        proof = await link.hear(timeout_s)
        try:
            peer_id = _proven(asked, proof, nonce, self.identity.id)
            # Off the loop: a file is locked and brought to the disk, others' tokens go on.
            peer = await asyncio.to_thread(self._admit, peer_id, proof)
        except (RefusedInvitationError, BadValueError) as error:
            await self._refuse(link, place, str(error))
            return None
        self.say(f"joined: {peer.id} as {peer.name!a}, from {place}")
        await link.say({"ok": True})
        return peer

    async def _refuse(self, link: Link, place: str, why: str) -> None:
        self.say(f"a stranger from {place} was refused: {why}")
        await link.say(REFUSAL)

    def _admit(self, peer_id: str, proof: dict[str, Any]) -> Peer:
        addresses = tuple(_text(address) for address in _list(proof.get("addresses")))
        check_addresses(addresses)  # before the invitation is used up
        certificate = read_certificate_text(_text(proof.get("certificate")))
        spent = self.invitations.spend(
            _text(proof.get("invitation")), _bytes(proof.get("secret")), peer_id
        )
        peer = Peer(
            id=peer_id,
            name=spent.name,
            certificate=certificate,
            addresses=addresses,
            rights=spent.rights,
            since_s=self.now(),
        )
        self.peers.admit(peer)
        return peer


def _proven(asked: dict[str, Any], proof: dict[str, Any], nonce: bytes, our_id: str) -> str:
    """Return the peer id that a stranger said and proved.

    Raises:
        BadValueError: it did not.
    """
    peer_id = _text(asked.get("peer"))
    if read_certificate(read_certificate_text(_text(proof.get("certificate")))) != peer_id:
        raise BadValueError("the certificate is another's")
    if peer_id == our_id:
        raise BadValueError("it says that it is us")
    signed = _to_sign(nonce, our_id, peer_id, _text(proof.get("invitation")))
    if not is_signed_by(peer_id, PURPOSE, signed, _bytes(proof.get("signature"))):
        raise BadValueError("the signature is not of its key")
    return peer_id


def _to_sign(nonce: bytes, inviter_id: str, peer_id: str, invitation_id: str) -> bytes:
    """Return what a stranger signs; all parts but the last have a fixed length."""
    return nonce + public_key_of(inviter_id) + public_key_of(peer_id) + invitation_id.encode()


async def _reach(invitation: Invitation, timeout_s: float) -> Link:
    """Connect to the first of the inviter's places that answers with the inviter's key."""
    trouble: list[LinkError] = []
    for place in invitation.addresses:
        context = tls_context(ssl.PROTOCOL_TLS_CLIENT, [])  # its certificate is not known yet
        try:
            return await open_link(
                context, PeerAddress(invitation.peer_id, *parse_place(place)), timeout_s
            )
        except LinkError as error:
            trouble.append(error)
    raise LinkError(trouble[0].reason, "; ".join(str(error) for error in trouble))


def _agreed(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("ok") is not True:
        message = answer.get("message")
        raise LinkError("refused", f"the inviter refuses: {message!a:.200}")
    return answer


def _nonce(answer: dict[str, Any]) -> bytes:
    try:
        nonce = _bytes(answer.get("nonce"))
    except BadValueError as error:
        raise LinkError("word", "the inviter asks for no proof that we know") from error
    return nonce


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValueError("a part of the proof is no text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadValueError("the addresses are no list")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(_text(value))
    except ValueError as error:
        raise BadValueError("a part of the proof is not hexadecimal") from error
