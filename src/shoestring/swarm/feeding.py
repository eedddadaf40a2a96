"""Weights from one node's store into another's, instead of over the link of who has the file.

After ``{"do": "fetch", "blobs": [[sha256, bytes], ...]}`` and its answer comes for each of them in
this order one byte, 1 and the content, or 0; whoever asked ends the link. Both sides hash
meanwhile: whoever gives removes what is damaged and ends the link, whoever gets keeps nothing that
is not what it asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from shoestring.swarm.link import LinkError
from shoestring.swarm.manifest import listed, named_blobs
from shoestring.swarm.remote import ask
from shoestring.swarm.store_contents import PART_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.store import Store
    from shoestring.swarm.store_contents import Reading

FEED_S: Final = 10.0
"""In which a part must have moved (100 KB a second), or the link is given up."""
FEEDS: Final = 2
"""Nodes that fetch weights at a time: the rest of link and disk is the sessions'."""
HERE: Final = b"\1"
ABSENT: Final = b"\0"


async def give_blobs(
    link: Link, store: Store, word: Mapping[str, Any], may_go_on: Callable[[], bool]
) -> None:
    """Send what a word asks for, and end the link; the node's side.

    Args:
        link: on which it was asked.
        store: the node's.
        word: as it came.
        may_go_on: asked before each part.

    Raises:
        LinkError: whoever asked has gone.
    """
    blobs = named_blobs(word.get("blobs"))
    if blobs is None:
        await link.refuse("word", "fetch which weights? give blobs, with rising digests")
        return
    await link.say({"ok": True})
    reader, writer = _streams(link)
    try:
        for name, size in blobs.items():
            reading = await asyncio.to_thread(store.read, bytes.fromhex(name), size)
            if not await _give(writer, reading, may_go_on):
                return
        async with asyncio.timeout(FEED_S):
            await reader.read(1)  # it has all: an end of ours could overtake what we sent
    except (TimeoutError, ConnectionError):  # it does not read, or has gone
        return
    finally:
        link.abort()


async def fetch_blobs(
    identity: Identity, remote: Remote, blobs: Mapping[str, int], store: Store
) -> AsyncGenerator[int]:
    """Have weights in our store that lie in another node's; those that are here are not asked for.

    Args:
        identity: ours.
        remote: the node.
        blobs: bytes of each by its SHA-256 in hexadecimal, as many as a word holds.
        store: ours.

    Yields:
        How many bytes came, each time that some did.

    Raises:
        LinkError: the node cannot be reached, is too slow, or sent something else, or not all.
        RefusedError: it does not give us these.
    """
    missing = await asyncio.to_thread(_missing, store, blobs)
    if not missing:
        return
    word = {"do": "fetch", "blobs": listed(missing)}
    link, _ = await ask(identity, remote, word, FEED_S)
    reader, _ = _streams(link)
    try:
        for name, size in sorted(missing.items()):
            if await _part(reader, len(HERE), remote) == HERE:
                async with aclosing(_get(reader, remote, name, size, store)) as counts:
                    async for count in counts:
                        yield count
    finally:
        link.abort()


async def _give(
    writer: asyncio.StreamWriter, reading: Reading | None, may_go_on: Callable[[], bool]
) -> bool:
    """Send a content, or that there is none; return whether the next one may follow."""
    writer.write(ABSENT if reading is None else HERE)
    while reading is not None and (part := await asyncio.to_thread(reading.part)):
        if not may_go_on():
            return False
        writer.write(part)
        async with asyncio.timeout(FEED_S):
            await writer.drain()
    return may_go_on() and (reading is None or reading.is_good)


async def _get(
    reader: asyncio.StreamReader, remote: Remote, name: str, size: int, store: Store
) -> AsyncGenerator[int]:
    writing = await asyncio.to_thread(store.write, bytes.fromhex(name), size)
    left = size
    try:
        while left:
            part = await _part(reader, min(left, PART_BYTES), remote)
            left -= len(part)
            if writing is not None:  # else a session has kept it meanwhile
                await asyncio.to_thread(writing.add, part)
            yield len(part)
    finally:
        if writing is not None:
            await asyncio.to_thread(writing.close)
    if writing is not None and not writing.is_kept:
        raise LinkError("word", f"{remote.name} did not send weight {name[:16]}")


async def _part(reader: asyncio.StreamReader, size: int, remote: Remote) -> bytes:
    try:
        async with asyncio.timeout(FEED_S):
            return await reader.readexactly(size)
    except TimeoutError as error:
        raise LinkError("timeout", f"{remote.name} sends too little in {FEED_S:g} s") from error
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise LinkError("closed", f"{remote.name} ended the link in a weight") from error


def _missing(store: Store, blobs: Mapping[str, int]) -> dict[str, int]:
    return {
        name: size
        for name, size in blobs.items()
        if store.read(bytes.fromhex(name), size) is None and store.may_keep(size)
    }


def _streams(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a link's bytes to come as streams."""
    reader = asyncio.StreamReader(limit=PART_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = link.hand_over(protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
