import pynvml
import pytest

from shoestring.hardware.nvml import GpuReader
from shoestring.hardware.vram import EngineVram
from shoestring.testing.nvml import GIB, FakeNvml, Script, nvml_error, tesla_t4

NO_DRAWING = {"nvmlDeviceGetGraphicsRunningProcesses_v3"}
NO_ANSWER = {"nvmlDeviceGetComputeRunningProcesses_v3"}


def uses(before: int, *samples) -> Script:
    """Script the memory in use: when the limit is asked, at the baseline, and in each sample."""
    return Script(before, before, *samples)


class Watch:
    """An engine's memory on fake GPUs, one reading a call; in a container if not told."""

    def __init__(self, *gpus, sees_all: bool = False, **options) -> None:
        self.reader = GpuReader(FakeNvml(gpus, **options), environ={})
        self.unavailable: dict[str, str] = {}
        self.vram = EngineVram(self.reader, self.unavailable, sees_all=sees_all)

    def read(self, *pids: int) -> int | None:
        """Read as the sampler does."""
        return self.vram.read(set(pids), self.reader.read(slow=False))

    def peak(self) -> tuple:
        """Return peak and source."""
        found = self.vram.peak()
        return found["vram_peak_bytes"], found["vram_source"]


def test_the_processes_of_the_engine_are_summed_over_the_gpus():
    """Those of others do not count; the peak stays when memory is given back."""
    watch = Watch(
        tesla_t4(processes=Script([(7, 3 * GIB), (99, GIB)], [(7, GIB)])),
        tesla_t4(uuid="GPU-1", processes=[(8, 2 * GIB)]),
    )
    assert watch.read(7, 8) == 5 * GIB
    assert watch.read(7, 8) == 3 * GIB
    assert watch.vram.peak() == {
        "vram_peak_bytes": 5 * GIB,
        "vram_limit_bytes": 30 * GIB,
        "vram_source": "per process",
    }


def test_a_container_that_hides_the_use_falls_back_to_the_baseline():
    """What is in use above the baseline counts, and the source says so."""
    watch = Watch(tesla_t4(used_bytes=uses(GIB, 5 * GIB, 4 * GIB), processes=[(7, None)]))
    watch.vram.mark_baseline()
    assert watch.read(7) == 4 * GIB
    assert watch.read(7) == 3 * GIB
    assert watch.peak() == (4 * GIB, "device minus baseline")


def test_a_container_that_hides_the_processes_falls_back_to_the_baseline():
    """Pids of another namespace are not ours; an unsupported list is asked once."""
    for gpu in (tesla_t4(processes=[(4242, GIB)]), tesla_t4(unsupported=NO_ANSWER)):
        gpu.used_bytes = uses(0, 2 * GIB)
        watch = Watch(gpu)
        watch.vram.mark_baseline()
        assert watch.read(7) == 2 * GIB
        assert watch.peak() == (2 * GIB, "device minus baseline")


def test_an_engine_without_a_gpu_does_not_get_what_a_browser_takes():
    """Outside containers the list names all: who is not in it holds nothing."""
    for processes in ([], [(99, GIB)]):
        watch = Watch(tesla_t4(used_bytes=uses(GIB, 3 * GIB), processes=processes), sees_all=True)
        watch.vram.mark_baseline()
        assert watch.read(7) == 0
        assert watch.peak() == (0, "per process")


def test_an_engine_that_is_listed_late_and_without_its_use_falls_back_to_the_baseline():
    """Not to be listed before the model is loaded does not settle the source."""
    watch = Watch(
        tesla_t4(used_bytes=uses(GIB, GIB, 4 * GIB), processes=Script([], [(7, None)])),
        sees_all=True,
    )
    watch.vram.mark_baseline()
    assert watch.read(7) == 0
    assert watch.read(7) == 3 * GIB
    assert watch.peak() == (3 * GIB, "device minus baseline")


@pytest.mark.parametrize("gpu", [tesla_t4(drawing=[(7, GIB)]), tesla_t4(unsupported=NO_DRAWING)])
def test_an_engine_that_may_stand_among_those_that_draw_is_not_said_to_hold_nothing(gpu):
    """Vulkan's processes are listed there; where that list is missing, nobody knows."""
    gpu.used_bytes = uses(0, 2 * GIB)
    watch = Watch(gpu, sees_all=True)
    watch.vram.mark_baseline()
    assert watch.read(7) == 2 * GIB
    assert watch.peak() == (2 * GIB, "device minus baseline")


def test_without_a_baseline_there_is_no_guess():
    """All memory in use is not the engine's: None, with both reasons."""
    watch = Watch(tesla_t4(used_bytes=5 * GIB, processes=[(7, None)]))
    assert watch.read(7) is None
    assert watch.unavailable["engine_vram_bytes"] == (
        "the driver does not say what the engine's processes hold, and "
        "no baseline was taken before the engine started"
    )
    assert watch.peak() == (None, None)
    assert watch.unavailable["vram_peak_bytes"] == watch.unavailable["engine_vram_bytes"]


def test_memory_that_others_gave_back_makes_no_negative_figure():
    """Less in use than before the engine started: None, and why."""
    watch = Watch(tesla_t4(used_bytes=uses(5 * GIB, 2 * GIB)))
    watch.vram.mark_baseline()
    assert watch.read(7) is None
    assert watch.unavailable["engine_vram_bytes"].endswith("gave memory back since the baseline")


def test_a_gpu_that_does_not_say_its_use_gives_no_sum():
    """A part of the GPUs is not the engine's memory."""
    lost = nvml_error(pynvml.NVML_ERROR_GPU_IS_LOST)
    watch = Watch(
        tesla_t4(used_bytes=GIB),
        tesla_t4(uuid="GPU-1", used_bytes=uses(GIB, lost), unsupported=NO_ANSWER),
    )
    watch.vram.mark_baseline()
    assert watch.read(7) is None
    assert "GPU 1 does not say how much is in use" in watch.unavailable["engine_vram_bytes"]


def test_the_source_does_not_change_back_within_a_session():
    """Once the list has answered, a time without the engine in it is null, not a difference."""
    watch = Watch(tesla_t4(used_bytes=2 * GIB, processes=Script([(7, GIB)], [], [(8, 3 * GIB)])))
    watch.vram.mark_baseline()
    assert watch.read(7) == GIB
    assert watch.read(8) is None
    assert watch.read(8) == 3 * GIB
    assert watch.peak() == (3 * GIB, "per process")


def test_no_process_of_the_engine_has_no_memory():
    """An engine elsewhere holds nothing here that could be told."""
    watch = Watch(tesla_t4(used_bytes=2 * GIB))
    watch.vram.mark_baseline()
    assert watch.read() is None
    assert watch.unavailable["engine_vram_bytes"] == "no process of the engine on this machine"


def test_without_a_gpu_peak_limit_and_source_are_none():
    """The reason is the driver's."""
    watch = Watch(init_error=nvml_error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert watch.read(7) is None
    assert set(watch.vram.peak().values()) == {None}
    assert watch.unavailable["vram_peak_bytes"] == "NVML: NVML Shared Library Not Found"
