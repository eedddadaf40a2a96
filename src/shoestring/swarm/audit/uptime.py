"""Uptime as peers attest it: a node signs what it is asked at a moment, who asked signs that.

A challenger sends a number that nobody could foresee; the node signs it with both ids and the time,
the challenger signs all of it. So a node cannot make one alone, nor a challenger, nor anybody
another time. What both together can make up is bounded by counting: a slot of :data:`SLOT_S` counts
when at least :data:`CHALLENGERS` of those whom the reader knows attest it, owners of more keys than
one counted once, and the node's own owner never.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.ledger.rewards import Service
from shoestring.swarm.proof.receipts import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from shoestring.swarm.identity import Identity

VERSION: Final = 1
BY_NODE: Final = "uptime of the node"
BY_CHALLENGER: Final = "uptime"
NONCE_BYTES: Final = 32
NONCE: Final = re.compile(r"[0-9a-f]{64}")
SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
LINE_BYTES: Final = 1_024
AHEAD_S: Final = 60
"""How far two clocks may be apart."""
SLOT_S: Final = 600
CHALLENGERS: Final = 2
HALF_LIFE_S: Final = 7 * 86_400.0
MOST_S: Final = 1 << 40


@dataclass(frozen=True)
class Attestation:
    """That a node answered a challenger at a moment.

    Attributes:
        node: peer id.
        challenger: peer id.
        nonce: that it was asked with, in hexadecimal.
        at_s: whole seconds since 1970, on the node's clock; the challenger's agreed.
        by_node: signature in hexadecimal.
        by_challenger: likewise, over the node's too.

    Raises:
        BadValueError: a value cannot be used.
    """

    node: str
    challenger: str
    nonce: str
    at_s: int
    by_node: str
    by_challenger: str = ""

    def __post_init__(self) -> None:
        for peer in (self.node, self.challenger):
            if not isinstance(peer, str):
                raise _bad("id", peer)
            public_key_of(peer)
        if self.node == self.challenger:
            raise BadValueError(f"{self.node} attests itself: only another can")
        for name, form in (("nonce", NONCE), ("by_node", SIGNATURE)):
            if not (isinstance(value := getattr(self, name), str) and form.fullmatch(value)):
                raise _bad(name, value)
        signature: Any = self.by_challenger
        if not (isinstance(signature, str) and (not signature or SIGNATURE.fullmatch(signature))):
            raise _bad("by_challenger", signature)
        if type(self.at_s) is not int or not 0 <= self.at_s < MOST_S:
            raise _bad("at_s", self.at_s)

    @property
    def line(self) -> bytes:
        """As it is kept: one line of JSON in the form of RFC 8785."""
        return canonical({"version": VERSION, **asdict(self)})

    @property
    def slot(self) -> int:
        """Number of its slot since 1970."""
        return self.at_s // SLOT_S

    def is_by_node(self) -> bool:
        """Tell whether the node signed it."""
        said = _said_by_node(self.node, self.challenger, self.nonce, self.at_s)
        return is_signed_by(self.node, BY_NODE, said, bytes.fromhex(self.by_node))

    def fault(self, now_s: float, known: Collection[str]) -> str | None:
        """Say why it counts for nothing; None: it counts.

        Args:
            now_s: seconds since 1970.
            known: peer ids of challengers that count.
        """
        if self.challenger not in known:
            return "its challenger is nobody whom we know"
        if self.at_s > now_s + AHEAD_S:
            return "it is of the future: set the clock"
        if not self.is_by_node():
            return "the node has not signed it"
        said, signature = self._said(), bytes.fromhex(self.by_challenger)
        if not signature or not is_signed_by(self.challenger, BY_CHALLENGER, said, signature):
            return "the challenger has not signed it"
        return None

    def signed_by(self, challenger: Identity) -> Attestation:
        """Return it with the challenger's signature."""
        signature = challenger.sign(BY_CHALLENGER, self._said()).hex()
        return replace(self, by_challenger=signature)

    def _said(self) -> bytes:
        said = asdict(self)
        del said["by_challenger"]
        return canonical({"version": VERSION, **said})


def answer(identity: Identity, challenger: str, nonce: Any, now_s: float) -> Attestation:
    """Return what a node says to a challenge, under its signature.

    Args:
        identity: the node's.
        challenger: peer id of who asks.
        nonce: as it was sent.
        now_s: seconds since 1970.

    Raises:
        BadValueError: the nonce is none.
    """
    if not (isinstance(nonce, str) and NONCE.fullmatch(nonce)):
        raise _bad("nonce", nonce)
    at_s = int(now_s)
    said = _said_by_node(identity.id, challenger, nonce, at_s)
    signature = identity.sign(BY_NODE, said).hex()
    return Attestation(identity.id, challenger, nonce, at_s, signature)


def attest(
    identity: Identity, node: str, nonce: str, told: Mapping[str, Any], now_s: float
) -> Attestation:
    """Return a challenger's attestation of a node's answer.

    Args:
        identity: the challenger's.
        node: peer id of who was asked.
        nonce: as it was sent.
        told: the node's answer, with ``at_s`` and ``by_node``.
        now_s: seconds since 1970, on the challenger's clock.

    Raises:
        BadValueError: the answer is none, is not the node's, or is of another time.
    """
    at_s: Any = told.get("at_s")
    by_node: Any = told.get("by_node")
    given = Attestation(node, identity.id, nonce, at_s, by_node)
    if not given.is_by_node():
        raise BadValueError(f"{node} has not signed its answer: nothing is attested")
    if abs(given.at_s - now_s) > AHEAD_S:
        raise BadValueError(
            f"{node} says {given.at_s}, here it is {int(now_s)}: its clock or ours is wrong"
        )
    return given.signed_by(identity)


def read_attestation(line: bytes) -> Attestation:
    """Return an attestation of a line; its signatures are not looked at (:meth:`fault`).

    Raises:
        BadValueError: it is not exactly what one is worded as.
    """
    if len(line) > LINE_BYTES:
        raise BadValueError(f"an attestation of {len(line)} bytes; the longest has {LINE_BYTES}")
    try:
        said = json.loads(line)
        version = said.pop("version")
        found = Attestation(**said)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadValueError("a line that is no attestation: it was cut or changed") from error
    if version != VERSION or found.line != line:
        raise BadValueError("an attestation that is not in the form of RFC 8785: it was changed")
    return found


def slots_of(
    attestations: Iterable[Attestation],
    *,
    known: Collection[str],
    now_s: float,
    owners: Mapping[str, str] | None = None,
) -> dict[str, set[int]]:
    """Return the slots that count for each node.

    Args:
        attestations: from whoever; those with a fault count for nothing, those twice once.
        known: peer ids of challengers that count.
        now_s: seconds since 1970.
        owners: whose device a peer is, as far as that is known.
    """
    whose = owners or {}
    seen: set[tuple[str, str, str]] = set()
    by_slot: dict[tuple[str, int], set[str]] = defaultdict(set)
    for one in attestations:
        key = one.node, one.challenger, one.nonce
        if key in seen or one.fault(now_s, known) is not None:
            continue
        seen.add(key)
        challenger = whose.get(one.challenger, one.challenger)
        if challenger != whose.get(one.node, one.node):
            by_slot[one.node, one.slot].add(challenger)
    found: dict[str, set[int]] = defaultdict(set)
    for (node, slot), challengers in by_slot.items():
        if len(challengers) >= CHALLENGERS:
            found[node].add(slot)
    return dict(found)


def score(slots: Collection[int], since_s: float, now_s: float) -> float | None:
    """Return the share of slots that count, old ones less; None: no whole slot has gone by.

    Args:
        slots: of a node, that count.
        since_s: from when on it could be there, in seconds since 1970.
        now_s: likewise; the slot that has begun is left out.
    """
    first, end = int(since_s // SLOT_S), int(now_s // SLOT_S)
    if first >= end:
        return None
    # Of a slot that is n slots old counts r ** n; those of all are a geometric series.
    left = 0.5 ** (SLOT_S / HALF_LIFE_S)
    whole = (1 - left ** (end - first)) / (1 - left)
    there = sum(left ** (end - 1 - slot) for slot in set(slots) if first <= slot < end)
    return float(min(1.0, there / whole))


def service_of(
    slots: Collection[int], layer_tokens: int, since_s: float, until_s: float
) -> Service:
    """Return what a node is rewarded for, of a period.

    Args:
        slots: that count for it.
        layer_tokens: of the period, of all its sessions.
        since_s: begin of the period, in seconds since 1970.
        until_s: its end.
    """
    first, end = int(since_s // SLOT_S), int(until_s // SLOT_S)
    counted = sum(first <= slot < end for slot in set(slots))
    return Service(counted * SLOT_S, layer_tokens)


def read_each(lines: Iterable[bytes], bad: Callable[[BadValueError], None]) -> list[Attestation]:
    """Return the attestations of lines from whoever.

    Args:
        lines: each with its end or without.
        bad: told what is wrong with one that is none; the others count.
    """
    found = []
    for line in lines:
        try:
            if stripped := line.rstrip(b"\n"):
                found.append(read_attestation(stripped))
        except BadValueError as error:
            bad(error)
    return found


def read_lines(content: bytes) -> Sequence[Attestation]:
    """Return the attestations of a file, a line each.

    Raises:
        BadValueError: a line is none.
    """
    return [read_attestation(line) for line in content.splitlines() if line]


def _said_by_node(node: str, challenger: str, nonce: str, at_s: int) -> bytes:
    said = {"node": node, "challenger": challenger, "nonce": nonce, "at_s": at_s}
    return canonical({"version": VERSION, **said})


def _bad(name: str, value: Any) -> BadValueError:
    return BadValueError(f"an attestation whose {name} is {value!a:.80}: no such can be signed")
