"""Weights that another node has need not be sent by the client: nodes borrow them from each other.

Before a node is told a stage it is asked what it keeps, and the others what they keep; who has
what it lacks is told to lend it, and it to borrow. Where one fails or is slower than sending, the
next is asked: TAKE finds what came, and the client sends the rest.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shoestring.errors import ShoestringError
from shoestring.models.header import read_header
from shoestring.report.units import size
from shoestring.swarm.feeding import FEEDS
from shoestring.swarm.link import LinkError
from shoestring.swarm.manifest import PAGE_BLOBS, hear_manifest, listed
from shoestring.swarm.remote import ASK_S, RefusedError, ask
from shoestring.swarm.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.weights import Weight, Weights

MANIFESTS_S: Final = 2.0
"""In which nodes must have said what they keep: somebody waits for weights."""
LEAST_BYTES: Final = 1 << 20
"""That a node must lack: less is sooner sent."""
SURE_BYTES: Final = 64 << 20
"""Sent, from which it can be told how fast we send: less may lie in buffers."""
LEAST_BYTES_PER_S: Final = float(1 << 20)
"""Between nodes, where it is not known how fast we send: as a line of 8 Mbit/s does."""
PATIENCE_S: Final = 5.0
"""In which a loan must move what we would send meanwhile; between two words about it, at most."""
UNKNOWN_S: Final = 120.0
"""That loans to a node may take while it is not known how fast we send ourselves."""
BUSY: Final = "busy"
"""Why a node refuses that may agree later."""


def weights_of_part(model: Path, weights: Weights, layers: tuple[int, int]) -> list[Weight]:
    """Return the weights of a part of a model, as llama.cpp lays it out.

    Args:
        model: its GGUF file.
        weights: of it.
        layers: the first, and the one after the last.

    Raises:
        BadModelError: the file is none.
    """
    tensors = read_header(model).tensors
    its = tuple(f"blk.{number}." for number in range(*layers))
    found = (weights.find(one.name, one.data_bytes) for one in tensors if one.name.startswith(its))
    return [weight for weight in found if weight is not None]


class _Kept(NamedTuple):
    """What a node says that it keeps.

    Attributes:
        blobs: bytes of each by its SHA-256 in hexadecimal; None: it does not say.
        is_late: it may say so later: it was busy, or did not answer in time.
    """

    blobs: dict[str, int] | None
    is_late: bool = False


class Lenders:
    """The nodes of one chain, as far as they may lend each other weights.

    Args:
        identity: ours.
        nodes: returns those that may keep some.

    Attributes:
        least_bytes_per_s: below which a loan is given up: we send as fast.
    """

    def __init__(self, identity: Identity, nodes: Callable[[], Iterable[Remote]]) -> None:
        self.least_bytes_per_s = LEAST_BYTES_PER_S
        self._identity = identity
        self._nodes = nodes
        self._has_sent = False
        """It is known how fast we send."""
        self._alone: defaultdict[Remote, asyncio.Lock] = defaultdict(asyncio.Lock)
        """In which a node is seen to."""
        self._asked: defaultdict[Remote, asyncio.Lock] = defaultdict(asyncio.Lock)
        """In which a node says what it keeps: to one of us at a time."""
        self._turns: defaultdict[Remote, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(FEEDS)
        )
        """Of takers, at a node that lends: more it would refuse."""
        self._done: defaultdict[Remote, set[Weight]] = defaultdict(set)
        """What a node has borrowed, or has, or cannot borrow: that is tried once."""

    async def fill(
        self, taker: Remote, weights: Iterable[Weight], tell: Callable[[str, str, str], None]
    ) -> None:
        """Have a node borrow what it lacks of these weights; what fails is told, and no error.

        Args:
            taker: the node.
            weights: that it will be told.
            tell: given what happened, who it happened to, and why.
        """
        async with self._alone[taker]:
            lacking = set(weights) - self._done[taker]
            if sum(len(weight.data) for weight in lacking) >= LEAST_BYTES:
                self._done[taker] |= lacking - await self._fill(taker, lacking, tell)

    def sent(self, count: int, took_s: float) -> None:
        """Note that we sent so many bytes of weights in a time: a loan must not be slower.

        Args:
            count: bytes.
            took_s: from the first of them to the last.
        """
        if count >= SURE_BYTES and took_s > 0:
            self._has_sent = True
            self.least_bytes_per_s = max(self.least_bytes_per_s, count / took_s)

    async def _fill(
        self, taker: Remote, lacking: set[Weight], tell: Callable[[str, str, str], None]
    ) -> set[Weight]:
        """Return those that it may still borrow another time."""
        others = [one for one in dict.fromkeys(self._nodes()) if one.address.id != taker.address.id]
        if not others:
            return lacking
        here, *there = await asyncio.gather(*(self._kept(one, tell) for one in (taker, *others)))
        if here.blobs is None:
            return lacking if here.is_late else set()
        # A digest takes as long as its weight is large: only what somebody may have has one made.
        sizes = {count for kept in there for count in (kept.blobs or {}).values()}
        by_name = await asyncio.to_thread(
            _named, [weight for weight in lacking if len(weight.data) in sizes]
        )
        wanted = {
            name: len(weight.data)
            for name, weight in by_name.items()
            if here.blobs.get(name) != len(weight.data)
        }
        lenders = [(one, kept.blobs or {}) for one, kept in zip(others, there, strict=True)]
        later = await self._borrow(taker, lenders, wanted, tell)
        if any(kept.is_late for kept in there):
            return lacking - {weight for name, weight in by_name.items() if name not in wanted}
        return {by_name[name] for name in later}

    async def _borrow(
        self,
        taker: Remote,
        lenders: Iterable[tuple[Remote, dict[str, int]]],
        wanted: dict[str, int],
        tell: Callable[[str, str, str], None],
    ) -> set[str]:
        """Have a node borrow from one after another; return what it may borrow another time.

        Args:
            taker: the node.
            lenders: and what each keeps.
            wanted: taken out of it is what came.
            tell: as of :meth:`fill`.
        """
        later: set[str] = set()
        limit_s = self._limit_s(sum(wanted.values()))
        lender = taker
        try:
            async with asyncio.timeout(limit_s):
                for lender, kept in lenders:
                    loan = {
                        name: count for name, count in wanted.items() if kept.get(name) == count
                    }
                    if sum(loan.values()) < LEAST_BYTES:
                        continue
                    try:
                        async with self._turns[lender]:
                            got = await self._lend(lender, taker, loan)
                    except ShoestringError as error:
                        tell("not lent", taker.name, f"by {lender.name}: {error}")
                        if isinstance(error, RefusedError) and error.word == BUSY:
                            later |= loan.keys()
                        continue
                    tell("borrowed", taker.name, f"{size(got)} of weights from {lender.name}")
                    for name in loan:
                        del wanted[name]
        except TimeoutError:
            why = f"by {lender.name}: not done in {limit_s:.0f} s, the rest is sent"
            tell("not lent", taker.name, why)
            later |= wanted.keys()
        return later & wanted.keys()

    def _limit_s(self, count: int) -> float:
        """Return how long loans of so many bytes may take: not much longer than to send them."""
        limit_s = 2 * PATIENCE_S + count / self.least_bytes_per_s
        return limit_s if self._has_sent else min(limit_s, UNKNOWN_S)

    async def _kept(self, node: Remote, tell: Callable[[str, str, str], None]) -> _Kept:
        """Return what a node keeps, as far as it says so in time."""
        try:
            async with asyncio.timeout(MANIFESTS_S), self._asked[node]:
                return _Kept(await hear_manifest(self._identity, node))
        except TimeoutError:
            why = f"it did not say within {MANIFESTS_S:g} s what it keeps"
        except ShoestringError as error:
            if not isinstance(error, RefusedError) or error.word != BUSY:
                return _Kept(None)
            why = str(error)
        tell("not lent", node.name, why)
        return _Kept(None, is_late=True)

    async def _lend(self, lender: Remote, taker: Remote, blobs: Mapping[str, int]) -> int:
        """Have the one fetch from the other, as many at a time as a word holds; return bytes."""
        named = listed(blobs)
        got = 0
        for begin in range(0, len(named), PAGE_BLOBS):
            got += await self._lend_some(lender, taker, named[begin : begin + PAGE_BLOBS])
        return got

    async def _lend_some(self, lender: Remote, taker: Remote, named: list[tuple[str, int]]) -> int:
        lend = {"do": "lend", "certificate": _shown(taker), "blobs": named}
        borrow = {"do": "borrow", "certificate": _shown(lender), "blobs": named}
        lent, _ = await ask(self._identity, lender, lend, ASK_S)
        try:
            link, _ = await ask(
                self._identity, taker, {**borrow, "from": str(lender.address)}, ASK_S
            )
            try:
                return await self._follow(link, taker, sum(count for _, count in named))
            finally:
                link.abort()
        finally:
            lent.abort()

    async def _follow(self, link: Link, taker: Remote, most_bytes: int) -> int:
        """Hear how far a loan is until it is over; return bytes.

        Raises:
            LinkError: it goes too slowly at any time, or the node says what cannot be.
            RefusedError: the node did not get all.
        """
        now_s = asyncio.get_running_loop().time
        since_s, before = now_s(), 0
        while True:
            word = await link.hear(PATIENCE_S)
            if word.get("ok") is not True:
                raise RefusedError(printable(word.get("reason")), printable(word.get("message")))
            got, took_s = _bytes(word, most_bytes, taker), now_s() - since_s
            if word.get("over") is True:
                return got
            if took_s > PATIENCE_S:
                moved = got - before
                if moved < self.least_bytes_per_s * took_s:
                    why = f"{size(max(moved, 0))} in {took_s:.0f} s, which we send sooner"
                    raise LinkError("timeout", why)
                since_s, before = now_s(), got


def _bytes(word: Mapping[str, Any], most_bytes: int, taker: Remote) -> int:
    got = word.get("bytes")
    if type(got) is not int or not 0 <= got <= most_bytes:
        raise LinkError("word", f"{taker.name} says that it got what it was not to get")
    return got


def _shown(node: Remote) -> str:
    return base64.b64encode(node.certificate).decode()


def _named(weights: list[Weight]) -> dict[str, Weight]:
    return {weight.sha256.hex(): weight for weight in weights}
