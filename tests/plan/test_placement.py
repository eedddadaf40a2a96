"""Where the parts of a model go."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.plan.machines import Machine
from shoestring.plan.memory import Demand
from shoestring.plan.placement import place

SIZES = st.integers(0, 1000)

SMALL = Demand(
    embedding_bytes=100,
    layer_bytes=(1000,) * 8,
    output_bytes=500,
    cache_bytes=(100,) * 8,
    compute_bytes=200,
    repacked_bytes=(900,) * 8 + (0,),
    tied=False,
)


def machine(*gpus: int, memory: int = 100_000) -> Machine:
    """Return a machine with so much free on each GPU and in RAM."""
    return Machine("test", "Test", gpus, memory, "a test")


def demands() -> st.SearchStrategy[Demand]:
    """Make models of a few layers."""
    return st.integers(1, 6).flatmap(
        lambda layers: st.builds(
            Demand,
            embedding_bytes=SIZES,
            layer_bytes=st.tuples(*[SIZES] * layers),
            output_bytes=st.integers(1000, 2000),  # the copy of a tied embedding and a norm
            cache_bytes=st.tuples(*[SIZES] * layers),
            compute_bytes=SIZES,
            repacked_bytes=st.tuples(*[SIZES] * (layers + 1)),
            tied=st.booleans(),
        )
    )


def test_a_model_runs_where_all_layers_fit_on_the_gpu():
    """Layers, cache, output and buffer lie there; the embedding stays in RAM."""
    placed = place(SMALL, machine(11_000))

    assert (placed.verdict, placed.gpu_layers) == ("runs", 8)
    assert (placed.gpu_bytes, placed.host_bytes) == (8 * 1100 + 500 + 200, 100)


def test_a_model_that_fits_in_part_runs_with_offload():
    """The last layers go first; the others lie in RAM with cache and buffer."""
    placed = place(SMALL, machine(5500))

    assert (placed.verdict, placed.gpu_layers) == ("runs with offload", 4)
    assert placed.gpu_bytes == 4 * 1100 + 500 + 200
    assert placed.host_bytes == 100 + 4 * 1100 + 200


def test_two_gpus_hold_what_one_does_not():
    """Each that is used needs a buffer; one that is enough is used alone."""
    assert place(SMALL, machine(6000, 6000)).compute_bytes == 2 * 200
    assert place(SMALL, machine(6000, 6000)).verdict == "runs"
    assert place(SMALL, machine(11_000, 11_000)).compute_bytes == 200


def test_a_model_too_large_for_everything_does_not_run():
    """What is left for RAM must fit there."""
    assert place(SMALL, machine(5500, memory=4000)).verdict == "does not run"
    assert place(SMALL, machine(memory=8000)).verdict == "does not run"


def test_a_repacked_copy_is_reserved_but_may_leave():
    """On processors the mapped file and its copy are reserved; only one of them has to stay."""
    placed = place(SMALL, machine(memory=12_000))

    assert placed.verdict == "runs"
    assert placed.resident_bytes == 8600 + 800 + 200
    assert placed.host_bytes == placed.resident_bytes + 8 * 900


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(9000, "runs with offload"), (9400, None), (9600, None), (9900, "runs")],
)
def test_too_close_to_a_limit_is_not_decided(free, verdict):
    """9,500 bytes are needed: within three per cent of them, on either side, it is open."""
    assert place(SMALL, machine(free)).verdict == verdict


def test_a_gpu_too_small_for_the_output_leaves_all_in_ram():
    """A tied embedding then lies there once: only a GPU needs a copy."""
    tied = replace(SMALL, tied=True, output_bytes=110)

    placed = place(tied, machine(250))
    assert (placed.verdict, placed.gpu_layers, placed.gpu_bytes) == ("runs with offload", 0, 0)
    assert placed.host_bytes == tied.file_bytes + sum(tied.cache_bytes) + 200


@settings(deadline=None)
@given(demands(), st.lists(st.integers(0, 5000), max_size=3), st.integers(0, 20_000))
def test_all_parts_are_placed(demand, gpus, memory):
    """What lies on GPUs and in RAM is the weights, the cache and the buffers, nothing twice."""
    demand = replace(demand, output_bytes=demand.embedding_bytes + demand.output_bytes)
    placed = place(demand, machine(*gpus, memory=memory))

    assert placed.total_bytes == placed.weights_bytes + placed.cache_bytes + placed.compute_bytes
    assert placed.cache_bytes == sum(demand.cache_bytes)
    assert placed.resident_bytes <= placed.host_bytes
    assert placed.gpu_bytes <= sum(gpus)


@settings(deadline=None)
@given(demands(), st.lists(st.integers(0, 5000), min_size=1, max_size=3), st.integers(0, 20_000))
def test_more_ram_is_never_worse(demand, gpus, memory):
    """A verdict that has been reached holds on a machine with more RAM, or is better."""
    order = {"does not run": 0, None: 1, "runs with offload": 2, "runs": 3}
    less = place(demand, machine(*gpus, memory=memory))
    more = place(demand, machine(*gpus, memory=2 * memory + 1))

    assert None in {less.verdict, more.verdict} or order[less.verdict] <= order[more.verdict]
