"""``shoestring swarm market route``: the best route for one answer, and why not another."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from shoestring.errors import BadValueError
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.engines.outlines import Found
    from shoestring.swarm.home import Home
    from shoestring.swarm.market.requests import Preference, Request
    from shoestring.swarm.market.routes import NoRoute, Route
    from shoestring.swarm.market.sellers import Home as AtHome

EXAMPLES: Final = """\b
Examples:
  shoestring swarm market route shape:llama-3.1-8b:q4_k_m                    the cheapest
  shoestring swarm market route shape:llama-3.1-8b:q4_k_m --prefer latency --max-price 0.05
  shoestring swarm market route shape:llama-3.1-8b:q4_k_m --max-tpot 0.2 --home-layers 4 --why
\b
Where no route keeps all limits, the message says what each of them would have to be.
"""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; see the options."""

    model: str
    prompt_tokens: int
    output_tokens: int
    max_price: str | None
    max_ttft: float | None
    max_tpot: float | None
    prefer: Preference
    trust: float
    home_layers: int
    owners: tuple[str, ...]
    offline: bool


@click.command(epilog=EXAMPLES)
@click.argument("model")
@click.option("--prompt-tokens", type=click.IntRange(1, 1 << 24), default=512, show_default=True)
@click.option("--output-tokens", type=click.IntRange(1, 1 << 24), default=256, show_default=True,
              help="At most.")  # fmt: skip
@click.option("--max-price", metavar="CREDITS", help="For the whole answer.  [default: any]")
@click.option("--max-ttft", type=click.FloatRange(0, 86_400), metavar="SECONDS",
              help="To the first token.  [default: any]")  # fmt: skip
@click.option("--max-tpot", type=click.FloatRange(0, 86_400), metavar="SECONDS",
              help="A token.  [default: any]")  # fmt: skip
@click.option(
    "--prefer",
    type=click.Choice(("price", "latency")),
    default="price",
    show_default=True,
    help="Within the limits: the cheapest, or the fastest.",
)
@click.option("--trust", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="The least share of good answers; who was never seen has 0.5.")  # fmt: skip
@click.option("--home-layers", type=click.IntRange(0, 1023), default=0, show_default=True,
              metavar="N", help="So many first layers stay here: what goes out says less of the "
              "prompt. Embedding and output always stay.")  # fmt: skip
@click.option("--owner", "owners", multiple=True, metavar="ID",
              help="Only nodes that are linked to this owner here (`swarm wallet accept`); again "
              "for more.  [default: all]")  # fmt: skip
@click.option("--offline", is_flag=True, help="Greet nobody: round trips as last measured.")
@click.option("--why", is_flag=True, help="Say of each other node why it has no part.")
@JSON_OPTION
def route(*, why: bool, as_json: bool, **given: Any) -> None:
    """Find the best route for an answer of MODEL over nodes whose quotes are known.

    Prints who would compute what, the price and both times as predicted, and what else there is
    between the cheapest and the fastest. Nothing is bought.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.market.places import names_of
    from shoestring.swarm.market.reasons import no_route_text
    from shoestring.swarm.market.routes import Route

    home = Home()
    names = names_of(home)
    answer = _answer(Wanted(**given), home, names, why=why)
    if as_json:
        click.echo(json.dumps(answer.as_json()))
    else:
        _show(answer, names)
    if not isinstance(answer.found, Route):
        raise BadValueError(no_route_text(answer.found))


@dataclass(frozen=True)
class _Answer:
    request: Request
    found: Route | NoRoute
    front: tuple[Route, ...]
    why_not: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        from shoestring.swarm.market.routes import Route

        is_route = isinstance(self.found, Route)
        return {
            "route": asdict(self.found) if is_route else None,
            "no_route": None if is_route else asdict(self.found),
            "front": [asdict(one) for one in self.front],
            "why_not": self.why_not,
        }


def _answer(wanted: Wanted, home: Home, names: Mapping[str, str], *, why: bool) -> _Answer:
    from shoestring.engines.outlines import find_model
    from shoestring.report.plan_machine import find_devices
    from shoestring.swarm.market.board import Board
    from shoestring.swarm.market.looking import greet_sellers
    from shoestring.swarm.market.places import excluded_of, measured_of, owners_of, quotes_of
    from shoestring.swarm.market.reasons import why_not
    from shoestring.swarm.market.routing import find_route, front
    from shoestring.swarm.market.sellers import predict_home, sellers_of

    found = find_model(wanted.model)
    outline, layers = found.outline, found.outline.shape.layers
    own = home.identity().id
    quotes = [one for one in quotes_of(home).all() if one.node != own]
    if not quotes:
        raise BadValueError("no quote is known: bring some with `shoestring swarm market import`")
    measured = measured_of(home)
    devices, constants = find_devices((), say)
    here = next(one for one in devices if one.kind == "cpu")
    at_home = predict_home(
        outline, here, constants, layers=wanted.home_layers, prompt_tokens=wanted.prompt_tokens
    )
    if at_home is None:
        say("this machine's own part of the times is unknown, and counted as none")
    request = _request(wanted, found, at_home)
    seen = None
    if not wanted.offline:
        peers = home.peers(say).active()
        seen = asyncio.run(greet_sellers(home.identity(), peers, measured, outline, constants))
    now_s = time.time()
    sellers, left = sellers_of(
        quotes, found.name, layers, measured.all(), now_s=now_s,
        predicted=seen.predicted if seen else None, free=seen.free if seen else None,
        why_not=seen.why_not if seen else None, owners=owners_of(home, now_s),
        excluded=excluded_of(home),
    )  # fmt: skip
    board = Board(found.name, layers)
    for seller in sellers:
        board.put(seller)
    best = find_route(board, request, now_s=now_s)
    reasons: dict[str, str] = {}
    if why:
        reasons = {one.node: one.why for one in left}
        reasons |= why_not(board, request, best, now_s=now_s, name=lambda one: names.get(one, one))
    return _Answer(request, best, front(board, request, now_s=now_s), reasons)


def _request(wanted: Wanted, found: Found, at_home: AtHome | None) -> Request:
    from shoestring.swarm.ledger.amounts import read_credits
    from shoestring.swarm.market.requests import Request

    layers = found.outline.shape.layers
    if wanted.home_layers >= layers:
        raise BadValueError(
            f"--home-layers {wanted.home_layers}: {found.name} has {layers}; "
            "to keep all here, run it here"
        )
    return Request(
        model=found.name, first=wanted.home_layers, end=layers,
        prompt_tokens=wanted.prompt_tokens, output_tokens=wanted.output_tokens,
        max_price=None if wanted.max_price is None else read_credits(wanted.max_price),
        max_ttft_s=wanted.max_ttft, max_tpot_s=wanted.max_tpot, least_trust=wanted.trust,
        prefer=wanted.prefer, owners=frozenset(wanted.owners) or None,
        home_tpot_s=0.0 if at_home is None else at_home.tpot_s,
        home_ttft_s=0.0 if at_home is None else at_home.ttft_s,
    )  # fmt: skip


def _show(answer: _Answer, names: Mapping[str, str]) -> None:
    from shoestring.report.tabular import plain_text
    from shoestring.swarm.market.routes import Route
    from shoestring.swarm.market.showing import front_table, hops_table, route_line

    if isinstance(answer.found, Route):
        click.echo(plain_text(hops_table(answer.found, names)), nl=False)
        click.echo(route_line(answer.found))
        click.echo()
        click.echo(plain_text(front_table(answer.front, names)), nl=False)
    for node, reason in answer.why_not.items():
        click.echo(f"{names.get(node, node)}: {reason}")
