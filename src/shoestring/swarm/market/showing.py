"""Routes as readers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.report.tabular import Column, Table
from shoestring.report.units import number, seconds
from shoestring.swarm.ledger.amounts import credits_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoestring.swarm.market.routes import Route

PROVEN: float = 5e-4
"""A share that nobody reads as anything but nothing."""


def hops_table(route: Route, names: Mapping[str, str]) -> Table:
    """Return who computes what at what price."""
    columns = (Column("node", "Node"), Column("layers", "Layers"), Column("price", "Credits"))
    rows = tuple(
        (names.get(hop.id, hop.id), f"{hop.first} to {hop.end - 1}", credits_text(hop.price))
        for hop in route.hops
    )
    return Table("route", "Route", columns, rows)


def route_line(route: Route) -> str:
    """Return what a route is predicted to cost and take, and how good it is."""
    if route.above is None:
        how = "no bound is known"
    elif route.above < PROVEN:
        how = "nothing is better"
    else:
        how = f"no other is better by more than {number(100 * route.above)} %"
    return (
        f"at most {credits_text(route.price)} credits, first token after {seconds(route.ttft_s)}, "
        f"then {seconds(route.tpot_s)} a token, as predicted; {how}"
    )


def front_table(routes: Sequence[Route], names: Mapping[str, str]) -> Table:
    """Return what there is between the cheapest and the fastest."""
    columns = (
        Column("price", "Credits"), Column("tpot_s", "A token (ms)", 1e3),
        Column("ttft_s", "First token (s)"), Column("nodes", "Nodes"),
    )  # fmt: skip
    rows = tuple(
        (credits_text(one.price), one.tpot_s, one.ttft_s,
         ", ".join(f"{names.get(hop.id, hop.id[:8])} ({hop.end - hop.first})" for hop in one.hops))
        for one in routes
    )  # fmt: skip
    return Table("front", "From the cheapest to the fastest", columns, rows)
