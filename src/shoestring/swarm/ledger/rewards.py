"""Rewards: a sum shared out among devices for having been there, and for what they computed.

Half of it goes by uptime, half by work (layers times tokens); where nobody did the one, all goes by
the other. What does not divide goes to the largest remainders, so that nothing is left or made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.ledger.accounts import MOST, REWARDS, income
from shoestring.swarm.ledger.book import RefusedEntryError
from shoestring.swarm.ledger.rules import MOST_POSTINGS
from shoestring.swarm.words import WordError, read_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.ledger.entries import Entry

LARGEST_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Service:
    """What a device did in a period.

    Attributes:
        uptime_s: whole seconds in which it could be reached.
        layer_tokens: tokens that it computed, times the layers that each went through there.
    """

    uptime_s: int
    layer_tokens: int


def read_services(text: bytes) -> dict[str, Service]:
    """Return what devices did, by peer id, of one JSON object.

    Raises:
        BadValueError: it is none.
    """
    try:
        if len(text) > LARGEST_BYTES:
            raise BadValueError(f"more than {LARGEST_BYTES} bytes: name fewer devices")
        services = {peer: Service(**said) for peer, said in read_word(text).items()}
    except (WordError, TypeError) as error:
        raise BadValueError(
            'what devices did is no JSON like {"ID": {"uptime_s": 60, "layer_tokens": 0}}'
        ) from error
    for peer, one in services.items():
        public_key_of(peer)
        for name, count in asdict(one).items():
            if type(count) is not int or not 0 <= count <= MOST:
                raise BadValueError(f"{name} of {peer} is {count!a:.40}: give a whole number")
    return services


def reward(
    book: Book, services: Mapping[str, Service], micro: int, *, reference: str
) -> tuple[Entry, ...]:
    """Share out what the pool pays for a period.

    Args:
        book: the book.
        services: by peer id.
        micro: the sum, of :data:`~shoestring.swarm.ledger.accounts.REWARDS`.
        reference: of the period; each is paid once.

    Raises:
        DoubleClaimError: the period was paid.
        RefusedEntryError: nobody did anything, or the pool has not so much.
    """
    shares = share_out(micro, services)
    if not shares:
        raise RefusedEntryError(f"reward {reference} is not booked: nobody did anything")
    return pay_out(book, shares, reference=reference)


def pay_out(book: Book, shares: Mapping[str, int], *, reference: str) -> tuple[Entry, ...]:
    """Book shares out of the pool, all or none: an entry for each 255 devices.

    Args:
        book: the book.
        shares: micro-credits of each device, by peer id; more than zero.
        reference: of the period; of its entries ``REFERENCE-0``, ``REFERENCE-1`` and so on.

    Raises:
        DoubleClaimError: the period was paid.
        RefusedEntryError: the pool has not so much.
    """
    with book.writing():
        return tuple(
            book.add(
                "reward",
                (
                    (REWARDS, -sum(micro for _, micro in part)),
                    *((income(peer), micro) for peer, micro in part),
                ),
                reference=f"{reference}-{number}",
            )
            for number, part in enumerate(_parts(list(shares.items())))
        )


def share_out(micro: int, services: Mapping[str, Service]) -> dict[str, int]:
    """Return what each gets, those left out that get nothing; together exactly the sum."""
    uptime = sum(one.uptime_s for one in services.values())
    work = sum(one.layer_tokens for one in services.values())
    # Shares of uptime and of work on one denominator; a sum of zero counts as nothing.
    weights = {
        peer: one.uptime_s * (work or 1) + one.layer_tokens * (uptime or 1)
        for peer, one in services.items()
    }
    whole = sum(weights.values())
    if not whole:
        return {}
    shares = {peer: micro * weight // whole for peer, weight in weights.items()}
    by_rest = sorted(weights, key=lambda peer: (-(micro * weights[peer] % whole), peer))
    for peer in by_rest[: micro - sum(shares.values())]:
        shares[peer] += 1
    return {peer: part for peer, part in shares.items() if part}


def _parts(shares: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    most = MOST_POSTINGS - 1
    return (shares[at : at + most] for at in range(0, len(shares), most))
