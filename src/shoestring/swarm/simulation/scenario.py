"""What is simulated: how many, how long, by which seed, and under which attack.

All that is drawn comes from numpy's ``PCG64`` by the seed and the name of what is drawn for, so a
world is the same with an attack and without it, and a request is the same whoever computes it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import peer_id_of

Attack = Literal["price-war", "sybil", "collusion", "eclipse", "eclipse-pinned", "lazy"]
ATTACKS: Final[tuple[Attack, ...]] = get_args(Attack)
HOUR_S: Final = 3600
BEGUN_S: Final = 1_800_000_000
"""The first second of a simulated day, since 1970; any would do."""
FEWEST_NODES: Final = 100
MOST_NODES: Final = 50_000
MOST_REQUESTS: Final = 2_000_000
MOST_HOURS: Final = 168
LONGEST_BIN_S: Final = 86_400


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is simulated.

    Attributes:
        nodes: that take part, at home or in a pool of a local network.
        requests: in all hours together.
        seed: of all that is drawn.
        hours: from midnight UTC.
        attack: None: nobody attacks.
        audit_share: probability with which a window is run again elsewhere.
        false_alarms: probability with which an audit of a right window calls it wrong.
        cheats: share of the nodes that answer wrongly now and then, without any attack.
        reward_micro: micro-credits for each request that the pool shares out for uptime and work,
            evenly over the time.
        bin_s: seconds of a point of the series.

    Raises:
        BadValueError: a value cannot be used.
    """

    nodes: int = 5_000
    requests: int = 100_000
    seed: int = 1
    hours: int = 24
    attack: Attack | None = None
    audit_share: float = 0.02
    false_alarms: float = 0.0003
    cheats: float = 0.01
    reward_micro: int = 500
    bin_s: int = 60

    def __post_init__(self) -> None:
        _check("nodes", self.nodes, FEWEST_NODES, MOST_NODES)
        _check("requests", self.requests, 1, MOST_REQUESTS)
        _check("seed", self.seed, 0, (1 << 63) - 1)
        _check("hours", self.hours, 1, MOST_HOURS)
        _check("audit_share", self.audit_share, 0, 1)
        _check("false_alarms", self.false_alarms, 0, 1)
        _check("cheats", self.cheats, 0, 1)
        _check("reward_micro", self.reward_micro, 0, 1_000_000)
        _check("bin_s", self.bin_s, 1, LONGEST_BIN_S)
        if self.attack is not None and self.attack not in ATTACKS:
            raise BadValueError(f"attack {self.attack!a:.40}: give one of {', '.join(ATTACKS)}")

    @property
    def lasts_s(self) -> int:
        """Simulated seconds in which requests come."""
        return self.hours * HOUR_S

    @property
    def rewards_micro(self) -> int:
        """Micro-credits that the pool shares out in all the time."""
        return self.reward_micro * self.requests

    def draws(self, what: str, number: int = 0) -> np.random.Generator:
        """Return the numbers that are drawn for something, the same in each run.

        Args:
            what: a name of its own.
            number: of one of many that each draw for themselves.
        """
        named = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big")
        seeds = np.random.SeedSequence([self.seed, named, number])
        return np.random.Generator(np.random.PCG64(seeds))

    def key(self, name: str) -> bytes:
        """Return 32 bytes that stand for a key of this seed."""
        return hashlib.sha256(f"shoestring simulation {self.seed} {name}".encode()).digest()

    def peer_id(self, name: str) -> str:
        """Return the peer id of somebody who never signs."""
        return peer_id_of(self.key(name))


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN, too
        raise BadValueError(f"{name}: {value}: give {least:g} to {most:g}")
