"""Nodes of one network find each other, and nobody gains by a lie. By real multicast on loopback.

Others may announce nodes there at the same time: each test looks for its own.
"""

import asyncio
from contextlib import asynccontextmanager
from functools import partial

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from shoestring.swarm import discovery
from shoestring.swarm.bootstrap import Listed, Lists, sign_list
from shoestring.swarm.certificates import peer_id_of
from shoestring.swarm.discovery import (
    MAX_PLACES,
    SERVICE,
    announce,
    find_again,
    is_loopback,
    look,
    own_addresses,
    read_id,
    read_places,
)
from tests.swarm.nodes import Node

HERE = ("127.0.0.1",)
MUST_COME_S = 60.0
ID = peer_id_of(bytes(range(32)))


def fresh_id(tmp_path, name="node"):
    """Return an id that nobody else announces, and its identity."""
    return Node(tmp_path / name).identity


@asynccontextmanager
async def announcing(peer_id, port=7433, host="127.0.0.1", **settings):
    """Announce on loopback; yields when it is done, or was said not to be, with what was said."""
    said, heard = [], asyncio.Event()

    def say(line):
        said.append(line)
        heard.set()

    task = asyncio.create_task(announce(peer_id, host, port, say=say, **settings))
    try:
        async with asyncio.timeout(MUST_COME_S):
            await heard.wait()
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_an_announced_node_is_found_and_one_that_ended_is_not(tmp_path):
    """With its place; the look ends as soon as it was heard."""
    own = fresh_id(tmp_path).id

    async def scenario():
        async with announcing(own, 7444) as said:
            while_it_runs = await look(MUST_COME_S, ids=[own], at=HERE)
        return said, while_it_runs, await look(0.3, ids=[own], at=HERE)

    said, found, after = asyncio.run(scenario())
    assert said[0].startswith("announced on the local network")
    assert found[own] == ("127.0.0.1:7444",)
    assert own not in after


def test_only_the_id_the_place_and_a_version_are_told(tmp_path):
    """No name of this machine or of a person."""
    own = fresh_id(tmp_path).id
    heard = {}

    async def scenario():
        async with announcing(own), AsyncZeroconf(interfaces=list(HERE)) as net:
            info = await net.async_get_service_info(SERVICE, f"{own}.{SERVICE}")
            heard.update(server=info.server, told=info.decoded_properties)

    asyncio.run(scenario())
    assert heard == {"server": f"{own}.local.", "told": {"id": own, "v": "1"}}


def test_a_new_address_of_this_machine_is_announced(tmp_path):
    """A laptop in another network is found there."""
    own = fresh_id(tmp_path).id
    addresses = ["127.0.0.1"]

    async def scenario():
        async with announcing(own, follow_s=0.02, own=lambda _: list(addresses)):
            addresses.append("127.0.0.9")
            async with asyncio.timeout(MUST_COME_S):
                while True:
                    found = await look(MUST_COME_S, ids=[own], at=HERE)
                    if "127.0.0.9:7433" in found[own]:
                        return

    asyncio.run(scenario())


def test_a_taken_name_is_said_and_no_error(tmp_path):
    """Whoever hides a node this way hides it from strangers only; its owner is told."""
    own = fresh_id(tmp_path).id

    async def scenario():
        # Of another address: answers to one of two programs there may go to the other.
        async with announcing(own), announcing(own, host="127.0.0.2") as said:
            return said

    assert asyncio.run(scenario())[0].startswith("not announced on the local network any more (")


def test_a_machine_without_multicast_serves_unannounced(tmp_path):
    """It is said, and nothing is raised: the address can be told to peers."""
    own = fresh_id(tmp_path).id

    def none(_):
        raise OSError(19, "No such device")

    async def scenario():
        async with announcing(own, own=none) as said:
            return said

    assert "tell peers the address" in asyncio.run(scenario())[0]


@pytest.mark.parametrize("at", [["fe80::1"], ["2001:db8::77"], ["nowhere"]])
def test_an_interface_that_is_none_of_this_machines_is_an_error_of_the_system(tmp_path, at):
    """Whatever the library makes of it; a peer is then looked for in lists alone."""
    own = fresh_id(tmp_path).id
    with pytest.raises(OSError, match=r"."):
        asyncio.run(look(0.1, at=at))
    lists = Lists(tmp_path / "lists.json", now=lambda: 1_800_000_000.0)
    assert asyncio.run(find_again([own], lists, at=at)) == {own: ()}


def announced_as(name, properties, port=7433, addresses=("127.0.0.1",)):
    """Return what anybody could announce."""
    return ServiceInfo(
        SERVICE, f"{name}.{SERVICE}", port=port, properties=properties, server=f"{name}.local.",
        parsed_addresses=list(addresses),
    )  # fmt: skip


def test_who_announces_nonsense_is_not_found(tmp_path):
    """No id, an id that is none, and another's id under an own name."""
    true, victim = fresh_id(tmp_path).id, fresh_id(tmp_path, "victim").id

    async def scenario():
        async with AsyncZeroconf(interfaces=list(HERE)) as net:
            for name, properties in (
                ("none", {}),
                ("bad", {"id": "nobody"}),
                ("liar", {"id": victim}),
            ):
                await net.async_register_service(
                    announced_as(f"{name}-{true[:8]}", properties), cooperating_responders=True
                )
            async with announcing(true):
                found = await look(10.0, at=HERE)
        return found

    found = asyncio.run(scenario())
    assert true in found
    assert victim not in found


@given(st.one_of(st.none(), st.text(max_size=60), st.binary(max_size=60)))
def test_an_id_is_one_or_none(said):
    """Whatever bytes stand in its place."""
    assert read_id(announced_as("x", {"id": said})) is None
    assert read_id(announced_as(ID, {"id": ID})) == ID
    assert read_id(announced_as("x", {"id": ID})) is None


def test_places_are_few_and_begin_with_ipv4():
    """A node that announces a hundred addresses would have us try a hundred."""
    many = ["fd00::1", *(f"192.168.1.{number}" for number in range(1, 50)), "fd00::2"]
    places = read_places(announced_as(ID, {}, 7000, many))
    assert len(places) == MAX_PLACES
    assert all(place.startswith("192.168.1.") for place in places)
    assert read_places(announced_as(ID, {}, 7000, ["fd00::1"])) == ("[fd00::1]:7000",)


def test_a_port_that_is_none_is_no_place():
    """It is what a service without one announces."""
    assert read_places(announced_as(ID, {}, 0)) == ()


def test_a_peer_that_moved_is_found_by_network_and_by_list(tmp_path, monkeypatch):
    """First where it announces itself, then where a list says."""
    monkeypatch.setattr(discovery, "look", partial(look, 6.0))  # a busy machine answers late
    moved, signer = fresh_id(tmp_path), fresh_id(tmp_path, "signer")
    absent = fresh_id(tmp_path, "absent")
    lists = Lists(tmp_path / "lists.json", now=lambda: 1_800_000_000.0)
    nodes = [
        Listed(one.id, (f"{name}.example:7433",), one.certificate)
        for one, name in ((moved, "moved"), (absent, "absent"))
    ]
    text = sign_list(signer, nodes, lasts_s=3600.0, now_s=1_800_000_000.0)
    lists.use(text.encode(), signer.id)

    async def scenario():
        async with announcing(moved.id, 7450):
            one = await find_again([moved.id], lists, at=HERE)
            other = await find_again([moved.id, absent.id], lists, at=HERE)
        return one, other

    one, other = asyncio.run(scenario())
    assert one == {moved.id: ("127.0.0.1:7450", "moved.example:7433")}
    assert other == {**one, absent.id: ("absent.example:7433",)}


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("::", False), ("0.0.0.0", False)],
)
def test_a_node_on_loopback_alone_is_known_as_such(host, expected):
    """It is not announced unless asked for: nobody else reaches it."""
    assert is_loopback(host) is expected


def test_own_addresses_are_those_that_others_reach():
    """Not loopback, nor what holds on one link only; none of IPv6 for an IPv4 listener."""
    everywhere, v4 = own_addresses("::"), own_addresses("0.0.0.0")
    assert own_addresses("127.0.0.1") == ["127.0.0.1"]
    assert set(v4) <= set(everywhere)
    assert not [one for one in everywhere if one.startswith(("127.", "fe80", "::1"))]
    assert not [one for one in v4 if ":" in one]
    known = {one.address for of_one in psutil.net_if_addrs().values() for one in of_one}
    assert set(everywhere) <= known
