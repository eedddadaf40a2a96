"""``shoestring swarm ledger``: the book of this node, shown, checked, and what is sold on."""

from __future__ import annotations

import json
import secrets
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from shoestring.swarm.ledger.entries import Entry
    from shoestring.swarm.ledger.heads import Head
    from shoestring.swarm.ledger.verifying import Verified

EMPTY = "nothing is booked yet: shoestring swarm wallet create, then wallet fund CREDITS"
EXAMPLES = """\b
Examples:
  shoestring swarm ledger show --last 5
  shoestring swarm ledger show --account wallet:ID --json
  shoestring swarm ledger verify                     every entry, hash and balance
  shoestring swarm ledger head > head.json           for somebody else to keep
  shoestring swarm ledger verify --head head.json    finds what was cut off since
"""
RESELL_EXAMPLES = """\b
Examples:
  shoestring serve 2>> gateway.log
  shoestring swarm ledger resell --dry-run --key ana --price-in 0.2 --price-out 0.6 \\
    --margin 15% < gateway.log                       the sum; again without --dry-run to book it
  shoestring swarm ledger paid ABCDEFGHIJ 5          ana, by her key's id, has paid 5 credits
"""
CORRECT_EXAMPLES = """\b
Examples:
  shoestring swarm ledger show --last 5
  shoestring swarm ledger correct 17 --memo "50 was typed for 5"
"""
REWARD_EXAMPLES = """\b
Examples:
  shoestring swarm wallet fund 10 --rewards
  echo '{"ID": {"uptime_s": 86400, "layer_tokens": 5000000}}' |
    shoestring swarm ledger reward 2026-11-22 2.5
"""


@click.group(epilog=EXAMPLES)
def ledger() -> None:
    """Read and check the book of this node: who owes whom how much.

    Each entry is balanced and names the one before by its hash. None is ever changed. Amounts are
    credits of a million micro-credits, always whole ones of these.
    """


@ledger.command(epilog=EXAMPLES)
@click.option("--account", help="Only entries in which it stands.")
@click.option("--reference", help="Only entries of this answer or payment.")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True,
              help="At most so many, the newest.")  # fmt: skip
@JSON_OPTION
def show(*, account: str | None, reference: str | None, last: int, as_json: bool) -> None:
    """Show entries, the oldest first."""
    from shoestring.report.tabular import Column, Table, plain_text
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.places import book_path, reading_of

    with reading_of(book_path(Home())) as book:
        found = [] if book is None else list(
            book.entries(account=account, reference=reference, last=last)
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"entries": [_as_json(entry) for entry in found]}))
        return
    heads = ("Entry", "UTC", "Kind", "Account", "Credits", "Reference", "Memo")
    rows = tuple(row for entry in found for row in _rows(entry))
    empty = EMPTY if book is None else "no entry is so: leave an option out"
    columns = tuple(Column(head.lower(), head) for head in heads)
    click.echo(plain_text(Table("ledger", "Ledger", columns, rows, empty=empty)), nl=False)


@ledger.command(epilog=EXAMPLES)
@click.option("--head", "heads", type=click.File("rb"), multiple=True,
              help="A head that was kept elsewhere; again for more, - for stdin.")  # fmt: skip
@click.option("--book", "path", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Another book.  [default: this node's]")  # fmt: skip
@click.option("--keeper", metavar="ID", help="Who must have kept it.  [default: this node]")
@JSON_OPTION
def verify(
    *, heads: tuple[IO[bytes], ...], path: Path | None, keeper: str | None, as_json: bool
) -> None:
    """Check every entry, hash and balance; exit status 1 and the first wrong entry if one is.

    Beside the book lies a head that was signed when it was last closed. A book that ends before
    it, or reads otherwise, was cut or written anew. What came after the newest head can be cut off
    unseen, and so can the book with its head: have somebody else keep one (`ledger head`).
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.heads import LARGEST_BYTES, kept_head, read_head
    from shoestring.swarm.ledger.places import book_path
    from shoestring.swarm.ledger.verifying import verify_file

    home = Home()
    place, who = path or book_path(home), keeper or home.identity().id
    signed = [read_head(file.read(LARGEST_BYTES + 1), who) for file in heads]
    try:
        signed += filter(None, [kept_head(place, who)])
    except BadValueError as error:
        if not heads:
            raise
        say(str(error))
    _tell(verify_file(place, who, signed, say), signed, place, as_json=as_json)


@ledger.command()
def head() -> None:
    """Print where the book ends, signed: for somebody else to keep, who can show it later.

    A book that is another keeper's, or holds less than this node signed before, is not signed.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.heads import sign_head
    from shoestring.swarm.ledger.places import book_path, reading_of
    from shoestring.swarm.ledger.tables import check_keeper

    home = Home()
    node = home.identity()
    with reading_of(book_path(home)) as book:
        if book is None:
            raise BadValueError(EMPTY)
        check_keeper(book.connection, book.path, node.id)
        book.check_head()
        now = book.head(int(time.time()))
    click.echo(sign_head(node, now), nl=False)


@ledger.command(epilog=CORRECT_EXAMPLES)
@click.argument("number", type=click.IntRange(1, 10**15), metavar="ENTRY")
@click.option("--memo", default="", help="For people: what was wrong.")
def correct(number: int, *, memo: str) -> None:
    """Take an entry back by its mirror, once: for what was booked by mistake.

    Both stay in the book. What somebody got and has no more cannot be taken back. Only what people
    book is corrected: fund, refund, reward, resale, collect. A `resell` of the same log books a
    corrected request again.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.correcting import correct as correct_entry
    from shoestring.swarm.ledger.places import book_of

    with book_of(Home()) as book:
        entry = correct_entry(book, number, memo=memo)
    say(f"entry {entry.number} takes entry {number} back")


@ledger.command(epilog=RESELL_EXAMPLES)
@click.option("--key", "chosen", multiple=True, metavar="ID|NAME",
              help="Only this key's requests, again for more.  [default: all keys]")  # fmt: skip
@click.option("--price-in", required=True, metavar="CREDITS",
              help="What you pay for a million tokens of prompts, through all layers.")  # fmt: skip
@click.option("--price-out", required=True, metavar="CREDITS", help="Likewise, of answers.")
@click.option("--margin", default="0%", show_default=True, help="What you add to it.")
@click.option("--dry-run", is_flag=True, help="Book nothing: tell what it would come to.")
@JSON_OPTION
def resell(
    *,
    chosen: tuple[str, ...],
    price_in: str,
    price_out: str,
    margin: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask customers for what they used, at cost and margin: reads a gateway's log from stdin.

    Each line of a request is booked once, however often the log is read; see the sum by --dry-run
    before. A customer is a key of the gateway (`shoestring keys`), and owes until `ledger paid`.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger import resale
    from shoestring.swarm.ledger.amounts import credits_text, read_credits
    from shoestring.swarm.ledger.gateway_logs import uses
    from shoestring.swarm.ledger.places import book_of, book_path, owner_of, reading_of

    tariff = resale.Tariff(
        read_credits(price_in), read_credits(price_out), resale.read_margin(margin)
    )
    home = Home()
    owner = owner_of(home).id
    used = (
        use
        for use in uses(sys.stdin.buffer)
        if not chosen or use.key_id in chosen or use.key_name in chosen
    )
    if dry_run:
        with reading_of(book_path(home)) as reading:
            sold = resale.foresee(reading, owner, used, tariff)
    else:
        with book_of(home) as book:
            sold = resale.resell(book, owner, used, tariff)
    if as_json:
        click.echo(json.dumps(asdict(sold)))
        return
    click.echo(
        f"{sold.booked} requests {'would be ' if dry_run else ''}booked, "
        f"{credits_text(sold.micro)} credits; of these {sold.by_charge} by what the gateway "
        f"charged, for the engine did not count; {sold.booked_before} were booked before, "
        f"{sold.tokens_unknown} have no count of tokens and are not asked for"
    )


@ledger.command(epilog=RESELL_EXAMPLES)
@click.argument("customer", metavar="KEY_ID")
@click.argument("amount", metavar="CREDITS")
@click.option("--reference", help="Books it once, however often this is run.  [default: a new one]")
def paid(customer: str, amount: str, reference: str | None) -> None:
    """Book what a customer paid you outside of the book; below zero, the customer owes."""
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger import accounts
    from shoestring.swarm.ledger.amounts import credits_text, read_credits
    from shoestring.swarm.ledger.places import book_of, owner_of
    from shoestring.swarm.ledger.resale import book_payment

    home = Home()
    owner, micro = owner_of(home).id, read_credits(amount)
    named = reference or f"paid.{secrets.token_hex(8)}"
    with book_of(home) as book:
        book_payment(book, owner, customer, micro, reference=named)
        left = book.balance(accounts.customer(owner, customer))
    say(f"{customer} has {credits_text(left)} credits")


@ledger.command(epilog=REWARD_EXAMPLES)
@click.argument("period")
@click.argument("amount", metavar="CREDITS")
def reward(period: str, amount: str) -> None:
    """Share a sum of the pool of rewards out among devices: reads what each did from stdin.

    Half goes by uptime, half by layers times tokens. A period is paid once.
    """
    from shoestring.report.tabular import Column, Table, plain_text
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.amounts import credits_text, read_credits
    from shoestring.swarm.ledger.places import book_of
    from shoestring.swarm.ledger.rewards import LARGEST_BYTES, read_services
    from shoestring.swarm.ledger.rewards import reward as share_out

    micro = read_credits(amount)
    services = read_services(sys.stdin.buffer.read(LARGEST_BYTES + 1))
    with book_of(Home()) as book:
        entries = share_out(book, services, micro, reference=period)
    columns = (Column("account", "Account"), Column("credits", "Credits"))
    rows = tuple((name, credits_text(part)) for entry in entries for name, part in entry.postings)
    click.echo(plain_text(Table("reward", "Reward", columns, rows)), nl=False)


def _tell(found: Verified, signed: list[Head], path: Path, *, as_json: bool) -> None:
    from shoestring.swarm.ledger.heads import head_path

    upto = max((one.number for one in signed), default=None)
    if as_json:
        click.echo(json.dumps({**asdict(found), "signed_entries": upto}))
    if found.fault is not None:
        where = "" if found.fault.number is None else f"entry {found.fault.number}: "
        raise ShoestringError(f"{path} is not whole: {where}{found.fault.what}; restore a copy")
    if as_json:
        return
    if not found.entries:
        say(EMPTY)
        return
    click.echo(f"{found.entries} entries are right, the last one {found.hash}")
    if upto is not None:
        say(f"up to entry {upto} by a head that the keeper signed")
    else:
        say(f"there is no {head_path(path).name}: whether the end was cut off cannot be told")


def _rows(entry: Entry) -> list[tuple[str, ...]]:
    from shoestring.swarm.ledger.amounts import credits_text

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.at_s))
    first = (str(entry.number), when, entry.kind)
    return [
        (*(first if index == 0 else ("", "", "")), account, credits_text(amount),
         *((entry.reference, entry.memo) if index == 0 else ("", "")))
        for index, (account, amount) in enumerate(entry.postings)
    ]  # fmt: skip


def _as_json(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "previous": entry.previous.hex(), "hash": entry.sha256().hex()}
