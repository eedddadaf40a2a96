"""What a node keeps about itself: who it is, whom it knows, and whom it has invited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoestring.swarm.identity import KEY_FILE, load_identity
from shoestring.swarm.invitations import INVITATIONS_FILE, Invitations
from shoestring.swarm.peers import PEERS_FILE, Peers
from shoestring.swarm.private_files import swarm_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.swarm.identity import Identity


@dataclass(frozen=True)
class Home:
    """A node's folder."""

    folder: Path = field(default_factory=swarm_dir)

    def identity(self) -> Identity:
        """Return who this node is; made at the first time.

        Raises:
            BadValueError: the key cannot be used.
        """
        return load_identity(self.folder / KEY_FILE)

    def peers(self, say: Callable[[str], None]) -> Peers:
        """Return whom it knows.

        Raises:
            BadValueError: the file cannot be used.
        """
        return Peers(self.folder / PEERS_FILE, say=say)

    def invitations(self) -> Invitations:
        """Return whom it has invited."""
        return Invitations(self.folder / INVITATIONS_FILE)
