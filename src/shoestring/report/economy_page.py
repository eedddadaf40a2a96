"""What the cells of the notebook on the swarm's economy show: each method is one call."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.report import economy_figures as drawn
from shoestring.report import economy_simulated as simulated
from shoestring.report import economy_tables as tables
from shoestring.report import economy_trade as trade
from shoestring.report.display import PAGE_MIME, Shown, show_drawing, show_facts, show_table
from shoestring.report.economy_claims import ECONOMY_CLAIMS
from shoestring.report.plan_evidence import read_figures
from shoestring.report.service_claims import claims_table
from shoestring.report.service_page import origin_of
from shoestring.report.service_tables import bars_table, not_measured

if TYPE_CHECKING:
    from shoestring.report.service_tables import Figures


class EconomyPage:
    """Receipts, bills, a market and audits, as they were made and measured.

    Args:
        measured: the folder of the benchmarks; a file that is missing there was not measured.

    Raises:
        UserError: the folder is not there, or a file in it cannot be read.
    """

    def __init__(self, measured: str) -> None:
        folder = Path(measured)
        if not folder.is_dir():
            raise BadValueError(f"measured {measured!r}: there is no such folder")
        self._files = {name: read_figures(folder, name) for name in tables.BENCHMARKS}

    def sessions(self) -> Shown:
        """Show each node's session, and whether both ends keep the same."""
        return show_table(tables.sessions_table(self._economy))

    def owed(self) -> Shown:
        """Show what each node is owed after each receipt."""
        return show_drawing(drawn.owed_figure(self._economy), "economy_owed")

    def windows(self) -> Shown:
        """Show the windows with their roots."""
        return show_table(tables.windows_table(self._economy))

    def receipt(self) -> Shown:
        """Show one receipt, field by field."""
        return show_facts(tables.receipt_facts(self._economy))

    def flipped(self) -> Shown:
        """Show what became of a receipt's changed bits."""
        return show_table(tables.flipped_table(self._economy))

    def forged(self) -> Shown:
        """Show who tried what with receipts."""
        return show_table(tables.forged_table(self._economy))

    def bill(self) -> Shown:
        """Show the bill before and after."""
        return show_table(tables.bill_table(self._economy))

    def entries(self) -> Shown:
        """Show the book."""
        return show_table(tables.entries_table(self._economy))

    def book_refused(self) -> Shown:
        """Show what the book did not take."""
        return show_table(tables.book_table(self._economy))

    def book(self) -> Shown:
        """Show balances, and what verifying found."""
        return show_facts(tables.book_facts(self._economy))

    def front_figure(self) -> Shown:
        """Show price against time per token."""
        return show_drawing(drawn.front_figure(self._economy), "economy_front")

    def front(self) -> Shown:
        """Show the routes of the front."""
        return show_table(trade.front_table(self._economy))

    def requests(self) -> Shown:
        """Show what was asked for and found."""
        return show_table(trade.requests_table(self._economy))

    def reasons(self) -> Shown:
        """Show why sellers were not taken."""
        return show_table(trade.reasons_table(self._economy))

    def quotes(self) -> Shown:
        """Show which quotes are refused."""
        return show_table(trade.quotes_table(self._economy))

    def routing(self) -> Shown:
        """Show what a route over thousands takes."""
        return show_table(trade.routing_table(self._files[tables.ROUTING]))

    def cheat(self) -> Shown:
        """Show a cheat in time."""
        return show_drawing(drawn.cheat_figure(self._economy), "economy_cheat")

    def judged(self) -> Shown:
        """Show its audits."""
        return show_table(trade.judged_table(self._economy))

    def audits(self) -> Shown:
        """Show what they came to."""
        return show_facts(trade.audit_facts(self._economy))

    def cheats(self) -> Shown:
        """Show which kinds of cheats are found."""
        return show_table(trade.cheats_table(self._files[tables.AUDIT]))

    def bound(self) -> Shown:
        """Show the bound."""
        return show_drawing(drawn.bound_figure(self._files[tables.AUDIT]), "economy_bound")

    def honest(self) -> Shown:
        """Show how honest nodes fared."""
        return show_facts(trade.honest_facts(self._files[tables.AUDIT]))

    def bars(self, benchmark: str) -> Shown:
        """Show the bars of one benchmark."""
        return show_table(bars_table(self._files[benchmark], benchmark))

    def day(self) -> Shown:
        """Show what was simulated."""
        return show_facts(simulated.day_facts(self._files[tables.SIMULATION]))

    def day_figure(self) -> Shown:
        """Show the simulated day in time."""
        return show_drawing(simulated.day_figure(self._files[tables.SIMULATION]), "economy_day")

    def answers(self) -> Shown:
        """Show what simulated answers cost and took."""
        return show_table(simulated.answers_table(self._files[tables.SIMULATION]))

    def income_figure(self) -> Shown:
        """Show income by device, and what attackers got."""
        return show_drawing(
            simulated.income_figure(self._files[tables.SIMULATION]), "economy_income"
        )

    def income(self) -> Shown:
        """Show who earned what."""
        return show_table(simulated.income_table(self._files[tables.SIMULATION]))

    def found(self) -> Shown:
        """Show how soon simulated cheats were found."""
        return show_table(simulated.found_table(self._files[tables.SIMULATION]))

    def attacks(self) -> Shown:
        """Show what attacks changed."""
        return show_table(simulated.attacks_table(self._files[tables.SIMULATION]))

    def claims(self) -> Shown:
        """Show the note's claims with verdicts, reasons and tests."""
        return show_table(claims_table(ECONOMY_CLAIMS))

    def provenance(self) -> Shown:
        """Show where and when each file was measured."""
        facts = [("shoestring", version("shoestring"))]
        for name, figures in self._files.items():
            said = not_measured(name) if figures is None else origin_of(figures)
            facts.append((f"{name}.json", said))
        data = {"title": "Layers for sale: receipts, bills and audits", "provenance": facts}
        return show_facts(facts, data=data, mime=PAGE_MIME)

    @property
    def _economy(self) -> Figures | None:
        return self._files[tables.ECONOMY]
