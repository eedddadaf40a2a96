"""What llama.cpp says of its own memory."""

import re

from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.llama_log import buffer_report

MEBIBYTE = 1 << 20
LOG = """\
0.01.111.499 I load_tensors:   CPU_Mapped model buffer size =  1043.90 MiB
0.01.111.507 I load_tensors:   CPU_REPACK model buffer size =   351.00 MiB
0.02.460.770 I llama_context:        CPU  output buffer size =     1.96 MiB
0.02.460.973 I llama_kv_cache:        CPU KV buffer size =     6.00 MiB
0.02.461.302 I llama_kv_cache:        CPU KV buffer size =    45.00 MiB
0.02.506.212 I sched_reserve:        CPU compute buffer size =   110.09 MiB
0.02.506.226 I sched_reserve: graph nodes  = 97, splits = 1
0.03.565.212 I sched_reserve:        CPU compute buffer size =   120.25 MiB
"""
kinds = st.sampled_from(["model", "KV", "RS"])
devices = st.from_regex(re.compile(r"[A-Z][A-Za-z0-9_]{1,11}", re.ASCII), fullmatch=True)
hundredths = st.integers(0, 10**8)


def test_each_device_and_kind_has_its_bytes():
    """Both KV caches of a model with windows count; of compute buffers the last stands."""
    assert buffer_report(LOG) == {
        "CPU_Mapped model": round(1043.9 * MEBIBYTE),
        "CPU_REPACK model": 351 * MEBIBYTE,
        "CPU output": round(1.96 * MEBIBYTE),
        "CPU KV": 51 * MEBIBYTE,
        "CPU compute": round(120.25 * MEBIBYTE),
    }


def test_other_devices_stand_apart():
    """What lies on a GPU is not added to what lies in RAM."""
    report = buffer_report(LOG + "load_tensors:        CUDA0 model buffer size =   512.00 MiB\n")
    assert report["CUDA0 model"] == 512 * MEBIBYTE
    assert report["CPU_Mapped model"] == round(1043.9 * MEBIBYTE)


def test_a_quiet_log_gives_nothing():
    """No figure is made up where the engine told none."""
    assert buffer_report("I srv  load_model: loading model\nE failed to load model\n") == {}


@given(st.lists(st.tuples(devices, kinds, hundredths), max_size=12))
def test_nothing_is_lost(lines):
    """Buffers that pile up are all in the sum."""
    log = "".join(
        f"I load: {device:>12} {kind} buffer size = {size // 100:5}.{size % 100:02} MiB\n"
        for device, kind, size in lines
    )
    wanted = sum(round(size / 100 * MEBIBYTE) for *_, size in lines)
    assert abs(sum(buffer_report(log).values()) - wanted) <= len(lines)
