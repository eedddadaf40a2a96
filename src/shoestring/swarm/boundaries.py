"""Which activations llama-server only carries from one stage to the next, and so need not see.

llama-server reads a stage's output and sets it as the next one's input: a star. Where it was seen
to do only that, the read is answered at once with a *placeholder*, a nonce and zeros; when
llama-server sets this on another stage, the bytes go there from node to node, under a *ticket*.
Nothing but these outputs may be replaced: logits, and caches that llama.cpp saves, are read to be
looked at.

What is carried is learned from the star: a read whose very bytes are set at another stage soon
after. It is known by the stage, the tensor's name and what the stage's graph does (operations and
names, so that a prompt's graph teaches a token's). A tensor that is read twice by one graph, or
whose bytes go nowhere, is never replaced. And what llama-server reads to look at is held back until
all placeholders that it was given before have come back: an answer computed from zeros reaches
nobody.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from shoestring.swarm.pushing import MOST_BYTES
from shoestring.swarm.tensors import read_graph
from shoestring.swarm.wire import tensor_name

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from shoestring.swarm.journal import Entry, Reply
    from shoestring.swarm.routes import Route
    from shoestring.swarm.wire import Frame

NONCE_BYTES: Final = 16
LEAST_BYTES: Final = 256
"""Of an activation; what is smaller is cheaper to carry."""
MOST_RECENT: Final = 8
"""Reads of which nobody knows yet whether they are carried; threads of llama-server send what is
set, so it may come a little after the next read."""

Key = tuple[int, str, bytes]
"""A stage, a tensor's name, and what the stage's graph does."""


@dataclass(eq=False)
class Carried:
    """An activation on its way from one stage to another.

    Attributes:
        key: of its kind.
        reply: with which its bytes come to us too.
        ticket: under which it goes from node to node.
        size: of it, in bytes.
        target: the stage that it was seen to go to.
        by: the connection that reads it.
        route: by which it was sent; None: by none, it comes to us alone.
    """

    key: Key
    reply: Reply
    ticket: int
    size: int
    target: int
    by: Hashable = None
    route: Route | None = None
    waiting: list[Callable[[], None]] = field(default_factory=list)
    """Called when its bytes are here."""

    def came(self) -> None:
        """Its bytes are here."""
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


class Boundaries:
    """What is known of all stages of one chain.

    Attributes:
        replaced: how many reads were answered with a placeholder.
        on_back: called when one has come back.
        on_end: ends each connection; called when one that computes has ended.
    """

    def __init__(self) -> None:
        self.replaced = 0
        self.on_back: set[Callable[[], None]] = set()
        self.on_end: set[Callable[[], None]] = set()
        self._known: dict[Key, int | None] = {}
        """The stage that a kind goes to; None: it is read to be looked at."""
        self._asked: dict[Reply, Key] = {}
        """What is being read in the star and not known yet."""
        self._recent: dict[bytes, Key] = {}
        """What was read in the star and not set since, by its BLAKE3."""
        self._graphs: dict[Hashable, bytes] = {}
        """By connection of llama-server's: what its last graph does."""
        self._read: dict[Hashable, set[Key]] = {}
        """Likewise: what it gave out since it was computed last."""
        self._away: dict[bytes, Carried] = {}
        """Placeholders that have not come back."""
        self._tickets = itertools.count(1)

    def computed(self, by: Hashable, frame: Frame | None) -> None:
        """Note that a connection has a graph computed; with None: its last one again."""
        if frame is not None:
            tensors = read_graph(frame.head).tensors
            said = tensors["op"].tobytes() + tensors["name"].tobytes()
            self._graphs[by] = hashlib.sha256(said).digest()
        self._read[by] = set()

    def read(self, by: Hashable, stage: int, entry: Entry) -> Carried | None:
        """Note a read; return what it carries if it may be replaced, else None."""
        assert entry.reply is not None
        key = stage, tensor_name(entry.frame.head), self._graphs.get(by, b"")
        its = self._read.setdefault(by, set())
        if key in its:
            self._known[key] = None
        its.add(key)
        if key not in self._known:
            self._asked[entry.reply] = key
        target = self._known.get(key)
        if target is None or not LEAST_BYTES <= entry.reply.size <= MOST_BYTES:
            return None
        return Carried(key, entry.reply, next(self._tickets), entry.reply.size, target, by)

    def replace(self, carried: Carried) -> bytes:
        """Return a placeholder for it."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._away[nonce] = carried
        self.replaced += 1
        return nonce + bytes(carried.size - NONCE_BYTES)

    def answered(self, reply: Reply, digest: bytes) -> None:
        """Note what was read in the star: it may be set at another stage next."""
        key = self._asked.pop(reply, None)
        if key is not None and key not in self._known:
            self._recent[digest] = key
            if len(self._recent) > MOST_RECENT:
                self._known.setdefault(self._recent.pop(next(iter(self._recent))), None)

    def set(self, stage: int, body: bytes) -> Carried | None:
        """Note what is set at a stage; return what it stands for if it is a placeholder."""
        if len(body) < LEAST_BYTES:
            return None
        carried = self._away.get(body[:NONCE_BYTES])
        if carried is not None and carried.size == len(body):
            del self._away[body[:NONCE_BYTES]]
            for back in tuple(self.on_back):
                back()
            return carried
        if self._recent:
            key = self._recent.pop(blake3(body).digest(), None)
            if key is not None and key[0] != stage and self._known.get(key, stage) == stage:
                self._known[key] = stage
        return None

    @property
    def away(self) -> frozenset[bytes]:
        """The placeholders that have not come back."""
        return frozenset(self._away)

    def lose(self, nonces: frozenset[bytes]) -> list[str]:
        """Forget placeholders that will not come back, for ever; return the tensors' names."""
        lost = [self._away.pop(nonce) for nonce in nonces if nonce in self._away]
        for carried in lost:
            self._known[carried.key] = None
        return [carried.key[1] for carried in lost]

    def forget(self, by: Hashable) -> None:
        """Forget what a connection was given and is owed: it has ended."""
        self._away = {
            nonce: carried for nonce, carried in self._away.items() if carried.by is not by
        }
        self._graphs.pop(by, None)
        self._read.pop(by, None)
