"""The validation of a node, step by step, as the notebook ``kaggle_inference_validation`` calls it.

Each step leaves what it found in the validation's folder (:mod:`shoestring.testing.findings`), so a
validation that was cut goes on where it was: what is there is not made again. The node is this
user's own, at the usual ports where they are free.
"""

from __future__ import annotations

import atexit
import random
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.hardware.machine import describe_machine
from shoestring.hardware.platforms import detect_platform
from shoestring.measure.runner import run_suite
from shoestring.measure.suite import load_suite
from shoestring.measure.writer import utc_now
from shoestring.models.fetch import say_on_stderr
from shoestring.models.names import parse_model_name
from shoestring.paths import state_dir
from shoestring.report.display import Report
from shoestring.stack.bringing_up import OLLAMA_PORT, OPEN_WEBUI_PORT
from shoestring.stack.credentials import read_credentials
from shoestring.stack.node import OLLAMA, OPEN_WEBUI, node_folder, read_node
from shoestring.stack.ports import choose_port
from shoestring.testing.findings import ABOUT, PICTURES, RUNS, Findings
from shoestring.testing.node_process import SUITE, Place, bring_up, take_down
from shoestring.testing.node_rounds import ids_of_an_undisturbed_run, one_round, order

if TYPE_CHECKING:
    from shoestring.measure.records import Run
    from shoestring.testing.node_process import Up

KINDS = ("ollama", "runner", "open-webui", "session")
"""What the interruption test kills. (The kernel of a notebook is what runs it here.)"""
SEED = 1


class Validation:
    """One validation; without a place it only shows what was found.

    Args:
        findings: of its folder.
        place: where its node lives, or None.
    """

    def __init__(self, findings: Findings, place: Place | None) -> None:
        self.findings = findings
        self._place = place

    @classmethod
    def begin(cls, out: str, *, model: str, suite: str) -> Self:
        """Begin a validation below a folder, or go on with the one of this model and suite.

        Raises:
            UserError: the model, the suite or the folder cannot be used; nothing was started.
        """
        parse_model_name(model)
        load_suite(suite)
        if not out or (Path(out).exists() and not Path(out).is_dir()):
            raise BadValueError(f"out = {out!r} is no folder: name the one that shall hold it")
        plain = re.sub(r"[^a-z0-9.]+", "-", f"{model}-{Path(suite).stem}".lower())
        about = {
            "begun_utc": utc_now(), "model": model, "suite": suite, "machine": describe_machine(),
        }  # fmt: skip
        folder = Path(out) / f"validation-{plain}"
        _bring_back(folder)
        findings = Findings.begin(folder, about)
        if read_node(node_folder()) is not None and findings.get("start") is None:
            raise BadValueError("a node is up that is not this validation's: shoestring down first")
        place = _place(model)
        validation = cls(findings, place)
        atexit.register(validation.end)  # a notebook that failed leaves no node behind
        return validation

    @classmethod
    def read(cls, folder: str) -> Self:
        """Read a validation, finished or not, to show it.

        Raises:
            BadRunError: the folder holds none.
        """
        return cls(Findings.read(Path(folder)), None)

    def start(self) -> None:
        """Bring the node up from what there is on this machine; what is missing is installed."""
        if self._place is None:
            return
        up = bring_up(self._place)
        if self.findings.get("start") is None:
            self.findings.put("start", {"spans": up.spans, "gpu": up.said["gpu"]})

    def measure(self) -> Report:
        """Measure the node with the suite, or go on; return the report of the run."""
        if self._place is None or self.findings.get("run") is not None:
            return Report(self.findings.run())
        up = bring_up(self._place)
        run = self._measure(up, self._place, str(self.findings.about["suite"]), resume=True)
        if run.complete:
            self.findings.put("run", {"run_id": run.run_id})
        return Report(run)

    def restart(self, times: int) -> None:
        """Take the node down and bring it up so often, and measure each session."""
        found: dict[str, Any] = self.findings.get("restarts") or {"starts": [], "run_ids": []}
        while self._place is not None and len(found["starts"]) < times:
            take_down(self._place)
            up = bring_up(self._place)
            run = self._measure(up, self._place, SUITE, resume=False)
            if not run.complete:
                raise ShoestringError(
                    f"the run of restart {len(found['starts']) + 1} was cut "
                    f"({run.incomplete_reason}): run this notebook again, it goes on from here"
                )
            found["starts"].append(up.spans)
            found["run_ids"].append(run.run_id)
            self.findings.put("restarts", found)

    def interrupt(self, rounds: int) -> None:
        """Kill parts of the node while it is measured, in so many rounds."""
        found: dict[str, Any] = self.findings.get("interruptions") or {"rounds": []}
        if self._place is None or len(found["rounds"]) >= rounds:
            return
        rng = random.Random(SEED + len(found["rounds"]))
        left = order(rounds - len(found["rounds"]), list(KINDS), rng)
        folder, model = self.findings.folder / "interrupted", bring_up(self._place).model
        ids = ids_of_an_undisturbed_run(folder, model, self._place)
        for kind in left:
            out = folder / f"{len(found['rounds']) + 1}-{kind}"
            seen = one_round(kind, out, model, self._place, ids, rng)
            if not seen["complete"]:
                shutil.rmtree(out)
                raise ShoestringError(
                    f"the run of round {len(found['rounds']) + 1} was not completed: run this "
                    "notebook again, it goes on from here"
                )
            found["rounds"].append(seen)
            self.findings.put("interruptions", found)

    def take_pictures(self, wanted: bool) -> None:  # noqa: FBT001 - a parameter of the notebook
        """Have a real browser take pictures of the node, if they are wanted."""
        if self._place is None or not wanted or self.findings.get("pictures") is not None:
            return
        from shoestring.stack.screenshots import Pictured, take_screenshots

        up = bring_up(self._place)
        node = Pictured(
            self._place.ollama_url,
            self._place.webui_url,
            up.said["model"]["name"],
            read_credentials(self._place.folder),
        )
        run_id = (self.findings.get("run") or {}).get("run_id")
        try:
            taken = take_screenshots(
                self.findings.folder / PICTURES, node, run=run_id, say=say_on_stderr
            )
        except MissingError as error:  # no browser here: the claims do not rest on pictures
            self.findings.put("pictures", {"pictures": [], "why": str(error)})
            return
        self.findings.put("pictures", {"pictures": [[one.file, one.what] for one in taken]})

    def end(self) -> None:
        """Take the node down; what the user brings up afterwards is theirs."""
        atexit.unregister(self.end)
        if self._place is not None:
            take_down(self._place)

    def _measure(self, up: Up, place: Place, suite: str, *, resume: bool) -> Run:
        return run_suite(
            suite,
            model=up.model,
            base_url=place.ollama_url,
            out=self.findings.folder / RUNS,
            resume=resume,
        )


def _bring_back(folder: Path) -> None:
    """Copy what an earlier session of the platform found, where its output is attached."""
    if folder.exists():
        return
    for place in detect_platform().inputs:
        for found in sorted(place.glob(f"*/**/{folder.name}/{ABOUT}.json")):
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(found.parent, partial)
            partial.rename(folder)
            return


def _place(model: str) -> Place:
    """Return where this user's node is, or will be: at the usual ports or the next free ones."""
    node = read_node(node_folder())
    ports = {} if node is None else {
        service.name: int(service.url.rpartition(":")[2]) for service in node.services
    }  # fmt: skip
    return Place(
        state_dir(),
        model=model,
        ollama_port=ports.get(OLLAMA) or choose_port(None, OLLAMA_PORT, "--ollama-port"),
        webui_port=ports.get(OPEN_WEBUI) or choose_port(None, OPEN_WEBUI_PORT, "--webui-port"),
    )
