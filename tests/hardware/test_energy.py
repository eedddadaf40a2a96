import threading

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.hardware.energy import EnergyMeter, Integral
from shoestring.hardware.nvml import GpuReader
from shoestring.testing.nvml import FakeNvml, Script, nvml_error, tesla_p100, tesla_t4

DRIVERLESS = nvml_error(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)


class Clock:
    """A clock that is set by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


def meter(*gpus, **options) -> tuple[EnergyMeter, Clock, dict[str, str]]:
    """Make a meter over fake GPUs, its clock and its reasons."""
    clock, unavailable = Clock(), {}
    reader = GpuReader(FakeNvml(gpus, **options), environ={})
    return EnergyMeter(reader, unavailable, clock), clock, unavailable


def pass_time(energy: EnergyMeter, clock: Clock, powers, step_s: float = 1.0) -> None:
    """Let readings of power come in, one a step."""
    for reading in powers:
        clock.now_s += step_s
        energy.note(reading)


def test_the_counter_is_used_where_every_gpu_has_one():
    """The energy is the counter's difference, in joules, whatever the power was."""
    energy, clock, _ = meter(tesla_t4(energy_mj=Script(5_000_000, 5_070_500)))
    energy.begin()
    clock.now_s += 2
    assert energy.end() == {
        "energy_j": 70.5,
        "source": "energy counter",
        "seconds": 2.0,
        "baseline_power_w": None,
        "gpus": [{"index": 0, "energy_j": 70.5}],
    }


def test_power_is_integrated_where_there_is_no_counter():
    """A ramp from 100 to 200 W over 4 s, then 2 s at 200 W, is 600 + 400 J."""
    energy, clock, unavailable = meter(tesla_p100(power_mw=Script(100_000, 200_000)))
    energy.begin()
    pass_time(energy, clock, [{0: 125}, {0: 150}, {0: 175}, {0: 200}, {0: 200}])
    clock.now_s += 1
    found = energy.end()
    assert found["energy_j"] == pytest.approx(1000)
    assert (found["source"], found["seconds"]) == ("integrated power", 6.0)
    assert unavailable["energy_counter"] == "GPU 0: NVML: Not Supported"
    assert "energy" not in unavailable


def test_one_source_holds_for_all_gpus():
    """A machine of one GPU with and one without a counter integrates the power of both."""
    energy, clock, _ = meter(
        tesla_t4(energy_mj=Script(0, 10**9), power_mw=50_000), tesla_p100(power_mw=30_000)
    )
    energy.begin()
    pass_time(energy, clock, [{0: 50, 1: 30}] * 4)
    found = energy.end()
    assert found["source"] == "integrated power"
    assert found["energy_j"] == pytest.approx(320)
    assert found["gpus"] == [{"index": 0, "energy_j": 200}, {"index": 1, "energy_j": 120}]


@pytest.mark.parametrize("readings", [0, 2, 3])
def test_fewer_than_five_readings_are_no_energy(readings):
    """The two at the ends count; with less than five in all there is None and the reason."""
    energy, clock, unavailable = meter(tesla_p100(power_mw=30_000))
    energy.begin()
    pass_time(energy, clock, [{0: 30}] * readings)
    found = energy.end()
    if readings + 2 < 5:
        assert found is None
        assert unavailable["energy"] == (
            f"GPU 0: NVML: Not Supported; GPU 0: {readings + 2} readings of power, 5 are needed"
        )
    else:
        assert found["energy_j"] == pytest.approx(90)


def test_a_long_time_without_readings_is_not_bridged():
    """A machine that slept has no energy for that time, so there is none for the window."""
    energy, clock, unavailable = meter(tesla_p100(power_mw=30_000))
    energy.begin()
    pass_time(energy, clock, [{0: 30}] * 5)
    clock.now_s += 60
    pass_time(energy, clock, [{0: 30}] * 5)
    assert energy.end() is None
    assert unavailable["energy"].endswith("GPU 0: power was not read for 61.0 s")


def test_readings_that_failed_are_left_out():
    """A null among the readings is bridged, not taken for 0 W."""
    energy, clock, _ = meter(tesla_p100(power_mw=30_000))
    energy.begin()
    pass_time(energy, clock, [{0: 30}, {0: None}, {0: 30}, {0: 30}])
    assert energy.end()["energy_j"] == pytest.approx(120)


@pytest.mark.parametrize(
    ("begin", "end"), [(5_000_000, 4_000), (7_000, 7_000)], ids=["went back", "stood still"]
)
def test_a_counter_that_cannot_be_is_not_used(begin, end):
    """A wrap or a reload of the driver makes a negative difference; power steps in, or null."""
    energy, clock, unavailable = meter(tesla_t4(energy_mj=Script(begin, end), power_mw=40_000))
    energy.begin()
    pass_time(energy, clock, [{0: 40}] * 5)
    found = energy.end()
    assert (found["source"], found["energy_j"]) == ("integrated power", pytest.approx(200))
    assert unavailable["energy_counter"].startswith("GPU 0: the counter went from ")

    energy, clock, unavailable = meter(tesla_t4(energy_mj=Script(begin, end), power_mw=DRIVERLESS))
    energy.begin()
    clock.now_s += 10
    assert energy.end() is None
    assert "0 readings of power" in unavailable["energy"]


def test_the_baseline_is_the_mean_idle_power_before_it_was_marked():
    """All GPUs together, of samples before the mark; later ones do not count."""
    energy, clock, _ = meter(
        tesla_t4(energy_mj=Script(0, 9000)), tesla_t4(uuid="GPU-1", energy_mj=Script(0, 1000))
    )
    pass_time(energy, clock, [{0: 10, 1: 20}, {0: 12, 1: 20}, {0: None, 1: 5}, {0: 11, 1: 20}])
    energy.mark_baseline()
    pass_time(energy, clock, [{0: 70, 1: 70}] * 9)
    energy.begin()
    assert energy.end()["baseline_power_w"] == 31


@pytest.mark.parametrize(("readings", "marked"), [(2, True), (9, False)])
def test_without_an_idle_window_there_is_no_baseline(readings, marked):
    """Less than three samples, or no mark at all: None, and why."""
    energy, clock, unavailable = meter(tesla_t4(energy_mj=Script(0, 9000)))
    pass_time(energy, clock, [{0: 10}] * readings)
    if marked:
        energy.mark_baseline()
    energy.begin()
    assert energy.end()["baseline_power_w"] is None
    assert "idle" in unavailable["baseline_power_w"]


def test_a_window_that_was_not_begun_is_none():
    """An end without a begin has no energy; a second end neither."""
    energy, _, unavailable = meter(tesla_t4(energy_mj=Script(0, 0, 9000)))
    assert energy.end() is None
    assert unavailable["energy"] == "no window was begun"
    energy.begin()
    assert energy.end() is not None
    assert energy.end() is None


def test_without_a_gpu_the_reason_is_the_drivers():
    """Null energy says why in the words of the first failure."""
    energy, _, unavailable = meter(init_error=DRIVERLESS)
    energy.begin()
    assert energy.end() is None
    assert unavailable["energy"] == "NVML: Driver Not Loaded"


def test_readings_may_come_while_windows_begin_and_end():
    """The sampler's thread and the session's meet in the meter without harm."""
    unavailable: dict[str, str] = {}
    reader = GpuReader(FakeNvml([tesla_p100(power_mw=30_000)]), environ={})
    energy = EnergyMeter(reader, unavailable)
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            energy.note({0: 30.0})

    thread = threading.Thread(target=sample)
    thread.start()
    found = []
    for _ in range(50):
        energy.begin()
        energy.note({0: 30.0})
        energy.note({0: 30.0})
        energy.note({0: 30.0})
        found.append(energy.end())
    done.set()
    thread.join()
    for one in found:
        assert one["energy_j"] == pytest.approx(30 * one["seconds"], abs=0.04)


@given(
    st.lists(st.tuples(st.floats(0.01, 4), st.floats(0, 500)), min_size=5, max_size=30),
    st.floats(0, 4),
)
def test_an_integral_lies_between_the_least_and_the_largest_power(steps, rest_s):
    """Energy / time is a mean power: never outside what was read."""
    integral, now_s = Integral(0.0), 0.0
    for step_s, power_w in steps:
        now_s += step_s
        integral.add(now_s, power_w)
    energy_j, reason = integral.result(now_s + rest_s)
    powers = [power for _, power in steps]
    mean_w = energy_j / (now_s + rest_s)
    assert reason is None
    assert min(powers) - 1e-6 <= mean_w <= max(powers) + 1e-6
