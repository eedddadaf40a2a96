"""What the cells of the notebook on the swarm show: each method is one call, one output."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.report import swarm_examples as examples
from shoestring.report import swarm_figures as drawn
from shoestring.report import swarm_tables as tables
from shoestring.report.display import PAGE_MIME, Shown, show_drawing, show_facts, show_table
from shoestring.report.plan_evidence import read_figures
from shoestring.report.service_claims import claims_table
from shoestring.report.service_page import origin_of
from shoestring.report.service_tables import bars_table, not_measured
from shoestring.report.swarm_claims import swarm_claims
from shoestring.report.swarm_live import measure_here

if TYPE_CHECKING:
    from shoestring.report.service_tables import Figures


class SwarmPage:
    """The third note's system, measured and judged.

    Args:
        measured: the folder of the benchmarks; a file that is missing there was not measured.
        live: measure round trips here and now, at a small scale, in place of the file of them.

    Raises:
        UserError: the folder is not there, a file in it cannot be read, or nothing can be measured
            here.
    """

    def __init__(self, measured: str, *, live: bool = False) -> None:
        folder = Path(measured)
        if not folder.is_dir():
            raise BadValueError(f"measured {measured!r}: there is no such folder")
        self._files = {name: read_figures(folder, name) for name in tables.BENCHMARKS}
        if live:
            self._files[tables.SCALING] = measure_here()

    def round_trips(self) -> Shown:
        """Show a token's time against the round trip."""
        return show_drawing(drawn.round_trip_figure(self._of(tables.SCALING)), "swarm_round_trips")

    def scaling(self) -> Shown:
        """Show the same in numbers, with the round trips that were fitted."""
        return show_table(tables.scaling_table(self._of(tables.SCALING)))

    def scaling_facts(self) -> Shown:
        """Say whether the texts were the same, and why a prediction is missing."""
        figures = self._of(tables.SCALING)
        return show_facts([*tables.text_facts(figures), *tables.prediction_facts(figures)])

    def predicted(self) -> Shown:
        """Show the planner beside what was measured."""
        return show_table(tables.predicted_table(self._of(tables.SCALING)))

    def chain(self) -> Shown:
        """Show the bars of the chain."""
        return show_table(bars_table(self._of(tables.CHAIN), tables.CHAIN))

    def overhead(self) -> Shown:
        """Show what ours adds beside raw RPC."""
        return show_table(tables.overhead_table(self._of(tables.OVERHEAD)))

    def overhead_bars(self) -> Shown:
        """Show the bars of that."""
        return show_table(bars_table(self._of(tables.OVERHEAD), tables.OVERHEAD))

    def processor_figure(self) -> Shown:
        """Show who works for a token."""
        return show_drawing(drawn.processor_figure(self._of(tables.PARTS)), "swarm_processor")

    def processor(self) -> Shown:
        """Show the same in numbers, and the bytes of the link."""
        return show_table(tables.processor_table(self._of(tables.PARTS)))

    def work(self) -> Shown:
        """Show what each part of ours takes of a token's frames."""
        return show_table(tables.work_table(self._of(tables.PARTS)))

    def frames(self) -> Shown:
        """Show a token on the wire, by kind."""
        return show_table(tables.frames_table(self._of(tables.PARTS)))

    def timeline(self) -> Shown:
        """Show when tokens came while a node was lost."""
        return show_drawing(drawn.timeline_figure(self._of(tables.TIMELINE)), "swarm_timeline")

    def rounds(self) -> Shown:
        """Show these rounds in numbers."""
        return show_table(tables.rounds_table(self._of(tables.TIMELINE)))

    def gaps(self) -> Shown:
        """Show the whole campaign of losses."""
        return show_table(tables.gaps_table(self._of(tables.FAULTS)))

    def faults_bars(self) -> Shown:
        """Show the bars of the campaign."""
        return show_table(bars_table(self._of(tables.FAULTS), tables.FAULTS))

    def devices(self, example: str) -> Shown:
        """Show what each device of one of the note's examples held."""
        return show_table(examples.devices_table(self._of(tables.EXAMPLES), example))

    def choice(self, example: str) -> Shown:
        """Show who was chosen, and why."""
        return show_facts(examples.choice_facts(self._of(tables.EXAMPLES), example))

    def ways(self) -> Shown:
        """Show a token of each example, planned and measured."""
        return show_table(examples.ways_table(self._of(tables.EXAMPLES)))

    def hops_figure(self) -> Shown:
        """Show the bytes of a hop beside the note's."""
        return show_drawing(drawn.hops_figure(self._of(tables.PARTS)), "swarm_hops")

    def hops(self) -> Shown:
        """Show the same in numbers."""
        return show_table(examples.hops_table(self._of(tables.PARTS)))

    def loads(self) -> Shown:
        """Show what weights cost the wire."""
        return show_table(tables.loads_table(self._of(tables.LOADS)))

    def claims(self) -> Shown:
        """Show the note's claims with verdicts, reasons and tests."""
        return show_table(claims_table(swarm_claims(self._files)))

    def provenance(self) -> Shown:
        """Show where and when each file was measured."""
        facts = [("shoestring", version("shoestring"))]
        for name, figures in self._files.items():
            said = not_measured(name) if figures is None else origin_of(figures)
            facts.append((f"{name}.json", said))
        data = {"title": "A model over peers: the note's swarm, measured", "provenance": facts}
        return show_facts(facts, data=data, mime=PAGE_MIME)

    def _of(self, benchmark: str) -> Figures | None:
        return self._files[benchmark]
