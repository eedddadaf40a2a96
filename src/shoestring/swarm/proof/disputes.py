"""What a node's refusal of a receipt says: which frame is the first that both do not have alike."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from shoestring.swarm.wire import U32
from shoestring.swarm.words import printable

if TYPE_CHECKING:
    from shoestring.swarm.proof.figures import Window
    from shoestring.swarm.proof.receipts import Receipt

LEAF_BYTES: Final = 32


@dataclass(frozen=True)
class Refusal:
    """Why a node does not sign.

    Attributes:
        why: in a line.
        frame: number in the window of the first that differs; None: of none is that known.
    """

    why: str
    frame: int | None = None


def read_refusal(answer: bytes, receipt: Receipt, window: Window) -> Refusal:
    """Return what an answer to a SETTLE says, whatever it is.

    Args:
        answer: as ``proof/earning.py`` words it.
        receipt: that was claimed.
        window: that it is of.
    """
    try:
        end = 1 + U32.size + U32.unpack_from(answer, 1)[0]
        said = json.loads(answer[1 + U32.size : end])
        message, own = said["message"], said["receipt"]
        figures = None if own is None else dict(own["figures"])
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        return Refusal("it refused a receipt and said nothing that can be read")
    if figures is None:
        return Refusal(f"it refused a receipt: {printable(message)}")
    leaves = answer[end:]
    for number, ours in enumerate(window.leaves):
        if leaves[number * LEAF_BYTES :][:LEAF_BYTES] != ours:
            why = f"it refused a receipt: frame {number} of the window differs"
            return Refusal(why, number)
    differing = [
        f"{name} {figures.get(name)!a:.40} there, {ours} here"
        for name, ours in asdict(receipt.figures).items()
        if figures.get(name) != ours
    ]
    rest = ", ".join(differing) or "the rest"
    return Refusal(f"it refused a receipt: every frame is the same, not {rest}")
