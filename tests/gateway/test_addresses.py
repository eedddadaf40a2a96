"""Client addresses: only trusted proxies are believed, and nobody can forge past them."""

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.gateway.addresses import MAX_HOPS, client_address, limit_address

TRUSTED = (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"))
PROXIES = st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fd00::/8")
STRANGERS = st.ip_addresses(network="203.0.113.0/24") | st.ip_addresses(network="2001:db8::/32")
HEADERS = st.lists(
    st.text(max_size=40) | st.lists((PROXIES | STRANGERS).map(str)).map(", ".join), max_size=4
)


@given(peer=STRANGERS, headers=HEADERS)
def test_a_header_from_an_untrusted_peer_changes_nothing(peer, headers):
    """Whatever it says, and whoever it names."""
    assert client_address(str(peer), headers, TRUSTED) == str(peer)


@given(peer=st.ip_addresses(), headers=HEADERS)
def test_without_trusted_proxies_the_peer_is_the_client(peer, headers):
    """As is right for a gateway that stands alone."""
    assert client_address(str(peer), headers, ()) == client_address(str(peer), [], ())


@given(
    forged=HEADERS,
    client=STRANGERS,
    proxies=st.lists(PROXIES, min_size=1, max_size=MAX_HOPS),
    split=st.data(),
)
def test_what_a_client_forges_never_hides_its_address(forged, client, proxies, split):
    """Proxies add at the right, in the same line or in a new one; what is left of it is nothing."""
    hops = [str(client), *map(str, proxies[:-1])]
    lines = list(forged)
    for hop in hops:
        if lines and split.draw(st.booleans()):
            lines[-1] += f", {hop}"
        else:
            lines.append(hop)

    assert client_address(str(proxies[-1]), lines, TRUSTED) == str(client)


@given(proxy=PROXIES, header=st.text())
def test_a_proxy_that_hands_on_nonsense_is_the_client_itself(proxy, header):
    """No address is made up, and nothing is raised."""
    got = client_address(str(proxy), [header], TRUSTED)

    assert got == str(ip_address(got))
    last = header.rsplit(",", 1)[-1]
    if not any(digit in last for digit in "0123456789abcdefABCDEF:"):
        assert got == str(proxy)


@pytest.mark.parametrize(
    ("hop", "read"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7\t", "203.0.113.7"),
        ("203.0.113.7:65535", "203.0.113.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:1", "203.0.113.7"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("203.0.113.7:", None),
        ("203.0.113.7:x", None),
        ("203.0.113.7:123456", None),
        ("203.0.113.7:\u0661", None),
        ("203.0.113.07", None),
        ("203.0.113", None),
        ("0xcb007107", None),
        ("3405803783", None),
        ("203.0.113.0/24", None),
        ("[203.0.113.7]", None),
        ("[2001:db8::1", None),
        ("[2001:db8::1]443", None),
        ("2001:db8::1%eth0", None),
        ("2001:db8::1]", None),
        ('"203.0.113.7"', None),
        ("203.0.113.7;proto=https", None),
        ("203.0.113.7 10.0.0.2", None),
        (f"{'1' * 100_000}", None),
    ],
)
def test_a_hop_is_an_address_perhaps_with_a_port_or_nothing(hop, read):
    """Where it is nothing, the proxy that wrote it is the last that is known."""
    assert client_address("10.0.0.1", [f"198.51.100.1,{hop}"], TRUSTED) == (read or "10.0.0.1")


def test_an_empty_hop_ends_the_walk():
    """What is left of it was not written by a proxy that is known."""
    assert client_address("10.0.0.1", ["203.0.113.7,,10.0.0.2"], TRUSTED) == "10.0.0.2"
    assert client_address("10.0.0.1", ["203.0.113.7", ""], TRUSTED) == "10.0.0.1"
    assert client_address("10.0.0.1", [], TRUSTED) == "10.0.0.1"


def test_a_request_of_a_proxys_own_is_the_proxys():
    """All hops are trusted: the first of them asked."""
    assert client_address("10.0.0.1", ["10.0.0.3, 10.0.0.2"], TRUSTED) == "10.0.0.3"


@given(more=st.integers(0, 50))
def test_the_walk_is_bounded_in_trusted_hops_only(more):
    """A long forged tail costs nothing and changes nothing; a long chain of proxies is cut off."""
    forged = ", ".join(["10.9.9.9"] * (MAX_HOPS + more))
    assert client_address("10.0.0.1", [f"{forged}, 203.0.113.7"], TRUSTED) == "203.0.113.7"
    chain = [f"10.1.0.{place}" for place in range(MAX_HOPS + more)]
    walked = chain[-MAX_HOPS]
    assert client_address("10.0.0.1", ["203.0.113.7", *chain], TRUSTED) == walked


def test_ipv4_on_an_ipv6_socket_is_the_same_proxy_and_the_same_client():
    """A dual socket names it ``::ffff:10.0.0.1``."""
    assert client_address("::ffff:10.0.0.1", ["203.0.113.7"], TRUSTED) == "203.0.113.7"
    assert client_address("::ffff:203.0.113.7", [], TRUSTED) == "203.0.113.7"
    assert client_address("fe80::1%eth0", [], TRUSTED) == "fe80::1"


def test_a_peer_that_is_no_address_is_kept_and_not_believed():
    """A Unix socket, or a test's client."""
    assert client_address("", ["203.0.113.7"], TRUSTED) == ""
    assert client_address("testclient", ["203.0.113.7"], (ip_network("0.0.0.0/0"),)) == "testclient"


@given(network=st.integers(2, 2**64 - 1), hosts=st.tuples(*[st.integers(0, 2**64 - 1)] * 2))
def test_ipv6_is_limited_by_its_64(network, hosts):
    """All of a customer's addresses share one limit, no two customers do."""
    one, other = (str(IPv6Address((network << 64) + host)) for host in hosts)
    neighbour = str(IPv6Address(((network ^ 1) << 64) + hosts[0]))

    assert limit_address(one) == limit_address(other)
    assert IPv6Network(limit_address(one)) == IPv6Network((network << 64, 64))
    assert limit_address(neighbour) != limit_address(one)


def test_ipv4_is_limited_by_itself_however_it_is_written():
    """And what is no address by what it is."""
    assert limit_address("203.0.113.7") == limit_address("::ffff:203.0.113.7") == "203.0.113.7"
    assert limit_address("fe80::1%eth0") == "fe80::/64"
    assert limit_address("testclient") == "testclient"
