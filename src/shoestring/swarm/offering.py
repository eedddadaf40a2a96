"""What a client offers each node: what the node takes, as long as that may be paid.

A node is told the most that its client pays, and answers with its own price. To offer it more than
it said would invite it to take more. So each is offered what its greeting named, and nobody whose
price is above the user's limit, or above the node's own signed quote, gets layers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.plan.memory import Settings
from shoestring.swarm.ledger.amounts import credits_text
from shoestring.swarm.ledger.bills import Leg, bill_before
from shoestring.swarm.market.places import quotes_of
from shoestring.swarm.proof.agreeing import Price

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shoestring.swarm.chain import Part
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.bills import Bill
    from shoestring.swarm.survey import Seen


@dataclass(frozen=True)
class Offers:
    """Who may be asked, at what price.

    Attributes:
        seen: peers that may have layers.
        prices: that each is offered, by its peer id.
        left_out: a line for each of the others, with the reason.
    """

    seen: tuple[Seen, ...]
    prices: dict[str, Price]
    left_out: tuple[str, ...]


def quoted_prices(home: Home, model: str) -> dict[str, Price]:
    """Return what nodes ask for layers of a model in quotes that hold now, by peer id.

    Raises:
        BadValueError: the file of quotes cannot be used.
    """
    now_s = time.time()
    return {
        one.node: Price(one.price_in, one.price_out)
        for one in quotes_of(home).all()
        if one.model == model and one.until_s > now_s
    }


def make_offers(seen: Iterable[Seen], quoted: Mapping[str, Price], most: Price | None) -> Offers:
    """Return who may have layers, and what each is offered for them.

    Args:
        seen: peers that answered.
        quoted: what they signed for this model, by peer id, as far as that is known.
        most: that may be paid; None: nothing may, for there is no budget.
    """
    kept, prices, left_out = [], {}, []
    for one in seen:
        node = one.remote.address.id
        why_not = _why_not(one.price, quoted.get(node), most)
        if why_not is None:
            kept.append(one)
            prices[node] = one.price
        else:
            left_out.append(f"{one.remote.name} is left out: {why_not}")
    return Offers(tuple(kept), prices, tuple(left_out))


def legs_of(parts: Iterable[Part]) -> list[Leg]:
    """Return what each member of a chain's parts asks for its layers."""
    return [
        Leg(
            one.remote.address.id,
            part.layers[1] - part.layers[0],
            one.price.price_in,
            one.price.price_out,
        )
        for part in parts
        for one in part.members
    ]


def most_of_an_answer(route: Sequence[Leg], context: int, max_tokens: int | None) -> Bill:
    """Return the most that one answer may cost while no node is lost.

    Prompt and answer share the context, and each batch of a prompt gives out a token, too. The most
    is either the longest answer and the rest prompt, or all of the context prompt.

    Args:
        route: its nodes.
        context: tokens of a request.
        max_tokens: of the answer; None: as many as the context holds.
    """
    batches = -(-context // Settings.ubatch)
    longest = min(context, (max_tokens or context) + batches)
    bills = [
        bill_before(route, most_in=context - most_out, most_out=most_out)
        for most_out in (longest, 0)
    ]
    return max(bills, key=lambda bill: bill.micro)


def _why_not(price: Price, quoted: Price | None, most: Price | None) -> str | None:
    """Say why a node gets no layers at its price; None: it may."""
    if price.is_free:
        return None
    asks = f"it asks {_spelt(price)} a million tokens and layer"
    if most is None:
        return f"{asks}; --budget pays for it"
    if not _is_within(price, most):
        return f"{asks}, at most {_spelt(most)} may be paid: raise --max-price-in, --max-price-out"
    if quoted is not None and not _is_within(price, quoted):
        return f"{asks}, and its own quote says {_spelt(quoted)}"
    return None


def _is_within(price: Price, most: Price) -> bool:
    return price.price_in <= most.price_in and price.price_out <= most.price_out


def _spelt(price: Price) -> str:
    return f"{credits_text(price.price_in)} credits in and {credits_text(price.price_out)} out"
