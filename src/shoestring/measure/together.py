"""The sessions of one call: one run, or several engines in turn, block by block.

Engines are compared fairly when a drift of the machine falls on all of them alike and none takes
memory or processor from another. So each block of the suite is a session of its own, with a fresh
engine that is alone on the machine, and the order of the engines rotates from block to block.
A suite that wants a fresh engine for each block is run the same way, with one engine.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from shoestring.engines.opening import make_engine
from shoestring.engines.transport import Cancellation
from shoestring.errors import (
    BadModelError,
    BadValueError,
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
    from collections.abc import Iterable, Iterator, Sequence

    from shoestring.engines.opening import Subject
    from shoestring.engines.protocol import Engine
    from shoestring.measure.progress import RunProgress
    from shoestring.measure.schedule import Batch
    from shoestring.measure.suite import Suite
    from shoestring.measure.writer import RunWriter

LOG = "engine.log"
REASONS: tuple[tuple[type[ShoestringError], str], ...] = (
    (DiskFullError, "disk full"),
    (EngineLostError, "engine lost"),
    (BadValueError, "bad value"),
    (BadModelError, "bad value"),
)


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
    part = parts[0]
    with orderly_interrupts(stop, progress.step):
        try:
            with _Deadline(stop, suite.deadlines.suite_s) as deadline:
                for part, batches in _turns(parts, suite):
                    stop.closing = False
                    engine = engine_for(part.subject, suite, part.writer)
                    Session(
                        part.writer, suite, batches, engine, progress, stop, cancellation,
                        deadline.begin,
                    ).run()  # fmt: skip
                    if stop.asked:
                        break
        except InterruptedRunError:
            stop.ask(INTERRUPTED)
        except ShoestringError as error:
            stop.ask(_reason(error), error)
        except OSError as error:
            mend = f"cannot write or start what the run needs: {error}; go on with --resume"
            stop.ask("operating system error", ShoestringError(mend))
        stop.closing = True
        complete = [_finish(each.writer, stop, its_own=each is part) for each in parts]
    if stop.error is not None:
        raise stop.error
    if stop.reason == INTERRUPTED and not all(complete):
        counts = ", ".join(
            f"{len(part.writer.done)} of {len(part.writer.config['requests'])} rows are in "
            f"{part.writer.path}"
            for part in parts
        )
        raise InterruptedRunError(f"interrupted: {counts}; go on with --resume")


def _turns(parts: Sequence[Part], suite: Suite) -> Iterator[tuple[Part, Sequence[Batch]]]:
    """Return what each session does: all of a run, or one block of it; none has nothing to do."""
    if len(parts) == 1 and not suite.fresh_engine:
        turns: Iterable[tuple[Part, Sequence[Batch]]] = [(parts[0], parts[0].batches)]
    else:
        turns = _blocks_in_turn(parts)
    return ((part, batches) for part, batches in turns if part.left(batches))


def _blocks_in_turn(parts: Sequence[Part]) -> Iterator[tuple[Part, Sequence[Batch]]]:
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


def _finish(writer: RunWriter, stop: Stop, *, its_own: bool) -> bool:
    """Write a manifest; return whether the run is complete.

    Signals, deadlines and a full disk end all runs of a comparison; any other error is that of
    the run whose turn it was.
    """
    reason = stop.reason
    if stop.error is not None and not isinstance(stop.error, DiskFullError) and not its_own:
        reason = f"another run of the comparison ended: {reason}"
    try:
        return writer.finish(reason) == "complete"
    except DiskFullError as full:
        raise stop.error or full from full


def _reason(error: ShoestringError) -> str:
    """Name an error for the manifest: short, and without the paths of this machine."""
    named = [reason for kind, reason in REASONS if isinstance(error, kind)]
    return named[0] if named else "a part was missing"
