"""What the machine does while requests run: one sample each tenth of a second.

The sampler is a thread of the harness. It wakes at absolute times, start + k / rate, so it does
not drift; a sample that comes late is taken once, and what was missed is left out. Rates:

- 10 Hz: processor use of the machine and of the engine, memory of the engine's known processes,
  memory still available;
- 1 Hz: search for new processes of the engine, temperature, frequency, the kernel's own peak.

It shares Python's lock with the clocks that it must not disturb: a sample takes about 0.4 ms,
most of it inside system calls that let the lock go, and ``cpu_s`` says what all samples cost.
The kernel counts processor time in ticks of 10 ms, so at 10 Hz percentages have coarse steps.
What cannot be read is None, and ``unavailable`` says why; nothing is made up. A probe that fails
(a sandbox may forbid any of them) costs its own fields only: the sampler goes on.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from shoestring.hardware.processes import ProcessTree, peak_resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
SLOW_S = 1.0  # between the readings that cost more
# Names that the drivers of processor sensors give themselves.
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
ENGINE_FIELDS = ("engine_cpu_percent", "engine_rss_bytes", "engine_processes")
# What psutil raises where the kernel does not let it read, or writes what it does not expect.
PROBE_ERRORS = (OSError, psutil.Error, RuntimeError, ValueError)


class TelemetrySampler:
    """Samples the machine and an engine's process tree until it is stopped.

    Args:
        engine_pid: the engine's process, or what returns it (None: no such process now), or None
            where the engine runs on another machine.
        sink: given each sample, a line of ``telemetry.jsonl``, in the sampler's thread.
        origin_ns: of the session, on ``time.monotonic_ns``; samples count from it.
        session: its number.
        rate_hz: samples a second.

    Attributes:
        rate_hz: samples a second.
        unavailable: why a field is or was None, by the field's name.
    """

    def __init__(
        self,
        engine_pid: Callable[[], int | None] | int | None,
        sink: Callable[[dict[str, Any]], None],
        *,
        origin_ns: int,
        session: int,
        rate_hz: float = 10,
    ) -> None:
        self.rate_hz = rate_hz
        self.unavailable: dict[str, str] = {}
        self._engine_pid = engine_pid
        self._sink = sink
        self._origin_ns = origin_ns
        self._session = session
        self._period_s = 1 / rate_hz
        self._tree: ProcessTree | None = None
        self._slow: dict[str, float | None] = {}
        self._slow_due_s = 0.0
        self._engine_read_s = 0.0
        self._machine_before = self._probe(psutil.cpu_times, "cpu_percent")
        self._sampled_peak_bytes: int | None = None
        self._kernel_peak_bytes: int | None = None
        self._was_tree = False
        self._cpu_s = 0.0
        self._sink_error: OSError | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin; the first sample comes one period later."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples; returns when the thread has ended. More calls do nothing.

        Raises:
            OSError: the sink could not write (a full disk); sampling had ended there.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        error, self._sink_error = self._sink_error, None
        if error is not None:
            raise error

    @property
    def cpu_s(self) -> float:
        """Processor time that the sampler itself has used."""
        return self._cpu_s

    def ram_peak_bytes(self) -> tuple[int | None, str | None]:
        """Return the engine's peak memory and where the figure comes from.

        Ask before the engine ends: the kernel's own peak of a process (``VmHWM``) misses nothing,
        and is gone with it. A tree of processes has no such figure, so there the largest sample
        counts.

        Returns:
            Bytes and source; both None where no process of the engine was seen.
        """
        if self._tree is not None:
            self._note_kernel_peak(self._tree)
        sampled, kernel = self._sampled_peak_bytes, self._kernel_peak_bytes
        if kernel is not None and not self._was_tree:
            return kernel, "VmHWM"
        if sampled is None:
            return None, None
        return sampled, f"largest sample of the process tree at {self.rate_hz:g} Hz"

    def _run(self) -> None:
        started_s = time.monotonic()
        self._read_engine(started_s)  # a percentage needs a reading before
        tick = 0
        while True:
            passed = int((time.monotonic() - started_s) / self._period_s)
            tick = max(tick + 1, passed)
            due_s = started_s + tick * self._period_s
            if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                return
            try:
                self._sink(self._sample())
            except OSError as error:
                self._sink_error = error  # raised by stop(), in the thread that can act on it
                return
            finally:
                self._cpu_s = time.thread_time()

    def _sample(self) -> dict[str, Any]:
        t_ns = time.monotonic_ns() - self._origin_ns
        now_s = time.monotonic()
        slow = now_s >= self._slow_due_s
        if slow:
            self._slow_due_s = now_s + SLOW_S
            self._slow = {
                "temperature_c": self._probe(self._temperature, "temperature_c"),
                "frequency_hz": self._probe(self._frequency, "frequency_hz"),
            }
            self._probe(self._look_for_processes, "engine_processes")
        return {
            "session": self._session,
            "t_ns": t_ns,
            "cpu_percent": self._probe(self._machine_percent, "cpu_percent"),
            **self._read_engine(now_s),
            "available_memory_bytes": self._probe(
                lambda: psutil.virtual_memory().available, "available_memory_bytes"
            ),
            **self._slow,
        }

    def _probe(self, read: Callable[[], T], *fields: str) -> T | None:
        """Read something; where that fails, note the reason for its fields and return None."""
        try:
            return read()
        except PROBE_ERRORS as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.unavailable |= dict.fromkeys(fields, reason)
            return None

    def _machine_percent(self) -> float | None:
        """Return the busy share of all cores since the sample before, 0-100."""
        before, now = self._machine_before, psutil.cpu_times()
        self._machine_before = now
        if before is None:
            self.unavailable["cpu_percent"] = "first reading after a failed one"
            return None
        # Guest time is inside user time on Linux, and waiting for a disk is idleness.
        idle = sum(getattr(now, k, 0) - getattr(before, k, 0) for k in ("idle", "iowait"))
        guest = sum(getattr(now, k, 0) - getattr(before, k, 0) for k in ("guest", "guest_nice"))
        total = sum(now) - sum(before) - guest
        if total <= 0:
            self.unavailable["cpu_percent"] = "the kernel's clock ticks did not advance"
            return None
        return round(min(100.0, max(0.0, 100 * (total - idle) / total)), 1)

    def _read_engine(self, now_s: float) -> dict[str, Any]:
        use = self._probe(lambda: self._engine_use(now_s), *ENGINE_FIELDS)
        return dict.fromkeys(ENGINE_FIELDS) if use is None else use

    def _engine_use(self, now_s: float) -> dict[str, Any]:
        """Read the engine's processes; look for the root anew where its pid has changed."""
        pid = self._engine_pid() if callable(self._engine_pid) else self._engine_pid
        if pid is None:
            self._tree = None
            return self._without_engine("no process of the engine on this machine")
        tree = self._tree if self._tree is not None and self._tree.pid == pid else None
        fresh = tree is None
        self._tree = tree = tree or ProcessTree(pid)
        use = tree.read()
        if use is None:
            return self._without_engine(f"the engine's process {pid} had ended")
        self._sampled_peak_bytes = max(self._sampled_peak_bytes or 0, use.resident_bytes)
        self._was_tree = self._was_tree or use.processes > 1
        elapsed_s, self._engine_read_s = now_s - self._engine_read_s, now_s
        percent = None if fresh or elapsed_s <= 0 else round(100 * use.cpu_s / elapsed_s, 1)
        if percent is None:
            self.unavailable["engine_cpu_percent"] = "first reading of a new process"
        return dict(
            zip(ENGINE_FIELDS, (percent, use.resident_bytes, use.processes), strict=True),
        )

    def _without_engine(self, reason: str) -> dict[str, Any]:
        self.unavailable |= dict.fromkeys(ENGINE_FIELDS, reason)
        return dict.fromkeys(ENGINE_FIELDS)

    def _look_for_processes(self) -> None:
        if self._tree is not None:
            self._tree.rescan()
            self._note_kernel_peak(self._tree)

    def _note_kernel_peak(self, tree: ProcessTree) -> None:
        peak = peak_resident_bytes(tree.pid)
        if peak is not None:
            self._kernel_peak_bytes = max(self._kernel_peak_bytes or 0, peak)

    def _temperature(self) -> float | None:
        """Return the hottest processor sensor, in degrees Celsius."""
        read = getattr(psutil, "sensors_temperatures", dict)  # not on every system
        sensors = [s for name, group in read().items() if name in CPU_SENSORS for s in group]
        if not sensors:
            self.unavailable["temperature_c"] = "no processor sensor is readable"
            return None
        return max(float(sensor.current) for sensor in sensors)

    def _frequency(self) -> float | None:
        """Return the mean over the cores, in hertz."""
        frequency: Any = psutil.cpu_freq()  # None on some systems, whatever its types say
        if frequency is None or not frequency.current:
            self.unavailable["frequency_hz"] = "the kernel does not say"
            return None
        return round(float(frequency.current) * 1e6)
