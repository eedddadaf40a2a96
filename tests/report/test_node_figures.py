"""Figures and tables of a node, from plain data; the times here are made up."""

from dataclasses import asdict

import pytest

from shoestring.analysis.repeatability import TOO_FEW_SESSIONS, repeatability
from shoestring.report.node_figures import session_variation, start_waterfall
from shoestring.report.node_tables import (
    fault_table,
    open_webui_table,
    repeatability_table,
    start_table,
)
from shoestring.report.style import save_figure
from shoestring.report.tabular import csv_text, plain_text

COLD = [
    [
        {"name": "start open-webui", "start_s": 1.0, "end_s": end_s},
        {"name": "first answer", "start_s": end_s, "end_s": end_s + 1.0},
    ]
    for end_s in (11.0, 14.0, 12.0)
]
WARM = [
    [
        {"name": "start open-webui", "start_s": 0.5, "end_s": 8.5},
        {"name": "first answer", "start_s": 8.5, "end_s": 9.0},
    ]
]
FIRST = [{"name": "install Open WebUI", "start_s": 0.1, "end_s": 20.0}, *COLD[0]]


def varied(metric="ttft_s", case="chat-64", sessions=((0.1, 0.3), (0.5, 0.7))):
    """Return a row of the variation, as the campaign writes it."""
    values = [list(one) for one in sessions]
    return {
        "case": case, "concurrency": 1, "metric": metric, "sessions": values,
        "repeatability": asdict(repeatability(values)),
    }  # fmt: skip


def words(drawing):
    """Return a drawing's words with plain spaces."""
    return drawing.text.replace("\xa0", " ")


DRAWN = {
    "starts": lambda: start_waterfall({"cold": COLD, "warm": WARM}),
    "sessions": lambda: session_variation([varied(), varied("decode_tokens_per_s")]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_data_give_the_same_bytes(name, tmp_path):
    """Drawn twice from the same data, SVG and PDF are byte for byte the same."""
    first, second = (
        [path.read_bytes() for path in save_figure(DRAWN[name]().figure, tmp_path / stem)]
        for stem in ("first", "second")
    )

    assert first == second


@pytest.mark.parametrize(
    "drawing",
    [start_waterfall({}), start_waterfall({"cold": []}), session_variation([]),
     session_variation([varied(sessions=((), ()))])],
)  # fmt: skip
def test_nothing_is_a_reason_not_a_frame(drawing):
    """Without data there is no figure, and it says why."""
    assert drawing.figure is None
    assert drawing.text.startswith("no ")


def test_a_bar_is_as_long_as_the_median_of_the_step():
    """Of 10, 13 and 11 s the bar has 11, and begins where the steps begin."""
    axes = start_waterfall({"cold": COLD}).figure.axes[0]
    bar = axes.patches[0]

    assert (bar.get_x(), bar.get_width()) == (1.0, 11.0)


def test_the_words_tell_the_range_and_how_often():
    """Median, least and most of each step stand in the words, and the number of starts."""
    told = words(start_waterfall({"cold": COLD, "warm": WARM}))

    assert "cold: answers in Open WebUI after 13 s (12 s to 15 s), n = 3" in told
    assert "start open-webui 11 s (10 s to 13 s)" in told
    assert "warm: answers in Open WebUI after 9 s, n = 1" in told


def test_steps_stand_in_the_order_of_the_start():
    """A step that only one kind has stands where it belongs."""
    axes = start_waterfall({"from nothing": [FIRST], "warm": WARM}).figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]

    assert names == ["install Open WebUI", "start open-webui", "first answer"]


def test_between_stands_beside_within():
    """Each panel says how much varies between the sessions, and how much within one."""
    drawing = session_variation([varied()])

    assert "TTFT (ms): between 66.1 %, within 35.4 %" in words(drawing)
    assert len(drawing.figure.axes) == 1


def test_every_request_is_a_mark_and_every_session_has_its_median():
    """Marks are in the order in which the requests were sent."""
    axes = session_variation([varied()]).figure.axes[0]
    marks, line = axes.lines[0], axes.lines[1]

    assert list(marks.get_ydata()) == pytest.approx([100, 300])
    assert list(line.get_ydata()) == pytest.approx([200, 200])


def test_a_session_without_values_leaves_its_place_empty():
    """The other sessions stay where they are; what cannot be known is said."""
    drawing = session_variation([varied(sessions=((), (0.1, 0.2)))])
    axes = drawing.figure.axes[0]

    assert list(axes.get_xticks()) == [1, 2]
    assert TOO_FEW_SESSIONS in drawing.text


def test_a_case_without_one_of_the_metrics_has_an_empty_panel():
    """A panel without data keeps its name."""
    rows = [varied(), varied("decode_tokens_per_s"), varied(case="other")]
    panels = session_variation(rows).figure.axes

    assert panels[3].get_title(loc="left") == "other"
    assert not panels[3].lines


def test_tables_hold_what_was_measured():
    """A row a step, a case, a part that was killed, a ratio."""
    rounds = [
        {"kind": "ollama", "ready_s": ready_s, "planned": 20, "rows": 20, "twice": 0,
         "missing": 0, "failed": 1, "orphans": 0}
        for ready_s in (4.0, 6.0)
    ]  # fmt: skip
    beside = [{"case": "chat-64", "metric": "ttft_s", "with": 0.2, "without": 0.1, "ratio": 2.0,
               "ci95": None}]  # fmt: skip

    assert "cold,start open-webui,3,1,11,10,13" in csv_text(start_table({"cold": COLD}))
    assert "ollama,2,5,6,40,40,0,0,2,0" in csv_text(fault_table(rounds))
    assert "chat-64,ttft_s,0.2,0.1,2,," in csv_text(open_webui_table(beside))
    assert "chat-64,ttft_s,2,4,0.4" in csv_text(repeatability_table([varied()]))


@pytest.mark.parametrize(
    "table",
    [start_table({}), fault_table([]), open_webui_table([]), repeatability_table([])],
)
def test_an_empty_table_is_a_sentence(table):
    """Nothing measured is said, not shown as an empty frame."""
    assert plain_text(table).endswith(".\n")
    assert plain_text(table).startswith(("No", "Nothing"))
