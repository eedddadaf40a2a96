import itertools
import os
from pathlib import Path

import pytest

from shoestring.hardware.disk_speed import measure_disk_speed

MIB = 2**20


def ticking(step_ns):
    """Return a clock on which every look takes this long."""
    ticks = itertools.count(0, step_ns)
    return lambda: next(ticks)


@pytest.fixture
def big_file(tmp_path):
    """Write a file of 24 MiB that is on its disk."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(os.urandom(MIB) * 24)
        file.flush()
        os.fsync(file.fileno())
    return path


@pytest.fixture
def disk(tmp_path):
    """Skip where temporary files lie in memory, or where the kernel may not count."""
    mounts = (line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines())
    holding = [(point, kind) for point, kind in mounts if tmp_path.is_relative_to(point)]
    kind = max(holding, key=lambda mount: len(mount[0]))[1]
    if kind not in {"ext4", "xfs"}:
        pytest.skip(f"temporary files lie on {kind}")


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("how", ["O_DIRECT", "cache dropped"])
def test_a_file_is_read_from_its_disk_and_not_from_the_cache(big_file, how, monkeypatch):
    """Past the cache, or without it where the file system refuses to pass it."""
    big_file.read_bytes()  # now it is cached
    if how != "O_DIRECT":
        monkeypatch.delattr(os, "O_DIRECT")
    speed = measure_disk_speed(big_file)
    assert (speed.how, speed.missing, speed.read_bytes) == (how, None, 24 * MIB)
    assert speed.bytes_per_s == speed.read_bytes / speed.seconds


def test_a_system_that_cannot_avoid_the_cache_gives_no_figure(big_file, monkeypatch):
    """There the reason stands instead."""
    monkeypatch.delattr(os, "O_DIRECT")
    monkeypatch.delattr(os, "posix_fadvise")
    speed = measure_disk_speed(big_file)
    assert (speed.bytes_per_s, speed.read_bytes) == (None, None)
    assert "neither pass nor drop" in speed.missing


def test_reading_stops_at_the_size_or_the_time(big_file):
    """Whichever comes first, after a whole block."""
    assert measure_disk_speed(big_file, most_bytes=8 * MIB).read_bytes == 8 * MIB
    assert measure_disk_speed(big_file, most_bytes=9 * MIB).read_bytes == 16 * MIB
    slow = measure_disk_speed(big_file, budget_s=1, clock_ns=ticking(600_000_000))
    assert (slow.read_bytes, slow.seconds) == (16 * MIB, pytest.approx(1.2))


def test_cached_bytes_make_no_figure(big_file, tmp_path):
    """A kernel that fetched nothing while 24 MiB were read says that they were cached."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/io").write_text("rchar: 1\nread_bytes: 77\n")
    speed = measure_disk_speed(big_file, root=tmp_path)
    assert speed.bytes_per_s is None
    assert speed.missing.endswith("0 of 25165824 bytes came from a disk; the others were cached")


def test_a_kernel_that_does_not_count_gives_no_figure(big_file, tmp_path):
    """What cannot be checked is not claimed."""
    speed = measure_disk_speed(big_file, root=tmp_path)
    assert speed.bytes_per_s is None
    assert "does not say" in speed.missing


def test_of_a_folder_the_largest_file_is_read(big_file):
    """Folders in it do not count."""
    (big_file.parent / "small").write_bytes(b"x")
    (big_file.parent / "folder").mkdir()
    assert measure_disk_speed(big_file.parent).read_bytes == 24 * MIB


def test_without_a_large_file_there_is_a_reason(tmp_path):
    """Nothing is written to measure a disk."""
    (tmp_path / "small").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "small"):
        speed = measure_disk_speed(path)
        assert (speed.bytes_per_s, speed.read_bytes) == (None, None)
        assert speed.missing == f"{path}: no file of 16 MiB or more to read there"
    assert [file.name for file in tmp_path.iterdir()] == ["small"]


def test_what_is_not_there_is_a_reason(tmp_path):
    """A wrong path costs the figure, not the command."""
    speed = measure_disk_speed(tmp_path / "nothing")
    assert speed.missing == f"{tmp_path / 'nothing'}: No such file or directory"
