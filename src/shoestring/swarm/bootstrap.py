"""Signed lists of nodes: where peers are found, as somebody says whom we chose to believe.

A list is a JSON object of two fields: ``list``, and ``signature``, ed25519 over the canonical form
(RFC 8785) of the first. It is believed if its signer is the one that the user pinned and its time
has not run out. It gives places where known peers are tried, and nodes that one may ask for an
invitation: who is on a list gets no right by it, and a place on it is good for its own key alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import (
    certificate_text,
    public_key_of,
    read_certificate,
    read_certificate_text,
)
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.peers import check_addresses
from shoestring.swarm.private_files import OwnersFile, changing, read_records, write_records
from shoestring.swarm.words import read_word

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from shoestring.swarm.identity import Identity

LISTS_FILE: Final = "lists.json"
PURPOSE: Final = "nodes"
VERSION: Final = 1
LARGEST_BYTES: Final = 262_144
MAX_NODES: Final = 256
MAX_LISTS: Final = 16
DAY_S: Final = 86_400
LONGEST_S: Final = 365 * DAY_S
CLOCKS_DIFFER_S: Final = 600


@dataclass(frozen=True)
class Listed:
    """A node on a list.

    Attributes:
        id: its key.
        addresses: where it listens, ``HOST:PORT``.
        certificate: of its key, in DER.

    Raises:
        BadValueError: a value cannot be used.
    """

    id: str
    addresses: tuple[str, ...]
    certificate: bytes

    def __post_init__(self) -> None:
        if read_certificate(self.certificate) != self.id:
            raise BadValueError(f"the certificate is not of the node {self.id[:80]!a}")
        check_addresses(self.addresses)
        if not self.addresses:
            raise BadValueError(f"the node {self.id} has no address: give one where it listens")


@dataclass(frozen=True)
class NodeList:
    """A list that was signed by whom it should be, and is not too old.

    Attributes:
        signer: the peer id of who made it.
        made_s: like all times here in whole seconds since 1970.
        expires_s: from then on it is not believed.
        nodes: on it.
    """

    signer: str
    made_s: int
    expires_s: int
    nodes: tuple[Listed, ...]


def sign_list(identity: Identity, nodes: Sequence[Listed], *, lasts_s: float, now_s: float) -> str:
    """Return a list of nodes as :func:`read_list` reads it.

    Raises:
        BadValueError: there are no nodes or too many, or it would last too long.
    """
    if not 0 < len(nodes) <= MAX_NODES:
        raise BadValueError(f"{len(nodes)} nodes: put 1 to {MAX_NODES} on a list")
    if not 0 < lasts_s <= LONGEST_S:
        raise BadValueError(f"lasts_s: {lasts_s}: give seconds, at most {LONGEST_S}")
    content = {
        "v": VERSION,
        "signer": identity.id,
        "made": int(now_s),
        "until": int(now_s + lasts_s),
        "nodes": [
            {"id": node.id, "at": list(node.addresses), "key": certificate_text(node.certificate)}
            for node in nodes
        ],
    }
    signature = identity.sign(PURPOSE, _canonical(content))
    return json.dumps({"list": content, "signature": signature.hex()}, indent=1) + "\n"


def read_list(text: bytes, *, signer: str, now_s: float) -> NodeList:
    """Read a list as it was fetched.

    Args:
        text: the whole file.
        signer: the peer id of who must have made it.
        now_s: seconds since 1970.

    Raises:
        BadValueError: it is none, is too large or too old, was changed, or is another's.
    """
    public_key_of(signer)
    if len(text) > LARGEST_BYTES:
        raise BadValueError(
            f"a list of more than {LARGEST_BYTES} bytes is not read: have it made shorter"
        )
    try:
        whole = read_word(text)
        content, signature = dict(whole["list"]), bytes.fromhex(whole["signature"])
        claimed = str(content["signer"])
        signed = _canonical(content)
    except (ValueError, KeyError, TypeError) as error:  # WordError and what rfc8785 raises, too
        raise BadValueError(
            f"this is no signed list of nodes ({type(error).__name__}): fetch it again, whole"
        ) from error
    if claimed != signer:
        raise BadValueError(
            f"this list is signed by {claimed[:80]!a}, not by {signer}: "
            "fetch the right one, or name its signer if you trust it"
        )
    if not is_signed_by(signer, PURPOSE, signed, signature):
        raise BadValueError(f"this list was changed after {signer} signed it: fetch it again")
    found = _node_list(content)
    if found.expires_s <= now_s:
        raise BadValueError(f"this list ran out {_ago(now_s - found.expires_s)}: fetch a newer one")
    if found.made_s > now_s + CLOCKS_DIFFER_S:
        raise BadValueError("this list was made in the future: set this machine's clock")
    return found


class Lists(OwnersFile):
    """The lists in use, one of each signer: a file of the owner's.

    Args:
        path: the file; it may come later.
        now: seconds since 1970.
    """

    def use(self, text: bytes, signer: str) -> NodeList:
        """Believe a list, in the place of the one that was of the same signer.

        Raises:
            BadValueError: it is none that can be believed, is older than that one, there are too
                many, or the file cannot be used.
        """
        new = read_list(text, signer=signer, now_s=self._now())
        with changing(self._path):
            kept = self._read()
            before = kept.get(signer)
            if before is not None and before[1] > new.made_s:
                raise BadValueError(
                    f"this list of {signer} is older than the one in use: fetch the newest"
                )
            kept[signer] = (text.decode(), new.made_s)
            if len(kept) > MAX_LISTS:
                raise BadValueError(f"{MAX_LISTS} lists are in use: remove {self._path} to forget")
            write_records(
                self._path,
                (
                    {"signer": of, "made_s": made_s, "text": its}
                    for of, (its, made_s) in kept.items()
                ),
            )
        return new

    def places(self, ids: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return where lists that are in time say that nodes are, of those that are on any.

        Raises:
            BadValueError: the file cannot be used.
        """
        found: dict[str, tuple[str, ...]] = {}
        now_s = self._now()
        for signer, (text, _) in self._read().items():
            try:
                of_one = read_list(text.encode(), signer=signer, now_s=now_s)
            except BadValueError:  # it has run out since it was believed
                continue
            for node in of_one.nodes:
                if node.id in ids:
                    found[node.id] = (*found.get(node.id, ()), *node.addresses)
        return found

    def _read(self) -> dict[str, tuple[str, int]]:
        mend = "remove it and use the lists anew"
        return dict(read_records(self._path, _kept, mend=mend))


def _kept(record: dict[str, Any]) -> tuple[str, tuple[str, int]]:
    return str(record["signer"]), (str(record["text"]), int(record["made_s"]))


def _node_list(content: dict[str, Any]) -> NodeList:
    """Return what a list holds whose signature is good.

    Raises:
        BadValueError: its signer's version is another, or a node on it cannot be used.
    """
    another = BadValueError(
        "this list was made by another version: have one made by the same version"
    )
    if content.get("v") != VERSION:
        raise another
    try:
        return NodeList(
            signer=content["signer"],
            made_s=int(content["made"]),
            expires_s=int(content["until"]),
            nodes=tuple(
                Listed(node["id"], tuple(node["at"]), read_certificate_text(node["key"]))
                for node in content["nodes"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise another from error


def _canonical(content: dict[str, Any]) -> bytes:
    import rfc8785

    return rfc8785.dumps(content)


def _ago(seconds: float) -> str:
    return f"{seconds / DAY_S:.0f} days ago" if seconds >= DAY_S else "today"
