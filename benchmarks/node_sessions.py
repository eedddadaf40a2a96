"""Is what a node's model does repeatable from one start of the node to the next?

So often the node is brought up, measured with one small suite, and taken down. How far the sessions
lie apart stands beside how far the requests of one session do, for TTFT and decode tokens/s of each
case: formulas in ``shoestring.analysis.repeatability``.

    python benchmarks/node_sessions.py [--sessions 5] [--runs FOLDER] [--figures FOLDER]
                                       [--json-out FILE]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import write_result
from shoestring.analysis.repeatability import session_repeatability
from shoestring.measure.runner import run_suite
from shoestring.report.node_tables import repeatability_table
from shoestring.report.tabular import plain_text
from shoestring.testing.node_process import MODEL, SUITE, Place, node_up

if TYPE_CHECKING:
    from shoestring.measure.records import Run


def main() -> None:
    """Measure all sessions and write how they vary."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sessions", type=int, default=5)
    arguments.add_argument("--runs", type=Path, help="keep the runs in this folder")
    arguments.add_argument("--figures", type=Path, help="draw the variation into this folder")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/node-sessions.json")
    )
    given = arguments.parse_args()
    if given.sessions < 2:
        arguments.error(f"--sessions {given.sessions}: at least 2, or nothing lies between them")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place = Place(folder / "state")
        runs, notes = [], []
        for number in range(1, given.sessions + 1):
            run, note = one_session(place, given.runs or folder / "runs")
            runs.append(run)
            notes.append({"session": number, **note})
            print(notes[-1], flush=True)
        rows = session_repeatability(runs)
    figures = {"model": MODEL, "suite": "node", "sessions": notes, "variation": rows}
    write_result(given.json_out, "node-sessions", figures)
    if given.figures is not None:
        draw(rows, given.figures)
    print(plain_text(repeatability_table(rows)))


def one_session(place: Place, out: Path) -> tuple[Run, dict[str, Any]]:
    """Bring the node up, measure it, and take it down."""
    load = os.getloadavg()[0]
    with node_up(place) as up:
        run = run_suite(SUITE, model=up.model, base_url=place.ollama_url, out=out)
    return run, {
        "run_id": run.run_id,
        "requests": len(run.measured),
        "failed": sum(row["status"] != "ok" for row in run.measured),
        "first_answer_s": up.first_answer_s,
        "load_average_1min": load,
    }


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw each session's requests with its median."""
    from shoestring.report.node_figures import session_variation
    from shoestring.report.style import save_figure

    drawing = session_variation(rows)
    assert drawing.figure is not None
    save_figure(drawing.figure, folder / "node-sessions")


if __name__ == "__main__":
    main()
