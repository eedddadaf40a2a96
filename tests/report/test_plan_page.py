"""What the notebook on planning shows."""

import json

import pytest

from shoestring.errors import BadRunError, UserError
from shoestring.report.html import render_html
from shoestring.report.notebook import execute_notebook, find_notebook
from shoestring.report.plan_evidence import here_table, memory_table, read_figures
from shoestring.report.plan_note import note_choice_table, note_sizes_table, note_tiers_table
from shoestring.report.plan_page import PlanPage

DEVICES = "t4, ram:12GiB:20GB/s"


def test_the_notebook_runs_from_top_to_bottom_and_its_page_is_whole(tmp_path):
    """Executed by papermill, rendered: no INCOMPLETE, our title, and no link to elsewhere."""
    executed, page = tmp_path / "x.ipynb", tmp_path / "x.html"
    execute_notebook(
        find_notebook("02_plan"), executed,
        {"model": "llama-3.2-1b:q4_k_m", "devices": DEVICES, "measured": ""}, progress=False,
    )  # fmt: skip
    render_html(executed, page)

    text = page.read_text()
    assert "INCOMPLETE" not in text
    assert "Plan for shape:llama-3.2-1b:q4_k_m" in text
    assert "was not run" in text


def test_what_is_wrong_is_said_before_anything_is_shown():
    """A wish, a device or a model that cannot be."""
    for wrong in ({"wish": "luck"}, {"devices": "tee4"}, {"model": "no:such"}):
        asked = {"model": "llama-3.2-1b:q4_k_m", "devices": DEVICES, "context": 512,
                 "wish": "speed", "measured": ""}  # fmt: skip
        with pytest.raises(UserError, match=r"luck|tee4|no:such"):
            PlanPage(**(asked | wrong))


def test_the_note_is_too_low_on_small_quantisations():
    """Its bits a weight against those of the tensors: q2_k has more, q8_0 the same."""
    table = note_sizes_table()
    errors = {(row[0], row[1]): row[5] for row in table.rows}

    assert errors["llama-3.1-8b", "q2_k"] < -0.1
    assert abs(errors["llama-3.1-8b", "q8_0"]) < 0.001
    assert note_tiers_table().rows


def test_the_note_chooses_what_does_not_fit():
    """On some card one of its three, by its rule of 2 GB, is more than the card holds."""
    rows = note_choice_table().rows

    chosen = [(row[2].count(",") + 1 if row[2] else 0, row[3]) for row in rows]
    assert any(fits < count for count, fits in chosen)
    assert all(fits <= count for count, fits in chosen)


def test_figures_that_were_not_taken_are_not_shown(tmp_path):
    """Without the file there is a reason; a file of something else is refused."""
    assert read_figures(tmp_path, "planner-memory") is None
    assert not memory_table(None).rows
    assert "was not run" in here_table(None).empty
    (tmp_path / "planner-memory.json").write_text(json.dumps({"benchmark": "clock"}))
    with pytest.raises(BadRunError, match="no result of planner-memory"):
        read_figures(tmp_path, "planner-memory")
