"""The challenge over a link, at both ends, and the file of what was attested.

::

    challenger  {"do": "attest", "nonce": 64 hexadecimal digits}
    node        {"ok": true, "at_s": ..., "by_node": ...}
    challenger  {"by_challenger": ...}

Both keep it. The node's copy is what it shows for its reward. More than one of a challenger in a
slot counts for nothing, so none is made; and a full file forgets first what it has most of, so that
no challenger can crowd out the others.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.audit.uptime import (
    LINE_BYTES,
    NONCE_BYTES,
    SLOT_S,
    Attestation,
    answer,
    attest,
    read_lines,
)
from shoestring.swarm.private_files import changing, read_private, replace_private
from shoestring.swarm.remote import ASK_S, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.remote import Remote

UPTIME_FILE: Final = "uptime.jsonl"
MOST_LINES: Final = 8_192
"""Of two challengers, each once in ten minutes: 28 days."""


async def challenge(
    identity: Identity, remote: Remote, now: Callable[[], float] = time.time
) -> Attestation:
    """Ask a node whether it is there, and return what both sign.

    Raises:
        LinkError: it cannot be reached, or refuses.
        BadValueError: what it says is not signed by it, or of another time.
    """
    nonce = secrets.token_hex(NONCE_BYTES)
    link, told = await ask(identity, remote, {"do": "attest", "nonce": nonce}, ASK_S)
    try:
        found = attest(identity, remote.address.id, nonce, told, now())
        await link.say({"by_challenger": found.by_challenger})
    finally:
        link.close()  # it has yet to read that
    return found


async def answer_challenge(
    link: Link,
    identity: Identity,
    word: dict[str, Any],
    now: Callable[[], float] = time.time,
) -> Attestation | None:
    """Answer a challenge; return what both have signed, None: the challenger did not.

    Raises:
        LinkError: it has gone.
    """
    now_s = now()
    try:
        own = answer(identity, link.peer_id, word.get("nonce"), now_s)
    except BadValueError as error:
        await link.refuse("nonce", str(error))
        return None
    await link.say({"ok": True, "at_s": own.at_s, "by_node": own.by_node})
    told = await link.hear(ASK_S)
    signature: Any = told.get("by_challenger")
    try:
        found = replace(own, by_challenger=signature)
    except BadValueError:
        return None
    return found if found.fault(now_s, {link.peer_id}) is None else None


class Attestations:
    """The file of what was attested, of us and by us; the newest are kept.

    Args:
        path: the file; it may come later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, attestation: Attestation) -> None:
        """Keep one more, if there is none of both in its slot.

        Raises:
            BadValueError: the file cannot be used.
        """
        with changing(self._path):
            kept = list(self.all())
            if _slot_of(attestation) in map(_slot_of, kept):
                return
            kept = [*_without_most(kept, MOST_LINES - 1), attestation]
            replace_private(self._path, b"".join(one.line + b"\n" for one in kept))

    def all(self) -> Sequence[Attestation]:
        """Return what is kept, the oldest first.

        Raises:
            BadValueError: the file cannot be used.
        """
        content = read_private(self._path) or b""
        if len(content) > MOST_LINES * (LINE_BYTES + 1):
            raise BadValueError(f"{self._path} is too long: move it away")
        try:
            return read_lines(content)
        except BadValueError as error:
            raise BadValueError(f"{self._path}: {error}: take the line out") from error


class Attestor:
    """A node's end: answers challenges, and keeps what both have signed.

    Args:
        identity: the node's.
        kept: where.
        now: seconds since 1970.
    """

    def __init__(
        self, identity: Identity, kept: Attestations, now: Callable[[], float] = time.time
    ) -> None:
        self._identity, self._kept, self._now = identity, kept, now
        self._slots: dict[str, int] = {}
        """In which each challenger was answered last, by its peer id."""

    async def answer(self, link: Link, word: dict[str, Any]) -> None:
        """Answer one; a second of a challenger in one slot is refused before anything is done.

        Raises:
            LinkError: who asked has gone.
            BadValueError: what both signed cannot be kept.
        """
        slot = int(self._now()) // SLOT_S
        if self._slots.get(link.peer_id) == slot:
            await link.refuse("slot", f"you were answered already: ask once in {SLOT_S} s")
            return
        found = await answer_challenge(link, self._identity, word, self._now)
        if found is not None:
            self._slots = {peer: one for peer, one in self._slots.items() if one == slot}
            self._slots[link.peer_id] = slot
            await asyncio.to_thread(self._kept.add, found)


def _slot_of(attestation: Attestation) -> tuple[str, str, int]:
    return attestation.node, attestation.challenger, attestation.slot


def _without_most(kept: Sequence[Attestation], most: int) -> Sequence[Attestation]:
    """Return so many at most, the oldest of whoever challenged most often left out."""
    counts = Counter(one.challenger for one in kept)
    spare: Counter[str] = Counter()
    for _ in range(len(kept) - most):
        challenger, _count = counts.most_common(1)[0]
        counts[challenger] -= 1
        spare[challenger] += 1
    found = []
    for one in kept:
        if spare[one.challenger]:
            spare[one.challenger] -= 1
        else:
            found.append(one)
    return found
