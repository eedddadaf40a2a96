"""Whether receipts are whole: of one session, of neighbouring stages, and what may be claimed.

Every check starts from receipts whose signatures are looked at here; nothing is taken for signed
because of where it lies.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.swarm.proof.receipts import amount, check_signatures, read_signed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoestring.swarm.proof.receipts import Receipt, Signed


def read_receipts(content: bytes) -> list[Signed]:
    """Return the receipts of a file of one session, which must be whole.

    Raises:
        BadValueError: a line is none, or they are no chain.
    """
    if not content.endswith(b"\n"):
        raise BadValueError("a file of receipts whose last line is cut: have it sent again")
    receipts = [read_signed(line) for line in content[:-1].split(b"\n")]
    check_chain(receipts)
    return receipts


def check_chain(receipts: Sequence[Signed]) -> None:
    """See that these are a session's receipts, all of them from the first on, in their order.

    That there is none after the last, only who has it can tell: the other party.

    Raises:
        BadValueError: one is missing, moved, changed, of another session or other terms, falls
            behind the one before, or is not signed by both.
    """
    if not receipts:
        raise BadValueError("no receipts: there is nothing to check")
    for signed in receipts:
        check_signatures(signed)
    first = receipts[0].receipt
    if first.window != 0 or first.prev != first.terms.digest:
        raise _broken(first, "is not the first of its session: the ones before are missing")
    for before, after in pairwise(signed.receipt for signed in receipts):
        _check_next(before, after)


def check_stages(chains: Sequence[Sequence[Signed]]) -> int:
    """See that what each stage gave out is what the next one was given.

    Windows of neighbours are compared where both begin and end after the same steps.

    Args:
        chains: a session's receipts for each stage, in the order of their layers.

    Returns:
        How many pairs of windows were compared.

    Raises:
        BadValueError: a chain is broken, layers do not follow each other, or two roots differ.
    """
    for chain in chains:
        check_chain(chain)
    compared = 0
    for former, latter in pairwise(chains):
        out, into = former[-1].receipt, latter[-1].receipt
        if out.layers.last is None or into.layers.first not in {None, out.layers.last + 1}:
            raise _broken(into, f"does not follow layer {out.layers.last} of the stage before")
        given = _by_steps(former)
        for steps, receipt in _by_steps(latter).items():
            other = given.get(steps)
            if other is None:
                continue
            compared += 1
            if other.out_root != receipt.in_root:
                raise _broken(
                    receipt,
                    f"was given other activations than window {other.window} of session "
                    f"{other.terms.session} gave out, in steps {steps[0] + 1} to {steps[1]}",
                )
    return compared


class ReceiptBook:
    """Claims on sessions: of each its last receipt counts, once.

    What is claimed is what the session came to beyond the last claim.
    """

    def __init__(self) -> None:
        self._claimed: dict[tuple[str, str], Receipt] = {}

    def claim(self, receipts: Sequence[Signed]) -> int:
        """Return what is owed more than was claimed before, in micro-credits.

        Args:
            receipts: of one session, from the first on.

        Raises:
            BadValueError: they are no chain, or nothing in them is new.
        """
        check_chain(receipts)
        last = receipts[-1].receipt
        key = last.terms.node, last.terms.session
        before = self._claimed.get(key)
        if before is not None:
            if last.window <= before.window:
                raise _broken(last, f"was claimed before, up to window {before.window}")
            if receipts[before.window].receipt != before:
                raise _broken(before, "was claimed with other figures than it has now")
        self._claimed[key] = last
        return amount(last) - (0 if before is None else amount(before))


def _check_next(before: Receipt, after: Receipt) -> None:
    if after.terms != before.terms:
        raise _broken(after, "is of another session, party, price or engine than the one before")
    if after.window != before.window + 1 or after.prev != before.digest:
        raise _broken(after, f"does not follow window {before.window}: one is missing or moved")
    older, newer = _rising(before), _rising(after)
    if fallen := [name for name in older if newer[name] < older[name]]:
        raise _broken(after, f"falls behind the one before: {', '.join(fallen)}")


def _rising(receipt: Receipt) -> dict[str, int]:
    """Return what never falls from one receipt of a session to the next."""
    return {
        **vars(receipt.figures),
        "step": receipt.step,
        "layers": receipt.layers.count,
        "at_s": receipt.at_s,
    }


def _by_steps(chain: Iterable[Signed]) -> dict[tuple[int, int], Receipt]:
    """Return a stage's windows by the steps before their first one and at their end.

    Where a session begins is not told by its first receipt: a recruit was told a journal.
    """
    receipts = [signed.receipt for signed in chain]
    found = {(one.step, other.step): other for one, other in pairwise(receipts)}
    first = receipts[0]
    if first.figures.steps == first.step:
        found[0, first.step] = first
    return found


def _broken(receipt: Receipt, why: str) -> BadValueError:
    return BadValueError(f"window {receipt.window} of session {receipt.terms.session} {why}")
