"""What an answer may cost before it is asked, and what it did cost after it, node by node."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from shoestring.report.tabular import Column, Table
from shoestring.swarm.ledger.amounts import amount, credits_text

if TYPE_CHECKING:
    from collections.abc import Sequence

When = Literal["before", "after"]


@dataclass(frozen=True)
class Leg:
    """A node of a route, and what it asks for.

    Attributes:
        node: its peer id.
        layers: that it computes.
        price_in: micro-credits a million tokens of prompt and layer.
        price_out: likewise, of the answer.
    """

    node: str
    layers: int
    price_in: int
    price_out: int


@dataclass(frozen=True)
class Line:
    """What one node computes, and what that costs.

    Attributes:
        node: its peer id.
        layers: that each token goes through there.
        tokens_in: positions of prompts.
        tokens_out: positions of answers.
        price_in: micro-credits a million tokens of prompt and layer.
        price_out: likewise, of the answer.
    """

    node: str
    layers: int
    tokens_in: int
    tokens_out: int
    price_in: int
    price_out: int

    @property
    def micro(self) -> int:
        """Micro-credits, rounded up once for all that the session owes."""
        return amount(
            self.tokens_in, self.tokens_out, self.layers,
            price_in=self.price_in, price_out=self.price_out,
        )  # fmt: skip


@dataclass(frozen=True)
class Bill:
    """What an answer costs.

    Attributes:
        when: ``before``: the most that it may; ``after``: what it did, by the receipts.
        lines: one for each session of a node.
    """

    when: When
    lines: tuple[Line, ...]

    @property
    def micro(self) -> int:
        """Micro-credits of all lines together."""
        return sum(line.micro for line in self.lines)

    def shares(self) -> dict[str, int]:
        """Return the micro-credits of each node, by its peer id, in the order of the lines."""
        found: dict[str, int] = {}
        for line in self.lines:
            found[line.node] = found.get(line.node, 0) + line.micro
        return found


def bill_before(route: Sequence[Leg], *, most_in: int, most_out: int) -> Bill:
    """Return the most that an answer may cost by a route.

    What speculation guesses is input; whoever guesses counts it into ``most_in``.

    Args:
        route: its nodes in their order.
        most_in: tokens that any node will read.
        most_out: tokens that any node will write.
    """
    return Bill("before", tuple(
        Line(leg.node, leg.layers, most_in, most_out, leg.price_in, leg.price_out) for leg in route
    ))  # fmt: skip


def bill_after(lines: Sequence[Line]) -> Bill:
    """Return what an answer did cost, by the cumulative figures of each session's last receipt."""
    return Bill("after", tuple(lines))


def as_table(bill: Bill) -> Table:
    """Return a bill for readers; amounts are exact, so they are texts."""
    heads = ("Node", "Layers", "Tokens in", "Tokens out", "Price in", "Price out", "Credits")
    keys = ("node", "layers", "tokens_in", "tokens_out", "price_in", "price_out", "credits")
    rows = [
        (
            line.node[:12], str(line.layers), str(line.tokens_in), str(line.tokens_out),
            credits_text(line.price_in), credits_text(line.price_out), credits_text(line.micro),
        )
        for line in bill.lines
    ]  # fmt: skip
    title = "The most that it may cost" if bill.when == "before" else "What it did cost"
    total = ("together", "", "", "", "", "", credits_text(bill.micro))
    return Table(
        f"bill_{bill.when}",
        f"{title}: {credits_text(bill.micro)} credits",
        tuple(Column(key, head) for key, head in zip(keys, heads, strict=True)),
        (*rows, total) if rows else (),
        empty="No node is paid.",
    )


def as_json(bill: Bill) -> dict[str, Any]:
    """Return a bill for programs, in micro-credits."""
    return {
        "when": bill.when,
        "micro": bill.micro,
        "lines": [{**asdict(line), "micro": line.micro} for line in bill.lines],
    }
