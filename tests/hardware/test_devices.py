from dataclasses import replace

import pynvml
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.hardware.cards import Card
from shoestring.hardware.device_words import parse_device, parse_devices, spell
from shoestring.hardware.devices import detect_devices
from shoestring.hardware.free_memory import free_memory_bytes
from shoestring.testing.nvml import FakeNvml, nvml_error, tesla_p100, tesla_t4

MIB, GIB, TIB = 2**20, 2**30, 2**40
OLD = Card("Old 1", (), "some", "gpu", "old", 8 * GIB, 100e9, None, 2e12, None, "a sheet")
ECC = Card("Tesla T4", (), "some", "gpu", "turing", 16 * GIB, 320e9, 65e12, 8e12, None, "its sheet")
WIDE = Card("Old 1 16GB", (), "some", "gpu", "old", 16 * GIB, 150e9, None, 3e12, None, "its own")
CHIP = Card("Chip", (), "some", "apple", "m", None, 200e9, 5e12, 5e12, 10, "a page")
IGPU = Card("Graphics 7", (), "some", "igpu", "g", None, 90e9, None, 8e12, None, "a sheet")
CPU = Card("CPU 9", (), "some", "cpu", "x86", None, 50e9, None, 1e12, 8, "a data sheet")
XTX = Card("7900xtx", (), "some", "gpu", "rdna", 24 * GIB, 960e9, None, None, None, "a sheet")
CARDS = {card.name.lower(): card for card in (OLD, WIDE, ECC, CHIP, IGPU, CPU, XTX)}


def find(text: str) -> Card | None:
    """Look a card up in a catalogue of seven."""
    return CARDS.get({"t4": "tesla t4"}.get(text.lower(), text.lower()))


def parse(text: str):
    """Parse one device with that catalogue."""
    return parse_device(text, find=find)


def test_a_known_card_brings_all_its_facts():
    """The driver's share is taken off its memory, and its sheet is named."""
    device = parse("old 1")
    assert (device.name, device.kind, device.title) == ("Old 1", "gpu", "Old 1")
    assert device.total_bytes == 8 * GIB
    assert device.memory_bytes == 8 * GIB - 368 * MIB
    assert device.bandwidth_bytes_per_s == 100e9
    assert device.compute_flops == 2e12
    assert (device.generation, device.source) == ("old", "a sheet")
    assert (device.link_latency_s, device.link_bytes_per_s) == (0, None)


@pytest.mark.parametrize("text", ["t4", "t4:16GiB", "T4:15GiB:320GB/s"])
def test_a_t4_has_what_llama_cpp_finds_on_one(text):
    """Of its 16 GiB error correction takes a sixteenth, driver and context 368 MiB."""
    assert parse_device(text).memory_bytes == 14_992 * MIB
    assert parse(text).memory_bytes == 14_992 * MIB


def test_what_is_given_by_hand_wins_over_the_catalogue():
    """Memory and bandwidth are replaced, the rest stays, and the source says which is which."""
    device = parse("t4:8GiB:100 GB/s")
    assert (device.total_bytes, device.bandwidth_bytes_per_s) == (8 * GIB, 100e9)
    assert (device.compute_flops, device.generation) == (65e12, "turing")
    assert device.source == "memory and bandwidth as given; else its sheet"
    assert parse("t4:8GiB").source == "memory as given; else its sheet"
    assert parse("t4:15GiB:320GB/s") == parse("t4")


def test_a_card_that_nobody_knows_is_what_its_text_says():
    """Nothing else is made up: no compute, no generation."""
    device = parse("odd card (2):8GiB:256GB/s")
    assert (device.name, device.source) == ("odd card (2)", "as given")
    assert (device.compute_flops, device.generation) == (None, None)


@pytest.mark.parametrize(
    ("text", "name", "bandwidth"),
    [
        ("a100:80GiB", "A100 80GB", 1935e9),
        ("a100", "A100 40GB", 1555e9),
        ("rtx 3080:12GiB", "RTX 3080 12GB", 912e9),
        ("rtx 3080:12GB", "RTX 3080 12GB", 912e9),
        ("rtx 3060:8GiB", "RTX 3060 8GB", 240e9),
        ("rtx 3060:7GiB", "RTX 3060", 360e9),
        ("rtx 4060 ti:16380MiB", "RTX 4060 Ti 16GB", 288e9),
        ("peer:rtx 3060:8GiB:20ms", "peer:RTX 3060 8GB", 240e9),
    ],
)
def test_a_size_chooses_among_the_cards_of_a_name(text, name, bandwidth):
    """Where the catalogue has one of that size; else it is a part of the bare one."""
    device = parse_device(text)
    assert (device.name, device.bandwidth_bytes_per_s) == (name, bandwidth)


def test_a_card_of_another_size_brings_its_own_facts():
    """Its compute and its sheet too; only the memory is said to be given where it is its own."""
    device = parse("old 1:16GiB")
    assert (device.compute_flops, device.total_bytes, device.source) == (3e12, 16 * GIB, "its own")
    assert parse("old 1:16GB").source == "memory as given; else its own"


@pytest.mark.parametrize("name", ["ram", "cpu", "RAM"])
def test_ram_may_lack_a_bandwidth_and_says_so(name):
    """It can be measured; a gibibyte is left to the system."""
    device = parse(f"{name}:32GiB")
    assert (device.name, device.kind, device.memory_bytes) == ("cpu", "cpu", 31 * GIB)
    assert device.bandwidth_bytes_per_s is None
    assert "calibrate" in device.source
    assert parse(f"{name}:32GiB:40GB/s").bandwidth_bytes_per_s == 40e9


@pytest.mark.parametrize(
    ("total", "lent"),
    [("16GB", 10_666_666_666), ("32GiB", 32 * GIB * 2 // 3), ("64GiB", 48 * GIB)],
)
def test_metal_lends_a_part_of_an_apple_chips_memory(total, lent):
    """Two thirds, and three quarters of a large one, as its drivers say."""
    assert parse(f"chip:{total}").memory_bytes == lent


def test_graphics_in_ram_leave_the_system_its_share():
    """As of RAM: a gibibyte, and no driver's 368 MiB."""
    device = parse("graphics 7:32GiB")
    assert (device.kind, device.memory_bytes) == ("gpu", 31 * GIB)


@pytest.mark.parametrize(
    ("text", "gib"),
    [("m4 max 128gb", 128), ("M4 Max 128GB:128GiB", 128), ("raspberry pi 5 8gb", 8),
     ("gb10:128GiB", 128), ("dgx spark 128gb", 128)],
)  # fmt: skip
def test_a_size_in_the_name_is_that_of_what_comes_with_several(text, gib):
    """It is not dropped: on a box 128 GB of such memory are 128 GiB."""
    assert parse_device(text).total_bytes == gib * GIB


@pytest.mark.parametrize(
    ("texts", "wrong", "chip"),
    [
        (["apple m2:16GiB", "ram:16GiB"], "ram:16GiB", "Apple M2"),
        (["cpu:8GiB:40GB/s", "t4", "2xradeon 780m:32GiB"], "cpu:8GiB:40GB/s", "Radeon 780M"),
        (["gb10:128GiB", "ryzen 7 7840hs:16GiB"], "ryzen 7 7840hs:16GiB", "GB10"),
    ],
)
def test_one_memory_is_not_counted_twice(texts, wrong, chip):
    """A chip that computes in the machine's RAM has it already."""
    with pytest.raises(BadValueError) as caught:
        parse_devices(texts)
    assert str(caught.value) == (
        f"--device {wrong}: {chip} computes in the machine's own RAM; leave ram out"
    )


def test_a_chip_elsewhere_has_a_memory_of_its_own():
    """A peer's RAM is not this machine's, and graphics with memory of their own leave RAM alone."""
    texts = ["t4", "ram:16GiB", "peer:apple m2:16GiB:5ms"]
    assert [device.kind for device in parse_devices(texts)] == ["gpu", "cpu", "peer"]


@pytest.mark.parametrize(
    ("text", "latency_s", "link"),
    [
        ("peer:old 1:20ms", 0.02, None),
        ("peer:old 1:0.02s:1Gbit/s", 0.02, 125e6),
        ("peer:old 1:8GiB:100GB/s:500us:100MB/s", 0.0005, 100e6),
        ("peer:8GiB:100GB/s:3ms", 0.003, None),
        ("peer:old 1:3ms:8000bit/s", 0.003, 1000),
        ("peer:ram:8GiB:100GB/s:3ms", 0.003, None),
    ],
)
def test_a_peer_is_a_device_behind_a_link(text, latency_s, link):
    """Any device, then its round trip, then perhaps the rate of the link."""
    device = parse(text)
    assert device.kind == "peer"
    assert device.name.startswith("peer")
    assert device.bandwidth_bytes_per_s == 100e9
    assert (device.link_latency_s, device.link_bytes_per_s) == (latency_s, link)


def test_decimal_and_binary_units_differ():
    """GB is 10^9 and GiB 2^30, in any case; fractions are fine."""
    sizes = [parse(f"x:{size}:1GB/s").total_bytes for size in ("8GB", "8GiB", "8gib", "1.5TB")]
    assert sizes == [8 * 10**9, 8 * GIB, 8 * GIB, 1_500_000_000_000]
    assert parse("x:512 MiB:1TB/s").bandwidth_bytes_per_s == 1e12


def test_devices_of_one_name_are_numbered():
    """A count stands for so many texts, and their order is kept."""
    devices = parse_devices(["2xT4", "ram:8GiB", "t4:8GiB", "3xpeer:old 1:1ms"], find=find)
    assert [device.name for device in devices] == [
        "Tesla T4", "Tesla T4#2", "cpu", "Tesla T4#3", "peer:Old 1", "peer:Old 1#2", "peer:Old 1#3",
    ]  # fmt: skip
    assert parse_devices([spell(device) for device in devices], find=find) == devices


def test_a_card_whose_name_looks_like_a_count_is_a_card():
    """A 7900xtx is no 7900 devices."""
    assert [device.name for device in parse_devices(["7900xtx"], find=find)] == ["7900xtx"]


def test_ram_is_not_added_where_nobody_asked():
    """A plan for GPUs alone has GPUs alone."""
    assert [device.kind for device in parse_devices(["t4"], find=find)] == ["gpu"]
    assert parse_devices([], find=find) == ()


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("foo", "give its bandwidth as foo:8GiB:256GB/s"),
        ("foo:8GiB", "give its bandwidth as foo:8GiB:256GB/s"),
        ("chip", "write chip:16GiB"),
        ("graphics 7:1GiB", "the system takes 1GiB"),
        ("ram", "Write ram:32GiB"),
        ("old 1:0GiB", "between 1B and 100TiB"),
        ("old 1:-8GiB", "between 1B and 100TiB"),
        ("old 1:101TiB", "between 1B and 100TiB"),
        ("old 1:infGiB", "between 1B and 100TiB"),
        ("old 1:nanGiB", "between 1B and 100TiB"),
        ("old 1:9" + 30 * "9" + "GiB", "between 1B and 100TiB"),
        ("old 1:" + 60 * "9" + "GiB", "is no size"),
        ("old 1:8GiB:0GB/s", "between 1B/s and 100TB/s"),
        ("old 1:8GiB:101TB/s", "between 1B/s and 100TB/s"),
        ("old 1:100MiB", "the driver takes 368MiB"),
        ("ram:1GiB", "the system takes 1GiB"),
        ("", "a part is empty"),
        ("old 1::100GB/s", "a part is empty"),
        ("old 1:8GiB:", "a part is empty"),
        ("old 1:8G", "write it as 8GiB"),
        ("old 1:8", "write it as 8GiB"),
        ("old 1:8GiB:100Gb/s", "Write Gbit/s or GB/s"),
        ("old 1:100GB/s", "comes after the memory"),
        ("old 1:100GB/s:8GiB", "comes after the memory"),
        ("old 1:8GiB:100GB/s:5", "the order is NAME:MEMORY:BANDWIDTH"),
        ("old 1:20ms", "write peer:NAME"),
        ("8GiB:100GB/s", "the order is NAME:MEMORY:BANDWIDTH"),
        ("x#2:8GiB:100GB/s", "is no name"),
        ("peer:old 1", "needs one round trip"),
        ("peer", "needs one round trip"),
        ("peer:20ms", "needs one round trip"),
        ("peer:old 1:61s", "between 1ns and 60s"),
        ("peer:old 1:0ms", "between 1ns and 60s"),
        ("peer:old 1:20ms:1GB/s:4", "is too much"),
        ("peer:8GiB:20ms", "peer:8GiB:40GB/s:20ms"),
        ("peer:ram:8GiB:20ms", "peer:ram:8GiB:40GB/s:20ms"),
        ("peer:2xt4:20ms", "2xpeer:t4:20ms"),
        ("peer:peer:8GiB:9GB/s:20ms", "a peer of a peer"),
        ("0xt4", "between 1 and 64"),
        ("65xt4", "between 1 and 64"),
        ("2x", "give its bandwidth"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(text, mend):
    """One line names the text and says what to write instead."""
    with pytest.raises(BadValueError) as caught:
        parse_devices([text], find=find)
    message = str(caught.value)
    assert message.startswith("--device ")
    assert mend in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("gb10", "write gb10:16GiB"),
        ("m4 max 0gb", "between 1B and 100TiB"),
        ("m4 max 128gb:64GiB", "says 128GiB, and 64GiB is given; leave one of them out"),
    ],
)
def test_memory_that_nobody_told_or_two_told_is_refused(text, mend):
    """Of what has no size of its own, by the real catalogue."""
    with pytest.raises(BadValueError, match=mend):
        parse_device(text)


def test_a_near_miss_is_named():
    """A wrong number of a known series is most likely a slip."""
    with pytest.raises(BadValueError, match="did you mean RTX 3060"):
        parse_device("RTX 3061")


def test_ram_twice_is_refused():
    """There is one processor to a machine."""
    with pytest.raises(BadValueError, match="RAM is given twice"):
        parse_devices(["ram:8GiB", "cpu 9:16GiB"], find=find)


PIECES = st.sampled_from([
    "t4", "old 1", "chip", "ram", "cpu", "peer", "2xT4", "99xt4", "8GiB", "0GiB", "-1GB", "1e3GB",
    "100GB/s", "1Gbit/s", "8Gb/s", "20ms", "0.02s", "nan ms", "infGiB", "", " ", "x", "µs", "\n",
    "\0", "²GiB", "x" * 90,
])  # fmt: skip


@example("M\U00018cd61")
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=7).map(":".join)))
def test_any_text_is_parsed_or_refused_in_one_line(text):
    """Nothing else comes out, with the real catalogue too."""
    for catalogue in ({"find": find}, {}):
        refused, devices = "", ()
        try:
            devices = parse_devices([text], **catalogue)
        except BadValueError as error:
            refused = str(error)
        assert bool(refused) != bool(devices)
        assert refused.isprintable()
        for device in devices:
            assert 0 < device.memory_bytes < device.total_bytes
            again = parse_device(spell(device), **catalogue)
            assert replace(again, name=device.name) == device


@given(
    name=st.sampled_from(["t4", "old 1", "chip", "cpu 9", "cpu", "some card", "x-1 (b)"]),
    size=st.integers(GIB + 1, 100 * TIB),
    rate=st.floats(1, 1e14),
    latency=st.none() | st.floats(1e-9, 60),
    link=st.floats(1, 1e14),
)
def test_what_is_spelled_parses_back(name, size, rate, latency, link):
    """Every figure survives to the last digit."""
    text = f"{name}:{size}B:{rate:.30f}"[:40].rstrip(".") + "B/s"
    device = replace(parse(text), bandwidth_bytes_per_s=rate)
    if name not in {"t4", "old 1", "chip", "cpu 9"}:
        assert parse(spell(device)) == device
    device = parse(spell(device))  # of a known card the source depends on the figures
    assert (device.total_bytes, device.bandwidth_bytes_per_s) == (parse(text).total_bytes, rate)
    if latency is not None:
        peer = parse(f"peer:{spell(device)}:1ms:1GB/s")
        peer = replace(peer, link_latency_s=latency, link_bytes_per_s=link)
        again = parse(spell(peer))
        assert (again.link_latency_s, again.link_bytes_per_s) == (latency, link)
        assert parse(spell(again)) == again


CPUINFO = "processor\t: 0\nmodel name\t: {model}\nphysical id\t: 0\ncore id\t\t: 0\n\n"


def machine(root, model="Some(R) CPU 1 @ 2.00GHz", **files):
    """Write a machine of one core with 8 GiB, of which 6 are available."""
    files = {
        "proc/cpuinfo": CPUINFO.format(model=model),
        "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n",
        "proc/self/status": "Cpus_allowed_list:\t0\n",
    } | {name.replace("__", "/"): text for name, text in files.items()}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def detect(root, *gpus, said=None, ram_bytes_per_s=None, **environ):
    """Detect the devices of a machine of files, with these GPUs."""
    return detect_devices(
        root,
        say=[].append if said is None else said.append,
        environ=environ,
        nvml=FakeNvml(gpus),
        ram_bytes_per_s=ram_bytes_per_s,
    )


def test_gpus_come_first_with_what_is_free_on_them_now(tmp_path):
    """Free is what other programs left, less a context; the link is that of the slot."""
    idle, busy = tesla_t4(used_bytes=256 * MIB), tesla_t4(used_bytes=5 * GIB, pcie_width=8)
    first, second, ram = detect(machine(tmp_path), idle, busy)
    assert [device.name for device in (first, second, ram)] == ["gpu0", "gpu1", "cpu"]
    assert first.memory_bytes == 14_992 * MIB
    assert second.memory_bytes == 10 * GIB - 112 * MIB
    assert (first.bandwidth_bytes_per_s, first.generation) == (320e9, "turing")
    assert first.link_bytes_per_s == pytest.approx(15.75e9, rel=1e-3)
    assert second.link_bytes_per_s == pytest.approx(7.88e9, rel=1e-3)


def test_a_slice_of_a_card_has_not_the_cards_bandwidth(tmp_path):
    """Half a T4 bears its name; its bandwidth is unknown, and the source says why."""
    gpu, _ = detect(machine(tmp_path), tesla_t4(total_bytes=7 * GIB, pcie_generation=None))
    assert (gpu.bandwidth_bytes_per_s, gpu.generation, gpu.compute_flops) == (None, None, None)
    assert gpu.source == "NVML; 7GiB are not the memory of a Tesla T4: a part of one?"
    assert gpu.link_bytes_per_s is None


@pytest.mark.parametrize(
    ("name", "mebibytes", "bandwidth", "flops"),
    [
        ("RTX 4060 Ti", 16_380, 288e9, 88.2e12),
        ("RTX 3080", 12_288, 912e9, 122.6e12),
        ("RTX 3060", 8_192, 240e9, 51e12),
        ("RTX 5060 Ti", 8_151, 448e9, 94.8e12),
        ("RTX 2060", 12_288, 336e9, 57.4e12),
        ("RTX 3050", 6_144, 168e9, 27.1e12),
        ("RTX 3060", 12_288, 360e9, 51e12),
    ],
)
def test_one_name_of_several_sizes_is_told_apart_by_the_memory(
    tmp_path, name, mebibytes, bandwidth, flops
):
    """NVML gives all of them the same name."""
    card = tesla_t4(name=f"NVIDIA GeForce {name}", total_bytes=mebibytes * MIB)
    gpu, _ = detect(machine(tmp_path), card)
    assert (gpu.bandwidth_bytes_per_s, gpu.compute_flops) == (bandwidth, flops)
    assert "specifications" in gpu.source


def test_a_card_that_the_catalogue_lacks_has_no_bandwidth(tmp_path):
    """It is a device all the same."""
    gpu, _ = detect(machine(tmp_path), tesla_t4(name="NVIDIA Something New 1"))
    assert gpu.bandwidth_bytes_per_s is None
    assert "not in the catalogue" in gpu.source


def test_a_full_gpu_has_nothing_free(tmp_path):
    """Never less than nothing."""
    gpu, _ = detect(machine(tmp_path), tesla_t4(used_bytes=15 * GIB))
    assert gpu.memory_bytes == 0


def test_a_gpu_in_ram_is_not_counted_beside_it(tmp_path):
    """Its memory is RAM: it has to be given alone, and that is said as it can be given."""
    said = []
    (ram,) = detect(machine(tmp_path), tesla_t4(name="NVIDIA GB10"), said=said)
    assert ram.kind == "cpu"
    (reason,) = said
    assert reason.startswith("GPUs: NVIDIA GB10 computes in the machine's own RAM")
    assert parse_devices([reason.rpartition(" ")[2]])[0].name == "GB10"


def test_only_visible_gpus_are_detected_in_the_variables_order(tmp_path):
    """As CUDA would show them to an engine that we start."""
    cards = [tesla_t4(uuid="GPU-a"), tesla_t4(uuid="GPU-b", used_bytes=8 * GIB)]
    devices = detect(machine(tmp_path), *cards, CUDA_VISIBLE_DEVICES="1,0")
    assert devices[0].memory_bytes < devices[1].memory_bytes
    said = []
    assert [d.name for d in detect(tmp_path, *cards, said=said, CUDA_VISIBLE_DEVICES="")] == ["cpu"]
    assert said == ["GPUs: CUDA_VISIBLE_DEVICES='' names none of the 2 GPUs here"]


def test_unlike_gpus_may_be_counted_otherwise(tmp_path):
    """CUDA puts the fastest first unless told not to: that is said."""
    said = []
    detect(machine(tmp_path), tesla_t4(), tesla_p100(), said=said)
    (reason,) = said
    assert reason.startswith("GPUs: they are unlike")
    assert reason.endswith("set CUDA_DEVICE_ORDER=PCI_BUS_ID")
    said.clear()
    detect(tmp_path, tesla_t4(), tesla_p100(), said=said, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert said == []


def test_without_a_driver_there_is_the_processor_and_the_reason(tmp_path):
    """Once, although the driver is asked for facts and for use; and how to give other GPUs."""
    said = []
    missing = FakeNvml(init_error=nvml_error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    devices = detect_devices(machine(tmp_path), say=said.append, environ={}, nvml=missing)
    assert [device.name for device in devices] == ["cpu"]
    assert said[0] == "GPUs: NVML: NVML Shared Library Not Found"
    (other,) = said[1:]
    assert other.startswith("GPUs: those of other makers than NVIDIA are not looked for")
    assert parse_devices([other.split("'")[1]])[0].name == "Apple M4 Max"


def test_ram_is_what_is_available_now(tmp_path):
    """The processor is named without marks; no bandwidth is invented for it."""
    (ram,) = detect(machine(tmp_path))
    assert (ram.memory_bytes, ram.total_bytes) == (6 * GIB, 8 * GIB)
    assert ram.title == "Some CPU 1, 1 cores"
    assert ram.bandwidth_bytes_per_s is None
    assert "calibrate" in ram.source


def test_a_measured_bandwidth_wins(tmp_path):
    """It is of this machine, whatever a catalogue says."""
    (ram,) = detect(machine(tmp_path, "AMD Ryzen 9 7950X"), ram_bytes_per_s=42e9)
    assert ram.bandwidth_bytes_per_s == 42e9
    assert "measured here" in ram.source


def test_a_processor_is_known_as_its_kernel_spells_it(tmp_path):
    """With its generation; what its sheet says of all its cores is what is lent here."""
    files = {"proc/cpuinfo": 24 * CPUINFO.format(model="13th Gen Intel(R) Core(TM) i9-13900K"),
             "proc/self/status": "Cpus_allowed_list:\t0-23\n"}  # fmt: skip
    (ram,) = detect(machine(tmp_path, **files))
    assert (ram.bandwidth_bytes_per_s, ram.generation) == (89.6e9, "x86-avx2")


def test_some_cores_of_a_processor_have_not_its_bandwidth(tmp_path):
    """One core of sixteen does not read at the rate of all channels."""
    (ram,) = detect(machine(tmp_path, "AMD Ryzen 9 7950X 16-Core Processor"))
    assert ram.bandwidth_bytes_per_s is None
    assert "only 1 of a" in ram.source


def test_a_chips_graphics_are_not_its_processor(tmp_path):
    """What they reach, its processor may not."""
    (ram,) = detect(machine(tmp_path, "Apple M2"))
    assert (ram.bandwidth_bytes_per_s, ram.compute_flops, ram.generation) == (None, None, None)


def test_a_board_is_known_by_its_own_name(tmp_path):
    """ARM's cpuinfo has no model; the board's name finds its bandwidth."""
    board = {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
             "proc/cpuinfo": "".join(f"processor\t: {n}\n\n" for n in range(4)),
             "proc/self/status": "Cpus_allowed_list:\t0-3\n"}  # fmt: skip
    (ram,) = detect(machine(tmp_path, **board))
    assert ram.title == "Raspberry Pi 5, 4 cores"
    assert ram.bandwidth_bytes_per_s > 10e9


def test_without_a_word_about_memory_there_is_no_ram(tmp_path):
    """What is not known is not a device, and the reason is said."""
    said = []
    assert detect(machine(tmp_path, proc__meminfo="MemTotal: 8388608 kB\n"), said=said) == ()
    assert said[-1] == "RAM: the system does not say how much is free; give it as ram:32GiB"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
          "sys/fs/cgroup/a/memory.current": f"{3 * GIB}\n",
          "sys/fs/cgroup/a/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\n",
          "sys/fs/cgroup/a/b/memory.max": "max\n"}, 3 * GIB),
        ({"proc/self/cgroup": "4:memory:/job\n",
          "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GIB}\n",
          "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}\n",
          "sys/fs/cgroup/memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {MIB}\n",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, GIB + MIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}\n",
          "sys/fs/cgroup/memory.current": f"{2 * GIB}\n"}, 0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{64 * GIB}\n",
          "sys/fs/cgroup/memory.current": "1\n"}, 6 * GIB),
    ],
)  # fmt: skip
def test_a_containers_limit_bounds_what_is_free(tmp_path, files, free):
    """Limit less use, where idle cached files are no use; in both versions, at every level."""
    assert free_memory_bytes(machine(tmp_path, **files)) == free


def test_the_devices_of_this_machine_are_plausible():
    """The real one: the processor is last, with less memory free than there is."""
    devices = detect_devices(say=lambda _: None)
    assert devices[-1].name == "cpu"
    assert 0 < devices[-1].memory_bytes < devices[-1].total_bytes
    assert len({device.name for device in devices}) == len(devices)
