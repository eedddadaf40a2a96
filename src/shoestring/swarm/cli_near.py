"""``shoestring swarm nearby`` and ``swarm list``: how nodes are found that are not invited yet."""

from __future__ import annotations

import asyncio
import json
import time
from typing import IO, TYPE_CHECKING, Final

import click

from shoestring.errors import BadValueError, MissingError
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from shoestring.swarm.bootstrap import Listed
    from shoestring.swarm.home import Home

HOUR_S: Final = 3600.0
NEARBY_EXAMPLES = """\b
Examples:
  shoestring swarm nearby                              who is announced here, within 3 s
  shoestring swarm nearby --seconds 10 --json
  shoestring swarm nearby --interface 192.168.1.20     on the network of this address alone
"""
LIST_EXAMPLES = """\b
Examples (on a machine that everybody trusts, and on any other):
  shoestring swarm list sign --peer lab --peer attic --days 30 > nodes.json
\b
  shoestring swarm list use --signer ID < nodes.json   ID as `shoestring swarm id` printed it there
"""


@click.command(epilog=NEARBY_EXAMPLES)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=3.0, show_default=True,
              help="How long to listen.")  # fmt: skip
@click.option("--interface", "interfaces", multiple=True, metavar="ADDRESS",
              help="Only on this address's network, again for more.  [default: all]")  # fmt: skip
@JSON_OPTION
def nearby(seconds: float, interfaces: tuple[str, ...], *, as_json: bool) -> None:
    """List nodes that announce themselves on the local network.

    To find one is no admission: its owner has to invite you. Whoever is on the network can announce
    anything; what a peer is known by is its key, not its place.
    """
    from shoestring.swarm.discovery import look
    from shoestring.swarm.home import Home

    try:
        found = asyncio.run(look(seconds, at=interfaces or None))
    except OSError as error:
        where = ", ".join(interfaces) or "any interface"
        raise MissingError(f"no multicast on {where}: {error}; ask for an address") from error
    home = Home()
    own, names = home.identity().id, _names(home)
    shown = [
        {"id": peer_id, "addresses": list(places), "peer": names.get(peer_id)}
        for peer_id, places in sorted(found.items())
        if peer_id != own
    ]
    if as_json:
        click.echo(json.dumps({"nodes": shown}))
        return
    for peer_id, places in found.items():
        if peer_id != own:
            click.echo(_line(peer_id, places, names))
    if not shown:
        say(f"no other node was heard in {seconds:g} s: one on loopback alone announces nothing")


@click.group("list", epilog=LIST_EXAMPLES)
def lists() -> None:
    """Signed lists of nodes: found from afar, by the word of somebody whom you trust.

    A list lets nobody in: a node on it still has to invite you.
    """


@lists.command(epilog=LIST_EXAMPLES)
@click.option("--peer", "chosen", multiple=True, metavar="ID|NAME",
              help="Put this peer on it, at its known addresses; again for more.")  # fmt: skip
@click.option("--address", "addresses", multiple=True, metavar="HOST:PORT",
              help="Put this node on it, which listens here; again for more.")  # fmt: skip
@click.option("--days", type=click.FloatRange(0.01, 365), default=30.0, show_default=True,
              help="How long it is believed.")  # fmt: skip
def sign(chosen: tuple[str, ...], addresses: tuple[str, ...], days: float) -> None:
    """Print a list of nodes, signed by this node's key.

    Only who is named is on it; ask them first, for the list tells their addresses to all.
    """
    from shoestring.swarm.bootstrap import Listed, sign_list
    from shoestring.swarm.home import Home

    home = Home()
    identity = home.identity()
    nodes = [_listed(home, one) for one in chosen]
    if addresses:
        nodes.append(Listed(identity.id, addresses, identity.certificate))
    if not nodes:
        raise BadValueError(
            "nobody is named: give --peer NAME, or --address HOST:PORT of this node"
        )
    text = sign_list(identity, nodes, lasts_s=days * 24 * HOUR_S, now_s=time.time())
    click.echo(text, nl=False)
    say(f"{len(nodes)} nodes; who uses it gives --signer {identity.id}")


@lists.command(epilog=LIST_EXAMPLES)
@click.option("--signer", required=True, metavar="ID", help="Who must have signed it.")
@click.option(
    "--from", "file", type=click.File("rb"), default="-", help="[default: standard input]"
)
def use(signer: str, file: IO[bytes]) -> None:
    """Believe a list of nodes, read from standard input, until it runs out.

    Peers on it that have moved are found again. Nodes on it that are no peers are shown: ask their
    owners for an invitation.
    """
    from shoestring.swarm.bootstrap import LARGEST_BYTES, LISTS_FILE, Lists
    from shoestring.swarm.home import Home

    home = Home()
    found = Lists(home.folder / LISTS_FILE).use(file.read(LARGEST_BYTES + 1), signer)
    own, names = home.identity().id, _names(home)
    for node in found.nodes:
        if node.id != own:
            click.echo(_line(node.id, node.addresses, names))


def _names(home: Home) -> dict[str, str]:
    return {peer.id: peer.name for peer in home.peers(say).active()}


def _line(peer_id: str, places: tuple[str, ...], names: dict[str, str]) -> str:
    who = f"peer {names[peer_id]}" if peer_id in names else "no peer: ask its owner to invite you"
    return f"{peer_id}  {' '.join(places) or 'no address'}  {who}"


def _listed(home: Home, id_or_name: str) -> Listed:
    from shoestring.swarm.bootstrap import Listed

    found = [peer for peer in home.peers(say).active() if id_or_name in (peer.id, peer.name)]
    if len(found) != 1:
        how = "several peers have that name: give an id" if found else "no such peer"
        raise BadValueError(f"--peer {id_or_name}: {how}; shoestring swarm peers shows them")
    return Listed(found[0].id, found[0].addresses, found[0].certificate)
