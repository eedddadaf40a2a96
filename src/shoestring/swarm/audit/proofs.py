"""Receipts of a chain's sessions, as far as windows that are being audited may need them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shoestring.swarm.proof.receipts import Signed

MOST_RECEIPTS: Final = 256
WAIT_S: Final = 5.0
"""For a receipt that is on its way; a window is signed for soon after its last answer."""


class Proofs:
    """The last receipts that both hands signed."""

    def __init__(self) -> None:
        self._kept: deque[Signed] = deque(maxlen=MOST_RECEIPTS)
        self._news = asyncio.Event()

    def keep(self, signed: Signed) -> None:
        """Take one."""
        self._kept.append(signed)
        self._news.set()

    async def find(
        self,
        node: str,
        session: str,
        in_root: str | None,
        out_root: str | None,
        wait_s: float = WAIT_S,
    ) -> Signed | None:
        """Return the receipt of a session over a window of these roots; None: there is none.

        Args:
            node: peer id.
            session: the node's name for it.
            in_root: in hexadecimal; None: not known, and no receipt is over it.
            out_root: likewise.
            wait_s: for one that is on its way.
        """
        wanted = node, session, in_root, out_root
        try:
            async with asyncio.timeout(wait_s if in_root and out_root else 0):
                while True:
                    for signed in self._kept:
                        its = signed.receipt
                        if (its.terms.node, its.terms.session, its.in_root, its.out_root) == wanted:
                            return signed
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
