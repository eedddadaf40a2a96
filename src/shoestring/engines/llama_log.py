"""What llama.cpp says of its own memory: the buffers that it reserves, as its log names them.

llama-server tells them at verbosity 4 (``-lv 4``), one buffer a line::

    load_tensors:   CPU_Mapped model buffer size =   762.81 MiB
    llama_kv_cache:        CPU KV buffer size =    64.00 MiB
    sched_reserve:         CPU compute buffer size =   254.50 MiB

Two decimals are told, so each line is right within 5 KiB. A buffer is reserved, not yet touched.

Sources: ``llama-model.cpp``, ``llama-kv-cache.cpp``, ``llama-context.cpp`` in llama.cpp's ``src/``.
"""

from __future__ import annotations

import re

BUFFER = re.compile(
    r":[ ]+(?P<device>\S+)[ ]+(?P<kind>\w[\w ]*?) buffer size =[ ]*(?P<mebibytes>\d+\.\d+) MiB"
)
MADE_ANEW = frozenset({"compute", "output"})
"""Kinds of which a device has one buffer: a later line replaces an earlier one."""


def buffer_report(text: str) -> dict[str, int]:
    """Return the bytes of each buffer that a log names, by device and kind.

    Buffers of one name are summed: a model with sliding windows has two KV caches.

    Args:
        text: the log of one server.

    Returns:
        For example ``{"CPU_Mapped model": 799_868_190, "CPU KV": 67_108_864}``; empty where the
        log names none, since it was less verbose or the model was not loaded.
    """
    report: dict[str, int] = {}
    for found in BUFFER.finditer(text):
        name = f"{found['device']} {found['kind']}"
        before = 0 if found["kind"] in MADE_ANEW else report.get(name, 0)
        report[name] = before + round(float(found["mebibytes"]) * 2**20)
    return report
