"""``shoestring swarm voucher``: promises of money that need no chain until they are claimed."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from shoestring.errors import BadValueError, MissingError
from shoestring.swarm.cli_words import JSON_OPTION, say
from shoestring.swarm.ledger.amounts import credits_text, read_credits
from shoestring.swarm.words import WORD_BYTES

if TYPE_CHECKING:
    from shoestring.swarm.vouchers.keys import EvmKey
    from shoestring.swarm.vouchers.purse import Opened, Purse
    from shoestring.swarm.vouchers.till import Held, Till

NEEDS: Final = ("eth_account", "x402")
SHORTEST_S: Final = 900
LONGEST_S: Final = 2_592_000
DAY_S: Final = 86_400
EXAMPLES = """\b
Examples (who pays, then who is paid):
  shoestring swarm voucher key                                 this owner's address, signed
  shoestring swarm voucher open --to 0x... --token 0x... --network eip155:84532 --deposit 5
  shoestring swarm voucher sign 0x... 1.25 > voucher.json      1.25 credits of all answers so far
\b
  shoestring swarm voucher check --owed 1.2 < voucher.json     is it good for what is owed?
  shoestring swarm voucher list                                both ways
"""
OWED_HELP: Final = "Credits that receipts say are owed on this channel so far."


@click.group(epilog=EXAMPLES)
def voucher() -> None:
    """Sign and check vouchers of x402's batch settlement; nothing here speaks with a chain.

    A payer deposits once into a channel, on a chain, with a wallet of their choice. Each answer
    then costs one signature over all that is owed so far; the payee claims the last one when it
    likes. A micro-credit is one unit of a token with six decimals. Try it on a test network first.
    """
    missing = ", ".join(name for name in NEEDS if find_spec(name) is None)
    if missing:
        raise MissingError(f"vouchers need {missing}: pip install 'shoestring[vouchers]'")


@voucher.command()
@click.option("--check", is_flag=True, help="Read another's statement from standard input.")
def key(*, check: bool) -> None:
    """Print the address that signs vouchers here, and the statement that it is the owner's.

    The key is made at the first time. The statement is signed by it and by the owner's wallet
    (`swarm wallet create`), and is no secret.
    """
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.places import owner_of
    from shoestring.swarm.vouchers.binding import bind, read_binding

    if check:
        read = read_binding(_standard_input("statement"))
        click.echo(json.dumps(read.word()))
        say(f"{read.address} signs vouchers for {read.owner}: both have signed that")
        return
    click.echo(json.dumps(bind(owner_of(Home()), _key(), int(time.time())).word()))


@voucher.command("open")
@click.option("--to", "payee", required=True, metavar="ADDRESS", help="Who is paid.")
@click.option("--token", required=True, metavar="ADDRESS", help="Of six decimals.")
@click.option("--network", required=True, metavar="eip155:NUMBER", help="The chain.")
@click.option("--deposit", required=True, metavar="CREDITS", help="All that is put in so far.")
@click.option("--delay", "delay_s", type=click.IntRange(SHORTEST_S, LONGEST_S), default=DAY_S,
              show_default=True, help="Seconds until the rest comes back.")  # fmt: skip
@click.option("--from", "payer", metavar="ADDRESS",
              help="Whose money it is, if not the key's own: the key then holds none.")  # fmt: skip
@click.option("--salt", metavar="HEX", help="Of a channel that is open: its deposit has risen.")
def open_(
    payee: str,
    token: str,
    network: str,
    deposit: str,
    delay_s: int,
    payer: str | None,
    salt: str | None,
) -> None:
    """Name a channel to pay from: prints what x402's contract is told at the deposit.

    The deposit itself is yours to make, on the chain; the payee looks there before it trusts.
    """
    from shoestring.swarm.vouchers.channels import open_channel

    channel = open_channel(
        _key().address, payee, token=token, network=network, deposit=read_credits(deposit),
        delay_s=delay_s, payer=payer, salt=salt,
    )  # fmt: skip
    click.echo(json.dumps(_purse().open(channel).channel.word()))


@voucher.command()
@click.argument("channel")
@click.argument("amount")
def sign(channel: str, amount: str) -> None:
    """Print a voucher over AMOUNT credits of CHANNEL: all that the payee may have of it so far."""
    click.echo(json.dumps(_purse().sign(channel, read_credits(amount)).to_dict()))


@voucher.command()
@click.option("--owed", required=True, metavar="CREDITS", help=OWED_HELP)
@click.option("--deposit", metavar="CREDITS", help="What the chain says lies in the channel.")
@click.option("--token", metavar="ADDRESS", help="In what this node is paid.")
@click.option("--network", metavar="eip155:NUMBER", help="On which chain.")
@click.option("--delay", "delay_s", type=click.IntRange(SHORTEST_S, LONGEST_S),
              help="Seconds that you want to have for a claim.  [default: 86400]")  # fmt: skip
def check(
    owed: str, deposit: str | None, token: str | None, network: str | None, delay_s: int | None
) -> None:
    """Check a voucher from standard input, and keep it if it is good for what is owed.

    The first time, and when the payer deposits more, give --deposit, --token and --network: look
    the deposit up on the chain, and never take the payer's word for it. A channel whose payer has
    the rest back sooner than --delay is refused: what was not claimed by then is gone.

    One that is good, and less than is owed, is kept; exit status 2 says that more is owed.
    """
    from shoestring.swarm.vouchers.forms import read_object, read_payload
    from shoestring.swarm.vouchers.payouts import Payout

    payload = read_payload(read_object(_standard_input("voucher"), "voucher"))
    till = _till()
    if deposit is not None and token is not None and network is not None:
        assert payload.channel_config is not None  # in whatever read_payload returns
        payout = Payout(_key().address, token, network, delay_s or DAY_S)
        till.admit(payload.channel_config, read_credits(deposit), payout)
    elif any(one is not None for one in (deposit, token, network, delay_s)):
        raise BadValueError(
            "--deposit, --token and --network say one thing: give all three, and --delay with them"
        )
    click.echo(json.dumps(_held(till.take(payload, read_credits(owed)))))


@voucher.command("list")
@JSON_OPTION
def list_(*, as_json: bool) -> None:
    """Show the channels that we pay from, and those that pay us, with what can be claimed."""
    opened, held = _purse().opened(), _till().held()
    if as_json:
        whole = {"signed": [one.word() for one in opened], "held": [_held(one) for one in held]}
        click.echo(json.dumps(whole))
        return
    click.echo(_as_table(opened, held), nl=False)


def _held(one: Held) -> dict[str, Any]:
    """Return what is shown of a channel that pays us, with what x402's contract takes."""
    claim = one.claim()
    return one.word() | {
        "short": one.short, "claim": None if claim is None else claim.to_dict()
    }  # fmt: skip


def _as_table(opened: list[Opened], held: list[Held]) -> str:
    from shoestring.report.tabular import Column, Table, plain_text

    columns = (Column("channel", "Channel"), Column("way", "Way"), Column("other", "Other side"),
               Column("deposit", "Deposit (credits)"), Column("signed", "Signed (credits)"),
               Column("owed", "Owed (credits)"), Column("short", "Short (credits)"),
               Column("delay", "Delay (s)"))  # fmt: skip
    rows = [
        (one.channel.id, "we pay", one.channel.config.receiver,
         credits_text(one.channel.deposit), credits_text(one.signed), None, None,
         str(one.channel.config.withdraw_delay))
        for one in opened
    ] + [
        (one.channel.id, "pays us", one.channel.config.payer,
         credits_text(one.channel.deposit), credits_text(one.amount), credits_text(one.owed),
         credits_text(one.short), str(one.channel.config.withdraw_delay))
        for one in held
    ]  # fmt: skip
    nothing = "No channel yet. To pay: shoestring swarm voucher open; to be paid: voucher check."
    return plain_text(Table("vouchers", "Vouchers", columns, tuple(rows), nothing))


def _key() -> EvmKey:
    from shoestring.swarm.private_files import swarm_dir
    from shoestring.swarm.vouchers.keys import KEY_FILE, load_evm_key

    return load_evm_key(swarm_dir() / KEY_FILE)


def _purse() -> Purse:
    from shoestring.swarm.private_files import swarm_dir
    from shoestring.swarm.vouchers.purse import PURSE_FOLDER, Purse

    return Purse(swarm_dir() / PURSE_FOLDER, _key())


def _till() -> Till:
    from shoestring.swarm.private_files import swarm_dir
    from shoestring.swarm.vouchers.till import TILL_FOLDER, Till

    return Till(swarm_dir() / TILL_FOLDER)


def _standard_input(what: str) -> bytes:
    if sys.stdin.isatty():
        say(f"paste the {what}, then Ctrl-D:")
    return sys.stdin.buffer.read(WORD_BYTES + 1)
