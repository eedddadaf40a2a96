"""A weight from another node's store, instead of over the link of who has the model's file.

After ``{"do": "fetch", "sha256": ..., "bytes": ...}`` and its answer come so many bytes and the
link's end. Both hash them meanwhile: whoever gives removes what is damaged, whoever gets keeps
nothing that is not what it asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from shoestring.swarm.link import LinkError
from shoestring.swarm.remote import ask
from shoestring.swarm.store import BLOB_NAME
from shoestring.swarm.store_contents import PART_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.store import Store

FEED_S: Final = 10.0
"""In which nothing moves, after which a link is given up."""
ABSENT: Final = {"ok": False, "reason": "absent", "message": "this node has no such weight"}


async def give_blob(link: Link, store: Store, word: Mapping[str, Any]) -> None:
    """Send what a word asks for, and end the link; the node's side.

    Raises:
        LinkError: whoever asked has gone.
    """
    match word:
        case {"sha256": str(name), "bytes": int(size)} if BLOB_NAME.fullmatch(name):
            reading = await asyncio.to_thread(store.read, bytes.fromhex(name), size)
        case _:
            reading = None
    if reading is None:
        await link.say(ABSENT)
        return
    await link.say({"ok": True})
    _, writer = _streams(link)
    with suppress(TimeoutError, ConnectionError):  # it does not read, or has gone
        while part := await asyncio.to_thread(reading.part):
            writer.write(part)
            async with asyncio.timeout(FEED_S):
                await writer.drain()
        writer.close()
        async with asyncio.timeout(FEED_S):
            await writer.wait_closed()
    link.abort()


async def fetch_blob(
    identity: Identity, remote: Remote, sha256: bytes, size: int, store: Store
) -> None:
    """Have a weight in our store that lies in another node's.

    Raises:
        LinkError: the node cannot be reached, or sent something else, or not all.
        RefusedError: it has none such, or does not give it to us.
    """
    writing = await asyncio.to_thread(store.write, sha256, size)
    if writing is None:
        return  # it is here, or would not be kept
    word = {"do": "fetch", "sha256": sha256.hex(), "bytes": size}
    link, _ = await ask(identity, remote, word, FEED_S)
    reader, _ = _streams(link)
    left = size
    try:
        while left:
            async with asyncio.timeout(FEED_S):
                part = await reader.read(min(left, PART_BYTES))
            if not part:
                break
            left -= len(part)
            await asyncio.to_thread(writing.add, part)
    except TimeoutError as error:
        raise LinkError("timeout", f"{remote.name} sent nothing for {FEED_S:g} s") from error
    except ConnectionError as error:
        raise LinkError("closed", f"{remote.name} ended the link in a weight") from error
    finally:
        link.abort()
        await asyncio.to_thread(writing.close)
    if left or not writing.is_kept:
        raise LinkError("word", f"{remote.name} did not send weight {sha256.hex()[:16]}")


def _streams(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a link's bytes to come as streams."""
    reader = asyncio.StreamReader(limit=PART_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = link.hand_over(protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
