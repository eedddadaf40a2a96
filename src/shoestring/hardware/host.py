"""What the whole machine does: processors, stolen time, memory, swap, heat.

All shares are of all cores together, 0-100, since the reading before::

    cpu_percent   = (all - idle - waiting for disks) / all
    steal_percent = stolen / all

Stolen time is what the hypervisor gave to other guests while this one wanted to run; it is noise
that nothing inside the machine causes, and it is part of ``cpu_percent``. A hypervisor that does
not tell leaves it at 0. The kernel counts in ticks of 10 ms: at 10 Hz shares have coarse steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from shoestring.hardware.probes import Probes

# Names that the drivers of processor sensors give themselves.
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
SHARES = ("cpu_percent", "steal_percent")


class Host:
    """Reads the machine; a reading that fails costs its own fields only."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._before = probes.read(psutil.cpu_times, *SHARES)

    def read(self) -> dict[str, Any]:
        """Return what is read in each sample."""
        shares = self._probes.read(self._shares, *SHARES)
        return {
            **(shares or dict.fromkeys(SHARES)),
            "available_memory_bytes": self._probes.read(
                lambda: psutil.virtual_memory().available, "available_memory_bytes"
            ),
        }

    def read_slow(self) -> dict[str, Any]:
        """Return what costs more, or changes slowly."""
        return {
            "swap_used_bytes": self._probes.read(
                lambda: psutil.swap_memory().used, "swap_used_bytes"
            ),
            "temperature_c": self._probes.read(self._temperature, "temperature_c"),
            "frequency_hz": self._probes.read(self._frequency, "frequency_hz"),
        }

    def _shares(self) -> dict[str, float | None] | None:
        """Return the busy and the stolen share since the call before."""
        before, now = self._before, psutil.cpu_times()
        self._before = now
        if before is None:
            self._probes.missing("first reading after a failed one", *SHARES)
            return None

        def passed(*names: str) -> float:
            return sum(getattr(now, name, 0) - getattr(before, name, 0) for name in names)

        # Guest time is inside user time on Linux, and waiting for a disk is idleness.
        total = sum(now) - sum(before) - passed("guest", "guest_nice")
        if total <= 0:
            self._probes.missing("the kernel's clock ticks did not advance", *SHARES)
            return None
        stolen = _percent(passed("steal"), total) if hasattr(now, "steal") else None
        if stolen is None:
            self._probes.missing("this system does not count stolen time", "steal_percent")
        busy = _percent(total - passed("idle", "iowait"), total)
        return {"cpu_percent": busy, "steal_percent": stolen}

    def _temperature(self) -> float | None:
        """Return the hottest processor sensor, in degrees Celsius."""
        read = getattr(psutil, "sensors_temperatures", dict)  # not on every system
        sensors = [s for name, group in read().items() if name in CPU_SENSORS for s in group]
        if not sensors:
            self._probes.missing("no processor sensor is readable", "temperature_c")
            return None
        return max(float(sensor.current) for sensor in sensors)

    def _frequency(self) -> float | None:
        """Return the mean over the cores, in hertz."""
        frequency: Any = psutil.cpu_freq()  # None on some systems, whatever its types say
        if frequency is None or not frequency.current:
            self._probes.missing("the kernel does not say", "frequency_hz")
            return None
        return round(float(frequency.current) * 1e6)


def _percent(part: float, total: float) -> float:
    return round(min(100.0, max(0.0, 100 * part / total)), 1)
