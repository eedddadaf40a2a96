"""The session that a platform lends us: until when it may be used, and what is kept for the next.

A session that is cut by its platform loses what was in flight, the engine's end and the manifest.
So a run stops sending early enough to end by itself::

    end of the lease = session start + limit - margin
    last send       <= end of the lease - longest request of the suite (its request_s)

What the run has by then goes as a bundle (``measure.bundles``) into the folder that outlives the
session, and the next session goes on with it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.hardware.platforms import detect_platform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.hardware.platforms import Platform
    from shoestring.measure.suite import Suite

MARGIN_S = 600.0
EVERY_S = 300.0
FOLDER = "shoestring-bundles"
REASON = "session limit"
"""Of the manifest and of the session that ended so."""


@dataclass(frozen=True)
class Lease:
    """Until when this session may be used, and where its runs are kept.

    Attributes:
        ends_s: when a run must be over, by ``clock``; None: it may take as long as it
            likes.
        bundles: the folder that gets the bundles; None: none are made.
        inputs: more folders below which bundles of earlier sessions may lie.
        every_s: a bundle that is so old is made anew while the run goes on.
        clock: seconds that only grow.
        unkept: why no bundle of a session that has an end is kept; None where one is, and where
            nothing ends.
    """

    ends_s: float | None = None
    bundles: Path | None = None
    inputs: tuple[Path, ...] = ()
    every_s: float = EVERY_S
    clock: Callable[[], float] = time.monotonic
    unkept: str | None = None

    def sending_left_s(self, suite: Suite) -> float | None:
        """Return how long requests may still be sent; None without an end, negative behind it."""
        if self.ends_s is None:
            return None
        return self.ends_s - suite.deadlines.request_s - self.clock()

    def check(self, suite: Suite) -> None:
        """Refuse a session in which not one request can be sent.

        Raises:
            BadValueError: with what is left and what a request may take.
        """
        left_s = self.sending_left_s(suite)
        if left_s is None or left_s > 0:
            return
        request_s = suite.deadlines.request_s
        raise BadValueError(
            f"no time is left in this session: {max(left_s + request_s, 0):.0f} s up to its limit "
            f"less the margin, and a request of suite {suite.name} may take {request_s:g} s: go on "
            "in a new session with --resume, or give another --session-limit or --session-margin"
        )

    @property
    def sources(self) -> tuple[Path, ...]:
        """The folders in which bundles of earlier sessions are looked for."""
        return (*(() if self.bundles is None else (self.bundles,)), *self.inputs)


def take_lease(
    platform: Platform | None = None,
    *,
    limit_s: float | None = None,
    margin_s: float = MARGIN_S,
    bundles: Path | None = None,
    every_s: float = EVERY_S,
) -> Lease:
    """Return what this session allows; without wishes, what its platform says.

    Args:
        platform: where the session runs; found out where it is not given.
        limit_s: of the session, counted from its start; where the platform does not tell the
            start, from now.
        margin_s: how long before the limit a run must be over.
        bundles: folder for bundles instead of the platform's.
        every_s: how old a bundle may become while a run goes on.
    """
    platform = platform or detect_platform()
    if bundles is None and platform.persistent is not None:
        bundles = platform.persistent / FOLDER
    ends = platform.session_limit_s is not None
    unkept = platform.persistent_missing if ends and bundles is None else None
    if limit_s is None:
        limit_s = platform.session_limit_s
    ends_s = None
    if limit_s is not None:
        began_s = platform.session_began_s
        ends_s = (time.monotonic() if began_s is None else began_s) + limit_s - margin_s
        ends_s = min(ends_s, time.monotonic() + threading.TIMEOUT_MAX)
    return Lease(ends_s, bundles, platform.inputs, every_s, unkept=unkept)
