"""Who of two that differ is wrong: a third runs the window too, and the odd one out is it.

The third is this machine where it has room, for its user trusts it. Where it is a stranger, two
that agree against an honest one are together: then there is no telling, but by taking nodes of
differing owners. Three that all differ prove nothing, and nobody is excluded for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shoestring.swarm.audit.comparing import Tolerance, first_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.swarm.audit.comparing import Difference
    from shoestring.swarm.audit.windows import Given, Question

Outcome = Literal["same", "cheat", "undecided"]


@dataclass(frozen=True)
class Side:
    """One of those whose answers are compared.

    Attributes:
        name: for people.
        peer: its peer id; None: this machine.
        kind: numerics class.
        given: its answers.
    """

    name: str
    peer: str | None
    kind: str
    given: Given


@dataclass(frozen=True)
class Verdict:
    """What an audit found.

    Attributes:
        outcome: ``same``: nothing is wrong; ``cheat``: see there; ``undecided``: they differ, and
            nobody could say who is wrong.
        cheat: who is; None: nobody is known to be.
        difference: the first; None: there is none.
        why: nobody is known to be wrong, in a line; empty: somebody is, or nothing is wrong.
    """

    outcome: Outcome
    cheat: Side | None = None
    difference: Difference | None = None
    why: str = ""


def differ(
    questions: Sequence[Question], one: Side, other: Side, tolerance: Tolerance
) -> Difference | None:
    """Return where two sides differ first: by bytes within a class, else by tolerance.

    Raises:
        IncomparableError: no answer of both is there.
    """
    between = None if one.kind == other.kind else tolerance
    return first_difference(questions, one.given, other.given, between)


def judge(
    questions: Sequence[Question],
    suspect: Side,
    auditor: Side,
    third: Side,
    tolerance: Tolerance,
) -> Verdict:
    """Say who is wrong of two that differ.

    Args:
        questions: of the window.
        suspect: who answered the user.
        auditor: who ran it again.
        third: who ran it again after that.
        tolerance: between classes.

    Raises:
        IncomparableError: no answer of two of them is there.
    """
    between = differ(questions, suspect, auditor, tolerance)
    of_suspect = differ(questions, suspect, third, tolerance)
    of_auditor = differ(questions, auditor, third, tolerance)
    if between is None:
        return Verdict("same")
    if of_suspect is not None and of_auditor is None:
        return Verdict("cheat", suspect, of_suspect)
    if of_auditor is not None and of_suspect is None and auditor.peer is not None:
        return Verdict("cheat", auditor, of_auditor)
    names = f"{auditor.name} and {third.name}"
    return Verdict("undecided", None, between, f"it differs from {names}, and these differ")
