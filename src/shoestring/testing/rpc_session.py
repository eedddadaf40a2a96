"""Sessions for a fuzzer, as a node makes them: bare, or with receipts, a store and a way out.

Keys, weights and terms are always the same, so that an input means the same to every process.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoestring.swarm.certificates import make_certificate, peer_id_of
from shoestring.swarm.identity import Identity
from shoestring.swarm.proof.earning import Earner
from shoestring.swarm.proof.receipts import Hand, next_receipt, sign
from shoestring.swarm.proof.tally import Tally
from shoestring.swarm.proof.terms import Terms
from shoestring.swarm.pushing import Outgoing
from shoestring.swarm.session import Session
from shoestring.swarm.splitting import Splitter
from shoestring.swarm.store import Store
from shoestring.swarm.wire import TENSOR_BYTES, U64, BadFrameError, Command, Frame

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.swarm.firewall import Rules
    from shoestring.testing.rpc_judge import Judge

CONTENT: Final = bytes(range(256)) * 16
"""A weight that the store has."""
STORE_BYTES: Final = 1 << 20
WINDOW_STEPS: Final = 2
PRICE: Final = 1
AT_S: Final = 1_800_000_000


class End(asyncio.Transport):
    """A connection of a session that is never full.

    Args:
        judge: hears what is written; None: nobody does.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        super().__init__()
        self._judge = judge
        self._is_over = False

    def write(self, data: Any) -> None:
        """Of asyncio."""
        if self._judge is not None and not self._is_over:
            self._judge.write(data)

    def abort(self) -> None:
        """Of asyncio."""
        self._is_over = True

    def is_closing(self) -> bool:
        """Of asyncio."""
        return self._is_over

    def is_reading(self) -> bool:
        """Of asyncio."""
        return True

    def get_write_buffer_size(self) -> int:
        """Of asyncio."""
        return 0

    def pause_reading(self) -> None:
        """Of asyncio."""

    def resume_reading(self) -> None:
        """Of asyncio."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of asyncio."""


class Cutting(Splitter):
    """Counts what it refuses.

    Attributes:
        refused: frames.
    """

    refused = 0

    def feed(self, data: bytes) -> list[Frame | bytes]:
        """Of a splitter."""
        try:
            return super().feed(data)
        except BadFrameError:
            self.refused += 1
            raise


class Watched(Session):
    """A session that counts what it judges.

    Args:
        rules: of the firewall.
        known: starts of frames that were recorded.
        equipment: what it has beside its worker; None: nothing.
    """

    def __init__(
        self, rules: Rules, known: frozenset[bytes], equipment: Equipment | None = None
    ) -> None:
        if equipment is None:
            super().__init__(rules)
        else:
            super().__init__(rules, equipment.store, Earner(TERMS, equipment.hand, lambda: AT_S))
            outgoing = Outgoing()
            outgoing.connection_made(End())
            self.push_to(outgoing)
        self._splitter: Cutting = Cutting(
            bulk_bytes=rules.memory_bytes, graph_tensors=rules.graph_tensors
        )
        self._known = known
        self._judged = self._strange = 0

    @property
    def judged(self) -> int:
        """Frames that were passed, answered here, or refused by name."""
        return self._judged + self._splitter.refused

    @property
    def changed(self) -> int:
        """Those of them that nobody recorded; what cannot be cut is none."""
        return self._strange + self._splitter.refused

    @property
    def work(self) -> asyncio.Task[None] | None:
        """For which frames wait."""
        return self._work

    def _request(self, frame: Frame, out: bytearray) -> None:
        self._judged += 1
        self._strange += bytes(frame.start()) not in self._known
        super()._request(frame, out)


class Equipment:
    """What sessions of one fuzzer share.

    Args:
        folder: for weights.

    Attributes:
        store: of a few weights; :data:`CONTENT` is one.
        hand: the node's.
    """

    def __init__(self, folder: Path) -> None:
        self.hand = Hand(NODE, lambda _signed: None)
        self.store = Store(folder, STORE_BYTES, say=lambda _line: None)
        writing = self.store.write(hashlib.sha256(CONTENT).digest(), len(CONTENT))
        if writing is not None:
            writing.add(CONTENT)


def claim_of(graph: Frame) -> Frame:
    """Return the client's SETTLE for a session in which a graph alone was computed."""
    tally = Tally()
    tally.note(graph)
    receipt = next_receipt(TERMS, None, tally.window(1), step=1, at_s=AT_S)
    said = bytearray(receipt.body + sign(CLIENT, receipt))
    return Frame(int(Command.SETTLE), len(said), said)


def taking(setting: Frame) -> Frame:
    """Return a TAKE of the weight that the store has, to where a SET_TENSOR sets something."""
    offset = setting.head[TENSOR_BYTES + 1 :]
    head = setting.head[:TENSOR_BYTES] + offset + U64.pack(len(CONTENT))
    head += hashlib.sha256(CONTENT).digest()
    return Frame(int(Command.TAKE), len(head), head)


def _identity(number: int) -> Identity:
    key = Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32)
    its_id = peer_id_of(key.public_key().public_bytes_raw())
    return Identity(id=its_id, certificate=make_certificate(key), _key=key)


NODE: Final = _identity(1)
CLIENT: Final = _identity(2)
TERMS: Final = Terms(
    session="0" * 16, client=CLIENT.id, node=NODE.id, model=None, engine="0" * 64, rpc="7.0",
    price_in=PRICE, price_out=PRICE, window_steps=WINDOW_STEPS,
)  # fmt: skip
