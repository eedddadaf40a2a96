"""``shoestring swarm audit``: how nodes stood, whom we choose no more, and who attests uptime."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.audit.sampling import SHARE, unseen, windows_until
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoestring.swarm.audit.standing import Standing, Stood
    from shoestring.swarm.home import Home

LIKELIHOODS = (0.5, 0.95, 0.99)
HOUR_S = 3_600.0
MOST_LINES = 1_000_000
"""Of attestations: a hundred nodes, ten challengers each, for a week."""
EXAMPLES = """\b
Examples:
  shoestring swarm audit show
  shoestring swarm audit bound --share 0.05 --wrong 0.5
  shoestring swarm audit evidence 1795000000-abcdefgh-01234567.json
  shoestring swarm audit forgive ana
"""
UPTIME_EXAMPLES = """\b
Examples:
  shoestring swarm audit challenge                   every ten minutes, from cron or a timer
  cat ana.jsonl ben.jsonl | shoestring swarm audit uptime --since 2026-11-15 --from -
  shoestring swarm audit uptime --since 2026-11-08 --until 2026-11-15 --json
"""


@click.group(epilog=EXAMPLES)
def audit() -> None:
    """Windows of answers that were run again elsewhere, and whether nodes were there.

    A node whose answer is not what two others answer is chosen no more and not paid.
    """


@audit.command(epilog=EXAMPLES)
@JSON_OPTION
def show(*, as_json: bool) -> None:
    """Show how nodes stood their audits, and whom we choose no more."""
    from shoestring.report.tabular import Column, Table, plain_text

    found = list(_standing().all().values())
    if as_json:
        click.echo(json.dumps({"nodes": [{**asdict(one), "share": one.share} for one in found]}))
        return
    columns = (
        Column("name", "Node"), Column("id", "Id"), Column("same", "Same"),
        Column("cheats", "Wrong"), Column("undecided", "Undecided"), Column("share", "Audited"),
        Column("excluded", "Excluded (UTC)"), Column("why", "Why"),
    )  # fmt: skip
    empty = "no window was audited yet"
    table = Table("audits", "Audits", columns, tuple(map(_row, found)), empty=empty)
    click.echo(plain_text(table), nl=False)


@audit.command(epilog=EXAMPLES)
@click.option("--share", type=click.FloatRange(0, 1), default=SHARE, show_default=True,
              help="Of windows that are audited.")  # fmt: skip
@click.option("--wrong", type=click.FloatRange(0, 1), default=1.0, show_default=True,
              help="Share of a cheat's windows that are wrong.")  # fmt: skip
@click.option("--windows", type=click.IntRange(0), help="After so many, how likely it is unseen.")
@JSON_OPTION
def bound(*, share: float, wrong: float, windows: int | None, as_json: bool) -> None:
    """Say after how many windows a cheat is found: unseen after n with (1 - share * wrong)^n."""
    until = {str(likely): windows_until(likely, share, wrong) for likely in LIKELIHOODS}
    left = None if windows is None else unseen(windows, share, wrong)
    if as_json:
        click.echo(json.dumps({"share": share, "wrong": wrong, "windows_until": until,
                               "windows": windows, "unseen": left}))  # fmt: skip
        return
    for likely, count in until.items():
        often = "never" if count is None else f"after {count} windows"
        click.echo(f"found with probability {likely}: {often}")
    if left is not None:
        click.echo(f"unseen after {windows} windows with probability {left:.3g}")


@audit.command(epilog=EXAMPLES)
@click.argument("name", type=click.Path(path_type=Path))
@JSON_OPTION
def evidence(*, name: Path, as_json: bool) -> None:
    """Check a file of evidence; exit status 1 if the node did not sign what it is blamed for.

    That the others' answers are theirs, and where the window began, nobody signed: who has the
    model runs it. Nor is a copy of the caches signed: others need not believe it.
    """
    from shoestring.swarm.audit.evidence import FOLDER, read
    from shoestring.swarm.home import Home

    path = name if name.exists() else Home().folder / FOLDER / name.name
    found = read(path)
    from shoestring.swarm.words import printable

    is_signed = found.signed_by_node()
    if as_json:
        click.echo(json.dumps({**asdict(found), "signed_by_node": is_signed}))
    else:
        click.echo(f"answer {found.first}, {printable(found.names[found.first])}:")
        for side, digest in {found.node: found.blamed, **found.others}.items():
            click.echo(f"  {printable(side)} gave {digest}")
    if not is_signed:
        raise ShoestringError(f"{path}: no receipt in it says that the node gave these answers")


@audit.command(epilog=EXAMPLES)
@click.argument("node", metavar="ID|NAME")
def forgive(node: str) -> None:
    """Choose a node again; that it was wrong stays on record."""
    forgiven = _standing().forgive(node)
    say(f"{forgiven.name} ({forgiven.node}) may be chosen again")


@audit.command(epilog=UPTIME_EXAMPLES)
def challenge() -> None:
    """Ask every peer that serves us whether it is there, and keep what both sign."""
    from shoestring.swarm.addresses import PeerAddress, parse_place
    from shoestring.swarm.audit.attesting import UPTIME_FILE, Attestations
    from shoestring.swarm.audit.attesting import challenge as ask
    from shoestring.swarm.home import Home
    from shoestring.swarm.remote import Remote

    home = Home()
    kept = Attestations(home.folder / UPTIME_FILE)
    remotes = [
        Remote(peer.name, PeerAddress(peer.id, *parse_place(peer.addresses[0])), peer.certificate)
        for peer in home.peers(say).active()
        if "serve" in peer.rights and peer.addresses
    ]

    async def ask_all() -> list[Any]:
        asked = (ask(home.identity(), remote) for remote in remotes)
        return await asyncio.gather(*asked, return_exceptions=True)

    unknown: list[BaseException] = []
    for remote, found in zip(remotes, asyncio.run(ask_all()), strict=True):
        if isinstance(found, ShoestringError):
            say(f"{remote.name}: {found}")
        elif isinstance(found, BaseException):
            unknown.append(found)
        else:
            kept.add(found)
            say(f"{remote.name} is there")
    if unknown:
        raise unknown[0]  # what others signed is kept


@audit.command(epilog=UPTIME_EXAMPLES)
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), required=True, help="First day (UTC).")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), default=None,
              help="The next period's first day (UTC).  [default: now]")  # fmt: skip
@click.option("--from", "file", type=click.File("rb"), default=None,
              help="Attestations, - for stdin.  [default: this node's]")  # fmt: skip
@JSON_OPTION
def uptime(
    *, since: datetime, until: datetime | None, file: IO[bytes] | None, as_json: bool
) -> None:
    """Say in how many slots of ten minutes each node was seen by two peers or more.

    Only challengers that are peers here count, and those of one owner (`wallet devices`) once. Work
    is what the receipts that are kept here say of the period. Who is excluded for cheating is left
    out. With --json it is what `ledger reward` reads.
    """
    from shoestring.swarm.audit.attesting import UPTIME_FILE, Attestations
    from shoestring.swarm.audit.uptime import read_each, score, service_of, slots_of
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.places import devices_of

    home, now_s = Home(), time.time()
    since_s = since.replace(tzinfo=UTC).timestamp()
    until_s = now_s if until is None else min(now_s, until.replace(tzinfo=UTC).timestamp())
    if since_s >= until_s:
        raise BadValueError(f"--since {since:%Y-%m-%d}: give a day before --until and before now")
    bad: list[ShoestringError] = []
    given = (
        Attestations(home.folder / UPTIME_FILE).all()
        if file is None
        else read_each(_lines(file), bad.append)
    )
    if bad:
        say(f"{len(bad)} lines count for nothing; the first: {bad[0]}")
    owners = {one.device: one.owner for one in devices_of(home).all() if not one.fault(now_s)}
    known = {home.identity().id, *(peer.id for peer in home.peers(say).active())}
    slots = slots_of(given, known=known, now_s=now_s, owners=owners)
    work = _work(home, since_s, until_s)
    services = {
        node: service_of(slots.get(node, ()), work[node], since_s, until_s)
        for node in sorted({*slots, *work} - _standing().excluded())
    }
    if as_json:
        click.echo(json.dumps({node: asdict(one) for node, one in services.items()}))
        return
    for node, one in services.items():
        share = score(slots.get(node, ()), since_s, until_s)
        shown = "no whole slot yet" if share is None else f"score {share:.3f}"
        hours = f"{one.uptime_s / HOUR_S:.1f} h"
        click.echo(f"{node}  {hours}  {shown}  {one.layer_tokens} layers times tokens")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, whatever its length; one that is too long is cut, and bad."""
    from shoestring.swarm.audit.uptime import LINE_BYTES

    for count in range(MOST_LINES + 1):
        line = file.readline(LINE_BYTES + 2)
        if not line:
            return
        if count == MOST_LINES:
            raise BadValueError(f"{file.name} has more than {MOST_LINES} lines: give it in parts")
        yield line


def _work(home: Home, since_s: float, until_s: float) -> Counter[str]:
    """Return layers times tokens of a period by the node that computed them, those with some."""
    from shoestring.swarm.proof.books import layer_tokens
    from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles

    found: Counter[str] = Counter()
    folder = home.folder / FOLDER
    for its in (folder, *(path for path in sorted(folder.glob("*")) if path.is_dir())):
        files = ReceiptFiles(its, say)  # a run with a budget has a folder of its own
        for path in files.sessions():
            try:
                receipts = [signed.receipt for signed in files.read(path)]
            except BadValueError as error:
                say(str(error))
                continue
            found[receipts[0].terms.node] += layer_tokens(receipts, since_s, until_s)
    return +found


def _standing() -> Standing:
    from shoestring.swarm.audit import standing
    from shoestring.swarm.home import Home

    return standing.Standing(Home().folder / standing.STANDING_FILE)


def _row(one: Stood) -> tuple[Any, ...]:
    since = None
    if one.excluded_s is not None:
        since = datetime.fromtimestamp(one.excluded_s, UTC).strftime("%Y-%m-%d %H:%M")
    share = None if one.share is None else f"{one.share:.1%} of {one.windows}"
    return one.name, one.node, one.same, one.cheats, one.undecided, share, since, one.why
