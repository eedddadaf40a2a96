"""Weights that another node has need not be sent by the client: nodes borrow them from each other.

Before a node is told a stage it is asked what it keeps, and the others what they keep; who has
most of what it lacks is told to lend it, and it to borrow. That is left at the first failure, and
where it is slower than sending: TAKE finds what came, and the client sends the rest.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import ShoestringError
from shoestring.models.header import read_header
from shoestring.report.units import size
from shoestring.swarm.link import LinkError
from shoestring.swarm.manifest import PAGE_BLOBS, hear_manifest, listed
from shoestring.swarm.remote import ASK_S, RefusedError, ask, printable

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
LEAST_BYTES_PER_S: Final = float(1 << 20)
"""Between nodes, where it is not known how fast we send: as a line of 8 Mbit/s does."""
OUTPUT: Final = "output.weight"
EMBEDDINGS: Final = "token_embd.weight"
PATIENCE_S: Final = 5.0
"""Before the rate counts, and from one word about it to the next."""


def weights_of_part(
    model: Path, weights: Weights, layers: tuple[int, int], *, has_output: bool
) -> list[Weight]:
    """Return the weights of a part of a model, as llama.cpp lays it out.

    Args:
        model: its GGUF file.
        weights: of it.
        layers: the first, and the one after the last.
        has_output: the output lies there too; without a tensor of its own it is the embeddings'.

    Raises:
        BadModelError: the file is none.
    """
    tensors = read_header(model).tensors
    its = tuple(f"blk.{number}." for number in range(*layers))
    if has_output:
        is_tied = all(tensor.name != OUTPUT for tensor in tensors)
        its += (EMBEDDINGS,) if is_tied else (OUTPUT,)
    found = (weights.find(one.name, one.data_bytes) for one in tensors if one.name.startswith(its))
    return [weight for weight in found if weight is not None]


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
        self._alone: defaultdict[Remote, asyncio.Lock] = defaultdict(asyncio.Lock)
        """In which a node is seen to."""
        self._asked: defaultdict[Remote, asyncio.Lock] = defaultdict(asyncio.Lock)
        """In which a node says what it keeps: to one of us at a time."""
        self._done: defaultdict[Remote, set[str]] = defaultdict(set)
        """Digests of what a node was to borrow, or has: that is tried once."""

    async def fill(
        self, taker: Remote, weights: Iterable[Weight], tell: Callable[[str, str, str], None]
    ) -> None:
        """Have a node borrow what it lacks of these weights; what fails is told, and no error.

        Args:
            taker: the node.
            weights: that it will be told.
            tell: given what happened, who it happened to, and why.
        """
        wanted = await asyncio.to_thread(_digests, list(weights))
        async with self._alone[taker]:
            lacking = {
                name: count for name, count in wanted.items() if name not in self._done[taker]
            }
            if sum(lacking.values()) >= LEAST_BYTES:
                await self._fill(taker, lacking, tell)
                self._done[taker] |= lacking.keys()

    def sent(self, count: int, took_s: float) -> None:
        """Note that we sent so many bytes of weights in a time: a loan must not be slower."""
        if count >= LEAST_BYTES and took_s > 0:
            self.least_bytes_per_s = max(self.least_bytes_per_s, count / took_s)

    async def _fill(
        self, taker: Remote, lacking: dict[str, int], tell: Callable[[str, str, str], None]
    ) -> None:
        others = [one for one in dict.fromkeys(self._nodes()) if one.address.id != taker.address.id]
        if not others:
            return
        here, *there = await asyncio.gather(*(self._kept(one) for one in (taker, *others)))
        if here is None:
            return  # it keeps none, or does not say so
        lacking = {name: count for name, count in lacking.items() if here.get(name) != count}
        for lender, kept in zip(others, there, strict=True):
            loan = {
                name: count for name, count in lacking.items() if (kept or {}).get(name) == count
            }
            if sum(loan.values()) < LEAST_BYTES:
                continue
            try:
                got = await self._lend(lender, taker, loan)
            except ShoestringError as error:
                tell("not lent", taker.name, f"by {lender.name}: {error}")
                return
            tell("borrowed", taker.name, f"{size(got)} of weights from {lender.name}")
            lacking = {name: count for name, count in lacking.items() if name not in loan}

    async def _kept(self, node: Remote) -> dict[str, int] | None:
        """Return what a node keeps; None: it does not say so in time, and is asked for nothing."""
        try:
            async with asyncio.timeout(MANIFESTS_S), self._asked[node]:
                return await hear_manifest(self._identity, node)
        except (ShoestringError, TimeoutError):
            return None

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
            LinkError: it goes too slowly, or the node says what cannot be.
            RefusedError: the node did not get all.
        """
        now_s = asyncio.get_running_loop().time
        begun_s = now_s()
        while True:
            word = await link.hear(PATIENCE_S)
            if word.get("ok") is not True:
                raise RefusedError(printable(word.get("reason")), printable(word.get("message")))
            got, took_s = _bytes(word, most_bytes, taker), now_s() - begun_s
            if word.get("over") is True:
                return got
            if took_s > PATIENCE_S and got < self.least_bytes_per_s * took_s:
                raise LinkError("timeout", f"{size(got)} in {took_s:.0f} s, which we send sooner")


def _bytes(word: Mapping[str, Any], most_bytes: int, taker: Remote) -> int:
    got = word.get("bytes")
    if type(got) is not int or not 0 <= got <= most_bytes:
        raise LinkError("word", f"{taker.name} says that it got what it was not to get")
    return got


def _shown(node: Remote) -> str:
    return base64.b64encode(node.certificate).decode()


def _digests(weights: list[Weight]) -> dict[str, int]:
    return {weight.sha256.hex(): len(weight.data) for weight in weights}
