"""Invitations: one stranger gets in, once and in time; everybody else hears the same refusal."""

import asyncio
import dataclasses
import json
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import certificate_text, peer_id_of
from shoestring.swarm.door import Bounds
from shoestring.swarm.invitations import (
    PREFIX,
    Invitation,
    RefusedInvitationError,
    read_invitation,
)
from shoestring.swarm.joining import REFUSAL, _to_sign, join
from shoestring.swarm.link import LinkError
from shoestring.swarm.words import pack_word, read_word
from tests.swarm.nodes import HEAR_S, Node, hostile_context, talking

HOUR_S = 3600.0
ID = peer_id_of(bytes(range(32)))
MANY = Bounds(joins_per_minute=1_000, joins_per_minute_per_address=1_000)


@pytest.fixture
def inviter(tmp_path):
    """The node that invites."""
    return Node(tmp_path / "inviter")


@pytest.fixture
def stranger(tmp_path):
    """The node that comes."""
    return Node(tmp_path / "stranger")


def invite(node, port=7000, *, rights=("use",), host="127.0.0.1"):
    """Make an invitation of an hour."""
    return node.invitations.make(
        node.identity.id,
        name="neighbour",
        addresses=[f"{host}:{port}"],
        rights=rights,
        lasts_s=HOUR_S,
    )


def listening(node, **settings):
    """Return a listener to which strangers may come."""
    return node.listener(invitations=node.invitations, **{"bounds": MANY, **settings})


async def come(node, invitation, **settings):
    """Use an invitation."""
    settings = {"name": "inviter", "timeout_s": HEAR_S, "now": node.clock, **settings}
    return await join(node.identity, invitation, node.peers, **settings)


async def refusal(node, invitation):
    """Return what is said to a stranger that must not get in."""
    with pytest.raises(LinkError) as said:
        await come(node, invitation)
    assert said.value.reason == "refused"
    assert node.peers.all() == ()
    return str(said.value)


async def raw_join(port, asked, proof):
    """Say the words of a join by hand; ``proof`` is made from the nonce; returns the answers."""
    async with talking(port, hostile_context()) as (reader, writer), asyncio.timeout(HEAR_S):
        answers = []
        for word in (lambda _: asked, proof):
            said = word(bytes.fromhex(answers[-1]["nonce"]) if answers else b"")
            writer.write(pack_word(said))
            size = int.from_bytes(await reader.readexactly(4), "little")
            answers.append(read_word(await reader.readexactly(size)))
            if not answers[-1]["ok"]:
                break
        return answers


def proof_of(node, inviter, invitation, nonce, **changed):
    """Return the second word of a stranger."""
    signed = _to_sign(nonce, inviter.identity.id, node.identity.id, invitation.invitation_id)
    return {
        "invitation": invitation.invitation_id,
        "secret": invitation.secret.hex(),
        "certificate": certificate_text(node.identity.certificate),
        "addresses": [],
        "signature": node.identity.sign("join", signed).hex(),
        **changed,
    }


def test_a_stranger_joins_and_both_know_each_other(inviter, stranger):
    """With names, rights and places as each side sees them; and links open at once."""

    async def work():
        async with listening(inviter) as listener:
            kept = await come(stranger, invite(inviter, listener.port), addresses=["10.0.0.7:7000"])
            assert await stranger.is_heard_by(inviter, listener.port)
            return listener.port, kept

    port, kept = asyncio.run(work())
    here, there = inviter.peers.find(stranger.identity.id), stranger.peers.find(inviter.identity.id)
    assert (here.name, here.rights, here.addresses) == ("neighbour", ("use",), ("10.0.0.7:7000",))
    assert (there.name, there.rights) == ("inviter", ("serve",))
    assert there.addresses == (f"127.0.0.1:{port}",)
    assert there == kept
    assert [one.used_by for one in inviter.invitations.all()] == [stranger.identity.id]
    assert Node(inviter.folder).peers.find(stranger.identity.id) == here


def test_every_invitation_that_opens_nothing_is_refused_alike(inviter, stranger, tmp_path):
    """Expired, used, withdrawn, unknown, of another secret: one answer; the log knows."""
    friend = Node(tmp_path / "friend")

    async def work():
        async with listening(inviter) as listener:
            said = []
            used = invite(inviter, listener.port)
            await come(friend, used)
            said.append(await refusal(stranger, used))
            withdrawn = invite(inviter, listener.port)
            inviter.invitations.withdraw(withdrawn.invitation_id)
            said.append(await refusal(stranger, withdrawn))
            unknown = dataclasses.replace(withdrawn, invitation_id=secrets.token_hex(8))
            said.append(await refusal(stranger, unknown))
            forged = dataclasses.replace(
                invite(inviter, listener.port), secret=secrets.token_bytes(16)
            )
            said.append(await refusal(stranger, forged))
            expired = invite(inviter, listener.port)
            inviter.now_s += HOUR_S
            said.append(await refusal(stranger, expired))
            return said, listener.refused["stranger"]

    said, counted = asyncio.run(work())
    assert len(set(said)) == 1
    assert counted == 5
    whys = [line.rpartition(": ")[2] for line in inviter.said if "was refused" in line]
    assert whys == [f"used by {friend.identity.id}", "withdrawn", "unknown", "wrong secret",
                    "expired"]  # fmt: skip
    assert inviter.links == []
    assert [peer.id for peer in inviter.peers.all()] == [friend.identity.id]


def test_of_many_that_come_at_once_with_one_invitation_one_gets_in(inviter, tmp_path):
    """Whichever."""
    strangers = [Node(tmp_path / f"s{number}") for number in range(8)]

    async def work():
        async with listening(inviter) as listener:
            invitation = invite(inviter, listener.port)
            return await asyncio.gather(
                *(come(stranger, invitation) for stranger in strangers), return_exceptions=True
            )

    came = asyncio.run(work())
    assert sum(not isinstance(one, LinkError) for one in came) == 1
    assert len(inviter.peers.all()) == 1


def test_processes_of_the_inviter_spend_an_invitation_once(inviter):
    """The file decides, not a process's memory."""
    invitation = invite(inviter)
    other = Node(inviter.folder)
    inviter.invitations.spend(invitation.invitation_id, invitation.secret, ID)

    with pytest.raises(RefusedInvitationError, match="used by"):
        other.invitations.spend(invitation.invitation_id, invitation.secret, ID)


def test_a_removed_peer_does_not_come_back_by_its_old_invitation(inviter, stranger):
    """It needs a new one; with that it is a peer again."""

    async def work():
        async with listening(inviter) as listener:
            first = invite(inviter, listener.port)
            await come(stranger, first)
            inviter.peers.remove("neighbour")
            with pytest.raises(LinkError, match="opens nothing"):
                await come(stranger, first)
            assert not await stranger.is_heard_by(inviter, listener.port)
            await come(stranger, invite(inviter, listener.port))
            assert await stranger.is_heard_by(inviter, listener.port)

    asyncio.run(work())


def test_another_node_at_the_inviters_place_learns_nothing(inviter, stranger, tmp_path):
    """The key is looked at before a byte is said; the invitation stays good."""
    thief = Node(tmp_path / "thief")

    async def work():
        async with listening(thief) as trap, listening(inviter) as listener:
            invitation = invite(inviter, trap.port)
            with pytest.raises(LinkError, match="is not") as said:
                await come(stranger, invitation)
            assert said.value.reason == "key"
            assert thief.said == []
            good = dataclasses.replace(
                invitation,
                addresses=(f"127.0.0.1:{trap.port}", f"127.0.0.1:{listener.port}"),
            )
            await come(stranger, good)  # the second place is the inviter's

    asyncio.run(work())
    assert inviter.peers.find(stranger.identity.id) is not None


def test_a_join_by_hand_gets_in(inviter, stranger):
    """So that the attacks below fail by what they change."""

    async def work():
        async with listening(inviter) as listener:
            invitation = invite(inviter, listener.port)
            return await raw_join(
                listener.port,
                {"do": "join", "peer": stranger.identity.id},
                lambda nonce: proof_of(stranger, inviter, invitation, nonce),
            )

    assert asyncio.run(work())[-1] == {"ok": True}
    assert inviter.peers.find(stranger.identity.id) is not None


@pytest.mark.parametrize(
    "attack",
    ["old nonce", "other inviter", "other key", "other id", "inviter's id", "no signature",
     "no certificate", "places", "number", "nothing"],
)  # fmt: skip
def test_a_proof_that_is_not_of_this_moment_key_and_inviter_is_refused(
    inviter, stranger, tmp_path, attack
):
    """As every other mistake; and the invitation is not used up by it."""
    other = Node(tmp_path / "other")
    asked = {"do": "join", "peer": stranger.identity.id}
    if attack == "other id":
        asked["peer"] = other.identity.id
    if attack == "inviter's id":
        asked["peer"] = inviter.identity.id

    async def work():
        async with listening(inviter) as listener:
            invitation = invite(inviter, listener.port)

            def proof(nonce):
                ours = proof_of(stranger, inviter, invitation, nonce)
                return {
                    "old nonce": proof_of(stranger, inviter, invitation, bytes(32)),
                    "other inviter": proof_of(stranger, other, invitation, nonce),
                    "other key": {
                        **ours, "certificate": certificate_text(other.identity.certificate)
                    },
                    "other id": ours,
                    "inviter's id": proof_of(inviter, inviter, invitation, nonce),
                    "no signature": {**ours, "signature": ""},
                    "no certificate": {**ours, "certificate": ""},
                    "places": {**ours, "addresses": ["a:1"] * 9},
                    "number": {**ours, "secret": 1},
                    "nothing": {},
                }[attack]  # fmt: skip

            answers = await raw_join(listener.port, asked, proof)
            assert inviter.peers.all() == ()
            await come(stranger, invitation)
            return answers

    assert asyncio.run(work())[-1] == REFUSAL


@pytest.mark.parametrize("do", ["hello", "session", "fetch", "push", None, 1])
def test_a_stranger_can_only_join(inviter, do):
    """Whatever else it says reaches nobody."""

    async def work():
        async with listening(inviter) as listener:
            return await raw_join(listener.port, {"do": do}, None)

    assert asyncio.run(work()) == [REFUSAL]
    assert inviter.links == []


def test_without_invitations_no_stranger_gets_through_the_handshake(inviter, stranger):
    """A listener that invites nobody asks everybody for a certificate."""

    async def work():
        async with inviter.listener() as listener:
            with pytest.raises(LinkError) as said:
                await come(stranger, invite(inviter, listener.port))
            return said.value.reason, listener.refused

    reason, refused = asyncio.run(work())
    assert reason == "closed"
    assert refused == {"handshake": 1}


def test_joins_are_counted_by_address_and_in_all(inviter, stranger, tmp_path):
    """More than the bound are told to wait, even with a good invitation, and nobody else is."""
    friend = Node(tmp_path / "friend")
    inviter.knows(friend)

    async def work():
        bounds = Bounds(joins_per_minute=9, joins_per_minute_per_address=2)
        async with listening(inviter, bounds=bounds) as listener:
            forged = dataclasses.replace(
                invite(inviter, listener.port), secret=secrets.token_bytes(16)
            )
            said = [await refusal(stranger, forged) for _ in range(2)]
            said.append(await refusal(stranger, invite(inviter, listener.port)))
            assert await friend.is_heard_by(inviter, listener.port)
            return said

    said = asyncio.run(work())
    assert "opens nothing" in said[1]
    assert "try again in a minute" in said[2]


def test_our_own_invitation_is_not_for_us(inviter):
    """It is said before anything is sent."""
    with pytest.raises(BadValueError, match="our own"):
        asyncio.run(come(inviter, invite(inviter)))


def test_the_secret_is_not_kept_and_not_shown(inviter):
    """Neither in the file nor printed; the file is its owner's alone."""
    invitation = invite(inviter)
    path = inviter.folder / "invitations.json"

    assert invitation.secret.hex() not in path.read_text()
    assert repr(invitation.secret) not in repr(invitation)
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(one.secret_sha256 not in repr(one) for one in inviter.invitations.all())


def test_old_invitations_are_forgotten_a_month_after_their_end(inviter):
    """When the next one is made; open ones are kept."""
    invite(inviter)
    inviter.now_s += HOUR_S + 29 * 86_400
    invite(inviter)
    assert len(inviter.invitations.all()) == 2
    inviter.now_s += 2 * 86_400
    invite(inviter)
    assert len(inviter.invitations.all()) == 2


def test_an_invitation_that_is_not_there_cannot_be_withdrawn(inviter):
    """One that was used stays used."""
    with pytest.raises(BadValueError, match="no invitation 'ff'"):
        inviter.invitations.withdraw("ff")
    invitation = invite(inviter)
    inviter.invitations.spend(invitation.invitation_id, invitation.secret, ID)
    assert inviter.invitations.withdraw(invitation.invitation_id).used_by == ID


@pytest.mark.parametrize(
    "damage", ["{", '{"version": 1}', '{"version": 1, "records": [{}]}', '{"version": 3}']
)
def test_a_damaged_file_opens_nothing(inviter, damage):
    """It is said in one line."""
    invitation = invite(inviter)
    (inviter.folder / "invitations.json").write_text(damage)

    with pytest.raises(BadValueError, match=r"invitations\.json is damaged") as said:
        inviter.invitations.spend(invitation.invitation_id, invitation.secret, ID)
    assert len(str(said.value).splitlines()) == 1


INVITATIONS = st.builds(
    Invitation,
    peer_id=st.binary(min_size=32, max_size=32).map(peer_id_of),
    addresses=st.lists(
        st.tuples(st.ip_addresses(v=4), st.integers(1, 65_535)).map("{0[0]}:{0[1]}".format),
        min_size=1,
        max_size=8,
    ).map(tuple),
    invitation_id=st.binary(min_size=8, max_size=8).map(bytes.hex),
    secret=st.binary(min_size=16, max_size=16),
    expires_s=st.integers(0, 2**40),
    rights=st.sampled_from([("serve",), ("use",), ("serve", "use")]),
)


@given(INVITATIONS)
def test_an_invitation_is_read_as_it_was_made(invitation):
    """From one line without blanks, with blanks around it as pasted."""
    text = invitation.text()

    assert text.isascii()
    assert not any(character.isspace() for character in text)
    assert read_invitation(f"  {text}\n") == invitation


@given(INVITATIONS, st.data())
def test_an_invitation_that_was_cut_or_changed_is_refused(invitation, data):
    """At once, and without its text in the message."""
    text = invitation.text()
    at = data.draw(st.integers(len(PREFIX), len(text) - 1))
    other = data.draw(st.sampled_from("abcXYZ019-_").filter(lambda one: one != text[at]))
    for wrong in (
        text[:at],
        text[:at] + other + text[at + 1 :],
        text[: at + 1] + other + text[at + 1 :],
    ):
        try:
            read = read_invitation(wrong)
        except BadValueError as error:
            said = str(error)
            assert len(said.splitlines()) == 1
            assert text[len(PREFIX) : len(PREFIX) + 20] not in said
        else:
            # Spare bits of the last character: the same bytes, written otherwise.
            assert read == invitation


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: f"{PREFIX}{raw.hex()}"))
def test_any_other_text_is_no_invitation(text):
    """Refused in one line."""
    with pytest.raises(BadValueError) as said:
        read_invitation(text)
    assert len(str(said.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changed",
    [{"id": "x"}, {"id": 1}, {"at": []}, {"at": ["x"]}, {"at": 1}, {"s": "00"}, {"s": None},
     {"until": "soon"}, {"rights": ["own"]}, {"rights": []}, {"n": "../../x"}, {"n": 5}],
)  # fmt: skip
def test_an_invitation_with_a_value_that_is_none_is_refused(inviter, monkeypatch, changed):
    """Though its check bytes are right: anybody can make those."""
    invitation = invite(inviter)
    dumps = json.dumps
    with monkeypatch.context() as patched:
        patched.setattr(json, "dumps", lambda held, **how: dumps({**held, **changed}, **how))
        text = invitation.text()

    with pytest.raises(BadValueError) as said:
        read_invitation(text)
    assert len(str(said.value).splitlines()) == 1


def test_an_invitation_lasts_a_year_at_most(inviter):
    """And has an address where the inviter can be reached."""
    for wrong in ({"lasts_s": 0}, {"lasts_s": 366 * 86_400.0}, {"addresses": []}, {"name": ""}):
        good = {"name": "n", "addresses": ["a:1"], "rights": ("use",), "lasts_s": HOUR_S}
        with pytest.raises(BadValueError):
            inviter.invitations.make(ID, **{**good, **wrong})
    assert inviter.invitations.all() == ()
