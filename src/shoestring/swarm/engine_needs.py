"""What an engine needs of the machine to run: its files, the nodes of its device, its variables.

Linked libraries are those that the loader itself names (``ldd``); ggml's backends lie beside the
program. Drivers of GPUs open more libraries while they run, so a worker with a GPU reads the
whole folders in which its libraries and the driver's lie.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shoestring.errors import MissingError

GPU_NODES = ("nvidia*", "nvidia-caps/*", "kfd", "dri/*", "dxg")
"""Below ``/dev``: NVIDIA, AMD, all that speak Vulkan, Windows' own Linux."""
GPU_READS = ("/sys/bus/pci", "/sys/class/drm", "/sys/class/kfd", "/sys/dev/char", "/sys/devices",
             "/sys/module", "/etc/vulkan", "/usr/share/vulkan", "/etc/OpenCL")  # fmt: skip
"""What the drivers read to find the cards."""
DRIVERS = re.compile(r"^\s*lib(?:cuda|amdhip64|vulkan|ze_loader)\.so\S* .*=> (/\S+)$", re.MULTILINE)
LINKED = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>not found|/\S+)", re.MULTILINE)
LOADER_CACHE = "/etc/ld.so.cache"
GIVEN = re.compile(
    r"(?:CUDA|NVIDIA|HIP|ROCR|HSA|GGML|OMP|GOMP|ZE|SYCL|ONEAPI|VK|MESA)_\w+"
    r"|LD_LIBRARY_PATH|LANG|LC_ALL|TZ"
)
"""The variables that a worker gets; all others may hold secrets."""
TOOL_WAIT_S = 30.0


@dataclass(frozen=True)
class Needs:
    """Absolute paths.

    Attributes:
        runnable: the program and its libraries.
        readable: what it only reads.
        devices: nodes of devices.
    """

    runnable: tuple[str, ...]
    readable: tuple[str, ...]
    devices: tuple[str, ...]


def find_needs(program: Path, device: str | None, root: Path = Path("/")) -> Needs:
    """Look for what a program needs; it is not started, but its loader is.

    Args:
        program: of the engine.
        device: as ``ggml-rpc-server -d`` takes it; None or ``CPU...`` needs no nodes.
        root: below which ``dev``, ``sys`` and ``etc`` lie.

    Raises:
        MissingError: a library is missing, or ``ldd``.
    """
    parts = [program, *sorted(program.parent.glob("libggml*.so*"))]
    libraries = dict.fromkeys(path for part in parts for path in linked_libraries(part))
    runnable = [*map(str, parts), *libraries]
    readable = [LOADER_CACHE] if (root / LOADER_CACHE[1:]).exists() else []
    devices: list[str] = []
    if device is not None and not device.upper().startswith("CPU"):
        nodes = [node for pattern in GPU_NODES for node in sorted((root / "dev").glob(pattern))]
        devices = [str(node) for node in nodes if not node.is_dir()]
        readable += [path for path in GPU_READS if (root / path[1:]).exists()]
        runnable += [str(Path(path).parent) for path in (*libraries, *_drivers())]
        named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        runnable += [path for path in named if Path(path).is_absolute() and Path(path).is_dir()]
    return Needs(tuple(runnable), tuple(readable), tuple(devices))


def linked_libraries(program: Path) -> tuple[str, ...]:
    """Return the libraries that a program or library is linked to, the loader among them.

    Raises:
        MissingError: one is missing, or ``ldd``.
    """
    done = _ask("ldd", str(program))
    if "not a dynamic executable" in done or "statically linked" in done:
        return ()
    found = []
    for match in LINKED.finditer(done):
        if match["path"] == "not found":
            raise MissingError(f"{program} needs {match['name']}, which is missing: install it")
        found.append(os.path.normpath(match["path"]))
    return tuple(found)


def given_variables() -> dict[str, str]:
    """Return the variables of ours that a worker gets."""
    given = {name: value for name, value in os.environ.items() if GIVEN.fullmatch(name)}
    # A second transport would go past whoever reads the first.
    return given | {"GGML_RPC_NO_RDMA": "1"}


def _drivers() -> list[str]:
    tool = shutil.which("ldconfig") or shutil.which("ldconfig", path="/sbin:/usr/sbin")
    return [] if tool is None else DRIVERS.findall(_ask(tool, "-p"))


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=TOOL_WAIT_S, env={**os.environ, "LC_ALL": "C"})  # fmt: skip
    except FileNotFoundError as error:
        raise MissingError(f"{command[0]} is missing: install libc-bin") from error
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"{' '.join(command)} did not end in {TOOL_WAIT_S:g} s") from error
    return done.stdout + done.stderr
