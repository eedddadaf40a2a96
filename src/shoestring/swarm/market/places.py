"""Where the market's files are in a node's folder, and what its owner calls other nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.swarm.market.measured import MEASURED_FILE, Measured
from shoestring.swarm.market.quotes import QUOTES_FILE, Quotes

if TYPE_CHECKING:
    from shoestring.swarm.home import Home


def quotes_of(home: Home) -> Quotes:
    """Return the quotes that a node knows."""
    return Quotes(home.folder / QUOTES_FILE)


def measured_of(home: Home) -> Measured:
    """Return what a node has measured of others."""
    return Measured(home.folder / MEASURED_FILE)


def names_of(home: Home) -> dict[str, str]:
    """Return what other nodes are called here, and this one, by peer id.

    Raises:
        BadValueError: the file of peers cannot be used.
    """
    names = {peer.id: peer.name for peer in home.peers(_silent).all()}
    return names | {home.identity().id: "this node"}


def _silent(_line: str) -> None:
    """Say nothing of peers: they are only named."""
