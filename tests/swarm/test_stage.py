"""A stage at the client: who joins it, over real links, and whose way to the next is opened."""

import asyncio
from contextlib import asynccontextmanager

from shoestring.swarm import stage as stages
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.remote import Remote, open_session
from shoestring.swarm.routes import Route, Routes
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import standing_stages
from tests.swarm.nodes import HEAR_S, Node


@asynccontextmanager
async def serving(node, friend, said=b""):
    """Let a node give sessions of which nobody hears, but for what it says at once."""

    async def answer(link):
        if (await link.hear(HEAR_S))["do"] == "session":
            await link.say({"ok": True, "session": "one", "stores": False})
            link.hand_over(asyncio.Protocol()).write(said)
        await link.until_closed()

    node.knows(friend)
    async with node.listener(answer) as listener:
        address = PeerAddress(node.identity.id, "127.0.0.1", listener.port)
        yield Remote(node.folder.name, address, node.identity.certificate)


def test_who_speaks_before_it_is_spoken_to_does_not_join(tmp_path, monkeypatch):
    """Another is asked in its place, at once."""
    friend, hasty, spare = (Node(tmp_path / name) for name in ("friend", "hasty", "spare"))
    told, joined = [], asyncio.Event()

    async def opening(identity, remote, **settings):
        """Return when also what comes after the node's word is here."""
        opened = await open_session(identity, remote, **settings)
        if remote.name == "hasty" and not opened.link._held:
            opened.link._news.clear()
            await opened.link._news.wait()
        return opened

    def tell(event):
        told.append((event.what, event.who))
        if event.what == "joined":
            joined.set()

    async def scenario():
        async with (
            serving(hasty, friend, bytes(64)) as first,
            serving(spare, friend) as second,
            standing_stages(
                friend.identity, [[first]], Spares([Spare(second, 1)]), None,
                needs=[Need(1)], tell=tell,
            ) as (stage,),
        ):  # fmt: skip
            _, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            await asyncio.wait_for(joined.wait(), HEAR_S)
            writer.close()

    monkeypatch.setattr(stages, "open_session", opening)
    asyncio.run(scenario())
    assert told[:2] == [("unreachable", "hasty"), ("joined", "spare")]


class Peer:
    """Stands for a session at a node."""

    def __init__(self, name):
        """Name it."""
        self.name = self.seat = name


def test_who_was_replaced_is_let_in_no_more_for_a_way_that_was_being_opened(monkeypatch):
    """Its word could come after the one for who took its place, and take it back."""
    former, latter, target = map(Peer, ("former", "latter", "target"))
    leading, told = [former, target], []

    async def open_slowly(_route, _stage):
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    monkeypatch.setattr(Route, "open", open_slowly)

    async def scenario():
        routes = Routes(None, lambda stage: leading[stage], lambda *words: told.append(words))
        routes.find(0, 1)
        await asyncio.sleep(0)
        leading[0] = latter
        routes.find(0, 1)
        await asyncio.gather(*routes._tasks, return_exceptions=True)

    asyncio.run(scenario())
    assert told == [(0, "pushes", "latter", "to target")]
