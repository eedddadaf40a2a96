import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.hardware.cgroups import cpu_limit_cores, memory_limit_bytes
from shoestring.hardware.cores import lent_cores, usable_cores
from shoestring.hardware.gpus import Gpus, list_gpus
from shoestring.hardware.machine import describe_machine

X86 = """processor	: {n}
model name	: Some CPU @ 2.30GHz
physical id	: 0
core id		: {core}
flags		: fpu sse2 avx avx2 fma f16c avx512f avx512_vnni amx_tile amx_int8 rdtscp

"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm sve\n\n"


def no_gpus() -> Gpus:
    """Stand for a machine without a driver."""
    return Gpus((), "no driver")


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Write the files of a machine below a folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def x86_machine(root: Path, **more: str) -> Path:
    """Write a machine with four threads on two cores and 8 GiB."""
    files = {
        "proc/cpuinfo": "".join(X86.format(n=n, core=n // 2) for n in range(4)),
        "proc/meminfo": "MemTotal:        8388608 kB\nMemFree:  1 kB\n",
        "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3\n",
        "etc/os-release": 'NAME="Some"\nPRETTY_NAME="Some Linux 1"\n',
    }
    return write_tree(root, files | {name.replace("__", "/"): text for name, text in more.items()})


def describe(root: Path, **environ: str) -> dict:
    """Describe a machine of files."""
    return describe_machine(root, environ=environ, gpus=no_gpus)


def test_a_plain_machine_is_described_in_full(tmp_path):
    """Model, cores, flags that matter, memory and platform are read from the machine's files."""
    machine = describe(x86_machine(tmp_path))
    assert machine["platform"] == "local"
    assert machine["os"].startswith("Some Linux 1, ")
    assert machine["cpu"] == {
        "model": "Some CPU @ 2.30GHz",
        "cores_physical": 2,
        "cores_logical": 4,
        "cores_usable": 4.0,
        "flags": ["amx_int8", "amx_tile", "avx", "avx2", "avx512_vnni", "avx512f", "f16c", "fma"],
    }
    assert machine["memory_bytes"] == 8 * 2**30
    assert (machine["gpus"], machine["gpus_unavailable"]) == ([], "no driver")


def test_arm_names_its_vectors_and_does_not_guess_its_cores(tmp_path):
    """ARM's asimd is called neon, and what cpuinfo leaves out is None."""
    cpu = describe(write_tree(tmp_path, {"proc/cpuinfo": ARM}))["cpu"]
    assert cpu["flags"] == ["neon", "sve"]
    assert cpu["cores_physical"] is None
    assert cpu["cores_logical"] == 1


@pytest.mark.parametrize(
    ("environ", "platform"),
    [
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, "kaggle"),
        ({"COLAB_RELEASE_TAG": "release-colab"}, "colab"),
        ({"container": "lxc"}, "container"),
        ({}, "local"),
    ],
)
def test_the_platform_is_told_by_its_variables(tmp_path, environ, platform):
    """Kaggle, Colab and containers set variables of their own."""
    assert describe(x86_machine(tmp_path), **environ)["platform"] == platform


@pytest.mark.parametrize(
    "mark", [{".dockerenv": ""}, {"run/.containerenv": ""}, {"proc/1/cgroup": "0::/kubepods/x\n"}]
)
def test_a_container_is_told_by_its_files(tmp_path, mark):
    """Docker, Podman and Kubernetes leave marks in the file system."""
    assert describe(write_tree(x86_machine(tmp_path), mark))["platform"] == "container"


def test_limits_of_control_groups_version_2_hold_from_every_level(tmp_path):
    """The tightest limit of our group and of those above counts."""
    write_tree(x86_machine(tmp_path), {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/memory.max": "1073741824\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n",
    })  # fmt: skip
    machine = describe(tmp_path)
    assert machine["memory_bytes"] == 2**30
    assert machine["cpu"]["cores_usable"] == 1.5


def test_limits_of_control_groups_version_1_hold(tmp_path):
    """Version 1 keeps each controller in a tree of its own; no limit is a huge number or -1."""
    write_tree(x86_machine(tmp_path), {
        "proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/job\n2:pids:/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2147483648\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    machine = describe(tmp_path)
    assert machine["memory_bytes"] == 2 * 2**30
    assert machine["cpu"]["cores_usable"] == 2.0


def test_no_limit_is_none(tmp_path):
    """Both versions' ways to write that there is no limit are understood."""
    write_tree(tmp_path, {
        "proc/self/cgroup": "4:memory:/\n3:cpu:/\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/unified/memory.max": "max\n",
        "sys/fs/cgroup/unified/cpu.max": "max 100000\n",
    })  # fmt: skip
    assert memory_limit_bytes(tmp_path) is None
    assert cpu_limit_cores(tmp_path) is None


def test_a_container_sees_its_own_group_at_the_mount(tmp_path):
    """A group path of the host that is not there inside leads to the mount itself."""
    write_tree(x86_machine(tmp_path), {
        "proc/self/cgroup": "0::/../../system.slice/x\n",
        "sys/fs/cgroup/memory.max": "536870912\n",
    })  # fmt: skip
    assert describe(tmp_path)["memory_bytes"] == 2**29


def test_affinity_limits_the_usable_cores(tmp_path):
    """Cores outside the affinity mask are there but not ours."""
    status = {"proc/self/status": "Cpus_allowed_list:\t0,2-3\n"}
    cpu = describe(write_tree(x86_machine(tmp_path), status))["cpu"]
    assert (cpu["cores_logical"], cpu["cores_usable"]) == (4, 3.0)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_every_affinity_mask_is_counted(cores):
    """A mask written in the kernel's way has as many cores as it was made of."""
    parts, ordered = [], sorted(cores)
    for core in ordered:
        if parts and parts[-1][1] == core - 1:
            parts[-1][1] = core
        else:
            parts.append([core, core])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
    status = {"proc/self/status": f"Cpus_allowed_list:\t{text}\n"}
    with TemporaryDirectory() as folder:
        assert lent_cores(write_tree(Path(folder), status), None) == len(cores)


@pytest.mark.parametrize(
    ("mask", "quota", "threads"),
    [
        ("0-3", "max 100000", 4),
        ("0-3", "250000 100000", 2),
        ("0-3", "50000 100000", 1),
        ("1", "400000 100000", 1),
    ],
)
def test_threads_are_what_mask_and_quota_pay_for(tmp_path, mask, quota, threads):
    """The tighter of affinity and quota counts, rounded down, and one thread is the least."""
    root = write_tree(tmp_path, {
        "proc/self/status": f"Cpus_allowed_list:\t{mask}\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": f"{quota}\n",
    })  # fmt: skip
    assert usable_cores(root) == threads


def test_threads_are_known_without_proc_and_without_psutil(tmp_path):
    """Where no file says it, the system is asked; the answer costs no heavy import."""
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    code = (
        "import sys; from shoestring.hardware.cores import usable_cores; "
        "print(usable_cores() >= 1, 'psutil' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "True False\n"


def test_a_machine_without_files_has_unknowns_and_no_error(tmp_path):
    """What cannot be read is None; nothing is raised and nothing is 0."""
    (tmp_path / "proc").mkdir()
    machine = describe(tmp_path)
    assert machine["memory_bytes"] is None
    assert machine["cpu"]["cores_physical"] is None
    assert machine["cpu"]["flags"] == []


def test_this_machine_is_described_without_its_names():
    """The real machine gives plausible figures, as JSON, without host or user name."""
    import getpass
    import platform

    machine = describe_machine()
    text = json.dumps(machine)
    assert 0 < machine["memory_bytes"] <= psutil.virtual_memory().total
    assert 0 < machine["cpu"]["cores_usable"] <= machine["cpu"]["cores_logical"]
    assert platform.node() not in machine["os"]
    assert f'"{getpass.getuser()}"' not in text


def test_gpus_are_listed_or_a_reason_is_given():
    """With a driver every GPU has its facts; without one there is a reason."""
    found = list_gpus()
    if found.unavailable is None:
        assert all({"index", "name", "driver", "power_limit_w"} <= set(gpu) for gpu in found.gpus)
        assert all(gpu["vram_bytes"] > 0 for gpu in found.gpus)
    else:
        assert found.gpus == ()
        assert found.unavailable.startswith("NVML: ")
