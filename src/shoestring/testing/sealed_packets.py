"""What a packet on the sink says of an attempt to reach outside, and what the sink answers.

Addresses are IPv4 or IPv6, packets begin with their IP header. A packet that begins nothing is no
attempt: later segments of a connection, and what the kernel says on its own (ICMP errors,
neighbour and group messages).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ICMP, IGMP, TCP, UDP, ICMPV6 = 1, 2, 6, 17, 58
DNS_PORT = 53
NAME_PORTS = {DNS_PORT, 5353, 5355}
"""DNS, multicast DNS and LLMNR: their questions have one form."""
KERNELS_ICMP = {3, 4, 5, 11, 12}
KERNELS_ICMPV6 = {1, 2, 3, 4, *range(130, 138), 143}
HOP_LIMIT = 64
SYN, RST_ACK = 0x02, 0x14
SYN_OR_ACK = 0x12
TYPE_A, CLASS_IN = 1, 1
ANSWERED = 0x8180  # a response without error, recursion asked for and had
TTL_S = 1


@dataclass(frozen=True)
class Question:
    """What a name server was asked.

    Attributes:
        name: in lower case, without the dot at its end.
        kind: the record's type, 1 is A.
        id: of the query.
        raw: the question as it came, for the answer.
    """

    name: str
    kind: int
    id: int
    raw: bytes


@dataclass(frozen=True)
class Packet:
    """The first packet of an attempt, or one like it.

    Attributes:
        kind: ``tcp``, ``udp``, ``dns`` (UDP to port 53), ``icmp`` or ``ip-NUMBER`` (the protocol).
        source: the sender's address.
        source_port: None where the protocol has none.
        to: the address that was to be reached.
        port: likewise.
        mark: with the same ends, tells one attempt from another: TCP's first sequence number,
            ICMP's identifier.
        question: of a name, where one was asked.
    """

    kind: str
    source: Address
    source_port: int | None
    to: Address
    port: int | None
    mark: int = 0
    question: Question | None = None


def read_packet(data: bytes) -> Packet | None:
    """Return what a packet attempts; None where it begins nothing or is cut."""
    try:
        return _read(data)
    except (struct.error, IndexError, ipaddress.AddressValueError):
        return None


def _read(data: bytes) -> Packet | None:
    version = data[0] >> 4
    source: Address
    to: Address
    if version == 4:  # noqa: PLR2004
        if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:  # a later fragment
            return None
        protocol, begin = data[9], (data[0] & 0x0F) * 4
        source, to = (ipaddress.IPv4Address(data[at : at + 4]) for at in (12, 16))
    elif version == 6:  # noqa: PLR2004
        protocol, begin = _skip_options(data)
        source, to = (ipaddress.IPv6Address(data[at : at + 16]) for at in (8, 24))
    else:
        return None
    body = data[begin:]
    if protocol == TCP:
        return _read_tcp(body, source, to)
    if protocol == UDP:
        return _read_udp(body, source, to)
    if protocol in (ICMP, ICMPV6):
        own = KERNELS_ICMP if protocol == ICMP else KERNELS_ICMPV6
        mark = struct.unpack_from("!H", body, 4)[0]
        return None if body[0] in own else Packet("icmp", source, None, to, None, mark)
    return None if protocol == IGMP else Packet(f"ip-{protocol}", source, None, to, None)


def _skip_options(data: bytes) -> tuple[int, int]:
    """Return the protocol of an IPv6 packet and where it begins, behind hop-by-hop options."""
    if data[6] != 0:
        return data[6], 40
    return data[40], 40 + (data[41] + 1) * 8


def _read_tcp(body: bytes, source: Address, to: Address) -> Packet | None:
    source_port, port, sequence = struct.unpack_from("!HHI", body)
    if body[13] & SYN_OR_ACK != SYN:
        return None
    return Packet("tcp", source, source_port, to, port, sequence)


def _read_udp(body: bytes, source: Address, to: Address) -> Packet:
    source_port, port = struct.unpack_from("!HH", body)
    question = _read_question(body[8:]) if port in NAME_PORTS else None
    kind = "dns" if port == DNS_PORT else "udp"
    return Packet(kind, source, source_port, to, port, question=question)


def _read_question(message: bytes) -> Question | None:
    """Return the first question of a DNS message; None where there is none that can be read."""
    try:
        number, flags, questions = struct.unpack_from("!HHH", message)
        if flags & 0x8000 or questions == 0:
            return None
        at, labels = 12, []
        while length := message[at]:
            if length > 63 or at + 1 + length >= len(message):  # noqa: PLR2004 - compressed, or cut
                return None
            labels.append(message[at + 1 : at + 1 + length].decode("ascii", "backslashreplace"))
            at += 1 + length
        kind, _ = struct.unpack_from("!HH", message, at + 1)
    except (struct.error, IndexError):
        return None
    return Question(".".join(labels).lower(), kind, number, message[12 : at + 5])


def answer(packet: Packet, address_of: Callable[[str], ipaddress.IPv4Address]) -> bytes | None:
    """Return what the sink says to a packet; None where it stays silent.

    A connection is refused, so that nobody waits for it. A name gets an address that leads into
    the sink, so that the connection behind the question is seen too; it has no other records.
    """
    if packet.kind == "tcp":
        return _refusal(packet)
    if packet.kind == "dns" and packet.question is not None:
        return _name_answer(packet, packet.question, address_of)
    return None


def _refusal(packet: Packet) -> bytes:
    acknowledged = (packet.mark + 1) & 0xFFFFFFFF
    segment = struct.pack(
        "!HHIIBBHHH", packet.port, packet.source_port, 0, acknowledged, 5 << 4, RST_ACK, 0, 0, 0
    )
    return _enveloped(packet, TCP, segment, checksum_at=16)


def _name_answer(
    packet: Packet, question: Question, address_of: Callable[[str], ipaddress.IPv4Address]
) -> bytes:
    records = b""
    if question.kind == TYPE_A:
        # 0xC00C points to the name in the question.
        records = struct.pack("!HHHIH", 0xC00C, TYPE_A, CLASS_IN, TTL_S, 4)
        records += address_of(question.name).packed
    head = struct.pack("!HHHHHH", question.id, ANSWERED, 1, 1 if records else 0, 0, 0)
    message = head + question.raw + records
    datagram = struct.pack("!HHHH", packet.port, packet.source_port, 8 + len(message), 0)
    return _enveloped(packet, UDP, datagram + message, checksum_at=6)


def _enveloped(packet: Packet, protocol: int, body: bytes, *, checksum_at: int) -> bytes:
    """Return a packet back to the sender, with the checksums that the kernel looks at."""
    ends = packet.to.packed + packet.source.packed
    total = _checksum(ends + struct.pack("!II", len(body), protocol) + body) or 0xFFFF
    body = body[:checksum_at] + struct.pack("!H", total) + body[checksum_at + 2 :]
    if packet.to.version == 6:  # noqa: PLR2004
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, HOP_LIMIT) + ends + body
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(body), 0, 0, HOP_LIMIT, protocol)
    return head + struct.pack("!H", _checksum(head + b"\0\0" + ends)) + ends + body


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
