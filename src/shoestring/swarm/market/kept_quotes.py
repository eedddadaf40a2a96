"""The quotes that a node knows: a file of the newest of each node and model."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.market.quotes import CLOCKS_DIFFER_S, LONGEST_S, read_quote, stored_quote
from shoestring.swarm.private_files import OwnersFile, changing, read_records, write_records

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from shoestring.swarm.market.quotes import Quote, Signed

    Key = tuple[str, str]

QUOTES_FILE: Final = "quotes.json"
MOST_QUOTES: Final = 16_384
MOST_MODELS: Final = 64
"""Of one other node."""
OWN: Final = 2
"""Rank of this node's own quotes; peers' have 1, strangers' 0."""


class Quotes(OwnersFile):
    """The newest quote of each node and model: a file of the owner's.

    One that ran out is kept until nothing older can hold, so that an older and cheaper one is not
    believed after it.

    Args:
        path: the file; it may come later.
        now: seconds since 1970.
    """

    def take(
        self, texts: Sequence[bytes], *, own: str = "", peers: Collection[str] = ()
    ) -> tuple[list[Quote], dict[int, BadValueError]]:
        """Believe quotes, each in the place of the one before of the same node and model.

        Where there is no room, a peer's takes a stranger's place, and this node's own anybody's.

        Args:
            texts: one quote each.
            own: this node's peer id.
            peers: the ids of those that it knows.

        Returns:
            Those that were taken; and by their place those that were not, with what is wrong.

        Raises:
            BadValueError: the file cannot be used.
        """
        now_s = self._now()
        taken: list[Quote] = []
        refused: dict[int, BadValueError] = {}
        with changing(self._path):
            kept = {_key(one.quote): one for one in self._read() if _outlived_s(one.quote) > now_s}
            room = _Room(kept, own, peers)
            for place, text in enumerate(texts):
                try:
                    new = read_quote(text, now_s=now_s)
                    _check_newer(new.quote, kept.get(_key(new.quote)))
                    room.put(new)
                except BadValueError as error:
                    refused[place] = error
                    continue
                taken.append(new.quote)
            write_records(self._path, ({"text": one.text} for one in kept.values()))
        return [one for one in taken if _key(one) in kept], refused

    def all(self) -> tuple[Quote, ...]:
        """Return all that are kept, those that ran out among them.

        Raises:
            BadValueError: the file cannot be used.
        """
        return tuple(one.quote for one in self._read())

    def next_number(self, node: str) -> int:
        """Return a number above all that a node's kept quotes have; the time in seconds, usually.

        So a node that lost its file does not begin at 1 again, below what others hold of it.
        """
        known = [one.quote.number for one in self._read() if one.quote.node == node]
        return max([int(self._now()), *(number + 1 for number in known)])

    def _read(self) -> list[Signed]:
        mend = "remove it and import the quotes anew"
        return read_records(self._path, lambda record: stored_quote(str(record["text"])), mend=mend)


class _Room:
    """Room for quotes: strangers' leave first, the soonest to run out before the others.

    Args:
        kept: quotes by node and model; changed here.
        own: the peer id of whose file it is.
        peers: of those that it knows.
    """

    def __init__(self, kept: dict[Key, Signed], own: str, peers: Collection[str]) -> None:
        self._kept, self._own, self._peers = kept, own, peers
        self._models = Counter(node for node, _ in kept)
        self._leaving = [(self._rank(key[0]), one.quote.until_s, key) for key, one in kept.items()]
        heapq.heapify(self._leaving)

    def put(self, new: Signed) -> None:
        """Keep a quote.

        Raises:
            BadValueError: there is no room for it.
        """
        key = _key(new.quote)
        rank = self._rank(key[0])
        if key not in self._kept:
            if rank < OWN and self._models[key[0]] >= MOST_MODELS:
                raise BadValueError(
                    f"quotes of {MOST_MODELS} models of {key[0]} are kept: no more of one node"
                )
            if len(self._kept) >= MOST_QUOTES:
                self._make(rank)
            self._models[key[0]] += 1
        self._kept[key] = new
        heapq.heappush(self._leaving, (rank, new.quote.until_s, key))

    def _make(self, rank: int) -> None:
        """Let one quote go of somebody below a rank."""
        while self._leaving and self._leaving[0][0] < rank:
            _, until_s, key = heapq.heappop(self._leaving)
            held = self._kept.get(key)
            if held is not None and held.quote.until_s == until_s:  # else it was replaced
                del self._kept[key]
                self._models[key[0]] -= 1
                return
        raise BadValueError(
            f"{MOST_QUOTES} quotes are kept: wait until some run out; those of peers go first"
        )

    def _rank(self, node: str) -> int:
        return OWN if node == self._own else int(node in self._peers)


def _outlived_s(quote: Quote) -> int:
    """Return from when on no older quote of the same node and model can hold."""
    return quote.made_s + LONGEST_S + CLOCKS_DIFFER_S


def _check_newer(new: Quote, before: Signed | None) -> None:
    if before is None:
        return
    number = before.quote.number
    if number > new.number:
        raise BadValueError(
            f"quote {new.number} of {new.node} is older than number {number}, "
            "which is known here: ask for the newest"
        )
    if number == new.number and before.quote != new:
        raise BadValueError(f"{new.node} signed two quotes of number {number}: ask for a newer one")


def _key(quote: Quote) -> tuple[str, str]:
    return quote.node, quote.model
