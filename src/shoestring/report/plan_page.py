"""What the cells of the notebook on planning show: each method is one call and one output."""

from __future__ import annotations

import html
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from shoestring.engines.outlines import find_model
from shoestring.errors import BadValueError
from shoestring.hardware.device_words import parse_devices, spell
from shoestring.models.outline import outline_of_shape
from shoestring.plan.choosing import choose
from shoestring.plan.memory import Settings
from shoestring.plan.pareto import Wish
from shoestring.plan.planner import Ask, make_plan
from shoestring.plan.speed_constants import load_constants
from shoestring.report import plan_evidence as evidence
from shoestring.report import plan_note
from shoestring.report.display import (
    PAGE_MIME,
    Shown,
    show_drawing,
    show_facts,
    show_table,
)
from shoestring.report.drawing import Drawing
from shoestring.report.plan_figure import memory_figure
from shoestring.report.plan_machine import find_devices
from shoestring.report.planning import choices_table, commands, speed_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.hardware.devices import Device
    from shoestring.plan.planner import Plan

SHOWN: Final = 20
"""Rows of a choice."""
NOTE_DEVICES: Final = ("gtx 1050 ti", "rtx 2080", "gtx 1060 6GB", "ram:64GiB:68GB/s")
NOTE_MODEL: Final = "qwen2.5-32b:q4_k_m"
NOTE_SHARES: Final = (1.5, 4.5, 3.0)
NOTE_GPU_LAYERS: Final = 40


class PlanPage:
    """A plan and its evidence.

    Args:
        model: as :func:`shoestring.engines.outlines.find_model` takes it.
        devices: as after ``--device``, with commas between; empty: this machine.
        context: tokens of each request.
        wish: what a choice is sorted by.
        measured: the folder of the planner's benchmarks; empty: none is shown.

    Raises:
        UserError: one of them cannot be used.
    """

    def __init__(self, model: str, *, devices: str, context: int, wish: Any, measured: str) -> None:
        if wish not in get_args(Wish):
            raise BadValueError(f"wish {wish!r}: give one of {', '.join(get_args(Wish))}")
        self._found = find_model(model)
        self._context, self._wish = context, wish
        self._measured = Path(measured) if measured else None
        self._said: list[str] = []
        named = [part.strip() for part in devices.split(",") if part.strip()]
        self._devices, self._constants = find_devices(named, self._said.append)

    def devices(self) -> Shown:
        """Show what there is to plan for, and where its figures are from."""
        lines = [f"{spell(device)}: {device.source}" for device in self._devices] + self._said
        return _show_lines(lines)

    def plan(self) -> Shown:
        """Show what each device holds."""
        return show_table(evidence.plan_table(self._plan))

    def picture(self) -> Shown:
        """Show where the memory goes."""
        if not self._plan.fits:
            return show_drawing(Drawing.missing(self._plan.rejected[0]), "plan_memory")
        words = "Memory of each device: weights, KV cache, buffers, and the frame of what was free."
        return show_drawing(Drawing(memory_figure(self._plan), words), "plan_memory")

    def speed(self) -> Shown:
        """Show the predicted speeds with their intervals."""
        return show_table(speed_table(self._plan))

    def commands(self) -> Shown:
        """Show what starts it in each engine."""
        if not self._plan.fits:
            return _show_lines(list(self._plan.rejected))
        # A page is shown to others: a folder of this machine's cache is none of their business.
        given = self._found.name.startswith("file:")
        lines = commands(self._plan, self._found.path if given else None)
        text = "\n\n".join(f"# {name}\n{line}" for name, line in lines.items())
        return Shown(f"<pre>{html.escape(text)}</pre>", text)

    def choices(self) -> Shown:
        """Show the Pareto set for these devices."""
        chosen, fitting = choose(
            self._devices, Settings(context=self._context), self._wish, self._constants
        )
        return show_table(choices_table(chosen, fitting, self._wish, SHOWN))

    def note_sizes(self) -> Shown:
        """Show the note's sizes beside the true ones."""
        return show_table(plan_note.note_sizes_table())

    def note_tiers(self) -> Shown:
        """Show how often the note's expected speeds hold."""
        return show_table(plan_note.note_tiers_table())

    def note_choice(self) -> Shown:
        """Show what the note would take on machines of several sizes, and what fits."""
        return show_table(plan_note.note_choice_table())

    def speed_errors(self) -> Shown:
        """Show how far speeds are off on devices that were left out."""
        return show_table(self._speed_errors[0])

    def speed_figure(self) -> Shown:
        """Show the same, a point each."""
        return show_drawing(self._speed_errors[1], "plan_speed_errors")

    def memory_errors(self) -> Shown:
        """Show how far memory is off, ours and others'."""
        return show_table(evidence.memory_table(self._figures("planner-memory")))

    def here(self) -> Shown:
        """Show predictions from a calibration beside what was measured."""
        return show_table(evidence.here_table(self._figures("planner-speed")))

    def third_note(self) -> Shown:
        """Show the third note's machine: its split beside ours and others."""
        asked = self._ask(NOTE_MODEL, parse_devices(NOTE_DEVICES))
        theirs = self._ask(
            NOTE_MODEL,
            parse_devices(NOTE_DEVICES),
            gpu_layers=NOTE_GPU_LAYERS,
            shares=NOTE_SHARES,
        )
        return show_table(evidence.ways_table(asked, {"the note": theirs}))

    def provenance(self) -> Shown:
        """Show what the constants rest on, and where figures were measured."""
        facts = [
            ("shoestring", version("shoestring")),
            ("speeds of cards", self._constants.gpu.about),
            ("speeds of processors", self._constants.processor.about),
        ]
        for name in ("planner-memory", "planner-speed", "planner-split"):
            found = self._figures(name)
            facts.append((name, "was not run" if found is None else found["measured_utc"]))
        data = {"title": f"Plan for {self._found.name}", "provenance": facts}
        return show_facts(facts, data=data, mime=PAGE_MIME)

    @cached_property
    def _plan(self) -> Plan:
        found = self._found
        context = min(self._context, found.outline.shape.context)
        asked = Ask(
            model=found.name,
            outline=found.outline,
            settings=Settings(context=context),
            devices=self._devices,
        )
        return make_plan(asked, self._constants)

    @cached_property
    def _speed_errors(self) -> tuple[Any, Drawing]:
        return evidence.speed_errors()

    def _ask(self, shape: str, devices: tuple[Device, ...], **by_hand: Any) -> Plan:
        asked = Ask(
            model=f"shape:{shape}",
            outline=outline_of_shape(shape),
            settings=Settings(context=4096),
            devices=devices,
            **by_hand,
        )
        return make_plan(asked, load_constants())

    def _figures(self, name: str) -> dict[str, Any] | None:
        return None if self._measured is None else evidence.read_figures(self._measured, name)


def _show_lines(lines: Iterable[str]) -> Shown:
    listed = list(lines)
    items = "".join(f"<li>{html.escape(line)}</li>" for line in listed)
    return Shown(f"<ul>{items}</ul>", "\n".join(listed))
