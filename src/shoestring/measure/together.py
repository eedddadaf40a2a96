"""The sessions of one call: one run, or several engines in turn, block by block.

Engines are compared fairly when a drift of the machine falls on all of them alike and none takes
memory or processor from another. So each block of the suite is a session of its own, with a fresh
engine that is alone on the machine, and the order of the engines rotates from block to block.
A suite that wants a fresh engine for each block is run the same way, with one engine.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from shoestring.engines.opening import make_engine
from shoestring.engines.transport import Cancellation
from shoestring.errors import (
    DiskFullError,
    EngineLostError,
    InterruptedRunError,
    ShoestringError,
)
from shoestring.measure.interrupts import REASON as INTERRUPTED
from shoestring.measure.interrupts import orderly_interrupts
from shoestring.measure.loop import Stop
from shoestring.measure.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoestring.engines.opening import Subject
    from shoestring.engines.protocol import Engine
    from shoestring.measure.progress import RunProgress
    from shoestring.measure.schedule import Batch
    from shoestring.measure.suite import Suite
    from shoestring.measure.writer import RunWriter

LOG = "engine.log"


@dataclass(frozen=True)
class Part:
    """One run among those that are made in one call: its record, and what it measures."""

    writer: RunWriter
    subject: Subject
    batches: Sequence[Batch]

    def left(self, batches: Sequence[Batch]) -> bool:
        """Whether a request of these batches has no row yet."""
        done = self.writer.done
        return any(planned.id not in done for batch in batches for planned in batch.requests)


def engine_for(subject: Subject, suite: Suite, writer: RunWriter | None) -> Engine:
    """Make the engine with room for the suite's longest and most parallel requests."""
    return make_engine(
        subject,
        context=suite.max_context,
        parallel=suite.max_concurrency,
        log_path=writer.path / LOG if writer is not None else None,
    )


def run_parts(parts: Sequence[Part], suite: Suite, progress: RunProgress) -> None:
    """Run all sessions and write the manifests, whatever ended them.

    Raises:
        ShoestringError: what ended it early; the rows so far are safe.
        InterruptedRunError: a signal ended it.
    """
    cancellation = Cancellation()
    stop = Stop(cancellation)
    with orderly_interrupts(stop, progress.step):
        try:
            with _Deadline(stop, suite.deadlines.suite_s) as deadline:
                _run_sessions(parts, suite, progress, stop, cancellation, deadline)
        except InterruptedRunError:
            stop.ask(INTERRUPTED)
        except ShoestringError as error:
            stop.ask(_reason(error), error)
        except OSError as error:
            mend = f"cannot write or start what the run needs: {error}; go on with --resume"
            stop.ask("operating system error", ShoestringError(mend))
        stop.closing = True
        complete = [_finish(part.writer, stop) for part in parts]
    if stop.error is not None:
        raise stop.error
    if stop.reason == INTERRUPTED and not all(complete):
        counts = ", ".join(
            f"{len(part.writer.done)} of {len(part.writer.config['requests'])} rows are in "
            f"{part.writer.path}"
            for part in parts
        )
        raise InterruptedRunError(f"interrupted: {counts}; go on with --resume")


def _run_sessions(
    parts: Sequence[Part],
    suite: Suite,
    progress: RunProgress,
    stop: Stop,
    cancellation: Cancellation,
    deadline: _Deadline,
) -> None:
    calibration: dict[str, Any] | None = None
    for part, batches in _turns(parts, suite):
        if not part.left(batches) and len(parts) > 1:
            continue
        stop.closing = False
        session = Session(
            part.writer, suite, batches, engine_for(part.subject, suite, part.writer), progress,
            stop, cancellation, deadline.begin, calibration,
        )  # fmt: skip
        session.run()
        calibration = session.facts["calibration"]
        if stop.asked:
            return


def _turns(parts: Sequence[Part], suite: Suite) -> Iterator[tuple[Part, Sequence[Batch]]]:
    """Yield what each session does: all of a run, or one block of it."""
    if len(parts) == 1 and not suite.fresh_engine:
        yield parts[0], parts[0].batches
        return
    blocks = sorted({batch.block for batch in parts[0].batches})
    for number, block in enumerate(blocks):
        first = number % len(parts)
        for part in (*parts[first:], *parts[:first]):
            yield part, [batch for batch in part.batches if batch.block == block]


class _Deadline:
    """Asks to stop so long after the first request; those in flight end, no more are sent."""

    def __init__(self, stop: Stop, limit_s: float) -> None:
        self._timer = threading.Timer(limit_s, stop.ask, [f"deadline of {limit_s:g} s"])
        self._timer.daemon = True
        self._begun = False

    def begin(self) -> None:
        """Begin to count; later calls do nothing."""
        if not self._begun:
            self._begun = True
            self._timer.start()

    def __enter__(self) -> Self:
        """Return itself, not yet counting."""
        return self

    def __exit__(self, *_: object) -> None:
        """Count no more."""
        self._timer.cancel()


def _finish(writer: RunWriter, stop: Stop) -> bool:
    """Write a manifest; return whether the run is complete."""
    try:
        return writer.finish(stop.reason) == "complete"
    except DiskFullError as full:
        raise stop.error or full from full


def _reason(error: ShoestringError) -> str:
    """Name an error for the manifest: short, and without the paths of this machine."""
    if isinstance(error, DiskFullError):
        return "disk full"
    return "engine lost" if isinstance(error, EngineLostError) else "a part was missing"
