"""``shoestring swarm simulate``: a pool of thousands, on this machine, without a network."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shoestring.errors import BadValueError
from shoestring.swarm.cli_words import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ATTACKS: Final = ("price-war", "sybil", "collusion", "eclipse", "eclipse-pinned", "lazy")
INTERRUPTED: Final = 130
EXAMPLES = """\b
Examples:
  shoestring swarm simulate --nodes 500 --requests 2000           a minute or less
  shoestring swarm simulate --attack sybil --json out.json        without it and with it
  shoestring swarm simulate --attack lazy --audit-share 0.1       five times as many audits
  shoestring swarm simulate --seed 2 --series-s 900 --json -      all figures on stdout
"""


@click.command(epilog=EXAMPLES)
@click.option("--nodes", type=int, default=5_000, show_default=True, help="That take part.")
@click.option("--requests", type=int, default=100_000, show_default=True,
              help="In all hours together.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True,
              help="Of all that is drawn: the same seed gives the same bytes.")  # fmt: skip
@click.option("--hours", type=int, default=24, show_default=True, help="Simulated ones.")
@click.option("--attack", type=click.Choice(ATTACKS),
              help="Run the same seed without it first, and show both.")  # fmt: skip
@click.option("--audit-share", type=float, default=0.02, show_default=True,
              help="Probability with which a window is run again elsewhere.")  # fmt: skip
@click.option("--false-alarms", type=float, default=0.0003, show_default=True,
              help="Probability with which an audit calls a right window wrong: assumed, the most "
              "that 10,000 audits without one allow.")  # fmt: skip
@click.option("--cheats", type=float, default=0.01, show_default=True,
              help="Share of the nodes that cheat, attack or not.")  # fmt: skip
@click.option("--series-s", type=int, default=60, show_default=True,
              help="Simulated seconds of a point of the series.")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False),
              metavar="FILE", help="Write all as JSON; - for stdout, and no table.")  # fmt: skip
def simulate(
    *, nodes: int, requests: int, seed: int, hours: int, attack: Any, audit_share: float,
    false_alarms: float, cheats: float, series_s: int, json_path: Path | None,
) -> None:  # fmt: skip
    """Simulate a day of a pool: what it costs, how fast it is, who earns, and who can cheat it.

    Nodes of seven kinds in eight regions and in local networks come and go, ask their prices, and
    some cheat. Users route by the same code as `swarm market` and pay into the same ledger, which
    is verified at the end. Only time, speeds and habits are simulated.

    Amounts are credits; a kilowatt-hour costs 25 of them. Ctrl-C ends it with what there is.
    """
    from shoestring.report.tabular import plain_text
    from shoestring.swarm.simulation.comparing import as_table
    from shoestring.swarm.simulation.running import simulate as run
    from shoestring.swarm.simulation.scenario import Scenario

    scenarios = {
        name: Scenario(
            nodes=nodes, requests=requests, seed=seed, hours=hours, attack=of,
            audit_share=audit_share, false_alarms=false_alarms, cheats=cheats, bin_s=series_s,
        )
        for name, of in {"without attack": None, **({attack: attack} if attack else {})}.items()
    }  # fmt: skip
    if json_path is not None and str(json_path) != "-":
        _check_writable(json_path)
    runs = {}
    with _interruptible() as stopped:
        for name, scenario in scenarios.items():
            if not stopped():
                say(f"{name}: {nodes} nodes, {requests} requests, seed {seed}")
                runs[name] = run(scenario, say=say, stopped=stopped)
        interrupted = stopped()
    _write(json_path, runs, partial=interrupted)
    if str(json_path) != "-":
        click.echo(plain_text(as_table(runs)), nl=False)
    if interrupted:
        say("interrupted: what is shown is partial")
        sys.exit(INTERRUPTED)
    if not all(one["ledger"]["right"] for one in runs.values()):
        say("the ledger is not right: see its fault in the JSON")
        sys.exit(1)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a question that has an answer; a second one ends the program."""
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _check_writable(path: Path) -> None:
    """Say before the minutes of a run, not after them, that a file cannot be written."""
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise BadValueError(
            f"--json {path}: it cannot be written: {error.strerror}; give another place"
        ) from error


def _write(path: Path | None, runs: dict[str, Any], *, partial: bool) -> None:
    if path is None:
        return
    text = json.dumps({"partial": partial, "runs": runs})
    if str(path) == "-":
        click.echo(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")
