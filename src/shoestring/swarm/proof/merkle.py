"""One digest for many leaves in their order: the Merkle tree of RFC 6962, section 2.1.

``root() = SHA-256()``, ``root(d) = SHA-256(0x00 || d)``, and of more the left half is the largest
power of two below their number: ``SHA-256(0x01 || root(left) || root(right))``. What begins with
0x00 is a leaf, so no inner node can be shown as one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root (32 bytes) of leaves in their order."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    if not level:
        return hashlib.sha256().digest()
    while len(level) > 1:
        # Pairs from the left; one that is left over goes up as it is, as in RFC 6962.
        pairs = [
            hashlib.sha256(b"\1" + level[at] + level[at + 1]).digest()
            for at in range(0, len(level) - 1, 2)
        ]
        level = pairs + level[len(level) & ~1 :]
    return level[0]
