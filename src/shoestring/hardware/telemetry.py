"""What the machine does while requests run: one sample each tenth of a second.

The sampler is a thread of the harness. It wakes at absolute times, start + k / rate, so it does
not drift; a sample that comes late is taken once, and what was missed is left out. Rates:

- 10 Hz: processor use of the machine and of the engine, stolen time, memory of the engine's known
  processes, memory still available; memory, use and power of the GPUs, GPU memory of the engine;
- 1 Hz: search for new processes of the engine, its paging, swap, temperatures, clocks, throttling,
  the kernel's own peak.

It shares Python's lock with the clocks that it must not disturb: a sample takes about 1 ms
without a GPU, most of it inside system calls that let the lock go, and ``cpu_s`` says what all
samples cost.
What cannot be read is None, and ``unavailable`` says why; nothing is made up. A probe that fails
(a sandbox may forbid any of them) costs its own fields only: the sampler goes on. A fault of its
own ends it, and stands in ``unavailable`` under ``telemetry``: the requests go on.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from shoestring.hardware.energy import EnergyMeter
from shoestring.hardware.engine_tree import EngineTree
from shoestring.hardware.host import Host
from shoestring.hardware.nvml import GpuReader
from shoestring.hardware.probes import Probes
from shoestring.hardware.processes import sees_all_processes
from shoestring.hardware.vram import EngineVram

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW_S = 1.0  # between the readings that cost more


class TelemetrySampler:
    """Samples the machine and an engine's process tree until it is stopped.

    Args:
        engine_pid: the engine's process, or what returns it (None: no such process now), or None
            where the engine runs on another machine.
        sink: given each sample, a line of ``telemetry.jsonl``, in the sampler's thread.
        origin_ns: of the session, on ``time.monotonic_ns``; samples count from it.
        session: its number.
        rate_hz: samples a second.
        gpus: is closed by :meth:`stop`; None opens one over the driver of this machine.

    Attributes:
        rate_hz: samples a second.
    """

    def __init__(
        self,
        engine_pid: Callable[[], int | None] | int | None,
        sink: Callable[[dict[str, Any]], None],
        *,
        origin_ns: int,
        session: int,
        rate_hz: float = 10,
        gpus: GpuReader | None = None,
    ) -> None:
        self.rate_hz = rate_hz
        self._probes = Probes()
        self._host = Host(self._probes)
        self._engine = EngineTree(engine_pid, self._probes)
        self._gpus = GpuReader() if gpus is None else gpus
        self._vram = EngineVram(self._gpus, self._probes.unavailable, sees_all=sees_all_processes())
        self._energy = EnergyMeter(self._gpus, self._probes.unavailable)
        self._sink = sink
        self._origin_ns = origin_ns
        self._session = session
        self._period_s = 1 / rate_hz
        self._slow: dict[str, float | None] = {}
        self._slow_due_s = 0.0
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
        self._gpus.close()
        error, self._sink_error = self._sink_error, None
        if error is not None:
            raise error

    @property
    def unavailable(self) -> dict[str, str]:
        """Why a field is or was None, by the field's name (of a GPU: ``gpus.INDEX.FIELD``)."""
        return {**self._probes.unavailable, **self._gpus.unavailable}

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
        return self._engine.ram_peak_bytes(self.rate_hz)

    def mark_baseline(self) -> None:
        """Note the GPUs' memory in use, and end the window of their idle power.

        Call it after :meth:`start` and before the engine starts. The idle power is the mean since
        the sampler was started, and needs three samples.
        """
        self._vram.mark_baseline()
        self._energy.mark_baseline()

    def vram(self) -> dict[str, Any]:
        """Return ``vram_peak_bytes``, ``vram_limit_bytes`` and ``vram_source``.

        The peak is the largest sample of what the engine held; the limit is the memory of all
        visible GPUs together; the source is ``per process``, ``device minus baseline`` or None.
        """
        return self._vram.peak()

    def energy_begin(self) -> None:
        """Begin the window over which the energy of the GPUs is measured. Any thread may call."""
        self._energy.begin()

    def energy_end(self) -> dict[str, Any] | None:
        """End that window, before :meth:`stop`. Any thread may call.

        Returns:
            As :meth:`shoestring.hardware.energy.EnergyMeter.end`.
        """
        return self._energy.end()

    def _run(self) -> None:
        try:
            self._sample_until_stopped()
        except OSError as error:
            self._sink_error = error  # raised by stop(), in the thread that can act on it
        except Exception as error:  # noqa: BLE001 - noted in the record, and no row is lost for it
            self._probes.missing(f"sampling ended: {error!r}", "telemetry")

    def _sample_until_stopped(self) -> None:
        started_s = time.monotonic()
        self._engine.read(started_s)  # a percentage needs a reading before
        tick = 0
        while True:
            passed = int((time.monotonic() - started_s) / self._period_s)
            tick = max(tick + 1, passed)
            due_s = started_s + tick * self._period_s
            if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                return
            try:
                self._sink(self._sample())
            finally:
                self._cpu_s = time.thread_time()

    def _sample(self) -> dict[str, Any]:
        t_ns = time.monotonic_ns() - self._origin_ns
        now_s = time.monotonic()
        slow = now_s >= self._slow_due_s
        if slow:
            self._slow_due_s = now_s + SLOW_S
            self._slow = self._host.read_slow()
            self._engine.read_slow(now_s)
        engine = self._engine.read(now_s)
        gpus = self._gpus.read(slow=slow)
        if gpus is not None:
            self._energy.note({gpu["index"]: gpu["power_w"] for gpu in gpus})
        return {
            "session": self._session,
            "t_ns": t_ns,
            **self._host.read(),
            **engine,
            "engine_vram_bytes": self._vram.read(self._engine.pids, gpus),
            **self._slow,
            "gpus": gpus,
        }
