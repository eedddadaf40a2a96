"""What shows that a node was wrong: its own signature under a root of the answers it gave.

A receipt that both have signed holds the root over the activations that a window gave out. The
evidence lists their digests, in order; that they come to this root shows that the node gave these
and no others. That they are wrong, whoever has the model and the window can find by running it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from shoestring.errors import BadValueError
from shoestring.swarm.private_files import make_once, read_private
from shoestring.swarm.proof.merkle import root_of
from shoestring.swarm.proof.receipts import canonical, read_signed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shoestring.swarm.audit.judging import Side, Verdict
    from shoestring.swarm.audit.windows import Given, Question, Recording
    from shoestring.swarm.proof.receipts import Signed

FOLDER: Final = "evidence"
VERSION: Final = 1
LARGEST_BYTES: Final = 8 << 20
MOST_RECEIPTS: Final = 4
NAME: Final = re.compile(r"\d{10,12}-[a-z2-7]{8}-[0-9a-f]{8}\.json")


@dataclass(frozen=True)
class Evidence:
    """What an audit found against a node.

    Attributes:
        node: peer id.
        frames: SHA-256 of each frame of the window, in hexadecimal: command, head, body.
        names: of the tensors that were asked for.
        activations: numbers of those over which a receipt's out-root is.
        digests: of each side's answers, in hexadecimal, by its name; None: not given.
        first: number of the first answer that differs.
        relative: how far it is; None: compared by its bytes.
        receipts: signed by both, as they are kept; the node's first, if there is one.
    """

    node: str
    frames: tuple[str, ...]
    names: tuple[str, ...]
    activations: tuple[int, ...]
    digests: dict[str, tuple[str | None, ...]]
    first: int
    relative: float | None
    receipts: tuple[str, ...]

    def signed_by_node(self) -> bool:
        """Tell whether the node itself signed that it gave these answers.

        Raises:
            BadValueError: a receipt is none.
        """
        side = self.digests.get(self.node, ())
        roots = {
            signed.receipt.out_root
            for signed in map(_read_line, self.receipts)
            if signed.receipt.terms.node == self.node
        }
        given = [side[number] for number in self.activations if number < len(side)]
        if len(given) != len(self.activations) or None in given or not given:
            return False
        return root_of(bytes.fromhex(one) for one in given if one).hex() in roots


def gather(
    recording: Recording, verdict: Verdict, sides: Iterable[Side], receipts: Iterable[Signed]
) -> Evidence:
    """Return what an audit found.

    Args:
        recording: the window.
        verdict: that names a cheat.
        sides: whose answers were compared.
        receipts: that may be of this window.
    """
    cheat, difference = verdict.cheat, verdict.difference
    assert cheat is not None, "there is a cheat"
    assert cheat.peer is not None, "this machine is none"
    assert difference is not None, "they differ"
    questions = recording.questions()
    root = out_root(questions, cheat.given)
    its = [one for one in receipts if one.receipt.terms.node == cheat.peer]
    its.sort(key=lambda one: one.receipt.out_root != root)  # that of the window first
    return Evidence(
        node=cheat.peer,
        frames=tuple(_digest_of(one.frame.command, one.frame.head, one.data)
                     for one in recording.entries),
        names=tuple(one.name for one in questions),
        activations=tuple(n for n, one in enumerate(questions) if one.is_activation),
        digests={
            one.peer or one.name: _in_hex(one.given.digests) for one in sides
        },
        first=difference.number,
        relative=difference.relative,
        receipts=tuple(one.line.decode() for one in its[:MOST_RECEIPTS]),
    )  # fmt: skip


def out_root(questions: Iterable[Question], given: Given) -> str | None:
    """Return the root over the activations that a side gave; None: not all are there."""
    digests = [
        digest
        for question, digest in zip(questions, given.digests, strict=True)
        if question.is_activation
    ]
    return None if None in digests else root_of(one for one in digests if one).hex()


def keep(folder: Path, evidence: Evidence, at_s: float) -> Path:
    """Write evidence into a private file of its own, and return where.

    Raises:
        BadValueError: it cannot be written.
    """
    content = canonical({"version": VERSION, **asdict(evidence)})
    short = hashlib.sha256(content).hexdigest()[:8]
    path = folder / f"{int(at_s):010d}-{evidence.node[:8]}-{short}.json"
    make_once(path, content + b"\n")
    return path


def read(path: Path) -> Evidence:
    """Return what a file of evidence says; that it is true, its receipts say.

    Raises:
        BadValueError: it is none, or a receipt in it is not signed by both.
    """
    content = read_private(path)
    if content is None or len(content) > LARGEST_BYTES:
        raise BadValueError(f"{path} is not there, or longer than {LARGEST_BYTES} bytes")
    try:
        said = json.loads(content)
        if said.pop("version") != VERSION:
            raise BadValueError(f"{path} is of another version; this reads version {VERSION}")
        found = Evidence(**{name: _fixed(value) for name, value in said.items()})
        found.signed_by_node()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadValueError(f"{path} is no evidence: restore a copy") from error
    if canonical({"version": VERSION, **asdict(found)}) + b"\n" != content:
        raise BadValueError(f"{path} is not in the form of RFC 8785: it was changed")
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
