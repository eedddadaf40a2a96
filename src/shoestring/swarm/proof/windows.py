"""When all stages of a chain close a window: after the same steps, so that roots can be compared.

Each connection of llama-server closes one by itself after so many of its steps, which is the same
step at every stage, however far one is ahead. All together close one when llama-server begins a
step and the last window is old, and when it has said nothing for a while: what an answer cost is
signed for soon after its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from shoestring.swarm.journal import Entry
from shoestring.swarm.proof.steps import SETS, Steps
from shoestring.swarm.proof.terms import WINDOW_STEPS
from shoestring.swarm.wire import COMPUTES, U64, Command, Frame

if TYPE_CHECKING:
    from shoestring.swarm.audit.recorder import Auditing
    from shoestring.swarm.proof.paying import Paying

OLD_S: Final = 5.0
QUIET_S: Final = 0.3
"""Without a word of llama-server's; between two tokens of a large model it may be longer."""


class Closing(Protocol):
    """A connection of llama-server's to a stage."""

    @property
    def number(self) -> int:
        """Of the stage."""

    @property
    def steps(self) -> int:
        """That were told."""

    @property
    def is_between_steps(self) -> bool:
        """Nothing is owed, and nothing was set for the next one."""

    def close_window(self, *, is_whole: bool) -> None:
        """Close the window if it holds a step.

        Args:
            is_whole: all that the last step gives the next stage was asked for.
        """


class Counting:
    """Counts the steps of one connection, and says where its windows end.

    Args:
        every: so many steps make a window; None: there are none, and nothing is counted.
    """

    def __init__(self, every: int | None) -> None:
        self._every = every
        self._steps = Steps()
        self._closed_step = 0
        """The last one of the window before."""

    @property
    def steps(self) -> int:
        """That were told."""
        return self._steps.count

    @property
    def holds_step(self) -> bool:
        """Whether one was told since the last window ended."""
        return self._steps.count > self._closed_step

    def begins_step(self, frame: Frame, *, in_step: bool) -> bool:
        """Return whether a frame is the first of a step.

        Args:
            frame: the next one.
            in_step: something was set for the next step.
        """
        return not in_step and frame.command in SETS and self._steps.kind(frame.head).is_copy

    def ends_before(self, frame: Frame, *, in_step: bool) -> bool:
        """Count a frame; return whether a window ends before it.

        Args:
            frame: the next one.
            in_step: something was set for the next step.
        """
        if self._every is None:
            return False
        if frame.command in COMPUTES:
            self._steps.compute(frame)
        elif frame.command in SETS and (kind := self._steps.kind(frame.head)).is_copy:
            self._steps.set(kind, frame.head)
            return not in_step and self._steps.count >= self._closed_step + self._every
        return False

    def end(self, *, is_whole: bool = True) -> Entry:
        """Return what ends a window here, for the journal.

        Args:
            is_whole: it ends with a step; else none is said, and its roots are compared with none.
        """
        self._closed_step = self._steps.count
        head = bytearray(U64.pack(self._closed_step if is_whole else 0))
        return Entry(Frame(int(Command.SETTLE), len(head), head))


class Windows:
    """Of all connections of one chain.

    Args:
        paying: what the client wants; None: no receipts.
        auditing: who has some of them run again; None: nobody. Without receipts there is none:
            nothing would end a window, nor show whose answers it holds.

    Attributes:
        every: so many steps make a window; None: there are none.
        paying: as given.
        auditing: as given, or None.
    """

    def __init__(self, paying: Paying | None, auditing: Auditing | None = None) -> None:
        self.paying, self.auditing = paying, None if paying is None else auditing
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

    def move(self, now_s: float, *, begins_step: bool) -> None:
        """Note that llama-server is about to say something.

        Args:
            now_s: on the loop's clock.
            begins_step: with it a step begins. Elsewhere no window is closed, however old: what a
                graph gave is read after it, and is of the same step.
        """
        if self.every is None:
            return
        is_old = now_s - self._closed_s > OLD_S
        if begins_step and is_old and self._is_idle() and self._is_aligned():
            self._close_all(now_s, is_whole=True)
        self._moved_s = now_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._look)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        left_s = self._moved_s + QUIET_S - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._look)
        elif self._is_idle():
            self._close_all(loop.time(), is_whole=self._is_aligned())
        else:  # an answer takes longer than that; what it cost is signed for after it
            self._timer = loop.call_later(QUIET_S, self._look)

    def _is_idle(self) -> bool:
        return all(one.is_between_steps for one in self._all)

    def _is_aligned(self) -> bool:
        """Whether all stages were told as many steps; each has then what the one before gave.

        A graph was told, and llama-server may not yet have asked for what it gives: where it is
        held up in between, the next stage is a step behind, or has none. Stages that count their
        steps otherwise are never aligned.
        """
        steps: dict[int, int] = {}
        for one in self._all:  # of one stage there may be some that only ask for its memory
            steps[one.number] = max(steps.get(one.number, 0), one.steps)
        return len(set(steps.values())) == 1 and all(steps.values())

    def _close_all(self, now_s: float, *, is_whole: bool) -> None:
        self._closed_s = now_s
        for one in self._all:
            one.close_window(is_whole=is_whole)
