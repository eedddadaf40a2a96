"""What shows that a node was wrong: its own signature under a root of the answers it gave.

A receipt that both have signed holds the root over the activations that a window gave out. The
evidence lists their digests, in order; that they come to this root shows that the node gave these
and no others, to inputs whose digests come to the root over them. That they are wrong, whoever has
the model and the window can find by running it. What is no activation, as a copy of the caches, is
under no root: the node signed nothing of it, and others need not believe it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from shoestring.errors import BadValueError
from shoestring.swarm.private_files import make_once, read_private
from shoestring.swarm.proof.merkle import root_of
from shoestring.swarm.proof.reading import read_signed
from shoestring.swarm.proof.receipts import canonical
from shoestring.swarm.proof.terms import HEX

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shoestring.swarm.audit.judging import Side, Verdict
    from shoestring.swarm.audit.windows import Question, Recording
    from shoestring.swarm.proof.receipts import Signed

FOLDER: Final = "evidence"
VERSION: Final = 1
LARGEST_BYTES: Final = 8 << 20
MOST_RECEIPTS: Final = 4


@dataclass(frozen=True)
class Evidence:
    """What an audit found against a node.

    Attributes:
        node: peer id.
        frames: SHA-256 of each frame of the window, in hexadecimal: command, head, body.
        names: of the tensors that were asked for.
        activations: numbers of those over which a receipt's out-root is.
        inputs: BLAKE3 of each activation that was set, in hexadecimal: a receipt's in-root is over
            them.
        digests: of each side's answers, in hexadecimal, by its name; None: not given.
        first: number of the first answer that differs from another side's.
        relative: how far it is; None: compared by its bytes.
        receipts: of the node, signed by both, as they are kept.

    Raises:
        BadValueError: a value cannot be used.
    """

    node: str
    frames: tuple[str, ...]
    names: tuple[str, ...]
    activations: tuple[int, ...]
    inputs: tuple[str, ...]
    digests: dict[str, tuple[str | None, ...]]
    first: int
    relative: float | None
    receipts: tuple[str, ...]

    def __post_init__(self) -> None:
        lists = (self.frames, self.names, self.inputs, self.receipts)
        if not all(type(one) is tuple for one in (*lists, self.activations)):
            raise BadValueError("evidence whose lists are none")
        if not all(type(text) is str for texts in (*lists, (self.node,)) for text in texts):
            raise BadValueError("evidence whose names, digests or receipts are no text")
        numbers = (self.first, *self.activations)
        if not all(type(one) is int and 0 <= one < len(self.names) for one in numbers):
            raise BadValueError("evidence that counts answers which it does not name")
        for digest in (*self.frames, *self.inputs, *chain.from_iterable(self.digests.values())):
            if digest is not None and not (type(digest) is str and HEX.fullmatch(digest)):
                raise BadValueError(f"evidence with a digest {digest!a:.80}: none is worded so")
        if any(len(its) != len(self.names) for its in self.digests.values()):
            raise BadValueError("evidence with other answers than it names")
        if not self.others:
            raise BadValueError("evidence in which nobody gave another answer than is blamed")
        apart: Any = self.relative
        if apart is not None and not (type(apart) in {int, float} and math.isfinite(apart)):
            raise BadValueError(f"evidence with a distance {self.relative!a:.40}: give a number")

    @property
    def blamed(self) -> str | None:
        """Digest of the answer that is blamed; None: it is not given."""
        side = self.digests.get(self.node)
        return None if side is None else side[self.first]

    @property
    def others(self) -> dict[str, str]:
        """Digests of what others answered, of those that differ, by their names."""
        answers = ((side, its[self.first]) for side, its in self.digests.items())
        return {side: one for side, one in answers if one is not None and one != self.blamed}

    def signed_by_node(self) -> bool:
        """Tell whether the node itself signed that it gave the answer that is blamed.

        Raises:
            BadValueError: a receipt is none.
        """
        if self.first not in self.activations:
            return False
        side = self.digests.get(self.node)
        given = () if side is None else [side[number] for number in self.activations]
        if side is None or None in given:
            return False
        roots = tuple(
            root_of(bytes.fromhex(one) for one in some if one).hex()
            for some in (self.inputs, given)
        )
        return roots in {
            (signed.receipt.in_root, signed.receipt.out_root)
            for signed in map(_read_line, self.receipts)
            if signed.receipt.terms.node == self.node
        }


def gather(
    recording: Recording, verdict: Verdict, sides: Iterable[Side], receipts: Iterable[Signed]
) -> Evidence:
    """Return what an audit found.

    Args:
        recording: the window.
        verdict: that names a cheat.
        sides: whose answers were compared.
        receipts: of the cheat, over the window.
    """
    cheat, difference = verdict.cheat, verdict.difference
    assert cheat is not None, "there is a cheat"
    assert cheat.peer is not None, "this machine is none"
    assert difference is not None, "they differ"
    questions = recording.questions()
    return Evidence(
        node=cheat.peer,
        frames=tuple(_digest_of(one.frame.command, one.frame.head, one.data)
                     for one in recording.entries),
        names=tuple(one.name for one in questions),
        activations=tuple(n for n, one in enumerate(questions) if one.is_activation),
        inputs=tuple(one.hex() for one in recording.inputs() if one is not None),
        digests={
            one.peer or one.name: _in_hex(one.given.digests) for one in sides
        },
        first=difference.number,
        relative=difference.relative,
        receipts=tuple(one.line.decode() for one in receipts)[:MOST_RECEIPTS],
    )  # fmt: skip


def out_root(questions: Iterable[Question], digests: Iterable[bytes | None]) -> str | None:
    """Return the root over the activations among a side's answers; None: not all are there."""
    activations = [
        digest
        for question, digest in zip(questions, digests, strict=True)
        if question.is_activation
    ]
    return None if None in activations else root_of(one for one in activations if one).hex()


def keep(folder: Path, evidence: Evidence, at_s: float) -> Path:
    """Write evidence into a private file of its own, and return where.

    Raises:
        BadValueError: it cannot be written, or is longer than what is read.
    """
    content = canonical({"version": VERSION, **asdict(evidence)})
    if len(content) >= LARGEST_BYTES:
        raise BadValueError(f"evidence of {len(content)} bytes: at most {LARGEST_BYTES} are read")
    short = hashlib.sha256(content).hexdigest()[:8]
    path = folder / f"{int(at_s):010d}-{evidence.node[:8]}-{short}.json"
    make_once(path, content + b"\n")
    return path


def read(path: Path) -> Evidence:
    """Return what a file of evidence says; that it is true, its receipts say.

    Raises:
        BadValueError: it is none, or a receipt in it is not signed by both.
    """
    size = path.stat().st_size if path.is_file() else None
    content = None if size is None or size > LARGEST_BYTES else read_private(path)
    if content is None:
        raise BadValueError(f"{path} is not there, or longer than {LARGEST_BYTES} bytes")
    try:
        return _parsed(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadValueError(f"{path} is no evidence: restore a copy") from error
    except BadValueError as error:
        raise BadValueError(f"{path} is no evidence ({error}): restore a copy") from error


def _parsed(content: bytes) -> Evidence:
    said = json.loads(content)
    if said.pop("version") != VERSION:
        raise BadValueError(f"of another version; this reads version {VERSION}")
    found = Evidence(**{name: _fixed(value) for name, value in said.items()})
    found.signed_by_node()
    if canonical({"version": VERSION, **asdict(found)}) + b"\n" != content:
        raise BadValueError("not in the form of RFC 8785: it was changed")
    return found


def _in_hex(digests: Iterable[bytes | None]) -> tuple[str | None, ...]:
    return tuple(None if digest is None else digest.hex() for digest in digests)


def _read_line(line: str) -> Signed:
    return read_signed(line.encode())


def _fixed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {name: tuple(its) for name, its in value.items()}
    return value


def _digest_of(command: int, head: bytearray, data: bytes | bytearray) -> str:
    parts = hashlib.sha256(bytes([command]) + bytes(head))
    parts.update(blake3(data).digest())
    return parts.hexdigest()
