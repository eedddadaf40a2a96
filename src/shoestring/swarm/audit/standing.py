"""How each node stood its audits, and who is excluded: a private file.

Who was found cheating is chosen no more, and gets nothing for sessions that are not paid yet. Only
the owner takes that back (``shoestring swarm audit forgive``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.private_files import OwnersFile, changing, read_records, write_records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.audit.judging import Outcome

STANDING_FILE: Final = "audits.json"
MOST_NODES: Final = 16_384
MOST_WHY: Final = 400
MOST_SESSIONS: Final = 256
MEND: Final = "restore a copy, or remove it: all audits, and who is excluded, are then forgotten"


@dataclass(frozen=True)
class Stood:
    """How one node stood its audits.

    Attributes:
        node: its peer id.
        name: what it was called last.
        same: audits that found nothing wrong.
        cheats: that found it wrong.
        undecided: that differed, and nobody could say who was wrong.
        windows: of its stages, that could have been audited.
        excluded_s: since when it is chosen no more, in seconds since 1970; None: it is not.
        why: in a line; empty: nothing is held against it.
        evidence: names of files in the folder ``evidence``.
        withheld: sessions of which nothing is paid any more, by the node's names for them.
    """

    node: str
    name: str = ""
    same: int = 0
    cheats: int = 0
    undecided: int = 0
    windows: int = 0
    excluded_s: float | None = None
    why: str = ""
    evidence: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """Of its windows, those that were audited; None: it had none."""
        audited = self.same + self.cheats + self.undecided
        return min(1.0, audited / self.windows) if self.windows else None


class Standing(OwnersFile):
    """The file of them.

    Args:
        path: the file; it may come later.
        now: seconds since 1970.
    """

    def all(self) -> dict[str, Stood]:
        """Return how nodes stood, by peer id.

        Raises:
            BadValueError: the file cannot be used.
        """
        return {one.node: one for one in read_records(self._path, _stood, mend=MEND)}

    def excluded(self) -> frozenset[str]:
        """Return the peer ids of those that are chosen no more.

        Raises:
            BadValueError: the file cannot be used.
        """
        return frozenset(one.node for one in self.all().values() if one.excluded_s is not None)

    def payable(self, shares: Mapping[str, int]) -> dict[str, int]:
        """Return of an answer's shares, by peer id, those that are to be paid.

        What is left out stays held in the ledger, and goes back to who holds it by ``release``.

        Raises:
            BadValueError: the file cannot be used.
        """
        excluded = self.excluded()
        return {node: micro for node, micro in shares.items() if node not in excluded}

    def note(self, node: str, name: str, outcome: Outcome) -> Stood:
        """Count an audit of a node, other than one that found it cheating.

        Raises:
            BadValueError: the file cannot be used.
        """
        assert outcome != "cheat", "a cheat is excluded"
        return self._change(node, lambda one: replace(
            one, name=name or one.name, same=one.same + (outcome == "same"),
            undecided=one.undecided + (outcome == "undecided"),
        ))  # fmt: skip

    def saw(self, windows: Mapping[str, int]) -> None:
        """Count windows that could have been audited, by peer id.

        Raises:
            BadValueError: the file cannot be used.
        """
        for node, count in windows.items():
            self._change(node, partial(_with_windows, count=count))

    def exclude(self, node: str, name: str, why: str, *, withheld: tuple[str, ...] = ()) -> Stood:
        """Choose a node no more.

        Args:
            node: its peer id.
            name: what it is called.
            why: in a line.
            withheld: sessions that are not paid.

        Raises:
            BadValueError: the file cannot be used.
        """
        return self._change(node, lambda one: replace(
            one, name=name or one.name, cheats=one.cheats + 1, why=why[:MOST_WHY],
            excluded_s=self._now() if one.excluded_s is None else one.excluded_s,
            withheld=tuple(dict.fromkeys((*one.withheld, *withheld)))[-MOST_SESSIONS:],
        ))  # fmt: skip

    def add_evidence(self, node: str, evidence: str) -> Stood:
        """Note the name of a file of evidence against a node.

        Raises:
            BadValueError: the file cannot be used.
        """
        return self._change(node, lambda one: replace(
            one, evidence=(*one.evidence, evidence)[-MOST_SESSIONS:],
        ))  # fmt: skip

    def forgive(self, id_or_name: str) -> Stood:
        """Let a node be chosen again; its count of cheats stays.

        Raises:
            BadValueError: no such node is excluded, several are called so, or the file cannot be
                used.
        """
        meant = [
            one
            for one in self.all().values()
            if one.excluded_s is not None and id_or_name in {one.node, one.name}
        ]
        if len(meant) != 1:
            how = "no excluded node has" if not meant else f"{len(meant)} excluded nodes have"
            raise BadValueError(f"{id_or_name[:80]!a}: {how} this id or name: give the id")
        return self._change(meant[0].node, lambda one: replace(
            one, excluded_s=None, why="", withheld=(),
        ))  # fmt: skip

    def _change(self, node: str, how: Callable[[Stood], Stood]) -> Stood:
        public_key_of(node)
        with changing(self._path):
            records = self.all()
            if node not in records and len(records) >= MOST_NODES:
                raise BadValueError(f"{self._path} has {MOST_NODES} nodes: move it away")
            changed = records[node] = how(records.get(node, Stood(node)))
            write_records(self._path, (asdict(one) for one in records.values()))
        return changed


def _with_windows(one: Stood, count: int) -> Stood:
    return replace(one, windows=one.windows + count)


def _stood(content: dict[str, Any]) -> Stood:
    if content.keys() != {one.name for one in fields(Stood)}:
        raise BadValueError("a record of other fields")
    public_key_of(content["node"])
    counts = {name: content[name] for name in ("same", "cheats", "undecided", "windows")}
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        raise BadValueError(f"counts {counts!a:.80} of {content['node']}")
    since_s = content["excluded_s"]
    return Stood(
        node=content["node"],
        name=str(content["name"]),
        same=counts["same"],
        cheats=counts["cheats"],
        undecided=counts["undecided"],
        windows=counts["windows"],
        excluded_s=None if since_s is None else float(since_s),
        why=str(content["why"]),
        evidence=tuple(map(str, content["evidence"])),
        withheld=tuple(map(str, content["withheld"])),
    )
