"""Which machine a description is of."""

import pytest

from shoestring.plan.machines import CATALOGUE, machine_of

GIBIBYTE = 1 << 30
T4 = {"name": "Tesla T4", "vram_bytes": 15 * GIBIBYTE}
P100 = {"name": "Tesla P100-PCIE-16GB", "vram_bytes": 16 * GIBIBYTE}
XEON = {"model": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores_usable": 2.0}


def described(*gpus, platform="kaggle", memory=31.36):
    """Return a description as a run holds it."""
    return {
        "platform": platform, "cpu": XEON, "memory_bytes": int(memory * GIBIBYTE),
        "gpus": list(gpus),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("description", "name"),
    [
        (described(T4, platform="colab", memory=11.8), "t4"),
        (described(T4, platform="local", memory=12), "t4"),
        (described(T4, T4), "2xt4"),
        (described(P100), "p100"),
        (described(), "kaggle-cpu"),
    ],
)
def test_a_machine_of_the_catalogue_is_known_by_its_hardware(description, name):
    """GPUs and RAM decide; without a GPU the platform, too."""
    assert machine_of(description).name == name


@pytest.mark.parametrize(
    ("description", "title"),
    [
        (described(platform="local"), "Intel Xeon, 2 cores, 31 GiB RAM"),
        (described(memory=64), "Intel Xeon, 2 cores, 64 GiB RAM"),
        (described(T4, memory=64), "Tesla T4 15 GiB, Intel Xeon, 2 cores, 64 GiB RAM"),
        (described(T4), "Tesla T4 15 GiB, Intel Xeon, 2 cores, 31 GiB RAM"),
        (
            described(T4, T4, memory=13),
            "Tesla T4 15 GiB, Tesla T4 15 GiB, Intel Xeon, 2 cores, 13 GiB RAM",
        ),
        (
            described({**T4, "vram_bytes": 7 * GIBIBYTE}, memory=12),
            "Tesla T4 7 GiB, Intel Xeon, 2 cores, 12 GiB RAM",
        ),
        (
            described({**P100, "vram_bytes": 12 * GIBIBYTE}),
            "Tesla P100-PCIE-16GB 12 GiB, Intel Xeon, 2 cores, 31 GiB RAM",
        ),
        (
            described({"name": "NVIDIA H100 80GB HBM3", "vram_bytes": 80 * GIBIBYTE}),
            "NVIDIA H100 80GB HBM3 80 GiB, Intel Xeon, 2 cores, 31 GiB RAM",
        ),
        (
            described(T4, P100),
            "Tesla T4 15 GiB, Tesla P100-PCIE-16GB 16 GiB, Intel Xeon, 2 cores, 31 GiB RAM",
        ),
    ],
)
def test_any_other_machine_is_named_after_its_parts(description, title):
    """A larger card, or a processor elsewhere, is never taken for one of the catalogue."""
    machine = machine_of(description)

    assert machine.title == title
    assert machine.name not in {one.name for one in CATALOGUE}


def test_a_machine_that_does_not_say_its_memory_is_none():
    """Nothing is guessed."""
    assert machine_of({**described(), "memory_bytes": None}) is None
    assert machine_of(described({"name": "Tesla T4", "vram_bytes": None})) is None
    assert machine_of({}) is None
