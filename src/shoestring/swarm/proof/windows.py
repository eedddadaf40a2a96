"""When all stages of a chain close a window: after the same steps, so that roots can be compared.

Each connection of llama-server closes one by itself after so many of its steps, which is the same
step at every stage, however far one is ahead. All together close one when llama-server begins a
step and the last window is old, and when it has said nothing for a while: what an answer cost is
signed for soon after its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from shoestring.swarm.proof.receipts import WINDOW_STEPS

if TYPE_CHECKING:
    from shoestring.swarm.audit.windows import Auditing
    from shoestring.swarm.proof.paying import Paying

OLD_S: Final = 5.0
QUIET_S: Final = 0.3
"""Without a word of llama-server's; between two tokens of a large model it may be longer."""


class Closing(Protocol):
    """A connection of llama-server's."""

    @property
    def steps(self) -> int:
        """That were told."""

    @property
    def is_between_steps(self) -> bool:
        """Nothing is owed, and nothing was set for the next one."""

    def close_window(self) -> None:
        """Close the window if it holds a step."""


class Windows:
    """Of all connections of one chain.

    Args:
        paying: what the client wants; None: no receipts.
        auditing: who has some of them run again; None: nobody.

    Attributes:
        every: so many steps make a window; None: there are none.
        paying: as given.
        auditing: as given.
    """

    def __init__(self, paying: Paying | None, auditing: Auditing | None = None) -> None:
        self.paying, self.auditing = paying, auditing
        self.every = None if paying is None else min(paying.asked.window_steps, WINDOW_STEPS) // 2
        self._all: set[Closing] = set()
        self._moved_s = self._closed_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def open(self, one: Closing) -> None:
        """Note a connection."""
        self._all.add(one)

    def close(self, one: Closing) -> None:
        """Forget it."""
        self._all.discard(one)
        if not self._all and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def move(self, now_s: float) -> None:
        """Note that llama-server is about to say something, at this time on the loop's clock."""
        if self.every is None:
            return
        if now_s - self._closed_s > OLD_S and self._is_aligned():
            self._close_all(now_s)
        self._moved_s = now_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._look)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        left_s = self._moved_s + QUIET_S - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._look)
        elif all(one.is_between_steps for one in self._all):
            self._close_all(loop.time())

    def _is_aligned(self) -> bool:
        steps = {one.steps for one in self._all if one.steps}
        return len(steps) == 1 and all(one.is_between_steps for one in self._all)

    def _close_all(self, now_s: float) -> None:
        self._closed_s = now_s
        for one in self._all:
            one.close_window()
