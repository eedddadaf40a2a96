"""``shoestring keys``: who may ask the gateway, made, listed and revoked on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import click

from shoestring.gateway.keys import KeyLimits, Period, Scope, read_keys, utc_now, utc_text

if TYPE_CHECKING:
    from shoestring.gateway.keys import Key

COUNT: Final = click.IntRange(1, 10**12)
EXAMPLES = """\b
Examples:
  shoestring keys create --name ana                        may ask every model
  shoestring keys create --name ci --model 'qwen3:*' --requests-per-minute 60 --expires-days 30
  shoestring keys create --name prometheus --scope metrics may scrape, and nothing else
  shoestring keys create --name me --scope inference --scope admin
  shoestring keys list
  shoestring keys revoke ci
"""
CREATE_EXAMPLES = """\b
Examples:
  KEY=$(shoestring keys create --name ana)      stdout has the key and nothing else
  curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/v1/models
  OPENAI_API_KEY=$KEY OPENAI_BASE_URL=http://127.0.0.1:8000/v1 python yours.py
  shoestring keys create --name team --budget-tokens 2000000 --budget-period month
"""
KEY_ARGUMENT = click.argument("key", metavar="ID|NAME")
FILE_OPTION = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file of keys.  [default: gateway/keys.json in the state folder]",
)
JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)


@click.group(epilog=EXAMPLES)
def keys() -> None:
    """Make, list and revoke the keys of the gateway's clients.

    A key is shown once, when it is made; the file has only its hash, and only its owner can read
    the file. A running gateway takes over every change within seconds, without a restart.
    """


@keys.command(epilog=CREATE_EXAMPLES)
@FILE_OPTION
@click.option("--name", required=True, help="Whose it is, for lists, logs and the dashboard.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(get_args(Scope)),
    multiple=True,
    default=("inference",),
    show_default=True,
    help="What it opens, again for more: the APIs, /metrics, the dashboard, the making of keys.",
)
@click.option(
    "--model",
    "models",
    metavar="GLOB",
    multiple=True,
    help="A model that it may use, or a pattern ('qwen3:*'); again for more.  [default: all]",
)
@click.option("--requests-per-minute", type=COUNT, help="In any 60 s.")
@click.option("--tokens-per-minute", type=COUNT, help="Read and written, in any 60 s.")
@click.option("--concurrent", type=COUNT, help="Requests at the same time.")
@click.option("--budget-tokens", type=COUNT, help="Read and written, in the budget's period.")
@click.option(
    "--budget-period",
    type=click.Choice(get_args(Period)),
    help="A day or month of UTC's calendar, or for good.  [default: month]",
)
@click.option("--expires-days", type=click.IntRange(1, 36_500), help="[default: never]")
@JSON_OPTION
def create(
    *,
    path: Path | None,
    name: str,
    scopes: tuple[Scope, ...],
    models: tuple[str, ...],
    budget_tokens: int | None,
    budget_period: Period | None,
    expires_days: int | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """Make a key, and print it: this once, and on stdout alone.

    Limits that are not given are those of the gateway's settings.
    """
    from shoestring.errors import BadValueError
    from shoestring.gateway.keys_file import create_key

    if budget_period is not None and budget_tokens is None:
        raise BadValueError(f"--budget-period {budget_period}: of what? Give --budget-tokens, too")
    file = _file(path)
    key, presented = create_key(
        file,
        name,
        scopes=scopes,
        models=models,
        limits=KeyLimits(
            **limits, budget_tokens=budget_tokens, budget_period=budget_period or "month"
        ),
        expires_days=expires_days,
    )
    _hand_over(key, presented, as_json=as_json)
    click.echo(f"key {key.id} ({key.name}) is made; {file} has its hash", err=True)


@keys.command()
@KEY_ARGUMENT
@FILE_OPTION
@click.option(
    "--grace-hours",
    type=click.IntRange(0, 720),
    default=24,
    show_default=True,
    help="How long the old secret opens, too; 0: it ends now.",
)
@JSON_OPTION
def rotate(*, key: str, path: Path | None, grace_hours: int, as_json: bool) -> None:
    """Give a key a new secret, and print it.

    Its id, limits and use stay; the old secret opens, too, until the grace ends.
    """
    from shoestring.gateway.keys_file import rotate_key

    rotated, presented = rotate_key(_file(path), key, grace_s=grace_hours * 3600)
    _hand_over(rotated, presented, as_json=as_json)
    ends = rotated.previous_until_utc
    old = f"opens until {ends}" if ends else "opens nothing any more"
    click.echo(f"key {rotated.id} ({rotated.name}): the old secret {old}", err=True)


@keys.command("list")
@FILE_OPTION
@JSON_OPTION
def list_keys(*, path: Path | None, as_json: bool) -> None:
    """Show all keys and what they may do; never a secret or its hash."""
    from shoestring.report.tabular import Column, Table, plain_text

    file = _file(path)
    found, now_utc = read_keys(file), utc_text(utc_now())
    if as_json:
        shown = [_shown(key, now_utc) for key in found]
        click.echo(json.dumps({"file": str(file), "keys": shown}))
        return
    heads = ("ID", "Name", "State", "Opens", "Models", "Limits", "Made", "Expires")
    columns = tuple(Column(head.lower(), head) for head in heads)
    rows = tuple(
        (
            key.id, key.name, key.state(now_utc), " ".join(sorted(key.scopes)),
            " ".join(key.models) or "all", _limits_text(key.limits),
            key.created_utc[:10], key.expires_utc[:10] if key.expires_utc else "never",
        )
        for key in found
    )  # fmt: skip
    nothing = f"no keys in {file}: shoestring keys create --name NAME"
    click.echo(plain_text(Table("keys", "Keys", columns, rows, empty=nothing)), nl=False)


@keys.command()
@KEY_ARGUMENT
@FILE_OPTION
@JSON_OPTION
def show(*, key: str, path: Path | None, as_json: bool) -> None:
    """Show one key: what it may do, since when, until when."""
    from shoestring.gateway.keys_file import find_key

    file = _file(path)
    found, now_utc = find_key(read_keys(file), key, file), utc_text(utc_now())
    if as_json:
        click.echo(json.dumps({"key": _shown(found, now_utc)}))
        return
    lines = [
        ("id", found.id),
        ("name", found.name),
        ("state", found.state(now_utc)),
        ("opens", " ".join(sorted(found.scopes))),
        ("models", " ".join(found.models) or "all"),
        ("limits", _limits_text(found.limits)),
        ("made", found.created_utc),
        ("expires", found.expires_utc or "never"),
        ("revoked", found.revoked_utc),
        ("old secret", found.previous_until_utc and f"until {found.previous_until_utc}"),
    ]
    click.echo("\n".join(f"{word:<12}{text}" for word, text in lines if text is not None))


@keys.command()
@KEY_ARGUMENT
@FILE_OPTION
@JSON_OPTION
def revoke(*, key: str, path: Path | None, as_json: bool) -> None:
    """End a key for good.

    It is named by its id, by a name that only it has, or (a leaked one) by itself.
    """
    from shoestring.gateway.keys_file import revoke_key

    revoked = revoke_key(_file(path), key)
    if as_json:
        click.echo(json.dumps({"key": _shown(revoked, utc_text(utc_now()))}))
        return
    click.echo(f"key {revoked.id} ({revoked.name}) opens nothing since {revoked.revoked_utc}")


def _file(given: Path | None) -> Path:
    """Return the file that is asked for, else the one that the gateway reads by default."""
    from shoestring.gateway.settings import KeySettings

    return given or KeySettings().file


def _hand_over(key: Key, presented: str, *, as_json: bool) -> None:
    """Print what the user shall hold, the only time that it is shown."""
    if as_json:
        shown = _shown(key, utc_text(utc_now()))
        click.echo(json.dumps({"key": shown, "secret": presented}))
        return
    click.echo("keep this, it is not shown again:", err=True)
    click.echo(presented)


def _shown(key: Key, now_utc: str) -> dict[str, Any]:
    return {**key.to_public(), "state": key.state(now_utc)}


def _limits_text(limits: KeyLimits) -> str:
    said = (
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.concurrent, "at once"),
        (limits.budget_tokens, f"tokens/{limits.budget_period}"),
    )
    return ", ".join(f"{count} {unit}" for count, unit in said if count) or "as in settings"
