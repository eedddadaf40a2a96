"""Nodes that trust or distrust each other, for the tests of links."""

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress

from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.identity import load_identity
from shoestring.swarm.invitations import Invitations
from shoestring.swarm.link import ALPN, Link, LinkError, connect
from shoestring.swarm.listening import Listener
from shoestring.swarm.peers import Peer, Peers

HEAR_S = 30.0


class Node:
    """A node's files in a folder, and what it said."""

    def __init__(self, folder):
        """Make or find them; the clock is moved by hand."""
        self.folder = folder
        self.said = []
        self.now_s = 1_800_000_000.0
        self.identity = load_identity(folder / "identity.key")
        self.peers = Peers(folder / "peers.json", say=self.said.append, now=self.clock)
        self.invitations = Invitations(folder / "invitations.json", now=self.clock)
        self.links = []
        """Peer ids of which ``on_link`` was told."""

    def clock(self):
        """Return the seconds since 1970 that the test set."""
        return self.now_s

    def knows(self, *others, rights=("serve", "use")):
        """Admit other nodes."""
        for other in others:
            self.peers.admit(self.record_of(other, rights=rights))

    def record_of(self, other, rights=("serve", "use")):
        """Return what this node would keep of another."""
        return Peer(
            id=other.identity.id,
            name="a friend",
            certificate=other.identity.certificate,
            addresses=("127.0.0.1:7000",),
            rights=rights,
            since_s=self.now_s,
        )

    async def echo(self, link: Link) -> None:
        """Answer one word, and then give bytes back for ever."""
        self.links.append(link.peer_id)
        word = await link.hear(HEAR_S)
        await link.say({"ok": True, "heard": word, "purposes": sorted(link.purposes)})
        link.hand_over(Echo())

    def listener(self, on_link=None, **settings) -> Listener:
        """Return a listener of this node on loopback."""
        settings = {"host": "127.0.0.1", "say": self.said.append, "now": self.clock, **settings}
        return Listener(self.identity, self.peers, on_link=on_link or self.echo, **settings)

    async def link_to(self, other, port, host="127.0.0.1") -> Link:
        """Connect to another node's listener."""
        return await connect(
            self.identity,
            PeerAddress(other.identity.id, host, port),
            certificate=other.identity.certificate,
            timeout_s=HEAR_S,
        )

    async def is_heard_by(self, other, port) -> bool:
        """Tell whether another node's listener answers a word of ours."""
        link = await self.link_to(other, port)
        try:
            await link.say({"do": "hello"})
            return (await link.hear(HEAR_S))["ok"]
        except LinkError as error:
            if error.reason != "closed":
                raise
            return False
        finally:
            link.abort()


class Echo(asyncio.Protocol):
    """Gives every byte back."""

    def connection_made(self, transport):
        """Keep it."""
        self.transport = transport

    def data_received(self, data):
        """Give it back."""
        self.transport.write(data)


class Collector(asyncio.Protocol):
    """Keeps what comes, and knows when it ended."""

    def __init__(self):
        """Begin with nothing."""
        self.got = bytearray()
        self.ended = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    def data_received(self, data):
        """Keep it."""
        self.got += data
        self._news.set()

    def connection_lost(self, exc):
        """Say so."""
        self._news.set()
        if not self.ended.done():
            self.ended.set_result(exc)

    async def has(self, count):
        """Wait until so many bytes came."""
        async with asyncio.timeout(HEAR_S):
            while len(self.got) < count:
                self._news.clear()
                await self._news.wait()
        return bytes(self.got)


def hostile_context(identity=None, *, chain=None, alpn=(ALPN,), tls=None):
    """Return a client's context that checks nothing and shows what it is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls is not None:
        context.minimum_version = context.maximum_version = tls
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if identity is not None:
        identity.show_in(context)
    if chain is not None:
        context.load_cert_chain(*chain)
    return context


@asynccontextmanager
async def talking(port, context=None, host="127.0.0.1"):
    """Connect as a stranger would, with TLS or without; yields reader and writer."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def answer_to(port, context, said=b""):
    """Return all that a stranger gets for its bytes before the other side ends the connection."""
    try:
        async with talking(port, context) as (reader, writer), asyncio.timeout(HEAR_S):
            writer.write(said)
            await writer.drain()
            return await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""
