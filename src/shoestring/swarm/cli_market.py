"""``shoestring swarm market``: what nodes ask for layers, and the best route for a request."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Final

import click

from shoestring.errors import BadValueError
from shoestring.swarm.cli_market_route import route
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoestring.swarm.market.quotes import Quote

HOUR_S: Final = 3_600
EXAMPLES = """\b
Examples (on a machine that sells, and on one that buys):
  shoestring swarm market quote shape:llama-3.1-8b:q4_k_m \\
      --price-in 0.002 --price-out 0.006 > quote.json      signed, for a day
\b
  shoestring swarm market import < quote.json              checked, and kept
  shoestring swarm market list                             who asks how much, until when
  shoestring swarm market route shape:llama-3.1-8b:q4_k_m --max-price 0.05 --max-tpot 0.2
  shoestring swarm market route shape:llama-3.1-8b:q4_k_m --prefer latency --why
\b
Prices are credits a million tokens and layer, down to 0.000001; so a model of 32 layers at 0.002
costs 0.064 credits a million tokens of prompts. Limits are for the whole answer.
"""


@click.group(epilog=EXAMPLES)
def market() -> None:
    """Sell layers at a price, and find the cheapest or fastest route over those who do.

    A node signs what it asks (a quote). A request says what it may cost and how long it may take at
    most; layers then go to whoever makes it cheapest, or fastest, within that. Nodes on the local
    network come first only where they are faster.
    """


@market.command(epilog=EXAMPLES)
@click.argument("model")
@click.option("--price-in", required=True, metavar="CREDITS",
              help="A million tokens of prompts and layer.")  # fmt: skip
@click.option("--price-out", required=True, metavar="CREDITS", help="Likewise of answers.")
@click.option("--layers", metavar="FIRST:END", help="Which it can serve, END not among them.  "
              "[default: all]")  # fmt: skip
@click.option("--most", type=click.IntRange(1, 1024), metavar="N",
              help="So many at once.  [default: all of these]")  # fmt: skip
@click.option("--layer-ms", type=click.FloatRange(0, 1e6, min_open=True),
              help="What a layer takes here for a token, as you claim.")  # fmt: skip
@click.option("--prompt-layer-ms", type=click.FloatRange(0, 1e6, min_open=True),
              help="Likewise for a token of a prompt.")  # fmt: skip
@click.option("--owner", metavar="ID", help="Whose node this is, as `swarm wallet create` says; "
              "a claim: buyers go by `swarm wallet link` alone.")  # fmt: skip
@click.option("--hours", type=click.FloatRange(0.01, 24), default=24.0, show_default=True,
              help="How long it holds.")  # fmt: skip
def quote(
    model: str,
    price_in: str,
    price_out: str,
    layers: str | None,
    most: int | None,
    layer_ms: float | None,
    prompt_layer_ms: float | None,
    owner: str | None,
    hours: float,
) -> None:
    """Sign what this node asks for layers of MODEL, and print it for those who may buy.

    It replaces what this node quoted before, with everybody who imports it.
    """
    from shoestring.engines.outlines import find_model
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.amounts import read_credits
    from shoestring.swarm.market.places import quotes_of
    from shoestring.swarm.market.quotes import Quote, sign_quote

    home = Home()
    identity, quotes = home.identity(), quotes_of(home)
    found = find_model(model)
    first, end = _layers(layers, found.outline.shape.layers)
    now_s = int(time.time())
    made = Quote(
        node=identity.id, number=quotes.next_number(identity.id), model=found.name,
        first=first, end=end, most_layers=end - first if most is None else most,
        price_in=read_credits(price_in), price_out=read_credits(price_out),
        layer_s=None if layer_ms is None else layer_ms / 1e3,
        prompt_layer_s=None if prompt_layer_ms is None else prompt_layer_ms / 1e3,
        made_s=now_s, until_s=now_s + max(1, int(hours * HOUR_S)), owner=owner,
    )  # fmt: skip
    text = sign_quote(identity, made)
    _, refused = quotes.take([text.encode()], own=identity.id)
    if refused:
        raise refused[0]
    click.echo(text, nl=False)
    say(
        f"layers {first} to {end - 1} of {found.name}, {made.most_layers} at once, "
        f"until {_utc(made.until_s)} UTC"
    )


@market.command("import", epilog=EXAMPLES)
@click.option("--from", "file", type=click.File("rb"), default="-",
              help="[default: standard input]")  # fmt: skip
def import_quotes(file: IO[bytes]) -> None:
    """Keep quotes, one a line, after each was checked; a newer one replaces an older one.

    What is no good quote is named and left out; the others are kept all the same.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.market.kept_quotes import MOST_QUOTES
    from shoestring.swarm.market.places import quotes_of
    from shoestring.swarm.market.quotes import LARGEST_BYTES

    whole = file.read(LARGEST_BYTES * MOST_QUOTES + 1)
    if len(whole) > LARGEST_BYTES * MOST_QUOTES:
        raise BadValueError(f"more than {LARGEST_BYTES * MOST_QUOTES} bytes: give fewer quotes")
    lines = [line for line in whole.split(b"\n") if line.strip()]
    if len(lines) > MOST_QUOTES:
        raise BadValueError(f"{len(lines)} lines: give at most {MOST_QUOTES} quotes at once")
    if not lines:
        raise BadValueError("nothing was read: give quotes as `swarm market quote` prints them")
    home = Home()
    peers = {peer.id for peer in home.peers(say).active()}
    taken, refused = quotes_of(home).take(lines, own=home.identity().id, peers=peers)
    say(f"{len(taken)} quotes are kept")
    for place, error in refused.items():
        say(f"line {place + 1}: {error}")
    if refused:
        raise BadValueError(f"{len(refused)} of {len(lines)} lines were left out, as said above")


@market.command("list")
@JSON_OPTION
def list_quotes(*, as_json: bool) -> None:
    """Show the quotes that are known and hold, this node's own among them."""
    from shoestring.swarm.home import Home
    from shoestring.swarm.market.places import names_of, quotes_of

    home = Home()
    now_s = time.time()
    held = [one for one in quotes_of(home).all() if one.until_s > now_s]
    if as_json:
        click.echo(json.dumps({"quotes": [asdict(one) for one in held]}))
        return
    click.echo(_table(held, names_of(home)), nl=False)


def _layers(text: str | None, count: int) -> tuple[int, int]:
    """Return the first layer and the one after the last, as the option gives them."""
    if text is None:
        return 0, count
    first, colon, end = text.partition(":")
    if not (
        colon and first.isdecimal() and end.isdecimal() and 0 <= int(first) < int(end) <= count
    ):
        raise BadValueError(f"--layers {text}: give FIRST:END, at most 0:{count}")
    return int(first), int(end)


def _table(quotes: Sequence[Quote], names: Mapping[str, str]) -> str:
    from shoestring.report.tabular import Column, Table, plain_text
    from shoestring.swarm.ledger.amounts import credits_text

    columns = (
        Column("node", "Node"), Column("model", "Model"), Column("layers", "Layers"),
        Column("most", "At once"), Column("price_in", "Prompts (credits)"),
        Column("price_out", "Answers (credits)"), Column("layer_s", "Claims (ms a layer)", 1e3),
        Column("until", "Until (UTC)"),
    )  # fmt: skip
    rows = tuple(
        (names.get(one.node, one.node), one.model, f"{one.first} to {one.end - 1}", one.most_layers,
         credits_text(one.price_in), credits_text(one.price_out), one.layer_s, _utc(one.until_s))
        for one in sorted(quotes, key=lambda one: (one.model, one.price_out, one.node))
    )  # fmt: skip
    nobody = (
        "No quote is known. Where layers are sold: shoestring swarm market quote; "
        "here, with what it prints: shoestring swarm market import."
    )
    return plain_text(Table("quotes", "Quotes", columns, rows, nobody))


def _utc(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M")


market.add_command(route)
