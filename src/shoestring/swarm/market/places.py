"""Where the market's files are in a node's folder, and what its owner calls other nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.swarm.audit.standing import STANDING_FILE, Standing
from shoestring.swarm.ledger.places import devices_of
from shoestring.swarm.market.kept_quotes import QUOTES_FILE, Quotes
from shoestring.swarm.market.measured import MEASURED_FILE, Measured

if TYPE_CHECKING:
    from shoestring.swarm.home import Home


def quotes_of(home: Home) -> Quotes:
    """Return the quotes that a node knows."""
    return Quotes(home.folder / QUOTES_FILE)


def measured_of(home: Home) -> Measured:
    """Return what a node has measured of others."""
    return Measured(home.folder / MEASURED_FILE)


def owners_of(home: Home, now_s: float) -> dict[str, str]:
    """Return to whom nodes are linked here, by peer id.

    Raises:
        BadValueError: their file cannot be used.
    """
    return {
        one.device: one.owner for one in devices_of(home).all() if one.fault(now_s) is None
    }  # fmt: skip


def excluded_of(home: Home) -> frozenset[str]:
    """Return the peer ids of those whom audits here found to cheat.

    Raises:
        BadValueError: their file cannot be used.
    """
    return Standing(home.folder / STANDING_FILE).excluded()


def names_of(home: Home) -> dict[str, str]:
    """Return what other nodes are called here, and this one, by peer id.

    Raises:
        BadValueError: the file of peers cannot be used.
    """
    names = {peer.id: peer.name for peer in home.peers(_silent).all()}
    return names | {home.identity().id: "this node"}


def _silent(_line: str) -> None:
    """Say nothing of peers: they are only named."""
