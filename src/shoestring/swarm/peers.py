"""The peers that this node has admitted, and what each may do: a file of the owner's alone.

What is not in the file, or is expired or removed there, gets no link. A running node notices a
change by :meth:`Peers.reload`; the right to speak is asked of memory each time.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from shoestring.errors import BadValueError
from shoestring.swarm.addresses import parse_place
from shoestring.swarm.certificates import certificate_text, read_certificate, read_certificate_text
from shoestring.swarm.private_files import changing, read_records, write_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Right = Literal["serve", "use"]
"""``serve``: we use its layers; ``use``: it uses ours."""
State = Literal["active", "expired", "removed"]

PEERS_FILE: Final = "peers.json"
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
MAX_PEERS: Final = 1_024
MAX_ADDRESSES: Final = 8
MAX_NAME_CHARACTERS: Final = 80


@dataclass(frozen=True)
class Peer:
    """Another node that was let in.

    Attributes:
        id: its key.
        name: what the owner of this node calls it.
        certificate: of the fixed form, in DER.
        addresses: ``HOST:PORT``, the best first; none: it only comes to us.
        rights: in the order of :data:`RIGHTS`.
        since_s: like all times here in seconds since 1970.
        expires_s: from then on it gets no link; None: never.
        removed_s: since then it gets no link; None: it was not removed.

    Raises:
        BadValueError: a value cannot be used.
    """

    id: str
    name: str
    certificate: bytes
    addresses: tuple[str, ...]
    rights: tuple[Right, ...]
    since_s: float
    expires_s: float | None = None
    removed_s: float | None = None

    def __post_init__(self) -> None:
        if read_certificate(self.certificate) != self.id:
            raise BadValueError(f"the certificate is not of the peer {self.id[:80]!a}")
        check_name(self.name)
        check_addresses(self.addresses)
        check_rights(self.rights)

    def state(self, now_s: float) -> State:
        """Return whether the peer gets links."""
        if self.removed_s is not None:
            return "removed"
        return "expired" if self.expires_s is not None and self.expires_s <= now_s else "active"


def check_name(name: str) -> None:
    """Refuse a name that could forge a line of a table or a log.

    Raises:
        BadValueError: it is none.
    """
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable() or name != name.strip():
        raise BadValueError(
            f"name {name[:80]!a}: give 1 to {MAX_NAME_CHARACTERS} printable characters "
            "without blanks at the ends"
        )


def check_addresses(addresses: Iterable[str]) -> None:
    """Refuse what is not a few of ``HOST:PORT``.

    Raises:
        BadValueError: one is none, or there are too many.
    """
    if len([parse_place(address) for address in addresses]) > MAX_ADDRESSES:
        raise BadValueError(f"more than {MAX_ADDRESSES} addresses of one peer: give the best")


def check_rights(rights: tuple[str, ...]) -> None:
    """Refuse what is not one right or both, in their order.

    Raises:
        BadValueError: it is not.
    """
    if not rights or rights != tuple(right for right in RIGHTS if right in rights):
        raise BadValueError(f"rights {','.join(rights)[:80]!a}: give serve, use or serve,use")


class Peers:
    """The file, in memory.

    Args:
        path: the file; it may come later.
        say: given one line when the file cannot be used any more.
        now: seconds since 1970.

    Raises:
        BadValueError: the file is there and cannot be used.
    """

    def __init__(
        self, path: Path, *, say: Callable[[str], None], now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._say = say
        self._now = now
        self._seen = _signature(path)
        self._peers = _read(path)

    def find(self, peer_id: str) -> Peer | None:
        """Return a peer that gets links; None: nobody, or one that is expired or removed."""
        peer = self._peers.get(peer_id)
        return peer if peer is not None and peer.state(self._now()) == "active" else None

    def has_removed(self, peer_id: str) -> bool:
        """Tell whether the owner took somebody out, who then comes in on nobody's word."""
        peer = self._peers.get(peer_id)
        return peer is not None and peer.removed_s is not None

    def active(self) -> tuple[Peer, ...]:
        """Return the peers that get links."""
        now_s = self._now()
        return tuple(peer for peer in self._peers.values() if peer.state(now_s) == "active")

    def all(self) -> tuple[Peer, ...]:
        """Return every peer in the order of admission, expired and removed ones included."""
        return tuple(self._peers.values())

    def admit(self, peer: Peer) -> None:
        """Let a peer in; what was known of it before, a removal too, is replaced.

        Raises:
            BadValueError: there are too many, or the file cannot be used.
        """
        with changing(self._path):
            peers = _read(self._path)
            peers[peer.id] = peer
            if len(peers) > MAX_PEERS:
                raise BadValueError(
                    f"{self._path} has {MAX_PEERS} peers: take some removed ones out of it"
                )
            self._write(peers)

    def remove(self, id_or_name: str) -> Peer:
        """End what a peer may do; its links end when the listener checks them next.

        Raises:
            BadValueError: no such peer, several of that name, or the file cannot be used.
        """
        with changing(self._path):
            peers = _read(self._path)
            peer = _meant(peers, id_or_name, self._path)
            if peer.removed_s is None:
                peer = replace(peer, removed_s=self._now())
                peers[peer.id] = peer
                self._write(peers)
        return peer

    def reload(self) -> bool:
        """Read the file again if it changed; return whether it was read.

        A file that cannot be used leaves the peers as they were, and is complained of once.
        """
        seen = _signature(self._path)
        if seen == self._seen:
            return False
        self._seen = seen  # taken before reading: what is written meanwhile is read next time
        try:
            self._peers = _read(self._path)
        except BadValueError as error:
            self._say(f"{error}; the peers known before hold on")
            return False
        return True

    def _write(self, peers: dict[str, Peer]) -> None:
        write_records(
            self._path,
            (
                {**asdict(peer), "certificate": certificate_text(peer.certificate)}
                for peer in peers.values()
            ),
        )
        self._peers = peers


def _meant(peers: dict[str, Peer], id_or_name: str, path: Path) -> Peer:
    """Return the peer of an id, or of a name; of several that have it, the one not removed."""
    if id_or_name in peers:
        return peers[id_or_name]
    named = [peer for peer in peers.values() if peer.name == id_or_name]
    found = named if len(named) == 1 else [peer for peer in named if peer.removed_s is None]
    if len(found) == 1:
        return found[0]
    shown = ascii(id_or_name[:80])
    if named:
        ids = ", ".join(peer.id for peer in (found or named)[:3])
        raise BadValueError(f"several peers have the name {shown}: give one's id ({ids})")
    raise BadValueError(f"no peer {shown} in {path}: shoestring swarm peers shows them")


def _read(path: Path) -> dict[str, Peer]:
    mend = "restore a copy, or remove it and invite the peers anew"
    return {peer.id: peer for peer in read_records(path, _peer, mend=mend)}


def _peer(record: dict[str, Any]) -> Peer:
    return Peer(
        **{
            **record,
            "certificate": read_certificate_text(record["certificate"]),
            "addresses": tuple(record["addresses"]),
            "rights": tuple(record["rights"]),
            **{moment: _moment(record[moment]) for moment in ("since_s", "expires_s", "removed_s")},
        }
    )


def _moment(value: Any) -> float | None:
    return None if value is None else float(value)


def _signature(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced, written to or gets another mode."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:  # _read says what it is
        return (error.errno or 0,)
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
