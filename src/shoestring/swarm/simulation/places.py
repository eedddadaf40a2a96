"""Where nodes and users are: regions, how far these are from each other, and local networks.

A round trip between two regions is the great circle between their cities at the speed of light in
glass, times :data:`STRETCH`, and :data:`SWITCHING_S` more. Each end adds its own access. All of
this is assumed, not measured; docs/swarm-simulation.md has the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EARTH_KM: Final = 6_371.0
GLASS_KM_S: Final = 200_000.0
STRETCH: Final = 1.5
"""Cables are so much longer than the great circle, detours of routing among it: assumed."""
SWITCHING_S: Final = 0.005
HOME_ACCESS_S: Final = (0.004, 0.030)
"""A home's access line, there and back, from the best to the worst: assumed."""
POOL_ACCESS_S: Final = 0.003
LAN_S: Final = (0.0005, 0.002)
"""Within a company's or a house's network."""


@dataclass(frozen=True)
class Region:
    """A part of the world.

    Attributes:
        name: a short one.
        city: what the distance is counted from.
        latitude: degrees north.
        longitude: degrees east; local time goes by it.
        share: of nodes and users.
        model: index of the one that most use here.
    """

    name: str
    city: str
    latitude: float
    longitude: float
    share: float
    model: int


REGIONS: Final = (
    Region("us-east", "New York", 40.7, -74.0, 0.20, 0),
    Region("us-west", "San Francisco", 37.8, -122.4, 0.12, 0),
    Region("sa-east", "Sao Paulo", -23.6, -46.6, 0.09, 1),
    Region("eu-west", "London", 51.5, -0.1, 0.13, 0),
    Region("eu-central", "Frankfurt", 50.1, 8.7, 0.16, 2),
    Region("in-west", "Mumbai", 19.1, 72.9, 0.12, 1),
    Region("ap-southeast", "Singapore", 1.35, 103.8, 0.08, 1),
    Region("ap-northeast", "Tokyo", 35.7, 139.7, 0.10, 2),
)


def distance_km(one: Region, other: Region) -> float:
    """Return the great circle between two cities (haversine)."""
    north, east = math.radians(one.latitude), math.radians(other.latitude)
    half = math.sin((east - north) / 2) ** 2 + math.cos(north) * math.cos(east) * (
        math.sin(math.radians(other.longitude - one.longitude) / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(math.sqrt(half))


def between_s() -> Floats:
    """Return round trips between regions (n, n), access at either end left out."""
    return np.array([
        [2 * distance_km(one, other) / GLASS_KM_S * STRETCH + SWITCHING_S for other in REGIONS]
        for one in REGIONS
    ])  # fmt: skip
