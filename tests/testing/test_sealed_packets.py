import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.testing.sealed_count import Count
from shoestring.testing.sealed_packets import (
    ICMP,
    ICMPV6,
    IGMP,
    TCP,
    UDP,
    Packet,
    answer,
    read_packet,
)

HERE, THERE = ip_address("198.18.0.1"), ip_address("203.0.113.7")
HERE6, THERE6 = ip_address("fd73:6873::1"), ip_address("2001:db8::7")
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
A, AAAA = 1, 28


def ip(protocol, body, source=HERE, to=THERE, fragment=0):
    """A packet, without the checksum that nobody here looks at."""
    ends = source.packed + to.packed
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, protocol, 0)
    return head + ends + body


def segment(flags=SYN, source_port=40000, port=80, sequence=1):
    """A TCP segment without data."""
    return struct.pack("!HHIIBBHHH", source_port, port, sequence, 0, 5 << 4, flags, 0, 0, 0)


def datagram(data=b"x", source_port=40000, port=123):
    """A UDP datagram."""
    return struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data


def query(name, kind=A, number=7):
    """A question for a name server."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return (
        struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0)
        + labels
        + struct.pack("!BHH", 0, kind, 1)
    )


def counted(*packets):
    """What a count says of packets."""
    count = Count()
    for packet in packets:
        read = read_packet(packet)
        if read is not None:
            count.add(read)
    return count


@pytest.mark.parametrize(("source", "to"), [(HERE, THERE), (HERE6, THERE6)])
def test_the_first_packet_of_a_connection_is_an_attempt(source, to):
    """Ends and sequence number are read, of IPv4 and IPv6."""
    assert read_packet(ip(TCP, segment(sequence=9), source, to)) == Packet(
        "tcp", source, 40000, to, 80, 9
    )


@pytest.mark.parametrize("flags", [SYN_ACK, ACK, 0x04])
def test_later_packets_of_a_connection_are_no_attempt(flags):
    """Only a SYN without ACK begins something."""
    assert read_packet(ip(TCP, segment(flags))) is None


def test_what_the_kernel_says_by_itself_is_no_attempt():
    """ICMP errors, neighbour and group messages, later fragments."""
    error, solicitation = bytes([3, 3]) + bytes(6), bytes([135, 0]) + bytes(22)
    assert read_packet(ip(ICMP, error)) is None
    assert read_packet(ip(ICMPV6, solicitation, HERE6, THERE6)) is None
    assert read_packet(ip(ICMPV6, b"\x8f" + bytes(7), HERE6, THERE6)) is None
    assert read_packet(ip(IGMP, bytes(8))) is None
    assert read_packet(ip(UDP, datagram(), fragment=0x10)) is None


def test_an_echo_request_and_an_unknown_protocol_are_attempts():
    """Ping, and what is neither TCP nor UDP."""
    ping = read_packet(ip(ICMP, bytes([8, 0, 0, 0, 0, 5, 0, 1])))
    assert (ping.kind, ping.mark) == ("icmp", 5)
    assert read_packet(ip(132, bytes(12))).kind == "ip-132"


def test_ipv6_options_before_the_segment_are_skipped():
    """A hop-by-hop header hides no attempt."""
    body = bytes([TCP, 0]) + bytes(6) + segment()
    assert read_packet(ip(0, body, HERE6, THERE6)).port == 80


def test_a_packet_sent_again_is_the_same_attempt():
    """A retransmission has the same ends and sequence number; another connection has not."""
    first, again = ip(TCP, segment(sequence=1)), ip(TCP, segment(sequence=1))
    assert counted(first, again).total() == 1
    assert counted(first, ip(TCP, segment(sequence=2))).total() == 2
    assert counted(first, ip(TCP, segment(source_port=40001))).total() == 2


def test_datagrams_of_one_socket_to_one_place_are_one_attempt():
    """However many they are; another socket or another port is another attempt."""
    one = ip(UDP, datagram())
    assert counted(one, one, one).total() == 1
    assert counted(one, ip(UDP, datagram(port=124))).total() == 2
    assert counted(one, ip(UDP, datagram(source_port=1))).total() == 2


def test_one_name_asked_by_one_socket_is_one_attempt():
    """A and AAAA, and the question repeated; another name is another attempt."""
    asked = [ip(UDP, datagram(query(name, kind), port=53))
             for name, kind in (("Example.org", A), ("example.org", AAAA), ("example.org", A),
                                ("other.example", A))]  # fmt: skip
    names = [(row["kind"], row["name"], row["count"]) for row in counted(*asked).table()]
    assert names == [("dns", "example.org", 1), ("dns", "other.example", 1)]


def test_a_connection_to_the_address_of_a_name_bears_the_name():
    """The address that a name was answered with leads back to it."""
    count = Count()
    count.address_of("a.example")
    address = count.address_of("b.example")
    count.add(read_packet(ip(TCP, segment(port=443), to=address)))
    assert [(row["to"], row["name"]) for row in count.table()] == [(f"{address}:443", "b.example")]


def test_multicast_names_are_read_and_not_answered():
    """A question on the local network is an attempt by UDP, with its name."""
    packet = read_packet(ip(UDP, datagram(query("printer.local"), port=5353)))
    assert (packet.kind, packet.question.name) == ("udp", "printer.local")
    assert answer(packet, Count().address_of) is None


def test_an_answer_to_a_name_server_is_no_question():
    """A datagram to port 53 that asks nothing is an attempt without a name, and not answered."""
    message = bytearray(query("a.example"))
    message[2] |= 0x80
    packet = read_packet(ip(UDP, datagram(bytes(message), port=53)))
    assert (packet.kind, packet.question) == ("dns", None)
    assert answer(packet, Count().address_of) is None


@pytest.mark.parametrize(("kind", "records"), [(A, 1), (AAAA, 0), (65, 0)])
def test_a_name_has_an_ipv4_address_and_nothing_else(kind, records):
    """Else one connection would be tried twice, or its port stay unknown."""
    packet = read_packet(ip(UDP, datagram(query("a.example", kind, number=77), port=53)))
    said = answer(packet, Count().address_of)
    number, flags, questions, answers = struct.unpack_from("!HHHH", said, 28)
    assert (number, flags & 0x800F, questions, answers) == (77, 0x8000, 1, records)
    assert said.endswith(IPv4Address("198.18.1.0").packed) == bool(records)


ADDRESSES = st.one_of(
    st.tuples(*[st.integers(0, 2**32 - 1).map(IPv4Address)] * 2),
    st.tuples(*[st.integers(0, 2**128 - 1).map(IPv6Address)] * 2),
)
LABELS = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63),
    min_size=1, max_size=4,
)  # fmt: skip


@given(ADDRESSES, LABELS, st.integers(0, 2**16 - 1), st.integers(1, 2**16 - 1))
def test_every_question_is_read_as_it_was_asked(ends, labels, number, source_port):
    """Name, type, number and ends, for all of them."""
    body = datagram(query(".".join(labels), A, number), source_port, 53)
    packet = read_packet(ip(UDP, body, *ends))
    assert (packet.source, packet.to, packet.source_port) == (*ends, source_port)
    assert (packet.question.name, packet.question.id) == (".".join(labels), number)


@given(st.sampled_from([b"\x45", b"\x46", b"\x4f", b"\x60", b""]), st.binary(max_size=120),
       st.sampled_from([TCP, UDP, ICMP, 0]))  # fmt: skip
def test_any_bytes_are_taken(first, rest, protocol):
    """What is cut or makes no sense is no attempt, or one that can be counted and answered."""
    data = bytearray(first + rest)
    if len(data) > 9:
        data[9 if first != b"\x60" else 6] = protocol
    packet = read_packet(bytes(data))
    if packet is not None:
        count = Count()
        count.add(packet)
        answer(packet, count.address_of)
        assert count.total() == 1
