"""Receipts of a chain's sessions, as far as windows that are being audited may need them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from shoestring.swarm.audit.evidence import out_root

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.swarm.audit.windows import Recording
    from shoestring.swarm.proof.receipts import Signed
    from shoestring.swarm.remote import Seat

MOST_RECEIPTS: Final = 256
"""Some windows' of each stage: a slow mirror's last answers come after the first one's receipt."""
WAIT_S: Final = 5.0
"""For a receipt that is on its way; a window is signed for soon after its last answer."""


class Proofs:
    """The last receipts that both hands signed; who may need one looks as its window ends."""

    def __init__(self) -> None:
        self._kept: deque[Signed] = deque(maxlen=MOST_RECEIPTS)
        self._news = asyncio.Event()
        """Set, and another put in its place, when one comes."""

    def keep(self, signed: Signed) -> None:
        """Take one."""
        self._kept.append(signed)
        self._news.set()
        self._news = asyncio.Event()

    async def find(self, recording: Recording, seat: Seat) -> Signed | None:
        """Return the receipt over what a member was told and answered in a window, once it comes.

        None: there will be none, for not all that it answered is known.
        """
        roots = await asyncio.to_thread(roots_of, recording, recording.digests(seat))
        if roots[1] is None:
            return None
        node = seat.remote.address.id
        while True:
            news = self._news
            its = [
                signed
                for signed in self._kept
                if (signed.receipt.terms.node, signed.receipt.terms.session) == (node, seat.session)
            ]
            if its and roots[0] is None:  # what was pushed may be here later than what it led to
                roots = await asyncio.to_thread(recording.in_root), roots[1]
            for signed in its:
                if is_over(signed, roots):
                    return signed
            await news.wait()


def roots_of(
    recording: Recording, digests: Iterable[bytes | None]
) -> tuple[str | None, str | None]:
    """Return in- and out-root of a window in which this was answered; None: not all is known."""
    return recording.in_root(), out_root(recording.questions(), digests)


def is_over(signed: Signed, roots: tuple[str | None, str | None]) -> bool:
    """Tell whether a receipt is over a window of these roots."""
    return (signed.receipt.in_root, signed.receipt.out_root) == roots
