import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.hardware.visible import visible_gpus

UUIDS = ["GPU-aaaa1111", "GPU-aaaa2222", "GPU-bbbb3333"]
ALIKE = ["T4", "T4", "T4"]


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        ("0", (0,)),
        ("2,0", (2, 0)),
        (" 1 , 2 ", (1, 2)),
        ("1,1", (1,)),
        ("1,-1,2", (1,)),
        ("0,7,1", (0,)),
        ("GPU-bbbb", (2,)),
        ("GPU-aaaa2222,0", (1, 0)),
        ("0,GPU-aaaa", (0,)),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(value, indices):
    """Indices and unique beginnings of UUIDs count, up to the first that names no GPU."""
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}, UUIDS, ALIKE) == (indices, None)


def test_without_the_variable_all_are_visible():
    """No variable hides nothing."""
    assert visible_gpus({}, UUIDS, ALIKE) == ((0, 1, 2), None)


@pytest.mark.parametrize("value", ["", "-1", "none", "3", "GPU-", "GPU-aaaa", "MIG-1", "²"])
def test_a_value_that_names_no_gpu_hides_all_and_is_the_reason(value):
    """Empty and -1 are the usual ways to hide every GPU."""
    indices, reason = visible_gpus({"CUDA_VISIBLE_DEVICES": value}, UUIDS, ALIKE)
    assert indices == ()
    assert reason == f"CUDA_VISIBLE_DEVICES={value!r} names none of the 3 GPUs here"


def test_an_index_among_unlike_gpus_needs_an_order():
    """CUDA's 0 is the fastest, NVML's the first slot: rather none than the wrong one."""
    names = ["P100", "T4", "T4"]
    indices, reason = visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}, UUIDS, names)
    assert indices == ()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in reason
    ordered = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_gpus(ordered, UUIDS, names) == ((0,), None)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1,2"}, UUIDS, names) == ((0, 1, 2), None)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, UUIDS, names) == ((2,), None)


@given(st.text(alphabet="0123456789,- GPUMIab", max_size=20) | st.text(max_size=10))
def test_any_value_chooses_gpus_that_are_here_or_gives_a_reason(value):
    """Never an error, no GPU twice, and either a choice or why there is none."""
    indices, reason = visible_gpus({"CUDA_VISIBLE_DEVICES": value}, UUIDS, ALIKE)
    assert set(indices) <= {0, 1, 2}
    assert len(set(indices)) == len(indices)
    assert (reason is None) == bool(indices)
