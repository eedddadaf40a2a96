"""What this machine is, and how much of it may be used.

A container or a notebook service often lends a part of a machine only: fewer cores (affinity,
cgroup quota) and less memory (cgroup limit) than the machine has. What may be used is what
matters for speed and for fit, so it stands beside what is there::

    cores_usable = min(cores in the affinity mask, quota / period)   (hardware.cores)
    memory_bytes = min(memory of the host, cgroup limit)

Everything is read from files below a root folder, so that a test can describe another machine.
Host and user names are left out on purpose: the description is published with the results.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.hardware.cgroups import memory_limit_bytes
from shoestring.hardware.cores import lent_cores
from shoestring.hardware.gpus import list_gpus
from shoestring.hardware.platforms import platform_name, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.hardware.gpus import Gpus

# The instruction sets for which llama.cpp has kernels of their own.
FLAGS = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "f16c", "fma", "sve")
ALIASES = {"asimd": "neon", "neon": "neon"}  # 64-bit and 32-bit ARM name it differently


def describe_machine(
    root: Path = Path("/"),
    *,
    environ: Mapping[str, str] = os.environ,
    gpus: Callable[[], Gpus] = list_gpus,
) -> dict[str, Any]:
    """Describe the machine as ``environment.json`` keeps it. What is not known is None.

    Args:
        root: below which ``proc``, ``sys`` and ``etc`` lie.
        environ: environment variables, by which Kaggle and Colab show themselves.
        gpus: lists the GPUs, and says why it cannot.

    Returns:
        ``platform``, ``os``, ``cpu``, ``memory_bytes``, ``gpus``, and ``gpus_unavailable`` (the
        reason why no GPU could be listed, else None).
    """
    found = gpus()
    return {
        "platform": platform_name(root, environ),
        "os": _operating_system(root),
        "cpu": _cpu(root),
        "memory_bytes": _memory_bytes(root),
        "gpus": [dict(gpu) for gpu in found.gpus],
        "gpus_unavailable": found.unavailable,
    }


def _operating_system(root: Path) -> str:
    """Name the distribution, the kernel and the processor's architecture."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    for line in (read_text(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return f"{value.strip().strip(chr(34))}, {kernel}"
    return kernel


def _cpu(root: Path) -> dict[str, Any]:
    processors = _processors(read_text(root / "proc/cpuinfo") or "")
    first = processors[0] if processors else {}
    logical = len(processors) or os.cpu_count()
    return {
        "model": first.get("model name") or platform.processor() or None,
        "cores_physical": _physical_cores(processors),
        "cores_logical": logical,
        "cores_usable": lent_cores(root, logical),
        "flags": _flags(first.get("flags") or first.get("Features") or ""),
    }


def _processors(cpuinfo: str) -> list[dict[str, str]]:
    """Split ``/proc/cpuinfo`` into one mapping for each logical processor."""
    blocks = []
    for block in cpuinfo.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" in fields:
            blocks.append(fields)
    return blocks


def _physical_cores(processors: list[dict[str, str]]) -> int | None:
    """Count distinct cores; ARM's cpuinfo does not say, and then nobody is asked to guess."""
    cores = {(p.get("physical id", "0"), p["core id"]) for p in processors if "core id" in p}
    return len(cores) or None


def _flags(text: str) -> list[str]:
    names = [ALIASES.get(name, name) for name in text.split()]
    return sorted({name for name in names if name in (*FLAGS, "neon") or name.startswith("amx")})


def _memory_bytes(root: Path) -> int | None:
    limits = [_host_memory_bytes(root), memory_limit_bytes(root)]
    return min((limit for limit in limits if limit is not None), default=None)


def _host_memory_bytes(root: Path) -> int | None:
    for line in (read_text(root / "proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    if (root / "proc").exists():
        return None
    import psutil  # systems without /proc

    return int(psutil.virtual_memory().total)
