import os

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.hardware.gpus import list_gpus
from shoestring.hardware.nvml import GpuReader, throttle_names
from shoestring.testing.nvml import GIB, FakeGpu, FakeNvml, Script, nvml_error, tesla_p100, tesla_t4

FIELDS = {
    "index", "vram_used_bytes", "utilisation_percent", "power_w", "temperature_c", "sm_clock_hz",
    "memory_clock_hz", "throttle",
}  # fmt: skip


def reader(*gpus: FakeGpu, missing=(), **environ: str) -> GpuReader:
    """Open a reader of fake GPUs."""
    return GpuReader(FakeNvml(gpus, missing=missing), environ=environ)


def test_a_reading_has_the_units_of_the_record():
    """Milliwatts become watts, megahertz hertz, and the mask of throttling names."""
    gpu = tesla_t4(
        used_bytes=3 * GIB, utilisation=97, power_mw=69_400, temperature=71, sm_mhz=1035,
        memory_mhz=5000, reasons=0x004 | 0x020,
    )  # fmt: skip
    gpus = reader(gpu)
    assert gpus.read(slow=True) == [
        {
            "index": 0,
            "vram_used_bytes": 3 * GIB,
            "utilisation_percent": 97,
            "power_w": 69.4,
            "temperature_c": 71.0,
            "sm_clock_hz": 1_035_000_000,
            "memory_clock_hz": 5_000_000_000,
            "throttle": ["power cap", "software thermal slowdown"],
        }
    ]
    assert gpus.unavailable == {}
    assert gpus.limit_bytes() == 15 * GIB


def test_slow_fields_stand_until_they_are_asked_again():
    """Temperature and clocks cost more and change slowly; power is read each time."""
    gpus = reader(tesla_t4(power_mw=Script(1000, 2000, 3000), temperature=Script(40, 50, 60)))
    seen = [gpus.read(slow=slow)[0] for slow in (False, False, True)]
    assert [one["power_w"] for one in seen] == [1, 2, 3]
    assert [one["temperature_c"] for one in seen] == [40, 40, 50]


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0, []),
        (0x001, []),
        (0x002 | 0x100, []),
        (0x001 | 0x008, ["hardware slowdown"]),
        (0x040 | 0x080, ["hardware thermal slowdown", "power brake"]),
        (0x1000, ["reason 0x1000"]),
    ],
)
def test_idleness_and_settings_are_no_throttling(bits, names):
    """Only what keeps the clocks below what they could be is named; an unknown bit is shown."""
    assert throttle_names(bits) == names


@given(st.integers(0, 2**64 - 1))
def test_every_mask_has_one_name_for_each_reason(bits):
    """No reason is lost and none is named twice."""
    names = throttle_names(bits)
    assert len(set(names)) == len(names) == (bits & ~0x103).bit_count()


def test_the_masks_are_those_of_the_driver():
    """The numbers here are NVML's own."""
    assert throttle_names(pynvml.nvmlClocksEventReasonSwPowerCap) == ["power cap"]
    assert throttle_names(pynvml.nvmlClocksEventReasonHwSlowdown) == ["hardware slowdown"]
    thermal = pynvml.nvmlClocksEventReasonSwThermalSlowdown
    assert throttle_names(thermal) == ["software thermal slowdown"]
    hot = pynvml.nvmlClocksEventReasonHwThermalSlowdown
    assert throttle_names(hot) == ["hardware thermal slowdown"]
    assert throttle_names(pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown) == ["power brake"]
    assert throttle_names(pynvml.nvmlClocksEventReasonGpuIdle) == []
    assert throttle_names(pynvml.nvmlClocksEventReasonApplicationsClocksSetting) == []
    assert throttle_names(pynvml.nvmlClocksEventReasonDisplayClockSetting) == []


def test_an_old_driver_is_asked_by_the_old_names():
    """Clock events were throttle reasons, and the list of processes had a second version."""
    gpus = reader(
        tesla_t4(reasons=0x004, processes=[(7, GIB)]),
        missing=[
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetComputeRunningProcesses_v3",
        ],
    )
    assert gpus.read(slow=True)[0]["throttle"] == ["power cap"]
    assert gpus.process_bytes({7}, sees_all=False) == (GIB, None)


def test_what_one_gpu_does_not_support_is_none_there_and_not_asked_again():
    """The reason stands under the GPU's number; the other GPU is read."""
    nvml = FakeNvml([tesla_t4(), tesla_t4(unsupported={"nvmlDeviceGetUtilizationRates"})])
    gpus = GpuReader(nvml, environ={})
    for _ in range(3):
        utilisation = [gpu["utilisation_percent"] for gpu in gpus.read(slow=True)]
        assert utilisation == [0, None]
    assert gpus.unavailable == {"gpus.1.utilisation_percent": "NVML: Not Supported"}
    assert nvml.calls.count("nvmlDeviceGetUtilizationRates") == 3 + 1


def test_a_passing_failure_is_asked_again():
    """A time-out costs one reading, and its reason stays."""
    late = nvml_error(pynvml.NVML_ERROR_TIMEOUT)
    gpus = reader(tesla_t4(power_mw=Script(10_000, late, 12_000)))
    assert [gpus.read(slow=False)[0]["power_w"] for _ in range(3)] == [10, None, 12]
    assert gpus.unavailable == {"gpus.0.power_w": "NVML: Timeout"}


def test_a_gpu_that_is_lost_has_nulls_only():
    """Readings go on with None; nothing is raised."""
    lost = nvml_error(pynvml.NVML_ERROR_GPU_IS_LOST)
    gone = dict.fromkeys(
        ("used_bytes", "utilisation", "power_mw", "temperature", "sm_mhz", "memory_mhz", "reasons"),
        lost,
    )
    (gpu,) = reader(tesla_t4(**gone)).read(slow=True)
    assert gpu == dict.fromkeys(FIELDS) | {"index": 0}


def test_a_broken_gpu_does_not_hide_the_others():
    """One that cannot be had is left out, with its reason."""
    lost = nvml_error(pynvml.NVML_ERROR_GPU_IS_LOST)
    gpus = reader(tesla_t4(handle=lost), tesla_t4(uuid="GPU-1"))
    assert gpus.indices == (1,)
    assert gpus.unavailable == {"gpus.0.handle": "NVML: GPU is lost"}
    only = reader(tesla_t4(handle=lost))
    assert only.read(slow=True) is None
    assert only.unavailable["gpus"] == "NVML: GPU is lost"


def test_without_a_driver_the_reason_stands_and_nothing_is_asked():
    """After the first failure a reader costs nothing, and there is nothing to shut down."""
    missing = nvml_error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    nvml = FakeNvml(init_error=missing)
    gpus = GpuReader(nvml, environ={})
    assert [gpus.read(slow=True) for _ in range(3)] == [None] * 3
    assert (gpus.limit_bytes(), gpus.energy_j(), gpus.power_w()) == (None, {}, {})
    gpus.close()
    assert nvml.calls == ["nvmlInit"]
    assert gpus.unavailable == {"gpus": "NVML: NVML Shared Library Not Found"}


def test_a_driver_without_gpus_is_let_go():
    """The library is shut down where there is nothing to read."""
    nvml = FakeNvml([])
    gpus = GpuReader(nvml, environ={})
    assert gpus.unavailable == {"gpus": "NVML: the driver has no GPU"}
    assert nvml.opened == 0


def test_only_visible_gpus_are_read():
    """CUDA_VISIBLE_DEVICES holds for the samples and for the limit; hiding all has a reason."""
    cards = [tesla_t4(uuid="GPU-a"), tesla_t4(uuid="GPU-b", total_bytes=8 * GIB)]
    gpus = reader(*cards, CUDA_VISIBLE_DEVICES="1")
    assert [gpu["index"] for gpu in gpus.read(slow=True)] == [1]
    assert gpus.limit_bytes() == 8 * GIB
    hidden = reader(*cards, CUDA_VISIBLE_DEVICES="-1")
    assert hidden.read(slow=True) is None
    assert hidden.unavailable["gpus"].startswith("CUDA_VISIBLE_DEVICES='-1'")


def test_closing_shuts_the_library_down_once():
    """Twice is once; nothing is read after it."""
    nvml = FakeNvml([tesla_t4()])
    gpus = GpuReader(nvml, environ={})
    assert nvml.opened == 1
    gpus.close()
    gpus.close()
    assert nvml.opened == 0
    assert gpus.read(slow=True) is None


def test_gpus_are_described_with_what_bears_on_speed():
    """Capability, link and power limit stand beside name and memory; the unknown is None."""
    riser = {"nvmlDeviceGetMaxPcieLinkGeneration", "nvmlDeviceGetEnforcedPowerLimit"}
    nvml = FakeNvml([tesla_t4(), tesla_p100(pcie_width=1, unsupported=riser)])
    found = list_gpus(nvml)
    assert found.unavailable is None
    assert found.gpus[0] == {
        "index": 0, "name": "Tesla T4", "vram_bytes": 15 * GIB, "driver": "580.95.05",
        "cuda_capability": "7.5", "pcie_generation": 3, "pcie_width": 16, "power_limit_w": 70.0,
    }  # fmt: skip
    old = found.gpus[1]
    assert (old["cuda_capability"], old["pcie_width"]) == ("6.0", 1)
    assert (old["pcie_generation"], old["power_limit_w"]) == (None, None)
    assert nvml.opened == 0


def test_the_list_leaves_out_a_broken_gpu_and_says_so():
    """The others are described."""
    lost = nvml_error(pynvml.NVML_ERROR_GPU_IS_LOST)
    found = list_gpus(FakeNvml([tesla_t4(handle=lost), tesla_p100()]))
    assert [gpu["index"] for gpu in found.gpus] == [1]
    assert found.unavailable == "NVML: GPU 0: GPU is lost"


def test_the_fake_is_as_strict_as_the_library():
    """Nothing can be asked before nvmlInit, and functions that nobody uses are not there."""
    nvml = FakeNvml([tesla_t4()])
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetCount()
    with pytest.raises(AttributeError, match="nvmlDeviceGetFanSpeed"):
        nvml.nvmlDeviceGetFanSpeed(0)
    for name in ("nvmlInit", "nvmlDeviceGetComputeRunningProcesses_v3"):
        assert hasattr(pynvml, name)


def test_the_driver_of_this_machine_is_read():
    """Real NVML: every GPU has its fields, and figures that can be."""
    gpus = GpuReader(environ={})
    if not gpus.indices:
        pytest.skip(f"no GPU to read here: {gpus.unavailable['gpus']}")
    try:
        for gpu in gpus.read(slow=True):
            assert set(gpu) == FIELDS
            assert 0 <= gpu["vram_used_bytes"] <= gpus.limit_bytes()
            assert gpu["power_w"] is None or 0 < gpu["power_w"] < 2000
            assert gpu["temperature_c"] is None or 0 < gpu["temperature_c"] < 120
            assert gpu["throttle"] is None or isinstance(gpu["throttle"], list)
        held, reason = gpus.process_bytes({os.getpid()}, sees_all=False)
        assert (held is None) == (reason is not None)
        first, second = gpus.energy_j(), gpus.energy_j()
        assert all(first[n] is None or first[n] <= second[n] for n in gpus.indices)
    finally:
        gpus.close()
