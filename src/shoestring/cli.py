"""The command line: gathers the rooms' commands, imported only when they are called.

Exit status: 0 done, 1 a failure, 2 a user's mistake (one clear line), 130 interrupted, 141 the
reader of the output went away (``shoestring doctor | true``).
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from shoestring.errors import MissingError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Iterator

# 128 + SIGPIPE, what a shell shows for cat or grep in this place, so that `set -o pipefail` sees
# no difference. Not the signal itself: a harness must outlive an engine that closes its pipe.
CLOSED_PIPE_STATUS = 141
COMMANDS = {
    "bundle": ("shoestring.measure.cli", "Pack runs for another session or machine; restore them."),
    "compare": ("shoestring.report.cli", "Say whether two runs differ, with intervals."),
    "doctor": ("shoestring.engines.cli", "Show this machine, its engines, and what is missing."),
    "down": ("shoestring.stack.cli", "End what `up` started."),
    "engines": ("shoestring.engines.cli", "Install the real engines, pinned; list them."),
    "feasibility": ("shoestring.report.cli", "Which models run on which machine; measure it here."),
    "keys": ("shoestring.gateway.keys_cli", "Make, list and revoke the keys of the gateway."),
    "lab": ("shoestring.testing.lab_cli", "Unequal hosts on one machine, for tests of networks."),
    "models": ("shoestring.models.cli", "Show, fetch and describe models."),
    "notebook": ("shoestring.report.cli", "Run a notebook with checked parameters, make its HTML."),
    "plan": (
        "shoestring.report.plan_cli",
        "Say what fits, where each layer goes, how fast; choose a model.",
    ),
    "report": ("shoestring.report.cli", "Turn a run into numbers, figures, tables and HTML."),
    "quantise": ("shoestring.quality.cli", "Turn an F16 or BF16 model into any smaller type."),
    "run": ("shoestring.measure.cli", "Measure a model with a suite, and keep every raw event."),
    "screenshots": ("shoestring.stack.cli", "Take the pictures that prove a node."),
    "serve": ("shoestring.gateway.cli", "Serve engines to others: keys, limits, a dashboard."),
    "swarm": ("shoestring.swarm.cli", "Compute layers on peers' machines; serve yours to them."),
    "status": (
        "shoestring.stack.cli",
        "Show the node: what runs, since when, how often restarted.",
    ),
    "up": ("shoestring.stack.cli", "Bring up Ollama and Open WebUI, safe, and keep them up."),
}


class LazyGroup(click.Group):
    """Lists its commands without importing them: ``--help`` answers at once."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the words; this is also where ``--help`` prints."""
        with _closed_pipe_is_an_exit():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with _closed_pipe_is_an_exit():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the one command that was asked for."""
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(COMMANDS[cmd_name][0])
        except ModuleNotFoundError as error:
            room = ".".join(COMMANDS[cmd_name][0].split(".")[:2])
            if error.name is None or not error.name.startswith(room):
                raise
            raise MissingError(
                f"this copy of shoestring is without {cmd_name}: install the whole package"
            ) from error
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
        status = _call()
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can be told from a failure
    except BrokenPipeError:
        status = _drop_output()
    sys.exit(status)


def _call() -> int:
    try:
        status = cli(standalone_mode=False)
    except ShoestringError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_status
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    return status if isinstance(status, int) else 0


@contextmanager
def _closed_pipe_is_an_exit() -> Iterator[None]:
    """Take a closed pipe out of click's hands, which would make it a failure (status 1)."""
    try:
        yield
    except BrokenPipeError as error:
        raise click.exceptions.Exit(_drop_output()) from error


def _drop_output() -> int:
    """Send what is still to be written nowhere, so that Python's end is quiet; give the status."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where the caller closed it
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(null, stream.fileno())
    os.close(null)
    return CLOSED_PIPE_STATUS
