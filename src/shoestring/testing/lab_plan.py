"""What a lab is made of: hosts with their limits, and the links between them.

Between two hosts delays and jitters add up, and a packet must survive both losses; unless the pair
has figures of its own. How it is written in a file: :mod:`shoestring.testing.lab_file`.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOME = "home"
NETWORK = "10.77.0"
MOST_HOSTS = 64
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
LARGE_MTU, LEAST_MTU, MOST_MTU = 65_000, 576, 65_535
LEAST_SHARE, MOST_SHARE = 0.001, 1024.0
LEAST_RATE_BYTES_PER_S = 1000.0
"""Slower, a packet would take minutes."""
LEAST_MEMORY_BYTES = 1 << 20


@dataclass(frozen=True)
class HostPlan:
    """One host.

    Attributes:
        memory_bytes: what all its processes together may use; None: no cap.
        cpu_share: cores' worth of processor time, likewise.
        delay_s: one way, to the middle of the net.
        jitter_s: a packet takes up to so much longer, each way.
        loss: share of packets that vanish, each way.
        rate_bytes_per_s: of its link, each way; None: no limit.
    """

    memory_bytes: int | None = None
    cpu_share: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    rate_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        _check("memory", self.memory_bytes, LEAST_MEMORY_BYTES, math.inf)
        _check("cpu_share", self.cpu_share, LEAST_SHARE, MOST_SHARE)
        _check("rate", self.rate_bytes_per_s, LEAST_RATE_BYTES_PER_S, math.inf)
        _check_path(self.delay_s, self.jitter_s, self.loss)


@dataclass(frozen=True)
class LinkPlan:
    """The way from one host to another, in place of what the two hosts' own figures add up to."""

    source: str
    to: str
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        _check_path(self.delay_s, self.jitter_s, self.loss)


@dataclass(frozen=True)
class LabPlan:
    """A whole lab.

    Attributes:
        hosts: by name; the first has address 10.77.0.1, the next 10.77.0.2.
        links: exceptions, one for each direction of a pair.
        mtu: bytes of the largest packet. A large one costs the router less, and what a real link
            carries in many packets goes as one; the rate holds all the same.
        seed: of jitter and loss.

    Raises:
        BadValueError: a value cannot be, or a link names a host that is not there.
    """

    hosts: Mapping[str, HostPlan]
    links: tuple[LinkPlan, ...] = ()
    mtu: int = LARGE_MTU
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.hosts) <= MOST_HOSTS:
            raise BadValueError(f"hosts: {len(self.hosts)}; a lab has 1 to {MOST_HOSTS}")
        for name in self.hosts:
            if not NAME.fullmatch(name):
                raise BadValueError(
                    f"host {name!a}: a name is small letters, digits and -, at most 31"
                )
        pairs = [(link.source, link.to) for link in self.links]
        for one, other in pairs:
            self.check_host(one)
            self.check_host(other)
            if one == other or pairs.count((one, other)) > 1:
                raise BadValueError(f"link {one} to {other}: two hosts, once for each direction")
        _check("mtu", self.mtu, LEAST_MTU, MOST_MTU)

    @classmethod
    def read(cls, path: Path) -> LabPlan:
        """Read a TOML file.

        Raises:
            BadValueError: it cannot be read, or holds something that cannot be.
        """
        from shoestring.testing.lab_file import read_plan

        return read_plan(path)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> LabPlan:
        """Take what :meth:`to_json` gave."""
        hosts = {name: HostPlan(**host) for name, host in said["hosts"].items()}
        return cls(hosts, tuple(LinkPlan(**link) for link in said["links"]), said["mtu"],
                   said["seed"])  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(replace(self, hosts=dict(self.hosts)))

    def address(self, host: str) -> str:
        """Return a host's address."""
        self.check_host(host)
        return f"{NETWORK}.{list(self.hosts).index(host) + 1}"

    def check_host(self, name: str) -> None:
        """See that there is such a host.

        Raises:
            BadValueError: there is none.
        """
        if name not in self.hosts:
            raise BadValueError(f"host {name[:40]!a}: there is {', '.join(self.hosts)}")

    def way(self, source: str, to: str) -> LinkPlan:
        """Return the figures of one ordered pair."""
        for link in self.links:
            if (link.source, link.to) == (source, to):
                return link
        one, other = self.hosts[source], self.hosts[to]
        return LinkPlan(
            source,
            to,
            delay_s=one.delay_s + other.delay_s,
            jitter_s=one.jitter_s + other.jitter_s,
            loss=1 - (1 - one.loss) * (1 - other.loss),
        )

    def with_host(self, name: str, **changes: Any) -> LabPlan:
        """Return it with other figures of one host.

        Raises:
            BadValueError: there is no such host, or a value cannot be.
        """
        self.check_host(name)
        return replace(self, hosts={**self.hosts, name: replace(self.hosts[name], **changes)})

    def with_link(self, link: LinkPlan) -> LabPlan:
        """Return it with other figures of one ordered pair; errors as in :meth:`with_host`."""
        others = (one for one in self.links if (one.source, one.to) != (link.source, link.to))
        return replace(self, links=(*others, link))


def _check(what: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise BadValueError(f"{what} {value:g}: it is from {least:g} to {most:g}")


def _check_path(delay_s: float, jitter_s: float, loss: float) -> None:
    _check("delay", delay_s, 0.0, 60.0)
    _check("jitter", jitter_s, 0.0, 60.0)
    _check("loss", loss, 0.0, 1.0)
