"""Whether receipts are whole: of one session, of neighbouring stages, and what may be claimed.

Every check starts from receipts whose signatures are looked at here; nothing is taken for signed
because of where it lies.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.swarm.proof.reading import read_signed
from shoestring.swarm.proof.receipts import amount, check_signatures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoestring.swarm.proof.receipts import Receipt, Signed


def read_good(content: bytes) -> tuple[list[Signed], str | None]:
    """Return the receipts of a session's file up to where it is damaged, and how it is.

    Returns:
        The receipts; and what is wrong behind them, None: nothing is.
    """
    *lines, rest = content.split(b"\n")
    found: list[Signed] = []
    for line in lines:
        try:
            signed = read_signed(line)
            if found:
                _check_next(found[-1].receipt, signed.receipt)
            else:
                _check_first(signed.receipt)
        except BadValueError as error:
            return found, str(error)
        found.append(signed)
    return found, "its last line is cut" if rest or not found else None


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
    _check_first(receipts[0].receipt)
    for before, after in pairwise(signed.receipt for signed in receipts):
        _check_next(before, after)


def check_stages(chains: Sequence[Sequence[Signed]]) -> int:
    """See that what each stage gave out is what the next one was given.

    Windows of neighbours are compared where both begin and end after the same steps. Where a
    window ends is the client's word; that it holds as many steps as it says, both signed. One that
    does not was closed in mid-step, as at the end of a session, and is compared with nothing.

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


def layer_tokens(receipts: Sequence[Receipt], since_s: float, until_s: float) -> int:
    """Return layers times tokens of a period: figures are of the session until each receipt.

    Args:
        receipts: of one session, from the first on.
        since_s: begin of the period, in seconds since 1970.
        until_s: its end.
    """
    return _layer_tokens(receipts, until_s) - _layer_tokens(receipts, since_s)


class ReceiptBook:
    """Claims on sessions: of each its last receipt counts, once.

    What is claimed is what the session came to beyond the last claim.

    Args:
        claimed: receipts of sessions that were claimed before, as they are kept; a book that
            outlives a process begins with them.

    Raises:
        BadValueError: some of them are no chain.
    """

    def __init__(self, claimed: Iterable[Sequence[Signed]] = ()) -> None:
        self._claimed: dict[tuple[str, str], Receipt] = {}
        for receipts in claimed:
            self.claim(receipts)

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


def _check_first(receipt: Receipt) -> None:
    if receipt.window != 0 or receipt.prev != receipt.terms.digest:
        raise _broken(receipt, "is not the first of its session: the ones before are missing")


def _check_next(before: Receipt, after: Receipt) -> None:
    if after.terms != before.terms:
        raise _broken(after, "is of another session, party, price or engine than the one before")
    if after.window != before.window + 1 or after.prev != before.digest:
        raise _broken(after, f"does not follow window {before.window}: one is missing or moved")
    older, newer = _rising(before), _rising(after)
    if fallen := [name for name in older if newer[name] < older[name]]:
        raise _broken(after, f"falls behind the one before: {', '.join(fallen)}")


def _layer_tokens(receipts: Sequence[Receipt], until_s: float) -> int:
    last = next((one for one in reversed(receipts) if one.at_s < until_s), None)
    if last is None:
        return 0
    return (last.figures.tokens_in + last.figures.tokens_out) * last.layers.count


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

    Those alone that hold as many steps as lie between. Where a session begins is not told by its
    first receipt: a recruit was told a journal.
    """
    receipts = [signed.receipt for signed in chain]
    ends = [(0, 0), *((one.step, one.figures.steps) for one in receipts)]
    return {
        (step, receipt.step): receipt
        for receipt, (step, steps) in zip(receipts, ends, strict=False)
        if 0 < receipt.step - step == receipt.figures.steps - steps
    }


def _broken(receipt: Receipt, why: str) -> BadValueError:
    return BadValueError(f"window {receipt.window} of session {receipt.terms.session} {why}")
