"""The network namespaces of a lab's hosts, all made and entered by one process.

Each has ``lo``, and one tun device whose other end is the router's. There is no way out: a packet
for anywhere else goes to the router, which knows the hosts only.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.testing.namespaces import (
    CLONE_NEWNET,
    enter_network,
    lay_links,
    open_tun,
    unshare,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoestring.testing.lab_plan import LabPlan

DEVICE = "net0"
QUEUE_PACKETS = 1000
NAMESPACE = Path("/proc/self/ns/net")
LINKS = """\
link set dev lo up
link set dev {device} addrgenmode none
link set dev {device} mtu {mtu} txqueuelen {queue} up
address add {address}/24 dev {device}
route add 224.0.0.0/4 dev {device}
"""


@dataclass(frozen=True)
class HostNet:
    """One host's network.

    Attributes:
        address: its own.
        namespace: a descriptor of it.
        device: the router's end of its link.
    """

    address: str
    namespace: int
    device: int


def make_nets(plan: LabPlan) -> dict[str, HostNet]:
    """Make the networks of all hosts, and come back.

    Raises:
        NotAllowedError: the kernel, or this container, does not let us.
        MissingError: there is no tun.
    """
    ours = _here()
    nets = {}
    for name in plan.hosts:
        unshare(CLONE_NEWNET)
        device, address = open_tun(DEVICE), plan.address(name)
        lay_links(LINKS.format(device=DEVICE, address=address, mtu=plan.mtu, queue=QUEUE_PACKETS))
        nets[name] = HostNet(address, _here(), device)
    enter_network(ours)
    os.close(ours)
    return nets


@contextmanager
def inside(net: HostNet) -> Iterator[None]:
    """Be in a host's network: sockets and children of the block are there for good."""
    ours = _here()
    enter_network(net.namespace)
    try:
        yield
    finally:
        enter_network(ours)
        os.close(ours)


def _here() -> int:
    return os.open(NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
