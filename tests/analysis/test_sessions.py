"""The report names every session that contributed, and why it ended."""

import copy
from dataclasses import replace

from shoestring.analysis.summary import summarise
from shoestring.measure.records import read_run
from shoestring.report.tables import run_tables
from shoestring.testing.synthetic import write_synthetic_run


def table(run) -> list[tuple]:
    """Number, end, reason and requests of each session, as the report shows them."""
    found = run_tables(run, summarise(run))["sessions"]
    keys = [column.key for column in found.columns]
    wanted = [keys.index(key) for key in ("session", "ended_utc", "end_reason", "requests")]
    return [tuple(row[place] for place in wanted) for row in found.rows]


def test_each_session_says_why_it_ended_and_what_it_measured(tmp_path):
    """Told by the session itself; a killed one has no end, and is named so."""
    run = read_run(write_synthetic_run(tmp_path / "run", blocks=2))
    (first,) = run.sessions
    sessions = [
        {**first, "session": 1, "end_reason": "session limit"},
        {**first, "session": 2, "ended_utc": None},
        {**first, "session": 3, "end_reason": "done"},
    ]
    rows = copy.deepcopy(run.rows)
    for number, row in enumerate(rows):
        row["session"] = 1 + min(number // 10, 2)
    run = replace(run, rows=rows, environment={**run.environment, "sessions": sessions})

    ended = first["ended_utc"]
    assert [
        (1, ended, "session limit", 9), (2, None, "killed", 10), (3, ended, "done", 9),
    ] == table(run)  # fmt: skip


def test_an_older_record_says_what_its_manifest_does(tmp_path):
    """Of its last session; of earlier ones nothing is known."""
    run = read_run(write_synthetic_run(tmp_path / "run"))
    (session,) = run.sessions
    two = {**run.environment, "sessions": [session, {**session, "session": 2}]}
    deadline = {**run.manifest, "status": "incomplete", "reason": "deadline of 9 s"}

    assert ["done"] == [row[2] for row in table(run)]
    assert [None, "done"] == [row[2] for row in table(replace(run, environment=two))]
    assert ["deadline of 9 s"] == [row[2] for row in table(replace(run, manifest=deadline))]
    assert [None] == [row[2] for row in table(replace(run, manifest=None))]
