"""What the cells of the notebook on the CPU service show: each method is one call, one output."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.analysis.machine import machine_facts
from shoestring.errors import BadValueError
from shoestring.measure.records import read_run
from shoestring.report import service_curves as curves
from shoestring.report import service_figures as drawn
from shoestring.report import service_tables as tables
from shoestring.report import service_trials as trials
from shoestring.report.display import PAGE_MIME, Shown, show_drawing, show_facts, show_table
from shoestring.report.plan_evidence import read_figures
from shoestring.report.service_claims import claims_table
from shoestring.report.units import number

if TYPE_CHECKING:
    from shoestring.report.service_tables import Figures


class ServicePage:
    """The second note's system, measured and judged.

    Args:
        measured: the folder of the benchmarks; a file that is missing there was not measured.
        loads: folders of finished runs, with commas between; empty: none.

    Raises:
        UserError: the folder is not there, a file in it or a run cannot be read.
    """

    def __init__(self, measured: str, *, loads: str = "") -> None:
        folder = Path(measured)
        if not folder.is_dir():
            raise BadValueError(f"measured {measured!r}: there is no such folder")
        self._files = {name: read_figures(folder, name) for name in tables.BENCHMARKS}
        self._runs = [read_run(Path(part.strip())) for part in loads.split(",") if part.strip()]

    def note_table(self) -> Shown:
        """Show the note's table: its figures beside those of its stack and of llama-server."""
        return show_table(tables.note_table(self._note))

    def pace(self) -> Shown:
        """Show times of an answer with their intervals and ratios."""
        return show_table(tables.pace_table(self._note))

    def sizes(self) -> Shown:
        """Show what the weights take, counted from the tensors."""
        return show_table(tables.size_table())

    def arithmetic(self) -> Shown:
        """Show the note's claims that arithmetic alone can judge."""
        return show_table(tables.arithmetic_table(self._note))

    def overhead(self) -> Shown:
        """Show the gateway's bars and what was measured."""
        return show_table(tables.bars_table(self._overhead, tables.OVERHEAD))

    def overhead_figure(self) -> Shown:
        """Show what each gateway adds, passes, gives from its cache and holds."""
        return show_drawing(drawn.overhead_figure(self._overhead), "gateway_overhead")

    def ttft(self) -> Shown:
        """Show TTFT through each gateway."""
        return show_table(tables.ttft_table(self._overhead))

    def rates(self) -> Shown:
        """Show what passes through each gateway, and what comes out of its cache."""
        return show_table(tables.rates_table(self._overhead))

    def memory(self) -> Shown:
        """Show the gateways' peaks of memory."""
        return show_table(tables.memory_table(self._overhead))

    def ttft_curve(self) -> Shown:
        """Show TTFT against the requests at once."""
        return show_drawing(curves.ttft_by_concurrency(self._overhead), "gateway_ttft")

    def load_curves(self) -> Shown:
        """Show output rate and TTFT of the given runs against the requests at once."""
        return show_drawing(curves.load_curves(self._runs), "gateway_loads")

    def crowd(self) -> Shown:
        """Show how honest streams fared beside those who never read."""
        return show_table(trials.crowd_table(self._crowd))

    def crowd_facts(self) -> Shown:
        """Show what those who never read cost."""
        return show_facts(trials.crowd_facts(self._crowd))

    def crowd_bars(self) -> Shown:
        """Show the crowd's bars."""
        return show_table(tables.bars_table(self._crowd, tables.CROWD))

    def campaign(self) -> Shown:
        """Show what became of each kind of request while everything was killed."""
        return show_table(trials.outcomes_table(self._campaign))

    def campaign_facts(self) -> Shown:
        """Show what was wrong, lost and refused."""
        return show_facts(trials.campaign_facts(self._campaign))

    def timeline(self) -> Shown:
        """Show the campaign in time."""
        return show_drawing(drawn.campaign_timeline(self._campaign), "gateway_campaign")

    def limits(self) -> Shown:
        """Show the most that was let through of each limit."""
        return show_table(trials.limits_table(self._campaign))

    def faults(self) -> Shown:
        """Show how long each fault lasted and how soon answers came again."""
        return show_table(trials.faults_table(self._campaign))

    def claims(self) -> Shown:
        """Show the note's claims with verdicts, reasons and tests."""
        return show_table(claims_table())

    def provenance(self) -> Shown:
        """Show where and when each file was measured."""
        facts = [("shoestring", version("shoestring"))]
        for name, figures in self._files.items():
            said = tables.not_measured(name) if figures is None else origin_of(figures)
            facts.append((f"{name}.json", said))
        facts += [("run", run.run_id) for run in self._runs]
        data = {"title": "A service on the CPU: the note's system, measured", "provenance": facts}
        return show_facts(facts, data=data, mime=PAGE_MIME)

    @property
    def _note(self) -> Figures | None:
        return self._files[tables.NOTE_TABLE]

    @property
    def _overhead(self) -> Figures | None:
        return self._files[tables.OVERHEAD]

    @property
    def _crowd(self) -> Figures | None:
        return self._files[tables.CROWD]

    @property
    def _campaign(self) -> Figures | None:
        return self._files[tables.CAMPAIGN]


def origin_of(figures: Figures) -> str:
    """Return when, on what, beside how much other work, and with which versions."""
    machine = machine_facts(figures)
    versions = {**figures["versions"], **(figures.get("peers") or {})}
    if figures.get("llama_server"):
        versions["llama-server"] = figures["llama_server"]
    where = (
        f"{machine['CPU']}, {machine['usable cores']} cores, {machine['memory']}, "
        f"{figures['machine']['os']} ({machine['platform']})"
    )
    load = f"load average at its end {number(figures['load_average_1min'])}"
    software = ", ".join(f"{name} {said or 'not run'}" for name, said in versions.items())
    return "; ".join((figures["measured_utc"], where, load, software))
