"""The command line: gathers the rooms' commands, imported only when they are called.

Exit status: 0 done, 1 a failure, 2 a user's mistake (one clear line), 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys

import click

from shoestring.errors import ShoestringError

COMMANDS = {
    "compare": ("shoestring.report.cli", "Say whether two runs differ, with intervals."),
    "doctor": ("shoestring.engines.cli", "Show this machine, its engines, and what is missing."),
    "models": ("shoestring.models.cli", "Show, fetch and describe models."),
    "notebook": ("shoestring.report.cli", "Run a notebook with checked parameters, make its HTML."),
    "report": ("shoestring.report.cli", "Turn a run into numbers, figures, tables and HTML."),
    "run": ("shoestring.measure.cli", "Measure a model with a suite, and keep every raw event."),
}


class LazyGroup(click.Group):
    """Lists its commands without importing them: ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the one command that was asked for."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list from ``COMMANDS``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: shoestring doctor, then shoestring run smoke.",
)
@click.version_option(package_name="shoestring")
def cli() -> None:
    """LLM inference on the hardware that you can get for free: run it, measure it, prove it."""


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        status = cli(standalone_mode=False)
    except ShoestringError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
