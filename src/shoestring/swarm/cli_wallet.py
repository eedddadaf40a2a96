"""``shoestring swarm wallet``: an owner's key, the devices that are the owner's, and the money."""

from __future__ import annotations

import json
import secrets
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from shoestring.errors import BadValueError
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from shoestring.swarm.home import Home
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.ledger.owning import Ownership

DAY_S: Final = 86_400
EXAMPLES = """\b
Examples (where the owner's key is):
  shoestring swarm wallet create                       the owner's id; once, and for all devices
  shoestring swarm wallet link                         this node is the owner's, for a year
  shoestring swarm wallet fund 25                      credits of this book; no money moves
  shoestring swarm wallet balance
\b
Examples (a device elsewhere: three steps, since both keys sign):
  shoestring swarm wallet link --device ID > half.txt            at the owner's
  shoestring swarm wallet accept --owner ID < half.txt > whole.txt    at the device
  shoestring swarm wallet accept < whole.txt                     at the owner's
"""


@click.group(epilog=EXAMPLES)
def wallet() -> None:
    """Hold an owner's credits, and say which devices are the owner's.

    Credits are of the book that a node keeps (`shoestring swarm ledger`). They are no real money,
    and nothing here pays or takes any.
    """


@wallet.command()
def create() -> None:
    """Make the owner's key, and print the owner's id.

    A key that is there stays as it is. Copy `wallet.key` to a safe place: who has it has the
    wallet, and nothing can make it again.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.identity import load_identity
    from shoestring.swarm.ledger.wallets import WALLET_FILE

    path = Home().folder / WALLET_FILE
    was_there = path.exists()
    owner = load_identity(path)
    click.echo(owner.id)
    say(f"{path} {'was there' if was_there else 'is made'}: keep a copy, it is the wallet")


@wallet.command(epilog=EXAMPLES)
@click.option("--device", metavar="ID|NAME", help="Another node's id, or a peer's name.  "
              "[default: this node]")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True,
              help="How long it holds.")  # fmt: skip
def link(device: str | None, days: int) -> None:
    """Attest by the owner's key that a device is the owner's; prints that as a text.

    This node signs, too, and is linked at once. Another device's text lacks its signature until it
    has run `wallet accept`.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.owning import Ownership
    from shoestring.swarm.ledger.places import devices_of, owner_of

    home = Home()
    owner, node, now_s = owner_of(home), home.identity(), int(time.time())
    asked = node.id if device is None else _device(home, device)
    made = Ownership(owner.id, asked, now_s, now_s + days * DAY_S).signed_by_owner(owner)
    if asked == node.id:
        made = made.signed_by_device(node)
        devices_of(home).keep(made)
        say(f"this node is linked to {owner.id} for {days} days")
    else:
        say(f"on that device: shoestring swarm wallet accept --owner {owner.id}")
    click.echo(made.text())


@wallet.command(epilog=EXAMPLES)
@click.option("--owner", metavar="ID", help="Whose this node shall be.")
def accept(owner: str | None) -> None:
    """Keep whose a device is: reads what `wallet link` printed from standard input.

    One of this node, which lacks its signature, is signed and printed; --owner says that this is
    meant. One with both signatures is kept as it is.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.owning import LONGEST_TEXT, read_ownership
    from shoestring.swarm.ledger.places import devices_of

    if sys.stdin.isatty():
        say("paste what `wallet link` printed, then Enter:")
    found = read_ownership(sys.stdin.readline(2 * LONGEST_TEXT))
    home = Home()
    node = home.identity()
    if found.device == node.id and not found.by_device:
        found = _signed_here(found, node, owner)
    devices_of(home).keep(found)
    click.echo(found.text())
    say(f"{found.device} is linked to {found.owner}")


@wallet.command()
@JSON_OPTION
def devices(*, as_json: bool) -> None:
    """Show whose devices are known here, and until when."""
    from shoestring.report.tabular import Column, Table, plain_text
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.places import devices_of

    now_s, known = time.time(), devices_of(Home()).all()
    rows = [(one.device, one.owner, one.until_s, one.fault(now_s)) for one in known]
    if as_json:
        names = ("device", "owner", "until_s", "why_not")
        click.echo(json.dumps({"devices": [dict(zip(names, row, strict=True)) for row in rows]}))
        return
    heads = ("Device", "Owner", "Until", "State")
    shown = tuple(
        (device, owner, time.strftime("%Y-%m-%d", time.gmtime(until_s)), why or "linked")
        for device, owner, until_s, why in rows
    )
    table = Table(
        "devices", "Devices", tuple(Column(head.lower(), head) for head in heads), shown,
        empty="no device is linked: shoestring swarm wallet link",
    )  # fmt: skip
    click.echo(plain_text(table), nl=False)


@wallet.command()
@click.argument("device", metavar="ID")
def unlink(device: str) -> None:
    """Forget here whose a device is; what others keep about it stays until it expires."""
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.places import devices_of

    devices_of(Home()).drop(device)
    say(f"{device} is linked to nobody here")


@wallet.command()
@click.argument("amount", metavar="CREDITS")
@click.option("--rewards", is_flag=True, help="Into the pool of rewards, not into the wallet.")
@click.option("--reference", help="Books it once, however often this is run.  [default: a new one]")
@click.option("--memo", default="", help="For people.")
def fund(amount: str, *, rewards: bool, reference: str | None, memo: str) -> None:
    """Book credits into the wallet, as `25` or `0.5`.

    These are the credits of this node's book. What they are given for, and by whom, is between
    people: no money moves here.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger import answers
    from shoestring.swarm.ledger.amounts import credits_text, read_credits
    from shoestring.swarm.ledger.places import book_of, owner_of

    home = Home()
    owner, micro = owner_of(home), read_credits(amount)
    named = reference or f"fund.{secrets.token_hex(8)}"
    with book_of(home) as book:
        if rewards:
            entry = answers.fund_rewards(book, micro, reference=named, memo=memo)
        else:
            entry = answers.fund(book, owner.id, micro, reference=named, memo=memo)
    where = "the pool of rewards" if rewards else owner.id
    say(f"entry {entry.number}: {credits_text(micro)} credits for {where}")


@wallet.command()
@JSON_OPTION
def balance(*, as_json: bool) -> None:
    """Show what is free, what is held for answers, and what the owner's devices earned.

    What this node earned is shown without a wallet, too; `owed` is who has not paid for it.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.accounts import income
    from shoestring.swarm.ledger.amounts import credits_text
    from shoestring.swarm.ledger.places import book_path, devices_of, owner_of, reading_of
    from shoestring.swarm.ledger.wallets import WALLET_FILE, balance_of

    home = Home()
    node = home.identity().id
    with reading_of(book_path(home)) as book:
        own = {node} if book is not None and book.balance(income(node)) else set()
        has_wallet = (home.folder / WALLET_FILE).exists()
        owner = owner_of(home).id if has_wallet or not own else None
        linked = [] if owner is None else devices_of(home).of(owner)
        found = balance_of(book, owner, sorted({*linked, *own}))
    if as_json:
        shown = {"owner": owner, "free_micro": found.free, "held_micro": found.held,
                 "income_micro": found.income, "owed_micro": found.owed}  # fmt: skip
        click.echo(json.dumps(shown))
        return
    lines = [
        *(() if found.free is None else (("free", found.free, ""),)),
        *(("held", micro, f"for {reference}") for reference, micro in found.held.items()),
        *(("earned", micro, f"by {device}") for device, micro in found.income.items()),
        *(("owed", micro, f"by {peer}, as its receipts say") for peer, micro in found.owed.items()),
    ]
    click.echo("\n".join(
        f"{word:<8}{credits_text(micro):>16} credits {what}".rstrip() for word, micro, what in lines
    ))  # fmt: skip
    if book is None:
        say("nothing is booked yet: shoestring swarm wallet fund CREDITS")


@wallet.command()
def collect() -> None:
    """Move what the owner's devices earned into the wallet."""
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.amounts import credits_text
    from shoestring.swarm.ledger.places import book_of, devices_of, owner_of
    from shoestring.swarm.ledger.wallets import collect as collect_from

    home = Home()
    owner = owner_of(home)
    with book_of(home) as book:
        for device in devices_of(home).of(owner.id):
            entry = collect_from(book, owner.id, device)
            earned = 0 if entry is None else entry.postings[-1][1]
            click.echo(f"{credits_text(earned):>16} credits by {device}")


@wallet.command()
@click.argument("reference")
def release(reference: str) -> None:
    """Give back what is held for a run that ended, once all that its receipts prove is paid.

    `wallet balance` shows what is held. The next `up` or `chat` does this for runs that died, too.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.accounts import held
    from shoestring.swarm.ledger.amounts import credits_text
    from shoestring.swarm.ledger.places import book_path, owner_of, reading_of
    from shoestring.swarm.settling import settle

    home = Home()
    account = held(owner_of(home).id, reference)
    with reading_of(book_path(home)) as book:
        if book is None or not book.balance(account):
            raise BadValueError(
                f"nothing is held for {reference[:96]!a}: `wallet balance` shows what"
            )
    say(f"{credits_text(settle(home, reference, say))} credits are free again")


def _device(home: Home, id_or_name: str) -> str:
    """Return the id that is given, or that of a peer of this name."""
    from shoestring.swarm.certificates import ID

    if ID.fullmatch(id_or_name):
        return id_or_name
    found = [peer.id for peer in home.peers(say).active() if peer.name == id_or_name]
    if len(found) != 1:
        raise BadValueError(
            f"--device {id_or_name[:80]!a}: no id, and no one peer's name; "
            "`shoestring swarm id` prints it there"
        )
    return found[0]


def _signed_here(found: Ownership, node: Identity, owner: str | None) -> Ownership:
    """Sign that this node is an owner's, whom the user names: it gives away what the node earns."""
    why = found.owner_fault()
    if why is not None:
        raise BadValueError(f"{found.device} is not linked: {why}")
    if owner != found.owner:
        raise BadValueError(
            f"this makes the node {found.owner}'s: if that is meant, give --owner {found.owner}"
        )
    return found.signed_by_device(node)
