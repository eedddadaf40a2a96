import os
import queue
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise

import psutil
import pynvml
import pytest

from shoestring.hardware.nvml import GpuReader
from shoestring.hardware.telemetry import TelemetrySampler
from shoestring.testing.nvml import GIB, FakeNvml, Script, nvml_error, tesla_p100, tesla_t4

MEGABYTE = 1_000_000
FIELDS = {
    "session", "t_ns", "cpu_percent", "engine_cpu_percent", "engine_rss_bytes",
    "engine_processes", "available_memory_bytes", "temperature_c", "frequency_hz",
    "steal_percent", "swap_used_bytes", "engine_major_faults_per_s", "engine_swap_bytes",
    "engine_vram_bytes", "gpus",
}  # fmt: skip
# Obeys lines on stdin: each "mem N" holds N megabytes, "free" gives them back, "child" starts a
# copy of itself that holds 30 MB, "work" computes until the next line, and says "ok" each time.
WORKER = """
import subprocess, sys, threading
held, stop = [], threading.Event()
def work():
    while not stop.is_set():
        sum(range(1000))
child = None
for line in sys.stdin:
    word, _, number = line.strip().partition(" ")
    stop.set()
    if word == "mem":
        held.append(b"x" * (int(number) * 1_000_000))
    elif word == "free":
        held.clear()
    elif word == "child":
        child = subprocess.Popen([sys.executable, "-c", SOURCE], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        child.stdin.write("mem 30\\n"); child.stdin.flush(); child.stdout.readline()
    elif word == "work":
        stop.clear()
        threading.Thread(target=work, daemon=True).start()
    print("ok", flush=True)
if child:
    child.stdin.close(); child.wait()
"""
SOURCE = f"SOURCE = {WORKER!r}\n{WORKER}"


@contextmanager
def worker():
    """Run a real process, for as long as its stdin is open."""
    source = f"SOURCE = {SOURCE!r}\n{WORKER}"
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def tell(process: subprocess.Popen, line: str) -> None:
    """Have the worker do something, and wait until it is done."""
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ok\n"


@contextmanager
def sampling(engine_pid, rate_hz: float = 50, nvml: FakeNvml | None = None):
    """Sample into a queue; yields the sampler and the queue."""
    samples: queue.Queue = queue.Queue()
    sampler = TelemetrySampler(
        engine_pid, samples.put, origin_ns=time.monotonic_ns(), session=3, rate_hz=rate_hz,
        gpus=None if nvml is None else GpuReader(nvml, environ={}),
    )  # fmt: skip
    sampler.start()
    try:
        yield sampler, samples
    finally:
        sampler.stop()


def wait_for(samples: queue.Queue, condition) -> dict:
    """Take samples until one meets a condition."""
    while True:
        sample = samples.get(timeout=30)
        if condition(sample):
            return sample


def test_a_sample_has_the_fields_of_the_record():
    """Samples are lines of telemetry.jsonl, and null fields have a reason."""
    with worker() as process, sampling(process.pid) as (sampler, samples):
        sample = samples.get(timeout=30)
    assert set(sample) == FIELDS
    assert sample["session"] == 3
    assert sample["available_memory_bytes"] > 0
    assert sample["engine_processes"] == 1
    nulls = {name for name, value in sample.items() if value is None}
    assert nulls <= set(sampler.unavailable)


def test_samples_come_in_order_and_none_before_its_turn():
    """Times grow, and the n-th sample is never earlier than n periods; lateness only delays."""
    with sampling(None, rate_hz=100) as (_, samples):
        times = [samples.get(timeout=30)["t_ns"] for _ in range(20)]
    assert all(a < b for a, b in pairwise(times))
    period_ns, rounding_ns = 10_000_000, 1000
    assert all(t >= n * period_ns - rounding_ns for n, t in enumerate(times, start=1))


def test_memory_of_the_engine_is_followed():
    """Memory that the engine takes is seen in the samples."""
    with worker() as process, sampling(process.pid) as (_, samples):
        before = samples.get(timeout=30)["engine_rss_bytes"]
        tell(process, "mem 100")
        wait_for(samples, lambda s: s["engine_rss_bytes"] > before + 95 * MEGABYTE)
        tell(process, "free")
        wait_for(samples, lambda s: s["engine_rss_bytes"] < before + 20 * MEGABYTE)


def test_a_new_child_of_the_engine_is_counted():
    """Descendants started later are found, and their memory is added."""
    with worker() as process, sampling(process.pid) as (sampler, samples):
        alone = samples.get(timeout=30)["engine_rss_bytes"]
        tell(process, "child")
        both = wait_for(samples, lambda s: s["engine_processes"] == 2)
        assert both["engine_rss_bytes"] > alone + 30 * MEGABYTE
        peak, source = sampler.ram_peak_bytes()
    assert peak >= both["engine_rss_bytes"]
    assert source == "largest sample of the process tree at 50 Hz"


def test_work_of_the_engine_is_seen_in_percent_of_a_core():
    """A busy engine shows more than an idle one, which shows 0."""
    with worker() as process, sampling(process.pid, rate_hz=5) as (_, samples):
        wait_for(samples, lambda s: s["engine_cpu_percent"] == 0)
        tell(process, "work")
        wait_for(samples, lambda s: s["engine_cpu_percent"] > 20)
        tell(process, "free")
        wait_for(samples, lambda s: s["engine_cpu_percent"] == 0)


def test_the_kernel_peak_keeps_what_the_samples_missed():
    """For a single process the peak is VmHWM, also of memory that is long gone."""
    with worker() as process:
        tell(process, "mem 200")
        tell(process, "free")
        with sampling(process.pid) as (sampler, samples):
            now = samples.get(timeout=30)["engine_rss_bytes"]
            peak, source = sampler.ram_peak_bytes()
        after_the_end = sampler.ram_peak_bytes()
    assert now < 150 * MEGABYTE
    assert peak > 200 * MEGABYTE
    assert source == "VmHWM"
    assert after_the_end[0] >= peak


def test_an_engine_that_ends_gives_nulls_and_a_reason():
    """A vanished process is no error: sampling goes on and the peak is kept."""
    with worker() as process, sampling(process.pid) as (sampler, samples):
        wait_for(samples, lambda s: s["engine_rss_bytes"] is not None)
        peak, _ = sampler.ram_peak_bytes()
        process.kill()
        gone = wait_for(samples, lambda s: s["engine_rss_bytes"] is None)
        assert (gone["engine_cpu_percent"], gone["engine_processes"]) == (None, None)
        assert gone["available_memory_bytes"] > 0
        assert "had ended" in sampler.unavailable["engine_rss_bytes"]
        assert sampler.ram_peak_bytes() == (peak, "VmHWM")


def test_an_engine_that_comes_later_is_found():
    """The process may be given by a function that knows of none at first, or of another later."""
    pids: list[int] = []
    with (
        worker() as first,
        worker() as second,
        sampling(lambda: pids[-1] if pids else None) as (_, samples),
    ):
        assert samples.get(timeout=30)["engine_processes"] is None
        pids.append(first.pid)
        wait_for(samples, lambda s: s["engine_processes"] == 1)
        tell(second, "mem 100")
        pids.append(second.pid)
        wait_for(samples, lambda s: (s["engine_rss_bytes"] or 0) > 100 * MEGABYTE)


def test_an_engine_elsewhere_has_no_figures_of_this_machine():
    """Without a process the engine's fields are None, with the reason, and so is the peak."""
    with sampling(None) as (sampler, samples):
        sample = samples.get(timeout=30)
    assert sample["engine_rss_bytes"] is None
    assert sampler.unavailable["engine_rss_bytes"] == "no process of the engine on this machine"
    assert sampler.ram_peak_bytes() == (None, None)


def test_stop_can_be_called_twice_and_before_start():
    """Stopping is idempotent; no sample comes after it."""
    with sampling(None) as (sampler, samples):
        samples.get(timeout=30)
        sampler.stop()
        count = samples.qsize()
        sampler.stop()
        assert samples.qsize() == count
    never = TelemetrySampler(None, samples.put, origin_ns=0, session=1)
    never.stop()


def test_a_sink_that_cannot_write_is_reported_once_by_stop():
    """A full disk ends the sampling, and stop raises what happened."""

    def full(_sample):
        failed.put(True)
        raise OSError(28, "No space left on device")

    failed: queue.Queue = queue.Queue()
    sampler = TelemetrySampler(None, full, origin_ns=0, session=1, rate_hz=100)
    sampler.start()
    failed.get(timeout=30)
    with pytest.raises(OSError, match="No space left"):
        sampler.stop()
    sampler.stop()
    assert failed.empty()


def test_a_fault_of_the_sampler_is_noted_and_costs_no_run():
    """What no probe foresaw ends the sampling; stop does not raise it, the record has it."""

    def odd(_sample):
        failed.put(True)
        raise AttributeError("no such field")

    failed: queue.Queue = queue.Queue()
    sampler = TelemetrySampler(None, odd, origin_ns=0, session=1, rate_hz=100)
    sampler.start()
    failed.get(timeout=30)
    sampler.stop()
    assert failed.empty()
    said = sampler.unavailable["telemetry"]
    assert said == "sampling ended: AttributeError('no such field')"


def refuse(error: Exception):
    """Make a probe that fails."""

    def probe(*_args, **_kwargs):
        raise error

    return probe


@pytest.mark.parametrize(
    ("probe", "error", "fields"),
    [
        ("sensors_temperatures", OSError(5, "Input/output error"), ["temperature_c"]),
        ("cpu_freq", ValueError("bad cpuinfo"), ["frequency_hz"]),
        ("cpu_times", PermissionError(13, "Permission denied"),
         ["cpu_percent", "steal_percent"]),
        ("swap_memory", OSError(13, "no swap file"), ["swap_used_bytes"]),
        ("virtual_memory", RuntimeError("no meminfo"), ["available_memory_bytes"]),
        ("Process", psutil.Error("no process table"),
         ["engine_cpu_percent", "engine_rss_bytes", "engine_processes",
          "engine_major_faults_per_s", "engine_swap_bytes"]),
    ],
)  # fmt: skip
def test_a_probe_that_fails_costs_its_own_fields_only(monkeypatch, probe, error, fields):
    """Sampling goes on with None and the reason, and stop does not raise what a probe raised."""
    monkeypatch.setattr(psutil, probe, refuse(error), raising=False)
    with sampling(os.getpid()) as (sampler, samples):
        for _ in range(3):
            sample = samples.get(timeout=30)
    assert [sample[field] for field in fields] == [None] * len(fields)
    assert all(str(error) in sampler.unavailable[field] for field in fields)
    kept = {"cpu_percent", "available_memory_bytes", "engine_rss_bytes"} - set(fields)
    assert all(sample[field] is not None for field in kept - {"cpu_percent"})


def test_an_engine_that_cannot_be_asked_for_its_process_costs_its_own_fields_only():
    """The function that gives the process may fail too, also before the first sample."""
    with sampling(refuse(OSError(3, "No such process"))) as (sampler, samples):
        sample = samples.get(timeout=30)
    assert sample["engine_rss_bytes"] is None
    assert "No such process" in sampler.unavailable["engine_rss_bytes"]
    assert sample["available_memory_bytes"] > 0


def test_the_rate_is_told():
    """Who writes the method down need not repeat the number."""
    assert TelemetrySampler(None, print, origin_ns=0, session=1).rate_hz == 10
    assert TelemetrySampler(None, print, origin_ns=0, session=1, rate_hz=50).rate_hz == 50


def test_the_sampler_knows_what_it_costs():
    """Its own processor time is counted, and is less than that of the whole process."""
    with sampling(os.getpid(), rate_hz=100) as (sampler, samples):
        for _ in range(10):
            samples.get(timeout=30)
    assert 0 < sampler.cpu_s < time.process_time()


def test_gpus_are_part_of_a_sample_and_of_the_peaks():
    """A sample has every GPU; the engine's memory is that of its own processes."""
    with worker() as process:
        nvml = FakeNvml([tesla_t4(used_bytes=9 * GIB, processes=[(process.pid, 4 * GIB)])])
        with sampling(process.pid, nvml=nvml) as (sampler, samples):
            sample = samples.get(timeout=30)
        assert [gpu["index"] for gpu in sample["gpus"]] == [0]
        assert sample["gpus"][0]["vram_used_bytes"] == 9 * GIB
        assert sample["engine_vram_bytes"] == 4 * GIB
        assert sampler.vram() == {
            "vram_peak_bytes": 4 * GIB,
            "vram_limit_bytes": 15 * GIB,
            "vram_source": "per process",
        }
    assert nvml.opened == 0


def test_a_restarted_engine_is_followed_on_the_gpus():
    """Another pid within the session is the engine now; the peak is that of both."""
    with worker() as first, worker() as second:
        pids = [first.pid]
        held = [(first.pid, 3 * GIB), (second.pid, 2 * GIB)]
        with sampling(lambda: pids[-1], nvml=FakeNvml([tesla_t4(processes=held)])) as (s, samples):
            wait_for(samples, lambda sample: sample["engine_vram_bytes"] == 3 * GIB)
            pids.append(second.pid)
            wait_for(samples, lambda sample: sample["engine_vram_bytes"] == 2 * GIB)
    assert s.vram()["vram_peak_bytes"] == 3 * GIB


def test_energy_of_a_window_comes_from_the_samples_where_there_is_no_counter():
    """Constant power times the window, and the mean idle power from before the mark."""
    nvml = FakeNvml([tesla_p100(power_mw=30_000)])
    with sampling(None, nvml=nvml) as (sampler, samples):
        for _ in range(5):
            samples.get(timeout=30)
        sampler.mark_baseline()
        sampler.energy_begin()
        for _ in range(10):
            samples.get(timeout=30)
        energy = sampler.energy_end()
    assert energy["source"] == "integrated power"
    assert energy["baseline_power_w"] == 30
    assert energy["energy_j"] == pytest.approx(30 * energy["seconds"], abs=0.04)


def test_energy_comes_from_the_counter_where_there_is_one():
    """Two readings are enough then."""
    nvml = FakeNvml([tesla_t4(energy_mj=Script(1000, 43_000))])
    with sampling(None, nvml=nvml) as (sampler, _):
        sampler.energy_begin()
        energy = sampler.energy_end()
    assert (energy["energy_j"], energy["source"]) == (42, "energy counter")


def test_throttling_is_seen_while_it_lasts():
    """The reasons of the driver stand in the sample by name."""
    gpu = tesla_t4(reasons=Script(0x001, 0x040))
    with sampling(None, nvml=FakeNvml([gpu])) as (_, samples):
        assert samples.get(timeout=30)["gpus"][0]["throttle"] == []
        wait_for(samples, lambda s: s["gpus"][0]["throttle"] == ["hardware thermal slowdown"])


def test_without_a_driver_the_reason_stands_once():
    """GPU fields are null with the driver's words; energy and peak are None; nothing is asked."""
    nvml = FakeNvml(init_error=nvml_error(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with sampling(os.getpid(), nvml=nvml) as (sampler, samples):
        sampler.mark_baseline()
        sampler.energy_begin()
        sample = samples.get(timeout=30)
        assert sampler.energy_end() is None
    assert (sample["gpus"], sample["engine_vram_bytes"]) == (None, None)
    assert set(sampler.vram().values()) == {None}
    fields = ("gpus", "engine_vram_bytes", "energy", "vram_peak_bytes")
    assert {sampler.unavailable[name] for name in fields} == {"NVML: Driver Not Loaded"}
    assert nvml.calls == ["nvmlInit"]


def test_paging_of_the_engine_is_read_where_the_kernel_counts_it():
    """The first second has no rate yet; then a process that reads no file has 0 faults a second."""
    with worker() as process, sampling(process.pid) as (sampler, samples):
        first = samples.get(timeout=30)
        later = wait_for(samples, lambda s: s["engine_major_faults_per_s"] is not None)
        said = sampler.unavailable["engine_major_faults_per_s"]
    assert first["engine_major_faults_per_s"] is None
    assert said == "first reading of a new process"
    assert later["engine_major_faults_per_s"] >= 0
    assert later["engine_swap_bytes"] >= 0


def test_paging_ends_with_the_engine():
    """The last figures of a process that has ended do not stand on."""
    with worker() as process, sampling(process.pid) as (_, samples):
        wait_for(samples, lambda s: s["engine_swap_bytes"] is not None)
        process.kill()
        gone = wait_for(samples, lambda s: s["engine_rss_bytes"] is None)
    assert (gone["engine_swap_bytes"], gone["engine_major_faults_per_s"]) == (None, None)
