"""What must be equal between two sessions whose times are to be compared."""

from __future__ import annotations

from typing import Any


def machine_facts(session: dict[str, Any]) -> dict[str, str]:
    """Return the facts of a session's machine as text, by a name for people.

    A fact that was not recorded is ``unknown``. Memory is in whole GiB: what an operating system
    reports differs by a few pages from boot to boot.
    """
    machine = session.get("machine") or {}
    cpu = machine.get("cpu") or {}
    memory_bytes, usable = machine.get("memory_bytes"), cpu.get("cores_usable")
    gpus = machine.get("gpus")
    return {
        "platform": _text(machine.get("platform")),
        "CPU": _text(cpu.get("model")),
        "cores": _text(cpu.get("cores_logical")),
        # Threads follow these: a container may lend fewer than there are.
        "usable cores": "unknown" if usable is None else f"{usable:g}",
        "memory": "unknown" if memory_bytes is None else f"{round(memory_bytes / 2**30)} GiB",
        "GPUs": "unknown" if gpus is None else ", ".join(_gpu(gpu) for gpu in gpus) or "none",
        "engine version": _text((session.get("versions") or {}).get("engine")),
    }


def _text(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _gpu(gpu: Any) -> str:
    return _text(gpu.get("name")) if isinstance(gpu, dict) else str(gpu)
