import os
import subprocess

import pytest

from shoestring.testing.faults import NotAllowedError
from shoestring.testing.lab_groups import CPU, MEMORY, Groups, Place, find_places, remove_groups

MOUNT = "sys/fs/cgroup"


def machine(root, membership, files):
    """A root folder in which this process is in these groups, with files of the kernel's."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        file = root / MOUNT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_version_2_takes_the_nearest_group_above_that_hands_controllers_down(tmp_path):
    """Ours cannot: it has processes. Both controllers are had in one and the same group."""
    root = machine(tmp_path, "0::/user/session\n", {
        "cgroup.subtree_control": "cpu io memory\n",
        "user/cgroup.subtree_control": "memory cpu pids\n",
        "user/session/cgroup.subtree_control": "\n",
    })  # fmt: skip
    place = Place(root / MOUNT / "user", 2)
    assert find_places(root) == {MEMORY: place, CPU: place}


def test_version_2_without_the_cpu_controller_caps_memory_only(tmp_path):
    """As where systemd delegates memory alone to users; a share is then refused."""
    root = machine(tmp_path, "0::/user/session\n", {
        "cgroup.subtree_control": "cpu memory\n",
        "user/cgroup.subtree_control": "memory pids\n",
    })  # fmt: skip
    places = find_places(root)
    assert places == {MEMORY: Place(root / MOUNT / "user", 2)}
    assert Groups(1, places).caps_by() == {"memory": "cgroup v2", "cpu": None}
    with pytest.raises(NotAllowedError, match=r"cpu_share 0\.5: no control group"):
        Groups(1, places).make("home", None, 0.5)


def test_version_1_takes_our_own_group_of_each_controller(tmp_path):
    """Also where a version 2 without controllers is mounted beside it."""
    root = machine(tmp_path, "4:memory:/job\n1:cpu,cpuacct:/\n0::/\n", {
        "memory/job/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "unified/cgroup.subtree_control": "\n",
    })  # fmt: skip
    mount = root / MOUNT
    assert find_places(root) == {
        MEMORY: Place(mount / "memory/job", 1),
        CPU: Place(mount / "cpu,cpuacct", 1),
    }


def test_caps_of_version_2_are_written_where_the_kernel_reads_them(tmp_path):
    """Controllers are handed down from the lab to the host to the process."""
    place = Place(tmp_path, 2)
    groups = Groups(7, {MEMORY: place, CPU: place})
    groups.make("slow", 1 << 30, None)
    folders = groups.make("slow/0", None, 0.05)
    lab = tmp_path / "shoestring-lab-7"
    assert folders == {MEMORY: lab / "slow/0", CPU: lab / "slow/0"}
    assert (lab / "slow/memory.max").read_text() == str(1 << 30)
    assert (lab / "slow/0/cpu.max").read_text() == "1000 20000"
    for folder in (lab, lab / "slow"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +cpu"


def test_groups_of_dead_labs_go_and_those_of_living_ones_stay(tmp_path):
    """By the id of the keeper."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    for number in (dead.pid, os.getppid(), os.getpid()):
        (tmp_path / f"shoestring-lab-{number}" / "home" / "0").mkdir(parents=True)
    remove_groups({MEMORY: Place(tmp_path, 1)})
    assert [one.name for one in tmp_path.iterdir()] == [f"shoestring-lab-{os.getppid()}"]
