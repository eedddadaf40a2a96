"""``shoestring lab``: unequal hosts and a bad net between them, on one machine."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from shoestring.testing.lab import Lab
    from shoestring.testing.lab_plan import LabPlan

BY_SIGNAL = 128
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
EXAMPLES = """\b
Examples:
  shoestring lab up --hosts 2 --delay 10ms --rate 100Mbit/s   home, host1, host2
  shoestring lab exec host1 -- python3 -m http.server 8000 &
  shoestring lab exec home -- curl http://10.77.0.2:8000/     through the slow net
  shoestring lab forward host1 8000                           a port outside that leads there
  shoestring lab set host1 --delay 80ms                       while all of it runs
  shoestring lab cut host1                                    pull its cable; mend puts it back
  shoestring lab down                                         nothing is left

\b
A file says more:
  [hosts.home]
  [hosts.slow]
  memory = "2GiB"          # of all its processes together
  cpu_share = 0.25         # cores' worth of processor time
  delay = "10ms"           # one way, to the middle of the net: those of two hosts add up
  jitter = "2ms"           # at most so much more
  loss = 0.001             # share of packets, one way
  rate = "100Mbit/s"       # of its link, each way
  [[links]]                # one pair, one direction, in place of the sums
  from = "home"
  to = "slow"
  delay = "30ms"
"""


@click.group(epilog=EXAMPLES)
def lab() -> None:
    """Unequal hosts on one machine: own networks, set delay, rate, memory and CPU share.

    `up` makes the hosts and returns; `exec` runs programs on them; `down` ends all of it. Needs
    Linux, iproute2 and /dev/net/tun, and root or user namespaces.
    """


@lab.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--hosts", type=int, metavar="N", help="home and N equal others.  [default: 2]")
@click.option("--delay", metavar="TIME", help="Of each of the N, one way.  [default: 0]")
@click.option("--jitter", metavar="TIME", help="Of each of the N.  [default: 0]")
@click.option("--loss", type=float, metavar="SHARE", help="Of each of the N.  [default: 0]")
@click.option("--rate", metavar="RATE", help="Of each one's link.  [default: no limit]")
@click.option("--memory", metavar="SIZE", help="Of each of the N.  [default: no cap]")
@click.option("--cpu-share", type=float, metavar="CORES", help="Likewise.")
@click.option(
    "--mtu", type=int, metavar="BYTES", help="Of packets; 1500 is real.  [default: 65000]"
)
@AS_JSON
def up(*, file: Path | None, as_json: bool, **given: Any) -> None:
    """Bring a lab up, from FILE or from options, and let it run in the background.

    Host `home` has no limits and no delay: it sits in the middle of the net.
    """
    from shoestring.errors import BadValueError
    from shoestring.testing.lab_plan import LabPlan
    from shoestring.testing.lab_standing import bring_up

    named = {name: value for name, value in given.items() if value is not None}
    if file is not None and named:
        name, value = next(iter(named.items()))
        raise BadValueError(f"--{name.replace('_', '-')} {value}: {file} says it all")
    running = bring_up(LabPlan.read(file) if file is not None else _equal_hosts(named))
    _show(running, as_json=as_json)


@lab.command()
@AS_JSON
def status(*, as_json: bool) -> None:
    """Show the hosts, their links, what runs there, and how late packets come."""
    from shoestring.testing.lab_standing import standing

    running = standing()
    if running is not None:
        _show(running, as_json=as_json)
    else:
        click.echo(json.dumps({"status": "down"}) if as_json else "no lab is up: shoestring lab up")


@lab.command()
def down() -> None:
    """End all that runs in the lab, and remove the lab; also what a killed one left."""
    from shoestring.testing.lab_standing import take_down

    click.echo("down" if take_down() else "no lab was up")


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--memory", metavar="SIZE", help="What it may use, beside its host's cap.")
@click.option("--cpu-share", type=float, metavar="CORES", help="Likewise.")
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    *, host: str, command: tuple[str, ...], memory: str | None, cpu_share: float | None
) -> None:
    """Run COMMAND on HOST, with this terminal; exit as it does (128 + a signal's number)."""
    from shoestring.testing.lab_file import host_figures
    from shoestring.testing.lab_standing import required

    caps = {"memory": memory, "cpu_share": cpu_share}
    figures = host_figures({name: cap for name, cap in caps.items() if cap is not None})
    running = required()
    _check_host(running, host)
    process = running.hosts[host].start_on(
        command,
        (0, 1, 2),
        environment=os.environ,
        **figures,
    )
    while True:
        try:
            ended = process.wait()
        except KeyboardInterrupt:
            process.signal(signal.SIGINT)
        else:
            assert ended is not None
            sys.exit(ended if ended >= 0 else BY_SIGNAL - ended)


@lab.command("set")
@click.argument("host")
@click.option("--delay", metavar="TIME", help="One way, to the middle of the net.")
@click.option("--jitter", metavar="TIME", help="At most so much more.")
@click.option("--loss", type=float, metavar="SHARE", help="Of packets, one way.")
@click.option("--rate", metavar="RATE", help="Of its link, each way; `none` lifts the limit.")
def set_(*, host: str, **given: Any) -> None:
    """Change a host's link while the lab runs."""
    from shoestring.errors import BadValueError
    from shoestring.testing.lab_file import host_figures
    from shoestring.testing.lab_standing import required

    figures = {name: value for name, value in given.items() if value is not None}
    if not figures:
        raise BadValueError("nothing to set: give --delay, --jitter, --loss or --rate")
    lifted = figures.get("rate") == "none"
    if lifted:
        del figures["rate"]
    changes = host_figures(figures) | ({"rate_bytes_per_s": None} if lifted else {})
    required().change(host, **changes)


@lab.command()
@click.argument("host")
@click.argument("other", required=False)
def cut(*, host: str, other: str | None) -> None:
    """Pull HOST's cable, or cut it off from OTHER only: packets vanish, and no one is told."""
    from shoestring.testing.lab_standing import required

    required().cut(host, other)


@lab.command()
@click.argument("host")
@click.argument("other", required=False)
def mend(*, host: str, other: str | None) -> None:
    """Undo what `cut` with the same words did."""
    from shoestring.testing.lab_standing import required

    required().mend(host, other)


@lab.command()
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65_535))
@click.option("--address", default="127.0.0.1", show_default=True, help="Where the server listens.")
def forward(*, host: str, port: int, address: str) -> None:
    """Print a port of our 127.0.0.1 that leads to PORT on HOST, past the slow net."""
    from shoestring.testing.lab_standing import required

    click.echo(required().forward(host, port, address))


def _equal_hosts(named: dict[str, Any]) -> LabPlan:
    from shoestring.errors import BadValueError
    from shoestring.testing.lab_file import host_figures
    from shoestring.testing.lab_plan import HOME, MOST_HOSTS, HostPlan, LabPlan

    count, more = named.pop("hosts", 2), {}
    if not 1 <= count < MOST_HOSTS:
        raise BadValueError(f"--hosts {count}: it is from 1 to {MOST_HOSTS - 1}")
    if "mtu" in named:
        more["mtu"] = named.pop("mtu")
    other = HostPlan(**host_figures(named))
    return LabPlan({HOME: HostPlan(), **{f"host{n}": other for n in range(1, count + 1)}}, **more)


def _check_host(running: Lab, host: str) -> None:
    from shoestring.errors import BadValueError

    if host not in running.hosts:
        raise BadValueError(f"host {host[:40]!a}: there is {', '.join(running.hosts)}")


def _show(running: Lab, *, as_json: bool) -> None:
    said = running.status()
    if as_json:
        click.echo(json.dumps({"status": "up", "folder": str(running.folder), **said}))
        return
    for name, address in said["addresses"].items():
        click.echo(_host_text(name, address, said["plan"]["hosts"][name]))
    for row in said["processes"]:
        how = f"process {row['pid']}" if row["status"] is None else f"ended with {row['status']}"
        click.echo(f"  {row['host']}: {' '.join(row['command'])[:80]} ({how})")
    late_s = said["router"]["late_s"]
    if late_s is not None:
        click.echo(
            f"packets come late by {late_s['median'] * 1e6:.0f} us (median), "
            f"{late_s['p99'] * 1e6:.0f} us (p99), of the last {late_s['n']}"
        )


def _host_text(name: str, address: str, host: dict[str, Any]) -> str:
    from shoestring.hardware.quantities import spell_rate, spell_size, spell_time

    words = [f"{name:12} {address:12} delay {spell_time(host['delay_s'])}"]
    if host["jitter_s"]:
        words.append(f"jitter {spell_time(host['jitter_s'])}")
    if host["loss"]:
        words.append(f"loss {host['loss']:g}")
    if host["rate_bytes_per_s"] is not None:
        words.append(f"rate {spell_rate(host['rate_bytes_per_s'])}")
    if host["memory_bytes"] is not None:
        words.append(f"memory {spell_size(host['memory_bytes'])}")
    if host["cpu_share"] is not None:
        words.append(f"cpu_share {host['cpu_share']:g}")
    return ", ".join(words)
