"""The energy that the GPUs take over a window of time, and their power before.

Two sources, and the better one that all GPUs have is taken for all::

    energy counter     counter at the end - counter at the begin      (Volta and newer)
    integrated power   sum of (p1 + p2) / 2 * (t2 - t1) over the readings of power

A counter that went back (the driver was loaded anew, or it wrapped) or that stood still is not
used. Power is integrated over five or more readings without a long gap. NVIDIA states ±5 % for
power, and newer GPUs sample only a part of the time (arXiv 2312.02741): compare windows of many
seconds, several times. ``baseline_power_w`` is the mean power of all GPUs together before the
engine started: what the machine takes without us is part of the energy, and is not taken off.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.hardware.nvml import GpuReader

COUNTER = "energy counter"
INTEGRAL = "integrated power"
LEAST_READINGS = 5
LEAST_IDLE_READINGS = 3
LONGEST_GAP_S = 5.0


@dataclass
class Integral:
    """The power of one GPU over a window, summed up by trapezoids.

    Attributes:
        begin_s: of the window.
        readings: how many there were.
        energy_j: up to the last reading.
        last_s: when that was.
        last_w: the power then.
        gap_s: the longest time without a reading.
    """

    begin_s: float
    readings: int = 0
    energy_j: float = 0.0
    last_s: float = 0.0
    last_w: float = 0.0
    gap_s: float = 0.0

    def add(self, at_s: float, power_w: float) -> None:
        """Add a reading; the first one stands for the time since the begin, too."""
        before_s, before_w = (
            (self.last_s, self.last_w) if self.readings else (self.begin_s, power_w)
        )
        self.energy_j += (before_w + power_w) / 2 * (at_s - before_s)
        self.gap_s = max(self.gap_s, at_s - before_s)
        self.last_s, self.last_w = at_s, power_w
        self.readings += 1

    def result(self, end_s: float) -> tuple[float | None, str | None]:
        """Return the joules of the window, or None and why; the last reading stands to the end."""
        if self.readings < LEAST_READINGS:
            return None, f"{self.readings} readings of power, {LEAST_READINGS} are needed"
        gap_s = max(self.gap_s, end_s - self.last_s)
        if gap_s > LONGEST_GAP_S:
            return None, f"power was not read for {gap_s:.1f} s"
        return self.energy_j + self.last_w * (end_s - self.last_s), None


@dataclass
class Window:
    """What was read at the begin, and the power since."""

    begin_s: float
    counters_j: Mapping[int, float | None]
    power: dict[int, Integral]


class EnergyMeter:
    """Measures energy over windows, one at a time; any thread may call.

    Args:
        gpus: are asked for counters, and for power at both ends of a window.
        unavailable: takes the reasons for ``energy``, ``energy_counter`` and ``baseline_power_w``.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        gpus: GpuReader,
        unavailable: dict[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpus = gpus
        self._unavailable = unavailable
        self._clock = clock
        self._lock = threading.Lock()
        self._window: Window | None = None
        self._idle = True
        self._idle_w: list[float] = [0.0, 0.0]  # sum and number of the idle readings

    def note(self, powers_w: Mapping[int, float | None]) -> None:
        """Take a reading of the power of all GPUs, made just now."""
        with self._lock:
            at_s = self._clock()
            known = {index: power for index, power in powers_w.items() if power is not None}
            if self._idle and known and len(known) == len(powers_w):
                self._idle_w = [self._idle_w[0] + sum(known.values()), self._idle_w[1] + 1]
            if self._window is not None:
                for index, power_w in known.items():
                    self._window.power[index].add(at_s, power_w)

    def mark_baseline(self) -> None:
        """End the idle window, which began with the meter."""
        with self._lock:
            self._idle = False

    def begin(self) -> None:
        """Begin a window."""
        counters_j = self._gpus.energy_j()
        with self._lock:
            now_s = self._clock()
            power = {index: Integral(now_s) for index in self._gpus.indices}
            self._window = Window(now_s, counters_j, power)
        self.note(self._gpus.power_w())

    def end(self) -> dict[str, Any] | None:
        """End the window.

        Returns:
            ``energy_j``, ``source``, ``seconds``, ``baseline_power_w`` and ``gpus`` (``index`` and
            ``energy_j`` of each); None where no source covers every GPU.
        """
        counters_j = self._gpus.energy_j()
        self.note(self._gpus.power_w())
        with self._lock:
            window, self._window = self._window, None
            end_s = self._clock()
        if window is None or not window.power:
            why = self._gpus.unavailable.get("gpus", "no window was begun")
            self._unavailable["energy"] = why
            return None
        each, source = self._counted(window, counters_j), COUNTER
        if each is None:
            each, source = self._integrated(window, end_s), INTEGRAL
        if each is None:
            return None
        return {
            "energy_j": round(sum(each.values()), 3),
            "source": source,
            "seconds": round(end_s - window.begin_s, 3),
            "baseline_power_w": self._baseline_power_w(),
            "gpus": [{"index": n, "energy_j": round(j, 3)} for n, j in each.items()],
        }

    def _counted(
        self, window: Window, ends_j: Mapping[int, float | None]
    ) -> dict[int, float] | None:
        each = {}
        for index in window.power:
            begin_j, end_j = window.counters_j.get(index), ends_j.get(index)
            if begin_j is None or end_j is None:
                said = self._gpus.unavailable.get(f"gpus.{index}.energy_counter", "no reading")
                self._unavailable["energy_counter"] = f"GPU {index}: {said}"
                return None
            if end_j <= begin_j:
                self._unavailable["energy_counter"] = (
                    f"GPU {index}: the counter went from {begin_j:g} J to {end_j:g} J"
                )
                return None
            each[index] = end_j - begin_j
        return each

    def _integrated(self, window: Window, end_s: float) -> dict[int, float] | None:
        each = {}
        for index, integral in window.power.items():
            energy_j, reason = integral.result(end_s)
            if energy_j is None:
                counter = self._unavailable.get("energy_counter")
                self._unavailable["energy"] = f"{counter}; GPU {index}: {reason}"
                return None
            each[index] = energy_j
        return each

    def _baseline_power_w(self) -> float | None:
        total_w, readings = self._idle_w
        if self._idle or readings < LEAST_IDLE_READINGS:
            self._unavailable["baseline_power_w"] = (
                "no idle window was marked before the engine started"
                if self._idle
                else f"{readings:g} idle readings of power, {LEAST_IDLE_READINGS} are needed"
            )
            return None
        return round(total_w / readings, 3)
