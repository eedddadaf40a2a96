"""``shoestring swarm``: peers that compute layers for each other."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from shoestring.errors import MissingError
from shoestring.swarm.cli_audit import audit
from shoestring.swarm.cli_chain import chat, up
from shoestring.swarm.cli_ledger import ledger
from shoestring.swarm.cli_market import market
from shoestring.swarm.cli_near import lists, nearby
from shoestring.swarm.cli_node import node
from shoestring.swarm.cli_simulate import simulate
from shoestring.swarm.cli_voucher import voucher
from shoestring.swarm.cli_wallet import wallet
from shoestring.swarm.cli_words import JSON_OPTION, PORT, say

if TYPE_CHECKING:
    from shoestring.swarm.peers import Peer, Right
    from shoestring.swarm.survey import Seen

HOUR_S: Final = 3600.0
RIGHTS: Final[dict[str, tuple[Right, ...]]] = {
    "use": ("use",),
    "serve": ("serve",),
    "both": ("serve", "use"),
}
EXAMPLES = """\b
Examples (on a machine that serves, and on one that uses it):
  shoestring swarm invite --name ana --address 192.168.1.20    prints an invitation, once
  shoestring swarm node --host :: --memory 8GiB                serves until Ctrl-C
\b
  shoestring swarm join --name lab < invitation.txt            here; what was pasted is no argument
  shoestring swarm peers                                       who answers, how far, with what
  shoestring swarm up shape:llama-3.2-1b:q4_k_m                one base URL over all of them
  shoestring swarm chat shape:llama-3.2-1b:q4_k_m              ask it; Ctrl-C ends an answer
\b
  shoestring swarm nearby                                      nodes announced on this network
\b
  shoestring swarm market route MODEL --max-price 0.05         the cheapest route over quotes
  shoestring swarm wallet create                               an owner's key; then link, fund
  shoestring swarm ledger verify                               every entry, hash and balance
"""
NEEDS: Final = ("blake3", "cryptography", "rfc8785", "zeroconf")


@click.group(epilog=EXAMPLES)
def swarm() -> None:
    """Compute a model's layers on peers' machines, over links that know each other.

    A node lets in whom its owner invited, and nobody else. Each session gets a stock worker of
    llama.cpp in a room without network and files, behind a firewall that reads every frame.
    """
    missing = ", ".join(name for name in NEEDS if find_spec(name) is None)
    if missing:
        raise MissingError(f"the swarm needs {missing}: pip install 'shoestring[swarm]'")


@swarm.command("id")
def show_id() -> None:
    """Print this node's key, by which peers know it; it is made at the first time."""
    from shoestring.swarm.home import Home

    click.echo(Home().identity().id)


@swarm.command()
@click.option("--name", required=True, help="What the peer will be called here.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    required=True,
    metavar="HOST[:PORT]",
    help=f"Where it reaches this node, again for more; the port is {PORT} unless given.",
)
@click.option(
    "--may",
    type=click.Choice(list(RIGHTS)),
    default="use",
    show_default=True,
    help="use: it may use this machine; serve: we may use its.",
)
@click.option("--hours", type=click.FloatRange(0.01, 8760), default=24.0, show_default=True,
              help="How long it opens.")  # fmt: skip
def invite(name: str, addresses: tuple[str, ...], may: str, hours: float) -> None:
    """Invite one peer: prints a text that lets it in once. Hand it over as you would a key."""
    from shoestring.swarm.home import Home

    home = Home()
    made = home.invitations().make(
        home.identity().id,
        name=name,
        addresses=[place if ":" in place else f"{place}:{PORT}" for place in addresses],
        rights=RIGHTS[may],
        lasts_s=hours * HOUR_S,
    )
    click.echo(made.text())
    say(f"{name} may join with it once, within {hours:g} h, while `shoestring swarm node` runs")


@swarm.command()
@click.option("--name", required=True, help="What the inviter will be called here.")
@click.option("--address", "addresses", multiple=True, metavar="HOST:PORT",
              help="Where this node listens, if it serves.")  # fmt: skip
def join(name: str, addresses: tuple[str, ...]) -> None:
    """Use an invitation, read from standard input."""
    from shoestring.swarm.home import Home
    from shoestring.swarm.invitations import read_invitation
    from shoestring.swarm.joining import join as join_by

    if sys.stdin.isatty():
        say("paste the invitation, then Enter:")
    invitation = read_invitation(sys.stdin.readline())
    home = Home()
    peer = asyncio.run(
        join_by(home.identity(), invitation, home.peers(say), name=name, addresses=addresses)
    )
    say(f"joined {peer.name} ({peer.id}): {', '.join(peer.rights)}")


@swarm.command()
@click.argument("peer", metavar="ID|NAME")
def remove(peer: str) -> None:
    """End what a peer may do; its links end within a second."""
    from shoestring.swarm.home import Home

    removed = Home().peers(say).remove(peer)
    say(f"{removed.name} ({removed.id}) is removed")


@swarm.command()
@JSON_OPTION
def peers(*, as_json: bool) -> None:
    """Show all peers: what each may do, and who answers, how far away, with what.

    Those that serve us are greeted; one that has moved is looked for on the local network and in
    the signed lists in use. Invitations that are still open follow.
    """
    from shoestring.swarm.bootstrap import LISTS_FILE, Lists
    from shoestring.swarm.discovery import find_again
    from shoestring.swarm.home import Home
    from shoestring.swarm.survey import survey

    home = Home()
    known = home.peers(say)
    look = partial(find_again, lists=Lists(home.folder / LISTS_FILE))
    seen, failed = asyncio.run(survey(home.identity(), known.active(), look=look))
    now_s = time.time()
    shown = [_shown(peer, seen, now_s) for peer in known.all()]
    still_open = [one for one in home.invitations().all() if one.closed(now_s) is None]
    if as_json:
        answered = [one for one in shown if one["rtt_s"] is not None]
        silent = [{"name": peer.name, "error": str(error)} for peer, error in failed.items()]
        invited = [
            {"id": one.id, "name": one.name, "rights": one.rights, "expires_s": one.expires_s}
            for one in still_open
        ]
        whole = {"peers": answered, "silent": silent, "known": shown, "invitations": invited}
        click.echo(json.dumps(whole))
        return
    click.echo(_as_table(shown), nl=False)
    for peer, error in failed.items():
        say(f"{peer.name}: {error}")
    for one in still_open:
        rights = ", ".join(one.rights)
        say(f"open invitation {one.id} for {one.name}: {rights}, until {_utc(one.expires_s)} UTC")


def _shown(peer: Peer, seen: list[Seen], now_s: float) -> dict[str, Any]:
    """Return what is shown of a peer; what it does not say or was not asked for is None."""
    its = next((one for one in seen if one.remote.address.id == peer.id), None)
    state: str = peer.state(now_s)
    if its is not None:
        state = its.why_not or "answers"
    elif state == "active":
        state = "silent" if "serve" in peer.rights else "not asked"
    return {
        "name": peer.name,
        "id": peer.id,
        "rights": list(peer.rights),
        "since_s": peer.since_s,
        "state": state,
        "addresses": list(peer.addresses),
        "address": None if its is None else its.remote.address.place,
        "rtt_s": None if its is None else its.device.link_latency_s,
        "memory_bytes": None if its is None else its.device.memory_bytes,
        "title": None if its is None else its.device.title,
        "free": None if its is None else its.free,
    }


def _as_table(shown: list[dict[str, Any]]) -> str:
    from shoestring.report.tabular import Column, Table, plain_text

    columns = (Column("name", "Peer"), Column("rights", "May"), Column("since", "Since (UTC)"),
               Column("state", "State"), Column("rtt", "Round trip (ms)", 1e3),
               Column("memory", "Memory (GiB)", 1 / (1 << 30)), Column("title", "Device"),
               Column("free", "Free sessions"))  # fmt: skip
    rows = tuple(
        (one["name"], ", ".join(one["rights"]), _utc(one["since_s"]), one["state"], one["rtt_s"],
         one["memory_bytes"], one["title"], one["free"])
        for one in shown
    )  # fmt: skip
    nobody = (
        "No peer is known. Where layers are served: shoestring swarm invite; "
        "here, with what it prints: shoestring swarm join."
    )
    return plain_text(Table("peers", "Peers", columns, rows, nobody))


def _utc(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M")


for command in (up, chat, node, nearby, lists, audit, market, wallet, ledger, voucher, simulate):
    swarm.add_command(command)
