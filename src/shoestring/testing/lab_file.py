"""A lab's plan in a file, and its figures on the command line.

::

    seed = 0                  # of jitter and loss
    mtu = 65000               # bytes of the largest packet; 1500 is what real links have

    [hosts.home]              # no limits, in the middle of the net

    [hosts.slow]
    memory = "2GiB"           # of all its processes together
    cpu_share = 0.25          # cores' worth of time, of all its processes together
    delay = "10ms"            # one way, to the middle of the net
    jitter = "2ms"            # at most so much more, even chance
    loss = 0.001              # share of packets, one way
    rate = "100Mbit/s"        # of its link, each way

    [[links]]                 # this pair, this direction, in place of the sums of both hosts
    from = "home"
    to = "slow"
    delay = "30ms"
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias

from shoestring.errors import BadValueError
from shoestring.hardware.quantities import parse_rate, parse_size, parse_time
from shoestring.testing.lab_plan import LARGE_MTU, HostPlan, LabPlan, LinkPlan

if TYPE_CHECKING:
    from pathlib import Path

Keys: TypeAlias = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""By the key's name: the field, and what reads its value."""


def read_plan(path: Path) -> LabPlan:
    """Read a TOML file.

    Raises:
        BadValueError: it cannot be read, or holds something that cannot be.
    """
    try:
        with path.open("rb") as file:
            said = tomllib.load(file)
    except OSError as error:
        raise BadValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise BadValueError(f"{path} is no TOML file: {error}") from error
    try:
        return _from_toml(said)
    except BadValueError as error:
        raise BadValueError(f"{path}: {error}") from error


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValueError(f"{value!a} is no number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValueError(f"{value!a} is no whole number")
    return value


def _spelled(parse: Callable[[str], float]) -> Callable[[Any], float]:
    """Make a parser of texts into one of TOML values; a bare 0 needs no unit."""

    def parsed(value: Any) -> float:
        if isinstance(value, str):
            return 0.0 if value.strip() == "0" else parse(value)
        if value == 0 and not isinstance(value, bool):
            return 0.0
        raise BadValueError(f"{value!a}: write it with its unit, in quotes")

    return parsed


_parse_delay = _spelled(parse_time)
WAY: Keys = {
    "delay": ("delay_s", _parse_delay),
    "jitter": ("jitter_s", _parse_delay),
    "loss": ("loss", _number),
}
HOST_KEYS: Keys = {
    **WAY,
    "memory": ("memory_bytes", lambda value: int(_spelled(parse_size)(value))),
    "cpu_share": ("cpu_share", _number),
    "rate": ("rate_bytes_per_s", _spelled(parse_rate)),
}
LINK_KEYS: Keys = {
    "from": ("source", str), "to": ("to", str), **WAY,
}  # fmt: skip


def _from_toml(said: Mapping[str, Any]) -> LabPlan:
    unknown = sorted(set(said) - {one.name for one in fields(LabPlan)})
    if unknown:
        raise BadValueError(f"{unknown[0][:40]!a}: unknown; there is hosts, links, mtu, seed")
    hosts, links = said.get("hosts"), said.get("links", [])
    if not isinstance(hosts, Mapping) or not hosts:
        raise BadValueError("it names no host; begin with [hosts.home]")
    if not isinstance(links, list):
        raise BadValueError("links are tables: [[links]]")
    return LabPlan(
        {name: _host(name, one) for name, one in hosts.items()},
        tuple(_link(number, one) for number, one in enumerate(links, 1)),
        _whole(said.get("mtu", LARGE_MTU)),
        _whole(said.get("seed", 0)),
    )


def host_figures(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a :class:`HostPlan` from options of the command line, by their names.

    Raises:
        BadValueError: a value cannot be read.
    """
    given = {}
    for option, value in options.items():
        name, parse = HOST_KEYS[option]
        try:
            given[name] = parse(value)
        except BadValueError as error:
            raise BadValueError(f"--{option.replace('_', '-')} {error}") from error
    return given


def _host(name: str, table: Any) -> HostPlan:
    try:
        return HostPlan(**_fields(table, HOST_KEYS))
    except BadValueError as error:
        raise BadValueError(f"hosts.{name}: {error}") from error


def _link(number: int, table: Any) -> LinkPlan:
    try:
        return LinkPlan(**_fields(table, LINK_KEYS, needed=("from", "to")))
    except BadValueError as error:
        raise BadValueError(f"link {number}: {error}") from error


def _fields(table: Any, keys: Keys, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise BadValueError("it is no table")
    for key in needed:
        if key not in table:
            raise BadValueError(f"it needs {' and '.join(needed)}")
    given = {}
    for key, value in table.items():
        if key not in keys:
            raise BadValueError(f"{key[:40]!a} is unknown; there is {', '.join(keys)}")
        name, parse = keys[key]
        try:
            given[name] = parse(value)
        except BadValueError as error:
            raise BadValueError(f"{key}: {error}") from error
    return given
