"""What a node holds, said under its signature: pages of a list of digests and sizes.

A page is ``{"node", "at_s", "after", "blobs": [[sha256, bytes], ...], "last"}`` in the form of
RFC 8785, signed for the purpose ``manifest``: whoever has it can show later what the node said.
Digests rise from page to page, so nobody can leave out one between two that it names, or name one
twice, without signing it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.link import LinkError
from shoestring.swarm.remote import ask
from shoestring.swarm.store import BLOB_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.store import Store

PURPOSE: Final = "manifest"
PAGE_BLOBS: Final = 512
"""Of 87 bytes at most each: 45 KB, of the 65,536 of a word."""
PAGES: Final = 256
"""Of one answer: twice as many blobs as a store keeps."""
PAGE_S: Final = 10.0
MOST_BYTES: Final = 1 << 53
FIELDS: Final = {"node", "at_s", "after", "blobs", "last"}


@dataclass(frozen=True)
class Page:
    """A part of what a node says that it holds.

    Attributes:
        at_s: when it said so, in seconds since 1970 on its clock.
        blobs: bytes of each content by its SHA-256 in hexadecimal, rising.
        is_last: there are no more.
    """

    at_s: int
    blobs: dict[str, int]
    is_last: bool


async def tell_manifest(
    link: Link, identity: Identity, store: Store, now: Callable[[], float] = time.time
) -> None:
    """Say page for page what is held, each when it is asked for; the node's side.

    Raises:
        LinkError: whoever asked has heard enough.
    """
    blobs = await asyncio.to_thread(store.blobs)
    after = ""
    while True:
        page, blobs = blobs[:PAGE_BLOBS], blobs[PAGE_BLOBS:]
        said = {
            "node": identity.id,
            "at_s": int(now()),
            "after": after,
            "blobs": listed({blob.sha256: blob.size for blob in page}),
            "last": not blobs,
        }
        signature = identity.sign(PURPOSE, _canonical(said))
        await link.say({"ok": True, "manifest": said, "signature": signature.hex()})
        if not blobs:
            return
        await link.hear(PAGE_S)
        after = page[-1].sha256


async def hear_manifest(identity: Identity, remote: Remote) -> dict[str, int]:
    """Return what a node says that it holds: bytes by SHA-256 in hexadecimal.

    Raises:
        LinkError: it cannot be reached, or says what is no manifest of its own.
        RefusedError: it has no store, or does not tell us.
    """
    link, word = await ask(identity, remote, {"do": "manifest"}, PAGE_S)
    held: dict[str, int] = {}
    after = ""
    try:
        for _ in range(PAGES):
            page = read_page(word, remote.address.id, after)
            held |= page.blobs
            if page.is_last:
                return held
            after = max(page.blobs)
            await link.say({"more": True})
            word = await link.hear(PAGE_S)
    finally:
        link.abort()
    raise _wrong(f"more than {PAGES} pages")


def read_page(word: Mapping[str, Any], node: str, after: str) -> Page:
    """Return what a word of a manifest says, once it is seen to be signed and to be one.

    Args:
        word: as it came.
        node: peer id of who should have signed it.
        after: the last digest of the page before, or nothing.

    Raises:
        LinkError: it is none.
    """
    said, signature = word.get("manifest"), word.get("signature")
    if not isinstance(said, dict) or said.keys() != FIELDS or not isinstance(signature, str):
        raise _wrong("fields")
    try:
        is_signed = is_signed_by(node, PURPOSE, _canonical(said), bytes.fromhex(signature))
    except ValueError as error:  # no hexadecimal; a number beyond those of RFC 8785
        raise _wrong("values") from error
    if not is_signed or said["node"] != node:
        raise _wrong("signature")
    at_s, last, blobs = said["at_s"], said["last"], said["blobs"]
    if said["after"] != after or type(at_s) is not int or type(last) is not bool:
        raise _wrong("order")
    return Page(at_s, _blobs(blobs, after, is_last=last), last)


def listed(blobs: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return contents as words name them: digests and sizes, rising."""
    return sorted(blobs.items())


def named_blobs(said: Any) -> dict[str, int] | None:
    """Return the contents that a word names as :func:`listed` does; None: it names none so."""
    try:
        return _blobs(said, "", is_last=False)
    except LinkError:
        return None


def _blobs(said: Any, after: str, *, is_last: bool) -> dict[str, int]:
    if not isinstance(said, list) or len(said) > PAGE_BLOBS or not (said or is_last):
        raise _wrong("length")
    found: dict[str, int] = {}
    for entry in said:
        match entry:
            case [str(name), int(size)] if BLOB_NAME.fullmatch(name) and 0 <= size < MOST_BYTES:
                if name <= after:
                    raise _wrong("order")
                found[name] = size
                after = name
            case _:
                raise _wrong("entries")
    return found


def _canonical(said: dict[str, Any]) -> bytes:
    import rfc8785

    return rfc8785.dumps(said)


def _wrong(what: str) -> LinkError:
    return LinkError("word", f"a node's manifest has wrong {what}: nothing of it is believed")
