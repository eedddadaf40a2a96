"""Where a session runs, what of it lasts, and when it began."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.hardware.machine import describe_machine
from shoestring.hardware.platforms import HOUR_S, detect_platform

KAGGLE = {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}
COLAB = {"COLAB_RELEASE_TAG": "release-colab"}
TICKS = os.sysconf("SC_CLK_TCK")


def lay_out(root: Path, *folders: str, started_s: float | None = 100.0, name="init") -> Path:
    """Make the folders of a platform, with a process 1 that was started so long after boot."""
    for folder in (*folders, "proc/1"):
        (root / folder).mkdir(parents=True)
    if started_s is not None:
        fields = ["S", *["0"] * 18, str(round(started_s * TICKS)), "0", "0"]
        (root / "proc/1/stat").write_text(f"1 ({name}) {' '.join(fields)}\n")
    return root


def detect(root: Path, environ: dict, uptime_s: float = 3700.0):
    """Detect the platform of files, so long after boot."""
    return detect_platform(root, environ, uptime_s=lambda: uptime_s)


def test_kaggle_keeps_one_folder_and_attaches_others(tmp_path):
    """What lasts and what is attached are Kaggle's folders; it ends after 12 h."""
    root = lay_out(tmp_path, "kaggle/working", "kaggle/input/earlier")
    found = detect(root, KAGGLE)

    assert ("kaggle", 12 * HOUR_S) == (found.name, found.session_limit_s)
    assert root / "kaggle/working" == found.persistent
    assert found.persistent_missing is None
    assert (root / "kaggle/input",) == found.inputs


def test_colab_keeps_what_is_in_drive_once_it_is_mounted(tmp_path):
    """Without Drive nothing lasts, and it is said how to mount it."""
    root = lay_out(tmp_path, "content")
    bare = detect(root, COLAB)
    (root / "content/drive/MyDrive").mkdir(parents=True)
    mounted = detect(root, COLAB)

    assert bare.persistent is None
    assert "google.colab.drive.mount" in bare.persistent_missing
    assert root / "content/drive/MyDrive/shoestring" == mounted.persistent
    assert ((), 12 * HOUR_S) == (mounted.inputs, mounted.session_limit_s)


@pytest.mark.parametrize("environ", [{}, {"container": "lxc"}])
def test_a_machine_of_ones_own_has_no_end(tmp_path, environ):
    """Neither a limit nor a start nor a folder that would outlive anything."""
    found = detect(lay_out(tmp_path), environ)

    assert found.name == ("container" if environ else "local")
    assert found.persistent_missing is not None
    assert (None,) * 3 == (found.persistent, found.session_limit_s, found.session_began_s)


@given(st.text("() S0é\n", max_size=15))
def test_the_session_began_with_process_1(name):
    """Its age is told by the kernel's clock, whatever the program is called."""
    with TemporaryDirectory() as folder:
        found = detect(lay_out(Path(folder), started_s=100, name=name), KAGGLE, uptime_s=3700)

    # The clock was read once more since: no more than that lies between.
    assert found.session_began_s <= time.monotonic() - 3600
    assert found.session_began_s == pytest.approx(time.monotonic() - 3600, abs=60)


@pytest.mark.parametrize(
    ("started_s", "uptime_s"), [(None, 3700), (100, 100 + 12 * HOUR_S + 1), (100, 50)]
)
def test_an_impossible_age_is_unknown(tmp_path, started_s, uptime_s):
    """A process 1 that cannot be read, or is older than any session, tells no start."""
    found = detect(lay_out(tmp_path, started_s=started_s), KAGGLE, uptime_s)

    assert found.session_began_s is None
    assert 12 * HOUR_S == found.session_limit_s


def test_the_kernel_here_tells_the_same_start_as_psutil(tmp_path):
    """The real /proc and the real clock agree with another reader of them."""
    (tmp_path / "proc").symlink_to("/proc")
    found = detect_platform(tmp_path, KAGGLE)
    if found.session_began_s is None:
        pytest.skip("process 1 is older than a session may be")

    # psutil knows the boot to a second.
    started = time.time() - (time.monotonic() - found.session_began_s)
    assert started == pytest.approx(psutil.Process(1).create_time(), abs=2)


def test_the_description_of_the_machine_names_the_same_platform(tmp_path):
    """The platform is decided once."""
    for environ in (KAGGLE, COLAB, {"container": "podman"}, {}):
        assert (
            describe_machine(tmp_path, environ=environ)["platform"]
            == detect(tmp_path, environ).name
        )
