"""Which windows are run again, and how long a cheat may stay unseen.

Each window is drawn by itself, from the system's source of randomness, after the client's choice
of a share ``p``. A node that is wrong in a share ``q`` of its windows is audited on a wrong one
with probability ``p q`` a window, whatever it does, for it does not know which are drawn. So

    P(unseen after n windows) = (1 - p q)^n

Two compared by tolerance find a wrong window with probability ``d`` alone; then ``p q d``.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM: Final = random.SystemRandom()
SHARE: Final = 0.05
"""Of windows, unless another is given: one token in twenty is computed twice."""


class Chance:
    """Draws windows.

    Args:
        share: of windows, 0 to 1.
        draw: returns a number from 0 to below 1; nobody else may foresee it.

    Attributes:
        share: as given.
        windows: that were there to be drawn.
        drawn: of these.

    Raises:
        BadValueError: the share is none.
    """

    def __init__(self, share: float = SHARE, draw: Callable[[], float] = SYSTEM.random) -> None:
        _check_share("the share of windows that are audited", share)
        self.share = share
        self.windows = self.drawn = 0
        self._draw = draw

    def take(self) -> bool:
        """Tell whether the next window is drawn."""
        self.windows += 1
        is_drawn = self._draw() < self.share
        self.drawn += is_drawn
        return is_drawn


def unseen(windows: int, share: float, wrong: float, seen: float = 1.0) -> float:
    """Return the probability that a cheat is unseen after so many windows.

    Args:
        windows: of the cheat's.
        share: of windows that are audited.
        wrong: share of its windows that are wrong.
        seen: share of audits of wrong windows that find them so.

    Raises:
        BadValueError: a share is none, or windows are less than none.
    """
    for what, value in (("audited", share), ("wrong", wrong), ("seen", seen)):
        _check_share(what, value)
    if windows < 0:
        raise BadValueError(f"windows {windows}: give 0 or more")
    return float((1.0 - share * wrong * seen) ** windows)


def windows_until(found: float, share: float, wrong: float, seen: float = 1.0) -> int | None:
    """Return after how many windows a cheat is found with this probability; None: never.

    Args:
        found: probability, 0 to below 1.
        share: as of :func:`unseen`.
        wrong: likewise.
        seen: likewise.

    Raises:
        BadValueError: a share is none, or certainty is asked for.
    """
    if not 0 <= found < 1:
        raise BadValueError(f"found with probability {found}: give 0 to below 1")
    left = unseen(1, share, wrong, seen)
    if left == 0:
        return min(1, math.ceil(found))
    if left == 1:
        return 0 if found == 0 else None
    guess = math.ceil(math.log1p(-found) / math.log(left))
    # Logarithms are rounded: the least number is one that is enough where one less is not.
    while guess and 1 - left ** (guess - 1) >= found:
        guess -= 1
    while 1 - left**guess < found:
        guess += 1
    return guess


def _check_share(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise BadValueError(f"{what}: {value} is no share: give 0 to 1")
