"""Weights from node to node at the word of a client that both serve, so that it need not send them.

The client says ``lend`` to the one node: that another key may fetch these weights, as long as this
link lasts. And ``borrow`` to the other: where they are. That one fetches them over a link of its
own, pinned to the key that the client named, and says how far it is. A key that was let in so may
fetch what was named, as long as the client may use the node, and nothing else.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.addresses import is_nearer
from shoestring.swarm.crossing import read_address, read_shown
from shoestring.swarm.door import Attempts
from shoestring.swarm.feeding import fetch_blobs
from shoestring.swarm.manifest import named_blobs
from shoestring.swarm.remote import RefusedError, Remote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.store import Store

LOAN_S: Final = 3_600.0
"""For which a key is let in, and for which a node may borrow; 512 weights at a time."""
LOANS: Final = 16
LOANS_PER_PEER: Final = 4
LOANS_IN: Final = 2
"""Nodes from which is borrowed at a time, for one peer each."""
SAY_S: Final = 0.5
"""How often it is said how far it is."""
TOKEN_BYTES: Final = 8
BEGIN_S: Final = 4.0
"""In which the first bytes must have come; what fails before is told then, whatever it was."""
BORROWS_A_MINUTE: Final = 12
"""Of one peer; of all four times as many."""


@dataclass(frozen=True)
class Loan:
    """Weights that a key may fetch.

    Attributes:
        by: peer id of who said so.
        to: peer id of the key.
        blobs: bytes of each by its SHA-256 in hexadecimal.
    """

    by: str
    to: str
    blobs: dict[str, int]


class Lending:
    """Answers ``lend`` and ``borrow`` for a node.

    Args:
        identity: this node's.
        store: likewise.
        let_in: lets a key in for one purpose, until a time; see
            :meth:`~shoestring.swarm.listening.Listener.admit_for`.
        let_out: takes that back; see
            :meth:`~shoestring.swarm.listening.Listener.end_admission`.
        now: seconds since 1970, as ``let_in`` counts them.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        let_in: Callable[[bytes, str, float], str],
        let_out: Callable[[str, str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._store = store
        self._let_in = let_in
        self._let_out = let_out
        self._now = now
        self._loans: dict[str, Loan] = {}
        """By the purpose for which their keys are let in."""
        self._borrowers: set[str] = set()
        """Peer ids of those for whom we borrow now."""
        self._attempts = Attempts(
            in_all=4 * BORROWS_A_MINUTE, per_address=BORROWS_A_MINUTE, now=time.monotonic
        )

    def voucher(self, peer_id: str, word: Mapping[str, Any]) -> str | None:
        """Return the peer id of who said that a key may fetch all that a word asks for, or None."""
        asked = named_blobs(word.get("blobs"))
        if asked is None:
            return None
        its = (loan for loan in self._loans.values() if loan.to == peer_id)
        return next((loan.by for loan in its if asked.items() <= loan.blobs.items()), None)

    async def lend(self, link: Link, word: Mapping[str, Any]) -> None:
        """Let a key fetch weights until the link ends on which this was said.

        Raises:
            LinkError: it has ended.
        """
        certificate, blobs = read_shown(word), named_blobs(word.get("blobs"))
        if certificate is None or blobs is None:
            await link.refuse("word", "lend what to whom? give a certificate, and blobs")
            return
        its = sum(1 for loan in self._loans.values() if loan.by == link.peer_id)
        if its >= LOANS_PER_PEER or len(self._loans) >= LOANS:
            await link.refuse("busy", f"{LOANS_PER_PEER} loans for a peer, {LOANS} in all")
            return
        purpose = f"fetch {secrets.token_hex(TOKEN_BYTES)}"
        try:
            to = self._let_in(certificate, purpose, self._now() + LOAN_S)
        except BadValueError:
            await link.refuse("rights", "this key is not let in here: ask the owner")
            return
        self._loans[purpose] = Loan(link.peer_id, to, blobs)
        try:
            await link.say({"ok": True})
            await link.closed_by(asyncio.get_running_loop().time() + LOAN_S)
        finally:
            del self._loans[purpose]
            self._let_out(to, purpose)

    async def borrow(
        self, link: Link, word: Mapping[str, Any], may_go_on: Callable[[], bool]
    ) -> None:
        """Fetch weights from another node, and say how far it is, until all came that it has.

        Args:
            link: on which it was said.
            word: as it came.
            may_go_on: asked after each part.

        Raises:
            LinkError: it has ended.
        """
        certificate, address = read_shown(word), read_address(word.get("from"))
        blobs = named_blobs(word.get("blobs"))
        if certificate is None or address is None or blobs is None:
            # Names are not looked up: who asks could hold up all that this node looks up.
            await link.refuse("word", "borrow from ID@ADDRESS:PORT of a certificate; give blobs")
        elif is_nearer(address.host, link.host):
            await link.refuse("word", "borrow from an address that you can reach as well as we")
        elif sum(blobs.values()) > self._store.quota_bytes:
            await link.refuse("size", f"{self._store.quota_bytes} bytes are kept here, no more")
        elif link.peer_id in self._borrowers or len(self._borrowers) >= LOANS_IN:
            await link.refuse("busy", f"one loan at a time, for {LOANS_IN} peers: send them")
        elif not self._attempts.allow(link.peer_id):
            await link.refuse("busy", f"{BORROWS_A_MINUTE} loans a minute: send them")
        else:
            self._borrowers.add(link.peer_id)
            try:
                other = Remote("the other node", address, certificate)
                await self._borrow(link, other, blobs, may_go_on)
            finally:
                self._borrowers.discard(link.peer_id)

    async def _borrow(
        self, link: Link, other: Remote, blobs: dict[str, int], may_go_on: Callable[[], bool]
    ) -> None:
        await link.say({"ok": True})
        got, said_s = 0, -SAY_S
        now_s = asyncio.get_running_loop().time
        begin_s = now_s() + BEGIN_S
        parts = fetch_blobs(self._identity, other, blobs, self._store)
        try:
            async with asyncio.timeout(LOAN_S), aclosing(parts):
                async with asyncio.timeout_at(begin_s):
                    got = await anext(parts, 0)
                async for count in parts:
                    got += count
                    if link.is_closed or not may_go_on():
                        break
                    if now_s() >= said_s + SAY_S:
                        said_s = now_s()
                        await link.say({"ok": True, "bytes": got})
        except (ShoestringError, TimeoutError) as error:
            # Not why, and not sooner or later: a peer may not use this node to look around in its
            # network. That the key it named is there and busy, it would hear from it itself.
            await link.closed_by(begin_s)
            if isinstance(error, RefusedError) and error.word == "busy":
                await link.refuse("busy", "the other node gives to others: try again")
            else:
                await link.refuse("unreachable", "this node does not get them from the other")
            return
        await link.say({"ok": True, "bytes": got, "over": True})
