"""``shoestring swarm up`` and ``chat``: a model over this machine and peers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from shoestring.swarm.billing import Billing
    from shoestring.swarm.chains import Chains, Wanted
    from shoestring.swarm.chat import Told
    from shoestring.swarm.front import Front
    from shoestring.swarm.ledger.bills import Bill, Leg
    from shoestring.swarm.stage import Event
    from shoestring.swarm.standing import Standing

    BillOf = Callable[[list[Leg]], Bill]
    """The bill before, of what the nodes of a plan ask."""

SAID: Final = {
    "joined": "takes part",
    "ready": "knows all",
    "lost": "is lost",
    "silent": "does not answer",
    "unreachable": "gives no session",
    "rehearsed": "is sent the weights for later",
    "borrowed": "has weights from another peer",
    "not lent": "is sent weights that another peer has",
    "differs": "answers otherwise",
    "misspoken": "said what is not known here",
    "misread": "was given what nobody carried on",
    "pushes": "sends activations on",
    "disputes": "signs no receipts any more",
    "no way": "gets no activations from its neighbour",
}
ROUTINE: Final = {"joined", "ready", "rehearsed", "borrowed", "pushes"}
AUDIT_SHARE: Final = 0.02
OPTIONS: Final = (
    click.argument("model"),
    click.option("--context", type=click.IntRange(256, 1_048_576), default=4096, show_default=True,
                 help="Tokens of each request."),
    click.option("--parallel", type=click.IntRange(1, 64), default=1, show_default=True,
                 help="Requests at once."),
    click.option("--peer-layers", type=click.IntRange(0, 1000), metavar="N",
                 help="So many layers on cards and peers.  [default: the fastest]"),
    click.option("--mirrors", type=click.IntRange(0, 8), default=0, show_default=True,
                 help="So many more peers hold each part; any may be lost at any time."),
    click.option("--log", "log_path", type=click.Path(path_type=Path, dir_okay=False),
                 help="Where llama-server writes."),
    click.option("--audit-share", type=click.FloatRange(0, 1), default=AUDIT_SHARE,
                 show_default=True,
                 help="Of what nodes compute, run again at other nodes, which are sent its "
                      "activations; 0: nothing goes to them."),
    click.option("--budget", metavar="CREDITS",
                 help="Of the wallet, for nodes that have a price.  [default: free nodes alone]"),
    click.option("--max-price-in", metavar="CREDITS",
                 help="Of a node, a million tokens of prompts and layer.  [default: what it asks]"),
    click.option("--max-price-out", metavar="CREDITS", help="The same, of answers."),
)  # fmt: skip


def _chain_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@_chain_options
@JSON_OPTION
def up(*, as_json: bool, **given: Any) -> None:
    """Lay MODEL over this machine and peers, and serve it on loopback until Ctrl-C.

    Prints the base URL (OpenAI's API) for `shoestring run --base-url`, a gateway, or any client,
    and the key that it takes, made for this time. Both stay when a peer is lost: another takes its
    place, or all is planned anew over who is left, and open answers go on.

    With a budget, nodes that have a price take part, too. What each answer did cost is told after
    it; when the budget is used up, all ends.
    """
    wanted, micro = _wanted(given)
    asyncio.run(_up(wanted, micro, as_json=as_json))


@click.command()
@_chain_options
@click.option("--system", help="What the model is told first.")
@click.option("--temperature", type=click.FloatRange(0, 5), help="0 takes the likeliest token.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of an answer.  [default: no limit]")
@click.option("-m", "--message", help="Ask this alone.  [default: what is typed, or piped in]")
def chat(
    *,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    message: str | None,
    **given: Any,
) -> None:
    """Talk with MODEL over this machine and peers; each line of standard input is a question.

    Ctrl-C ends an answer, a second one the program. With a budget, each answer's cost stands after
    it; when the budget is used up, all ends.
    """
    wanted, micro = _wanted(given)
    how = {"system": system, "temperature": temperature, "max_tokens": max_tokens}
    asyncio.run(_chat(wanted, micro, how, message))


def _wanted(given: dict[str, Any]) -> tuple[Wanted, int | None]:
    """Return what was asked for, and the budget in micro-credits; None: there is none."""
    from shoestring.swarm.chains import Wanted
    from shoestring.swarm.ledger.amounts import read_credits
    from shoestring.swarm.proof.agreeing import Price
    from shoestring.swarm.proof.terms import MOST_PRICE

    budget = given.pop("budget")
    most = {name: given.pop(f"max_{name}") for name in ("price_in", "price_out")}
    if budget is None:
        for name, value in most.items():
            if value is not None:
                option = f"--max-{name.replace('_', '-')}"
                raise BadValueError(f"{option} {value}: without --budget no node is paid: give it")
        return Wanted(**given), None
    limits = {
        name: MOST_PRICE if value is None else read_credits(value) for name, value in most.items()
    }
    return Wanted(**given, most=Price(**limits)), read_credits(budget)


async def _up(wanted: Wanted, micro: int | None, *, as_json: bool) -> None:
    from shoestring.swarm.ledger.amounts import PER_TOKENS
    from shoestring.swarm.ledger.bills import as_json as json_of
    from shoestring.swarm.ledger.bills import bill_before
    from shoestring.swarm.serving import until_told

    def bill_of(route: list[Leg]) -> Bill:
        return bill_before(route, most_in=PER_TOKENS, most_out=PER_TOKENS)

    async with _served(wanted, micro, bill_of) as served:
        billing = served.billing

        def tell(line: str) -> None:
            say(line)
            if as_json and billing is not None:
                click.echo(json.dumps({"bill": json_of(billing.bill())}))

        url, key = f"{served.front.url}/v1", served.front.key
        if as_json:
            click.echo(json.dumps({"base_url": url, "api_key": key}))
        else:
            click.echo(f"{url}\nSHOESTRING_API_KEY={key}")
        telling = () if billing is None else (billing.each_answer(tell),)
        await _until(until_told(), served.standing.over(), *telling)


async def _chat(
    wanted: Wanted, micro: int | None, how: dict[str, Any], message: str | None
) -> None:
    from shoestring.swarm.chat import Conversation, converse
    from shoestring.swarm.offering import most_of_an_answer

    def bill_of(route: list[Leg]) -> Bill:
        return most_of_an_answer(route, wanted.context, how["max_tokens"])

    async with _served(wanted, micro, bill_of, _aside, briefly=True) as served:
        billing, described = served.billing, served.chains.described

        class Signed(Conversation):
            """Its answers are over once they are signed for."""

            async def ask(self, question: str, write: Callable[[str], None]) -> Told:
                told = await super().ask(question, write)
                if billing is not None:
                    await billing.until_signed()
                return told

        def layers() -> str:
            return described() if billing is None else f"{described()}; {billing.line()}"

        conversation = Signed(served.front.url, served.front.key, **how)
        talk = converse(conversation, message=message, layers=layers, say=say)
        await _until(talk, served.standing.over())


def _aside(line: str) -> None:
    """Tell what happens during an answer, on a line of its own."""
    say(f"\n[{line}]" if sys.stdout.isatty() else line)


@dataclass(frozen=True)
class Served:
    """A model that stands, and where it is asked."""

    standing: Standing
    front: Front
    chains: Chains
    billing: Billing | None


@asynccontextmanager
async def _served(
    wanted: Wanted,
    micro: int | None,
    bill_of: BillOf,
    say: Callable[[str], None] = say,
    *,
    briefly: bool = False,
) -> AsyncIterator[Served]:
    """Let a chain stand behind a front while the block lasts.

    Args:
        wanted: of it.
        micro: of the budget; None: there is none.
        bill_of: the bill before, told if there is a budget.
        say: given a line for the user.
        briefly: tell losses alone.
    """
    from shoestring.swarm.billing import Billing
    from shoestring.swarm.chains import Chains
    from shoestring.swarm.front import Front
    from shoestring.swarm.home import Home
    from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
    from shoestring.swarm.proof.receipts import Hand
    from shoestring.swarm.settling import settle_left
    from shoestring.swarm.standing import Standing

    def tell(event: Event) -> None:
        why = f": {event.why}" if event.why else ""
        if not (briefly and event.what in ROUTINE):
            say(f"stage {event.stage}: {event.who} {SAID.get(event.what, event.what)}{why}")
        if event.what == "silent":
            standing.doubt()

    def planned(route: list[Leg]) -> None:
        if micro is not None:
            say(_bill_line(bill_of(route), micro))

    def used_up(error: ShoestringError) -> None:
        standing.finish(error)

    home, billing = Home(), None
    try:
        settle_left(home, say)
    except ShoestringError as error:  # free nodes need no book
        say(f"what is held for a run before is not settled: {error}")
    async with AsyncExitStack() as stack:
        if micro is None:
            files = stack.enter_context(closing(ReceiptFiles(home.folder / FOLDER, say)))
            hand = Hand(home.identity(), files.keep)
        else:
            billing = stack.enter_context(Billing(home, micro, used_up, say))
            hand = Hand(home.identity(), billing.keep, billing.allows)
        chains = Chains(wanted, home, hand, tell, planned, say)
        standing = Standing(chains.plan_again, tell=say)
        async with standing, Front(standing) as front:
            yield Served(standing, front, chains, billing)


def _bill_line(bill: Bill, micro: int) -> str:
    """Return a bill before in one line: the most that tokens cost, and what is held for them."""
    from shoestring.swarm.ledger.amounts import credits_text

    tokens = bill.lines[0] if bill.lines else None
    cost = "no node is paid" if tokens is None else (
        f"at most {credits_text(bill.micro)} credits for {tokens.tokens_in} tokens in and "
        f"{tokens.tokens_out} out, by {len(bill.shares())} nodes"
    )  # fmt: skip
    return f"{cost}; {credits_text(micro)} credits are held"


async def _until(*works: Coroutine[Any, Any, None]) -> None:
    """Wait for the first of them; its error is raised."""
    waits = {asyncio.create_task(work) for work in works}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            await one
    finally:
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
