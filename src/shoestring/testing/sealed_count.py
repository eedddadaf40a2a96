"""Counts the attempts that reach the sink, and finds who made them.

One attempt is

- a TCP connection: its first packet; what the kernel sends again is the same attempt;
- a name that one socket asks for: its A and AAAA questions, and repetitions, are one;
- an address and port to which one UDP socket sends, however many datagrams;
- one identifier of ICMP, or one destination of any other protocol.

A name and the connection that follows it are two attempts.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.testing.sealed_packets import Address, Packet

PROC = Path("/proc")
FIRST_NAME = int(ipaddress.IPv4Address("198.18.1.0"))
"""Asked names get addresses from here on: 198.18.0.0/15 is nobody's (RFC 2544)."""
SYN_SENT = "02"


class Count:
    """The attempts so far.

    Args:
        proc: the table of processes in which the senders are found.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._seen: set[tuple[Any, ...]] = set()
        self._names: dict[str, ipaddress.IPv4Address] = {}
        self._counts: Counter[tuple[str, str, str | None, str | None]] = Counter()

    def address_of(self, name: str) -> ipaddress.IPv4Address:
        """Return the address in the sink that stands for a name, always the same."""
        return self._names.setdefault(name, ipaddress.IPv4Address(FIRST_NAME + len(self._names)))

    def add(self, packet: Packet) -> None:
        """Count a packet, unless its attempt is counted already."""
        asked = packet.question.name if packet.question is not None else None
        ends = (packet.source, packet.source_port, packet.to, packet.port)
        attempt = (packet.kind, *ends, packet.mark, asked)
        if attempt in self._seen:
            return
        self._seen.add(attempt)
        name = asked or self._name_of(packet.to)
        key = (packet.kind, _place(packet.to, packet.port), name, self._program(packet))
        self._counts[key] += 1

    def total(self) -> int:
        """Return how many attempts there were."""
        return self._counts.total()

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each kind, place, name and program, in the order of their first."""
        return [
            {"kind": kind, "to": to, "name": name, "program": program, "count": count}
            for (kind, to, name, program), count in self._counts.items()
        ]

    def _name_of(self, address: Address) -> str | None:
        return next((name for name, a in self._names.items() if a == address), None)

    def _program(self, packet: Packet) -> str | None:
        """Return the name of the sender's program; None where its socket is closed again."""
        if packet.source_port is None:
            return None
        inode = _socket_inode(self._proc, packet)
        return None if inode is None else _holder(self._proc, inode)


def _place(address: Address, port: int | None) -> str:
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004


def _socket_inode(proc: Path, packet: Packet) -> str | None:
    """Find the socket in the kernel's tables of the network that we live in."""
    protocol = "tcp" if packet.kind == "tcp" else "udp"
    for table in (protocol, f"{protocol}6"):  # an IPv6 socket may speak IPv4
        try:
            lines = (proc / "self" / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            _, local, remote, state, *others = line.split()
            if int(local.rpartition(":")[2], 16) != packet.source_port:
                continue
            if protocol == "tcp" and (
                state != SYN_SENT or int(remote.rpartition(":")[2], 16) != packet.port
            ):
                continue
            return others[5]
    return None


def _holder(proc: Path, inode: str) -> str | None:
    """Return the name of a process that has the socket open."""
    for folder in proc.glob("[0-9]*/fd"):
        try:
            if any(str(f.readlink()) == f"socket:[{inode}]" for f in folder.iterdir()):
                return (folder.parent / "comm").read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
    return None
