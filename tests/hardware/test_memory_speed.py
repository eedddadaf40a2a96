import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import BrokenBarrierError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import MissingError
from shoestring.hardware import memory_speed
from shoestring.hardware.memory_speed import (
    choose_buffer_bytes,
    last_level_cache_bytes,
    measure_memory_speed,
)

MIB, GIB = 2**20, 2**30


def write_cache(root, cpu, index, level, size, shared):
    """Write one cache of one core, as the kernel shows it."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    folder.mkdir(parents=True)
    for name, text in {"level": level, "size": size, "shared_cpu_list": shared}.items():
        (folder / name).write_text(f"{text}\n")


def ticking(step_ns):
    """Return a clock on which every look takes this long."""
    ticks = itertools.count(0, step_ns)
    return lambda: next(ticks)


def test_shared_caches_count_once_and_smaller_ones_not(tmp_path):
    """Two chips with an L3 each have both; their smaller ones do not count."""
    for cpu, shared in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        write_cache(tmp_path, cpu, 1, 1, "32K", str(cpu))
        write_cache(tmp_path, cpu, 2, 2, "1024K", str(cpu))
        write_cache(tmp_path, cpu, 3, 3, "32M", shared)
    assert last_level_cache_bytes(tmp_path) == 64 * MIB


def test_without_a_third_level_the_second_is_the_last(tmp_path):
    """Small ARM cores have no more."""
    for cpu in range(4):
        write_cache(tmp_path, cpu, 0, 1, "64K", str(cpu))
        write_cache(tmp_path, cpu, 2, 2, "512K", str(cpu))
    assert last_level_cache_bytes(tmp_path) == 2 * MIB


def test_unknown_caches_are_none(tmp_path):
    """Where there is no such folder, or nothing readable in it."""
    assert last_level_cache_bytes(tmp_path) is None
    write_cache(tmp_path, 0, 0, "?", "?", "?")
    assert last_level_cache_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("cache", "free", "size"),
    [
        (2 * MIB, 64 * GIB, 256 * MIB),
        (100 * MIB, 64 * GIB, 400 * MIB),
        (None, 64 * GIB, 512 * MIB),
        (2 * GIB, 64 * GIB, 2 * GIB),
        (100 * MIB, 2 * GIB, 256 * MIB),
        (100 * MIB, None, 400 * MIB),
    ],
)
def test_the_buffer_is_far_larger_than_the_caches(cache, free, size):
    """Four times, between 256 MiB and 2 GiB, and an eighth of what is free at most."""
    assert choose_buffer_bytes(cache, free) == size


@given(st.none() | st.integers(1, 2**40), st.integers(512 * MIB, 2**45))
def test_the_buffer_never_takes_more_than_an_eighth(cache, free):
    """Nor so little that any cache would hold it."""
    assert 64 * MIB <= choose_buffer_bytes(cache, free) <= free // 8


def test_too_little_memory_is_an_error_with_its_mend():
    """No figure of a cache is given for one of memory."""
    with pytest.raises(MissingError, match=r"100 MiB are free.*; free 512 MiB"):
        choose_buffer_bytes(2 * MIB, 100 * MIB)


def test_bytes_are_counted_and_divided_by_the_time_of_the_slowest(tmp_path):
    """On a clock whose looks take 1 s: from the common start to the last of two ends, 2 s."""
    speed = measure_memory_speed(
        tmp_path, threads=2, buffer_bytes=6 * MIB, clock_ns=ticking(1_000_000_000)
    )
    assert (speed.threads, speed.buffer_bytes, speed.rounds) == (2, 6 * MIB, 5)
    assert speed.read_bytes_per_s == speed.read_median_bytes_per_s == 3 * MIB
    assert speed.copy_bytes_per_s == 2 * MIB
    assert speed.triad_bytes_per_s == 5 * MIB


class FullPool(ThreadPoolExecutor):
    """Threads of a container whose limit allows one; the first waits for the others."""

    first = None

    def submit(self, *work):
        """Start the first task only."""
        if FullPool.first is not None:
            raise RuntimeError("can't start new thread")
        FullPool.first = super().submit(*work)
        return FullPool.first

    def __exit__(self, *_):
        """Leave at once, where the real one would wait for its threads."""
        self.shutdown(wait=False)


def test_a_thread_that_cannot_be_started_leaves_none_waiting(tmp_path, monkeypatch):
    """The error says what to allow, and those that waited at the start have left."""
    monkeypatch.setattr(memory_speed, "ThreadPoolExecutor", FullPool)
    monkeypatch.setattr(FullPool, "first", None)
    with pytest.raises(MissingError, match=r"3 threads cannot be started \(can't start new thread"):
        measure_memory_speed(tmp_path, threads=3, buffer_bytes=MIB)
    assert isinstance(FullPool.first.exception(timeout=30), BrokenBarrierError)


def test_rounds_go_on_until_the_budget_is_spent(tmp_path):
    """On a clock whose looks take 10 ms, one thread has a hundred rounds in a second."""
    speed = measure_memory_speed(
        tmp_path, threads=1, buffer_bytes=MIB, budget_s=1, clock_ns=ticking(10_000_000)
    )
    assert speed.rounds == 100


def test_time_that_others_took_is_seen(tmp_path):
    """Threads that had a processor for half of each round say so."""
    speed = measure_memory_speed(
        tmp_path, threads=1, buffer_bytes=MIB, clock_ns=ticking(20_000_000),
        busy_ns=ticking(10_000_000),
    )  # fmt: skip
    assert speed.busy_share == pytest.approx(0.5)
    assert speed.how.endswith("others were at work: 50% of the cores' time was ours")


def test_how_warns_of_a_buffer_that_caches_hold(tmp_path):
    """And of caches that nobody knows."""
    few = {"threads": 1, "buffer_bytes": 3 * MIB, "budget_s": 0.0, "clock_ns": ticking(1),
           "busy_ns": ticking(1)}  # fmt: skip
    assert "caches is not known" in measure_memory_speed(tmp_path, **few).how
    write_cache(tmp_path, 0, 3, 3, "2M", "0")
    assert measure_memory_speed(tmp_path, **few).how.endswith(
        "which flatters: little memory is free"
    )
    write_cache(tmp_path, 1, 4, 4, "1M", "0")
    assert measure_memory_speed(tmp_path, **few).how.endswith("3.0 times the last-level caches")


def test_this_machines_memory_is_measured():
    """Real threads over real memory give figures that memory can have."""
    speed = measure_memory_speed(budget_s=0.05, buffer_bytes=96 * MIB)
    assert speed.buffer_bytes <= 96 * MIB
    assert 0 < speed.busy_share <= 1.05
    assert 1e8 < speed.read_median_bytes_per_s <= speed.read_bytes_per_s < 1e13
    assert 1e8 < speed.copy_bytes_per_s < 1e13
    assert 1e8 < speed.triad_bytes_per_s < 1e13
