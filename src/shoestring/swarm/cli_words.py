"""What the swarm's commands share."""

from __future__ import annotations

from typing import Final

import click

PORT: Final = 7433
JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)


def say(line: str) -> None:
    """Tell the user something that is no result."""
    click.echo(line, err=True)
