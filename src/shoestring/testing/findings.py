"""What a validation of a node found, in a folder, and how it is shown.

::

    validation.json      what it is of: model, suite, machine
    start.json           steps of the first start; where the model is
    run.json             the id of the measured run
    restarts.json        steps of each full restart; the ids of their runs
    interruptions.json   the rounds of the interruption test
    pictures.json        which pictures were taken
    runs/, screenshots/  the runs themselves; the pictures

All that is shown comes from here, so a finished validation is shown without a node.
"""

from __future__ import annotations

import base64
import html
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shoestring.analysis.repeatability import session_repeatability
from shoestring.analysis.summary import summarise
from shoestring.errors import BadRunError
from shoestring.measure.records import Run, read_run
from shoestring.models.downloads import write_whole
from shoestring.plan.candidates import CANDIDATES, CONTEXTS, QUANTISATIONS
from shoestring.plan.machines import machine_of
from shoestring.report.display import Shown, show_drawing, show_table
from shoestring.report.feasibility import make_cells
from shoestring.report.feasibility_figure import feasibility
from shoestring.report.feasibility_runs import find_runs, machines_of
from shoestring.report.node_claims import NodeEvidence, claims_table
from shoestring.report.node_figures import session_variation, start_waterfall
from shoestring.report.node_tables import fault_table, repeatability_table
from shoestring.report.tabular import Column, Table
from shoestring.testing.node_rounds import what_is_wrong

if TYPE_CHECKING:
    from shoestring.report.feasibility import Cell

SCHEMA_VERSION = 1
ABOUT, RUNS, PICTURES = "validation", "runs", "screenshots"
GIB = 2**30


class Findings:
    """The folder of one validation.

    Args:
        folder: which.
        about: what ``validation.json`` holds.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about

    @classmethod
    def begin(cls, folder: Path, about: dict[str, Any]) -> Self:
        """Make the folder, or go on with what is in it.

        Raises:
            BadRunError: it holds a validation of something else, or of another machine.
        """
        if not (folder / f"{ABOUT}.json").is_file():
            (folder / RUNS).mkdir(parents=True, exist_ok=True)
            cls(folder, about).put(ABOUT, {"schema_version": SCHEMA_VERSION, **about})
        findings = cls.read(folder)
        for key, kept, now in (
            ("model", findings.about["model"], about["model"]),
            ("suite", findings.about["suite"], about["suite"]),
            ("machine", machine_of(findings.about["machine"]), machine_of(about["machine"])),
        ):
            if kept != now:
                raise BadRunError(f"{folder} was begun with another {key}: give another out")
        return findings

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what is there.

        Raises:
            BadRunError: it is no validation, or one of a newer version.
        """
        findings = cls(folder, {})
        about = findings.get(ABOUT)
        if about is None or "machine" not in about:
            raise BadRunError(f"{folder} holds no validation: {ABOUT}.json is missing or damaged")
        if about.get("schema_version") != SCHEMA_VERSION:
            raise BadRunError(f"{folder} was written by another version: update shoestring")
        return cls(folder, about)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return what a step found, or None where it was not made to its end.

        Raises:
            BadRunError: its file is damaged.
        """
        path = self.folder / f"{name}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise BadRunError(
                f"{path} is damaged: remove it, and the step is made again"
            ) from error
        return found if isinstance(found, dict) else None

    def put(self, name: str, found: dict[str, Any]) -> None:
        """Keep what a step found."""
        write_whole(self.folder / f"{name}.json", json.dumps(found, indent=1) + "\n")

    def run(self) -> Run:
        """Return the measured run.

        Raises:
            BadRunError: the node was not measured, or the run is not there.
        """
        found = self.get("run")
        if found is None:
            raise BadRunError(f"{self.folder} has no run: the node was not measured")
        return read_run(self.folder / RUNS / str(found["run_id"]))

    def machine(self) -> Shown:
        """Show what the node runs on."""
        machine = self.about["machine"]
        gpus = ", ".join(gpu["name"] for gpu in machine["gpus"])
        memory_bytes = machine["memory_bytes"]
        rows = (
            ("platform", machine["platform"]),
            ("system", machine["os"]),
            ("processor", machine["cpu"]["model"]),
            ("cores", machine["cpu"]["cores_usable"]),
            ("memory", None if memory_bytes is None else f"{memory_bytes / GIB:.1f} GiB"),
            ("GPU", gpus or f"none ({machine['gpus_unavailable']})"),
            ("model", self.about["model"]),
            ("suite", self.about["suite"]),
            ("begun", self.about["begun_utc"]),
        )
        columns = (Column("what", "What"), Column("value", "Value"))
        return show_table(Table("node_machine", "The machine", columns, rows, "It is not known."))

    def start(self) -> Shown:
        """Show the steps of the first start."""
        found = self.get("start")
        spans = {} if found is None else {"first start": [found["spans"]]}
        return show_drawing(start_waterfall(spans), "start")

    def restarts(self) -> Shown:
        """Show the steps of the restarts, beside the first start."""
        starts = {"restart": self._starts()}
        first = self.get("start")
        if first is not None:
            starts = {"first start": [first["spans"]], **starts}
        return show_drawing(start_waterfall(starts), "restarts")

    def variation(self) -> Shown:
        """Show the requests of each session, with the session's median."""
        return show_drawing(session_variation(self._variation), "variation")

    def repeatability(self) -> Shown:
        """Show the variation between sessions beside that within one."""
        return show_table(repeatability_table(self._variation))

    def interruptions(self) -> Shown:
        """Show what was killed, and what came of the runs and of the node."""
        return show_table(fault_table(self._rounds()))

    def pictures(self) -> Shown:
        """Show the pictures."""
        taken = (self.get("pictures") or {}).get("pictures", [])
        if not taken:
            why = str((self.get("pictures") or {}).get("why") or "No pictures were taken.")
            return Shown(f"<p>{html.escape(why)}</p>", why)
        shown = "".join(
            f'<figure><img style="max-width:100%" alt="{html.escape(what)}" '
            f'src="data:image/png;base64,{self._png(file)}"/>'
            f"<figcaption>{html.escape(f'{file}: {what}')}</figcaption></figure>"
            for file, what in taken
        )
        return Shown(shown, "\n".join(f"{file}: {what}" for file, what in taken))

    def matrix(self, runs: str) -> Shown:
        """Show which models run where, filled in with the runs in a folder."""
        return show_drawing(feasibility(self._cells(runs)), "feasibility")

    def claims(self, runs: str) -> Shown:
        """Show the note's claims with their verdicts."""
        evidence = NodeEvidence(
            machine=self.about["machine"],
            cells=self._cells(runs),
            model=str(self.about["model"]),
            parameters=self._parameters(),
            gpu_verdict=((self.get("start") or {}).get("gpu") or {}).get("verdict"),
            vram_peak_bytes=self._vram_peak_bytes(),
            starts_s=[max(span["end_s"] for span in spans) for spans in self._starts()],
            variation=self._variation,
            rounds=self._rounds(),
        )
        return show_table(claims_table(evidence))

    def provenance(self) -> Shown:
        """Show where all this is."""
        text = f"Everything shown is in {self.folder}, begun {self.about['begun_utc']}."
        return Shown(f"<p>{html.escape(text)}</p>", text)

    @cached_property
    def _variation(self) -> list[dict[str, Any]]:
        ids = (self.get("restarts") or {}).get("run_ids", [])
        return session_repeatability([read_run(self.folder / RUNS / one) for one in ids])

    def _starts(self) -> list[list[dict[str, Any]]]:
        return list((self.get("restarts") or {}).get("starts", []))

    def _rounds(self) -> list[dict[str, Any]]:
        rounds = (self.get("interruptions") or {}).get("rounds", [])
        return [{**one, "wrong": what_is_wrong(one)} for one in rounds]

    def _parameters(self) -> int | None:
        """Return how many weights the measured model has, where the run says it."""
        if self.get("run") is None:
            return None
        parameters = self.run().config["model"]["parameters"]
        return None if parameters is None else int(parameters)

    def _png(self, file: str) -> str:
        return base64.b64encode((self.folder / PICTURES / file).read_bytes()).decode("ascii")

    def _vram_peak_bytes(self) -> int | None:
        if self.get("run") is None:
            return None
        peak = summarise(self.run())["memory"]["vram_peak_bytes"]
        return None if peak is None else int(peak)

    def _cells(self, runs: str) -> list[Cell]:
        """Return the matrix; runs of other machines fill in their own columns."""
        found = find_runs([Path(runs)]) if runs and Path(runs).is_dir() else []
        here = machine_of(self.about["machine"])
        return make_cells(found, machines_of(found, here), CANDIDATES, QUANTISATIONS, CONTEXTS)
