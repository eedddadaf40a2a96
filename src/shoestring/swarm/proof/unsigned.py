"""What peers left unsigned: steps that were computed for a price in sessions that ended.

A window bounds what one session may have without a signature. Without this, a client that hangs up
before it signs, and comes again, would have a window each time. The honest leave some, too: where a
link breaks, a budget is spent or an answer never comes, up to a window of a session is not signed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from shoestring.swarm.proof.terms import WINDOW_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_STEPS: Final = 8 * WINDOW_STEPS
"""That a peer may leave: more than the honest do in ordinary use."""
FORGOTTEN_S: Final = 86_400.0
"""After which steps are forgotten."""


class Unsigned:
    """Counts them by peer; a peer that left :data:`MOST_STEPS` gets no session for a day.

    It holds a number for each peer that left some since, and is not kept over a restart.

    Args:
        now: seconds, never going back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[str, tuple[int, float]] = {}
        """By peer id: how many, and when the first of them were left."""

    def leave(self, peer: str, steps: int) -> None:
        """Count what a peer did not sign for in a session that ended."""
        now_s = self._now()
        self._since = {
            one: left for one, left in self._since.items() if now_s - left[1] < FORGOTTEN_S
        }
        before, since_s = self._since.get(peer, (0, now_s))
        self._since[peer] = before + steps, since_s

    def why_not(self, peer: str) -> str | None:
        """Return why nothing more is computed for a peer before it pays; None: it is."""
        steps, since_s = self._since.get(peer, (0, 0.0))
        left_s = since_s + FORGOTTEN_S - self._now()
        if steps < MOST_STEPS or left_s <= 0:
            return None
        return (
            f"{steps} steps of your sessions that ended are not signed for: "
            f"come again in {left_s / 3_600:.1f} h, or ask another node"
        )
