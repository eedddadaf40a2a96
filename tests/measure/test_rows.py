"""A row holds what was planned and what arrived, in the session's own time."""

from shoestring.engines.protocol import Event, Generation, NativeTimings
from shoestring.measure.prompting import PromptText
from shoestring.measure.rows import make_row
from shoestring.measure.schedule import Planned
from shoestring.measure.shapes import MORE_OF_ROW, ROW, misfit

GENERATION = Generation(
    intended_ns=1_500, sent_ns=1_700, headers_ns=1_800, end_ns=2_000, connect_s=0.1,
    http_status=200, events=(Event(1_900, "answer", 2),), failure=None,
    native=NativeTimings(load_s=0.5, total_s=0.9),
)  # fmt: skip


def row(arrival_s: float | None) -> dict:
    """The row of a request that was meant to leave then."""
    return make_row(
        Planned("a", 1, "c", 2, arrival_s), GENERATION, session=1, phase="measure",
        origin_ns=1_000, prompt=PromptText("b", 3, ("x", "y")), max_tokens=8,
    )  # fmt: skip


def test_a_row_says_when_it_was_meant_to_leave():
    """An open loop's moment is in the row; a closed loop has none."""
    assert (0.25, None) == (row(0.25)["arrival_s"], row(None)["arrival_s"])
    assert (500, 700, [[900, "answer", 2]]) == (
        row(0.25)["intended_ns"], row(0.25)["sent_ns"], row(0.25)["events"]
    )  # fmt: skip


def test_a_row_has_the_shape_that_readers_need():
    """What is written is what is read, with the engine's own times."""
    assert misfit(row(0.25), {**ROW, **MORE_OF_ROW}) is None
    assert (0.5, 0.9, None) == (
        row(None)["native"]["load_s"], row(None)["native"]["total_s"],
        row(None)["native"]["decode_s"],
    )  # fmt: skip
