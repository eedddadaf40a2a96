"""Signed lists of nodes: whom they are believed of, for how long, and what they are good for."""

import asyncio
import json
import secrets
import tempfile
from functools import cache
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.bootstrap import (
    LARGEST_BYTES,
    MAX_LISTS,
    MAX_NODES,
    PURPOSE,
    Listed,
    Lists,
    read_list,
    sign_list,
)
from shoestring.swarm.identity import load_identity
from tests.swarm.nodes import Node

NOW_S = 1_800_000_000.0
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    """Who makes lists."""
    return load_identity(tmp_path_factory.mktemp("signer") / "identity.key")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A node, and somebody else who could sign."""
    return load_identity(tmp_path_factory.mktemp("other") / "identity.key")


def listed(identity, *addresses):
    """Return a node as a list has it."""
    return Listed(identity.id, addresses or ("192.168.1.20:7433",), identity.certificate)


def made(signer, *nodes, days=30.0, now_s=NOW_S):
    """Return a list as bytes."""
    return sign_list(signer, nodes, lasts_s=days * DAY_S, now_s=now_s).encode()


def read(text, signer, now_s=NOW_S):
    """Read it."""
    return read_list(text, signer=signer.id, now_s=now_s)


def forged(text, change):
    """Return a list whose content was changed, its signature kept."""
    whole = json.loads(text)
    change(whole["list"])
    return json.dumps(whole).encode()


def signed_anyway(signer, content):
    """Return whatever content with a good signature."""
    signature = signer.sign(PURPOSE, rfc8785.dumps(content)).hex()
    return json.dumps({"list": content, "signature": signature}).encode()


def test_a_list_is_read_as_it_was_signed(signer, other):
    """However its JSON is laid out."""
    text = made(signer, listed(other, "a.example:7433", "[fd00::2]:7433"), listed(signer))
    found = read(json.dumps(json.loads(text), separators=(",", ":")).encode(), signer)
    assert [node.id for node in found.nodes] == [other.id, signer.id]
    assert found.nodes[0].addresses == ("a.example:7433", "[fd00::2]:7433")
    assert (found.signer, found.expires_s) == (signer.id, NOW_S + 30 * DAY_S)


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held["nodes"][0]["at"].append("198.51.100.9:7433"),
        lambda held: held["nodes"][0]["at"].__setitem__(0, "198.51.100.9:7433"),
        lambda held: held.__setitem__("until", held["until"] + 1),
        lambda held: held["nodes"].clear(),
        lambda held: held.__setitem__("more", 1),
    ],
)
def test_a_changed_list_is_refused(signer, other, change):
    """An address, a time, a node, a field: none is believed without the signature."""
    with pytest.raises(BadValueError, match="was changed after"):
        read(forged(made(signer, listed(other)), change), signer)


def test_a_list_of_another_signer_is_refused(signer, other):
    """Also one that only says that it is ours."""
    with pytest.raises(BadValueError, match="not by"):
        read(made(other, listed(other)), signer)
    says_so = forged(made(other, listed(other)), lambda held: held.update(signer=signer.id))
    with pytest.raises(BadValueError, match="was changed after"):
        read(says_so, signer)


def test_a_signature_for_another_purpose_is_no_signature(signer, other):
    """What a node signs to join is no list."""
    content = json.loads(made(signer, listed(other)))["list"]
    signature = signer.sign("join", rfc8785.dumps(content)).hex()
    with pytest.raises(BadValueError, match="was changed after"):
        read(json.dumps({"list": content, "signature": signature}).encode(), signer)


def test_a_list_that_ran_out_is_refused(signer, other):
    """To the second, and the message says since when."""
    text = made(signer, listed(other), days=1)
    assert read(text, signer, NOW_S + DAY_S - 1).nodes
    for late_s, how in ((0, "today"), (2 * DAY_S, "2 days ago")):
        with pytest.raises(BadValueError, match=f"ran out {how}"):
            read(text, signer, NOW_S + DAY_S + late_s)


def test_a_list_from_the_future_is_refused(signer, other):
    """One clock is wrong; some minutes are let pass."""
    text = made(signer, listed(other))
    assert read(text, signer, NOW_S - 60).nodes
    with pytest.raises(BadValueError, match="future"):
        read(text, signer, NOW_S - DAY_S)


def test_an_oversize_list_is_refused_unread(signer):
    """Before a byte of it is parsed."""
    with pytest.raises(BadValueError, match=str(LARGEST_BYTES)):
        read(b"[" * (LARGEST_BYTES + 1), signer)


def test_the_longest_list_can_be_read(signer, other):
    """As many nodes as may be on one, with several addresses each."""
    long = ["x" * 60 + f".example:{port}" for port in range(7000, 7003)]
    text = made(signer, *(listed(other, *long) for _ in range(MAX_NODES)))
    assert len(read(text, signer).nodes) == MAX_NODES


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.update(v=2),
        lambda held: held.pop("nodes"),
        lambda held: held.update(until="tomorrow"),
        lambda held: held.update(nodes=[7]),
        lambda held: held["nodes"][0].pop("key"),
        lambda held: held.update(nodes=None),
    ],
)
def test_a_list_that_its_signer_made_wrong_is_refused(signer, other, change):
    """A good signature makes no sense of it."""
    content = json.loads(made(signer, listed(other)))["list"]
    change(content)
    with pytest.raises(BadValueError, match="another version"):
        read(signed_anyway(signer, content), signer)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda node, _: node.update(at=[]), "no address"),
        (lambda node, _: node.update(at=["nowhere"]), "HOST:PORT"),
        (lambda node, them: node.update(id=them.id), "certificate"),
    ],
)
def test_a_node_that_cannot_be_is_refused(signer, other, change, names):
    """With the name of what is wrong."""
    content = json.loads(made(signer, listed(other)))["list"]
    change(content["nodes"][0], signer)
    with pytest.raises(BadValueError, match=names):
        read(signed_anyway(signer, content), signer)


@given(st.binary(max_size=400))
def test_garbage_is_refused_with_one_line(text):
    """Whatever was fetched instead of a list."""
    signer = "a" * 52
    with pytest.raises(BadValueError) as refused:
        read_list(text, signer=signer, now_s=NOW_S)
    assert "\n" not in str(refused.value)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_flipped_byte_is_refused_or_means_the_same(at, bits):
    """The second: between the tokens of the JSON, and in the case of hexadecimal digits."""
    whole, signer, node = _list_once()
    broken = bytearray(whole)
    broken[at % len(broken)] ^= bits
    try:
        found = read_list(bytes(broken), signer=signer, now_s=NOW_S)
    except BadValueError:
        return
    assert found.nodes == (node,)


@cache
def _list_once():
    """Return a list, its signer's id and its one node: a key takes longer than an example."""
    with tempfile.TemporaryDirectory() as folder:
        signer = load_identity(Path(folder) / "identity.key")
    return made(signer, listed(signer)), signer.id, listed(signer)


@pytest.mark.parametrize(
    ("count", "days", "names"),
    [(0, 1, "0 nodes"), (MAX_NODES + 1, 1, "nodes"), (1, 0, "lasts_s"), (1, 400, "lasts_s")],
)
def test_a_list_that_nobody_could_use_is_not_signed(signer, count, days, names):
    """Too long, too many, too old."""
    with pytest.raises(BadValueError, match=names):
        made(signer, *(listed(signer) for _ in range(count)), days=days)


def test_lists_in_use_give_places_until_they_run_out(tmp_path, signer, other):
    """Of those who are asked for, and of each signer."""
    clock = [NOW_S]
    lists = Lists(tmp_path / "lists.json", now=lambda: clock[0])
    assert lists.places([other.id]) == {}
    lists.use(made(signer, listed(other, "a.example:1"), listed(signer), days=1), signer.id)
    lists.use(made(other, listed(other, "b.example:2"), days=3), other.id)
    assert lists.places([other.id]) == {other.id: ("a.example:1", "b.example:2")}
    clock[0] += 2 * DAY_S
    assert lists.places([other.id, signer.id]) == {other.id: ("b.example:2",)}


def test_a_newer_list_takes_the_place_of_the_older_and_never_the_other_way(tmp_path, signer, other):
    """Somebody who can only repeat what was signed brings no old address back."""
    old = made(signer, listed(other, "old.example:1"))
    new = made(signer, listed(other, "new.example:1"), now_s=NOW_S + 5)
    lists = Lists(tmp_path / "lists.json", now=lambda: NOW_S + 10)
    lists.use(old, signer.id)
    lists.use(new, signer.id)
    lists.use(new, signer.id)
    with pytest.raises(BadValueError, match="older than the one in use"):
        lists.use(old, signer.id)
    assert lists.places([other.id]) == {other.id: ("new.example:1",)}


def test_a_file_of_lists_that_was_changed_is_not_believed(tmp_path, signer, other):
    """Each time it is read the signatures count, not the file."""
    path = tmp_path / "lists.json"
    lists = Lists(path, now=lambda: NOW_S)
    lists.use(made(signer, listed(other, "a.example:1")), signer.id)
    path.write_text(path.read_text().replace("a.example", "b.example"))
    assert lists.places([other.id]) == {}


def test_lists_of_too_many_signers_are_refused(tmp_path):
    """A file does not grow for ever."""
    lists = Lists(tmp_path / "lists.json", now=lambda: NOW_S)
    for number in range(MAX_LISTS + 1):
        one = Node(tmp_path / f"{number}-{secrets.token_hex(4)}").identity
        if number < MAX_LISTS:
            lists.use(made(one, listed(one)), one.id)
    with pytest.raises(BadValueError, match=f"{MAX_LISTS} lists"):
        lists.use(made(one, listed(one)), one.id)


def test_being_on_a_list_lets_nobody_in(tmp_path, signer):
    """Neither the signer nor a node on it is a peer by that."""
    reader = Node(tmp_path / "reader")
    Lists(reader.folder / "lists.json", now=lambda: NOW_S).use(
        made(signer, listed(signer)), signer.id
    )
    assert reader.peers.find(signer.id) is None
    assert asyncio.run(_is_heard(tmp_path, reader)) is False


async def _is_heard(tmp_path, reader):
    stranger = Node(tmp_path.parent / f"{tmp_path.name}-stranger")
    async with reader.listener() as listener:
        return await stranger.is_heard_by(reader, listener.port)
