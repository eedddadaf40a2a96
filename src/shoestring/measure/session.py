"""One session of a run: calibrate, start the engine, warm it up, send the requests, end it.

What the session learns of machine, engine and clock goes into ``environment.json`` at its start,
after each interruption and at its end, so that a killed session leaves what was known.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from shoestring.engines.protocol import Patience, Prompt, Span
from shoestring.errors import (
    DiskFullError,
    InterruptedRunError,
    ShoestringError,
)
from shoestring.hardware.machine import describe_machine
from shoestring.hardware.telemetry import TelemetrySampler
from shoestring.measure.calibration import calibrate
from shoestring.measure.loop import Ask, Stop, closed_loop
from shoestring.measure.openloop import open_loop
from shoestring.measure.prompting import make_prompt
from shoestring.measure.recovery import Recovery
from shoestring.measure.rows import make_row
from shoestring.measure.schedule import Batch, Planned
from shoestring.measure.writer import RunWriter, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoestring.engines.protocol import Engine, Generation
    from shoestring.engines.transport import Cancellation
    from shoestring.measure.progress import RunProgress
    from shoestring.measure.suite import Case, Suite

STABLE_REQUESTS = 3
"""Warm-up ends when so many decode times a token in a row agree."""


@dataclass
class Session:
    """One life of the harness within a run.

    Attributes:
        writer: of the run's record.
        suite: what is asked.
        batches: every batch of the run; those that have their rows are skipped.
        engine: not yet started.
        progress: shows how far it is.
        stop: asks the session to end early.
        cancellation: breaks off the requests in flight.
        before_batch: called before each batch that counts, while nothing is in flight.
    """

    writer: RunWriter
    suite: Suite
    batches: Sequence[Batch]
    engine: Engine
    progress: RunProgress
    stop: Stop
    cancellation: Cancellation
    before_batch: Callable[[], None]
    facts: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self._origin_ns = time.monotonic_ns()
        self._patience = Patience(self.suite.deadlines.stall_s, self.suite.deadlines.request_s)
        self.facts = {
            "session": self.writer.next_session,
            "started_utc": utc_now(),
            "ended_utc": None,
            "machine": describe_machine(),
            "versions": _versions(),
            "commit": _commit(),
            "cold_start": [],
            "load_s": None,
            "warmup": None,
            "calibration": None,
            "memory": None,
            "energy": None,
            "interruptions": None,
            "telemetry": None,
        }
        self._recovery = Recovery(
            self.engine, self.stop, self.progress.step, origin_ns=self._origin_ns
        )
        self.number: int = self.facts["session"]

    def run(self) -> None:
        """Do all that is left to do; rows are on disk when this returns or raises."""
        self.writer.write_session(self.facts)
        with ExitStack() as stack:
            sampler = TelemetrySampler(
                lambda: self.engine.pid,
                self._keep_sample,
                origin_ns=self._origin_ns,
                session=self.number,
            )
            sampler.start()
            stack.callback(self._close, sampler)
            self.progress.step("calibrating the clock against the known-truth server")
            self._calibrate()
            # What came before is the machine without the engine.
            sampler.mark_baseline()
            self._start_engine(stack)
            stack.callback(self._note_memory, sampler)
            stack.callback(self._begin_closing)
            self._warm_up()
            sampler.energy_begin()
            try:
                self._send_all()
            finally:
                self.facts["energy"] = sampler.energy_end()

    def _calibrate(self) -> None:
        """Measure the floor of the clock; without one the run goes on, and its report warns."""
        levels = {batch.concurrency for batch in self.batches}
        try:
            self.facts["calibration"] = calibrate(levels, self.stop, self.cancellation)
        except InterruptedRunError:
            raise
        except ShoestringError as error:
            self.progress.step(f"no floor for this session: {error}")

    def _start_engine(self, stack: ExitStack) -> None:
        self.progress.step(f"starting engine {self.engine.name} with {self.engine.model_id}")
        self._engine_origin_ns = time.monotonic_ns()
        # Registered after the sampler's end, so called before it: the sampler sees the engine go.
        stack.enter_context(self.engine)
        spans = self.engine.spans()
        self.facts["versions"]["engine"] = self.engine.version()
        self.facts["cold_start"] = [asdict(span) for span in spans]
        loads = [span.end_s - span.start_s for span in spans if span.name == "load model"]
        self.facts["load_s"] = loads[0] if loads else None
        self.facts["interruptions"] = []  # from now on it is watched
        self.writer.write_session(self.facts)

    def _warm_up(self) -> None:
        """Send requests one at a time until the decode time a token is stable."""
        if not self.suite.warmup.maximum:
            return
        self.progress.step("warming up until stable")
        case, warmup = self.suite.cases[0], self.suite.warmup
        times_s: list[float] = []
        first_ns: int | None = None
        for number in range(1, warmup.maximum + 1):
            planned = Planned(f"w{self.number}-{number:04d}", 0, case.name, 1)
            for generation in self._send(Batch(0, case, (planned,), 1), "warmup"):
                if number == 1:
                    first_ns = _first_ns(generation)
                    self._note_span("first token", generation.intended_ns, first_ns)
                decode_s = _decode_s_per_chunk(generation)
                times_s += [decode_s] if decode_s is not None else []
            if self.stop.asked:
                return
            if number >= warmup.minimum and _stable(times_s, warmup.tolerance):
                break
        if first_ns is not None:
            self._note_span("warm up until stable", first_ns, time.monotonic_ns())
        self.facts["warmup"] = {"requests": number, "stable": _stable(times_s, warmup.tolerance)}
        self.writer.write_session(self.facts)

    def _send_all(self) -> None:
        self.progress.begin(len(self.writer.done))
        for batch in self.batches:
            self.before_batch()
            left = tuple(p for p in batch.requests if p.id not in self.writer.done)
            self._send(replace(batch, requests=left), "measure")
            if self.stop.asked:
                return

    def _send(self, batch: Batch, phase: str) -> list[Generation]:
        """Send one batch and write its rows as they end."""
        asks = [self._ask(batch.case, planned) for planned in batch.requests]
        generations = []
        self.stop.sending = True
        loop = closed_loop if batch.case.arrival == "closed" or phase == "warmup" else open_loop
        answers = loop(
            self.engine, asks, batch.concurrency, self._patience, self.stop, self.cancellation,
            before=self._recovery.before, after=self._recovery.after,
        )  # fmt: skip
        with closing(answers):
            for answer in answers:
                generation = answer.recording.read()
                self._write_row(answer.ask, generation, phase)
                generations.append(generation)
                self._note_interruptions()
        self._note_interruptions()
        self.stop.sending = False
        return generations

    def _write_row(self, ask: Ask, generation: Generation, phase: str) -> None:
        self.writer.append_row(
            make_row(
                ask.planned,
                generation,
                session=self.number,
                phase=phase,
                origin_ns=self._origin_ns,
                prompt=ask.text,
                max_tokens=ask.prompt.max_tokens,
            )
        )
        if phase == "measure":
            total = len(self.writer.config["requests"])
            self.progress.update(len(self.writer.done), total, self.writer.failed, ask.planned.case)

    def _note_interruptions(self) -> None:
        """Have them on the disk once they are over: a killed session claims no fewer."""
        if self.facts["interruptions"] != self._recovery.interruptions:
            self.facts["interruptions"] = self._recovery.interruptions
            self.writer.write_session(self.facts)

    def _ask(self, case: Case, planned: Planned) -> Ask:
        count, salt = self._recovery.count_tokens, self.writer.config.get("prompt_salt")
        text = make_prompt(case, planned.id, self.suite.seed, count, salt=salt)
        wanted = Prompt(
            text.text,
            case.output_tokens,
            fixed_length=case.fixed_length,
            seed=self.suite.seed,
            turns=text.turns,
            schema=text.schema,
            thinking=text.thinking,
        )
        return Ask(planned, wanted, text)

    def _note_span(self, name: str, start_ns: int, end_ns: int | None) -> None:
        if end_ns is not None:
            origin_ns = self._engine_origin_ns
            span = Span(name, (start_ns - origin_ns) / 1e9, (end_ns - origin_ns) / 1e9)
            self.facts["cold_start"].append(asdict(span))

    def _keep_sample(self, sample: dict[str, Any]) -> None:
        """Write a telemetry sample; a full disk ends the run from the sampler's thread, too."""
        try:
            self.writer.append_sample(sample)
        except DiskFullError as error:
            self.stop.ask("disk full", error)

    def _begin_closing(self) -> None:
        self.stop.closing = True

    def _note_memory(self, sampler: TelemetrySampler) -> None:
        peak_bytes, source = sampler.ram_peak_bytes()
        try:
            said = self.engine.memory()
        except ShoestringError:
            # It is away already; what it took before is in the samples.
            said = None
        self.facts["memory"] = {
            "ram_peak_bytes": peak_bytes,
            "ram_peak_source": source,
            **sampler.vram(),
            "engine_reported": asdict(said) if said is not None else None,
        }

    def _close(self, sampler: TelemetrySampler) -> None:
        sampler.stop()
        self.facts["telemetry"] = {
            "rate_hz": sampler.rate_hz,
            "cpu_s": round(sampler.cpu_s, 4),
            "unavailable": sampler.unavailable,
        }
        if self.facts["interruptions"] is not None:
            self.facts["interruptions"] = self._recovery.interruptions
        self.facts["ended_utc"] = utc_now()
        if not isinstance(self.stop.error, DiskFullError):
            self.writer.write_session(self.facts)


def _first_ns(generation: Generation) -> int | None:
    times = [e.t_ns for e in generation.events if e.kind in ("answer", "reasoning")]
    return times[0] if times else None


def _decode_s_per_chunk(generation: Generation) -> float | None:
    times = [e.t_ns for e in generation.events if e.kind in ("answer", "reasoning")]
    return (times[-1] - times[0]) / 1e9 / (len(times) - 1) if len(times) > 1 else None


def _stable(times_s: list[float], tolerance: float) -> bool:
    last = times_s[-STABLE_REQUESTS:]
    if len(last) < STABLE_REQUESTS:
        return False
    middle = median(last)
    return all(abs(time_s - middle) <= tolerance * middle for time_s in last)


def _versions() -> dict[str, str | None]:
    return {
        "shoestring": importlib.metadata.version("shoestring"),
        "python": platform.python_version(),
        "engine": None,
    }


@cache
def _commit() -> dict[str, Any]:
    """Return the commit of the checkout that this package runs from; null in an installed wheel.

    ``dirty`` is of the package alone: a run that is written into the checkout does not soil it.
    Asked once a process: what is committed while it runs is not what it runs.
    """
    folder = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str | None:
        try:
            said = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True,
                timeout=10,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            # No git, or no checkout: then there is no commit to name.
            return None
        return said.stdout.strip()

    tracked = git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))
    if tracked is None:
        return {"sha": None, "dirty": None}
    return {"sha": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
