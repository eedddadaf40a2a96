"""Whether a session's node still works: said on a link of its own, ten times a second.

TCP tells nothing of a machine that was frozen or whose cable is out. And a worker that computes
for long says nothing either: only who is at its side can tell it from one that was stopped.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from shoestring.swarm.link import LinkError
from shoestring.swarm.remote import RefusedError, open_watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shoestring.swarm.crossing import Sitting
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.remote import Seat

BEAT_S: Final = 0.1
SILENT_S: Final = 1.0
"""Ten beats that did not come: on a busy machine, or over a radio, some are late."""
LATE_S: Final = 0.2
"""So late on our own side, and it may have been us who did not listen."""
AGAIN_S: Final = 1.0


async def report(link: Link, sitting: Sitting) -> None:
    """Say how a session's worker is, and for which ticket it waits, until it has ended.

    The node's side.

    Raises:
        LinkError: whoever listened has gone.
    """
    worker = sitting.worker
    ending = asyncio.create_task(worker.ended())
    try:
        while not ending.done():
            state = "stopped" if worker.stands_still() else "runs"
            await link.say({"worker": state, "wants": sitting.session.inbox.wanted})
            await asyncio.wait({ending}, timeout=BEAT_S)
        await link.say({"worker": "ended"})
    finally:
        ending.cancel()


async def watch(identity: Identity, seat: Seat, wants: Callable[[int], None]) -> AsyncIterator[str]:
    """Yield a few words each time that a session's node seems not to work, until the session ends.

    ``wants`` is called with the ticket for which the session waits, each time that it says so.
    A node that says it knows no such session has ended it, which its own link tells.
    """
    while True:
        try:
            link = await open_watch(identity, seat)
        except RefusedError:
            return
        except LinkError as error:
            yield str(error)
        else:
            async for why in _hear(link, wants):
                yield why
        await asyncio.sleep(AGAIN_S)


async def _hear(link: Link, wants: Callable[[int], None]) -> AsyncIterator[str]:
    now_s = asyncio.get_running_loop().time
    begun_s = now_s()
    try:
        while True:
            begun_s = now_s()
            word = await link.hear(SILENT_S)
            if word.get("worker") == "ended":
                return
            if word.get("worker") != "runs":
                yield "its worker was stopped"
            elif type(ticket := word.get("wants")) is int:
                wants(ticket)
    except LinkError as error:
        if error.reason != "timeout":
            yield str(error)
        elif now_s() - begun_s < SILENT_S + LATE_S:
            yield f"it said nothing for {SILENT_S:g} s"
    finally:
        link.abort()
