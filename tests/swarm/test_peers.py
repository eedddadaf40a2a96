"""The file of peers and the places where they are: kept without loss, refused in one line."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.addresses import PeerAddress, parse_place
from shoestring.swarm.certificates import peer_id_of
from shoestring.swarm.peers import Peer
from tests.swarm.nodes import Node

ID = peer_id_of(bytes(32))
ADMIT_TEN = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from shoestring.swarm.certificates import make_certificate, read_certificate
from shoestring.swarm.peers import Peer, Peers
path, name = Path(sys.argv[1]), sys.argv[2]
sys.stdin.read(1)
for number in range(10):
    certificate = make_certificate(Ed25519PrivateKey.generate())
    peer = Peer(read_certificate(certificate), f"{name}{number}", certificate, (), ("use",), 0.0)
    Peers(path, say=print).admit(peer)
    if number % 2:
        Peers(path, say=print).remove(peer.id)
"""


@pytest.fixture
def node(tmp_path):
    """The node whose file it is."""
    return Node(tmp_path / "ours")


@pytest.fixture
def friend(tmp_path):
    """Another node."""
    return Node(tmp_path / "friend")


def test_a_peer_comes_back_as_it_was_admitted(node, friend):
    """By another process, too; the file is its owner's alone."""
    peer = node.record_of(friend, rights=("use",))
    node.peers.admit(peer)

    again = Node(node.folder)
    assert node.peers.find(peer.id) == again.peers.find(peer.id) == peer
    assert (node.folder / "peers.json").stat().st_mode & 0o777 == 0o600


def test_a_removed_peer_is_found_no_more_and_still_listed(node, friend):
    """By its name or its id; a second removal changes nothing."""
    node.knows(friend)
    removed = node.peers.remove("a friend")
    node.now_s += 60

    assert node.peers.find(friend.identity.id) is None
    assert node.peers.active() == ()
    assert node.peers.all() == (removed,)
    assert node.peers.remove(friend.identity.id) == removed


def test_a_peer_ends_when_it_expires(node, friend):
    """To the second, and without the file being read."""
    record = node.record_of(friend)
    node.peers.admit(Peer(**{**vars(record), "expires_s": node.now_s + 10}))
    node.now_s += 9
    assert node.peers.find(friend.identity.id) is not None
    node.now_s += 1
    assert node.peers.find(friend.identity.id) is None


def test_a_peer_that_is_invited_again_is_back_with_its_new_rights(node, friend):
    """The removal is replaced, and so is what it might do before."""
    node.knows(friend)
    node.peers.remove("a friend")
    node.knows(friend, rights=("serve",))

    assert node.peers.find(friend.identity.id).rights == ("serve",)


def test_a_change_by_another_process_is_noticed(node, friend):
    """Once: what did not change is not read again."""
    Node(node.folder).knows(friend)
    assert node.peers.find(friend.identity.id) is None

    assert node.peers.reload()
    assert node.peers.find(friend.identity.id) is not None
    assert not node.peers.reload()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"use"', '"own"'),
        lambda text: text.replace("a friend", "a\\u202efriend"),
        lambda text: text.replace('"since_s": 1', '"since_s": "x1'),
        lambda text: text.replace(":7000", ":70000"),
        lambda text: text.replace('"name"', '"nome"'),
        lambda text: text.replace("certificate", "certificates"),
        lambda _text: "[]",
    ],
    ids=["cut", "version", "right", "name", "time", "address", "field", "no field", "list"],
)
def test_a_damaged_file_is_refused_at_the_start_and_changes_nothing_later(node, friend, damage):
    """A running node keeps whom it knew, and says so once."""
    node.knows(friend)
    path = node.folder / "peers.json"
    assert node.peers.reload()
    path.write_text(damage(path.read_text()))

    with pytest.raises(BadValueError, match=r"peers\.json is damaged") as said:
        Node(node.folder)
    assert len(str(said.value).splitlines()) == 1
    assert not node.peers.reload()
    assert not node.peers.reload()
    assert node.peers.find(friend.identity.id) is not None
    assert len(node.said) == 1


def test_a_certificate_of_another_key_is_refused_in_the_file(node, friend, tmp_path):
    """An id that was changed by hand lets nobody in."""
    node.knows(friend)
    other = Node(tmp_path / "other")
    path = node.folder / "peers.json"
    path.write_text(path.read_text().replace(friend.identity.id, other.identity.id))

    with pytest.raises(BadValueError, match="not of the peer"):
        Node(node.folder)


def test_a_file_that_others_can_change_is_refused(node, friend):
    """Whoever can write it is in."""
    node.knows(friend)
    (node.folder / "peers.json").chmod(0o620)

    with pytest.raises(BadValueError, match="open to others"):
        Node(node.folder)


def test_no_right_name_or_place_that_is_none_is_admitted(node, friend):
    """Each in one line."""
    good = vars(node.record_of(friend))
    for wrong in (
        {"rights": ()},
        {"rights": ("use", "serve")},
        {"rights": ("use", "use")},
        {"name": ""},
        {"name": " a"},
        {"name": "a\nb"},
        {"name": "x" * 81},
        {"addresses": ("nowhere",)},
        {"addresses": ("a:1",) * 9},
        {"id": ID},
    ):
        with pytest.raises(BadValueError) as said:
            Peer(**{**good, **wrong})
        assert len(str(said.value).splitlines()) == 1


def test_a_name_that_several_have_removes_none(node, friend, tmp_path):
    """The ids are named, to choose from; of which one was removed, the other is meant."""
    other = Node(tmp_path / "other")
    node.knows(friend, other)

    with pytest.raises(BadValueError, match=f"several peers.*{other.identity.id}"):
        node.peers.remove("a friend")
    node.peers.remove(other.identity.id)
    assert node.peers.remove("a friend").id == friend.identity.id
    with pytest.raises(BadValueError, match="no peer 'nobody'"):
        node.peers.remove("nobody")


def test_processes_that_admit_and_remove_at_once_lose_nothing(node):
    """Nor leave a file half-way beside the whole one."""
    path = node.folder / "peers.json"
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", ADMIT_TEN, path, name], stdin=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    for maker in makers:
        maker.stdin.write("x")
        maker.stdin.close()
    assert [maker.wait(120) for maker in makers] == [0, 0]

    node.peers.reload()
    assert {peer.name for peer in node.peers.all()} == {f"{n}{i}" for n in "ab" for i in range(10)}
    assert {peer.name for peer in node.peers.active()} == {
        f"{n}{i}" for n in "ab" for i in range(0, 10, 2)
    }
    assert len(json.loads(path.read_text())["records"]) == 20


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7000", "127.0.0.1", 7000),
        ("[::1]:1", "::1", 1),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
        ("node-1.local:80", "node-1.local", 80),
        ("localhost:80", "localhost", 80),
    ],
)
def test_places_as_people_write_them(text, host, port):
    """Names, IPv4, IPv6 with a zone."""
    address = PeerAddress.parse(f"{ID}@{text}")

    assert (address.id, address.host, address.port) == (ID, host, port)
    assert str(address) == f"{ID}@{text}"
    assert address.place == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "host", "host:", ":80", "host:0", "host:65536", "host:080", "host:+80", "host:8 0",
        "host:٨٠", "::1:80", "[::1]80", "[::1]:", "[host]:80", "[::1%]:80", "[::1%a/b]:80",
        "ho st:80", "höst:80", "-host:80", "host-:80", "a/b:80", "a@b:80", "host:80\n",
        "h" * 254 + ":80",
    ],
)  # fmt: skip
def test_places_that_are_none(text):
    """Refused in one line that says how it is written."""
    with pytest.raises(BadValueError) as said:
        parse_place(text)
    assert len(str(said.value).splitlines()) == 1
    with pytest.raises(BadValueError):
        PeerAddress.parse(f"{ID}@{text}")


@given(st.text(max_size=120) | st.text("ab.1:[]%@-_0", max_size=30).map(f"{ID}@".__add__))
def test_any_text_is_an_address_that_shows_itself_or_none(text):
    """What was read reads the same again."""
    try:
        address = PeerAddress.parse(text)
    except BadValueError as error:
        said = str(error)
        assert len(said.splitlines()) == 1
        return
    assert PeerAddress.parse(str(address)) == address
    assert str(address) == text


@given(
    st.ip_addresses().map(str) | st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z"),
    st.integers(-2, 70_000),
)
def test_every_address_that_can_be_made_can_be_read(host, port):
    """And one with a port that is none can be neither."""
    try:
        address = PeerAddress(ID, host, port)
    except BadValueError:
        assert not 1 <= port <= 65_535
        return
    assert PeerAddress.parse(str(address)) == address


def test_an_address_has_a_peer_and_no_brackets():
    """They are written, not kept."""
    for wrong in (("x", "host", 1), (ID.upper(), "host", 1), (ID, "[::1]", 1), (ID, "", 1)):
        with pytest.raises(BadValueError):
            PeerAddress(*wrong)
    with pytest.raises(BadValueError, match="ID@HOST:PORT"):
        PeerAddress.parse("host:80")
