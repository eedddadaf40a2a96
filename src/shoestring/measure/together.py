"""The sessions of one call: one run, or several engines in turn, block by block.

Engines are compared fairly when a drift of the machine falls on all of them alike and none takes
memory or processor from another. So each block of the suite is a session of its own, with a fresh
engine that is alone on the machine, and the order of the engines rotates from block to block.
A suite that wants a fresh engine for each block is run the same way, with one engine.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
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
from shoestring.measure import records
from shoestring.measure.bundles import Keeper
from shoestring.measure.interrupts import REASON as INTERRUPTED
from shoestring.measure.interrupts import orderly_interrupts
from shoestring.measure.lease import REASON as SESSION_LIMIT
from shoestring.measure.loop import Stop
from shoestring.measure.session import Session
from shoestring.measure.writer import NO_SPACE, write_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from shoestring.engines.opening import Subject
    from shoestring.engines.protocol import Engine
    from shoestring.measure.lease import Lease
    from shoestring.measure.progress import RunProgress
    from shoestring.measure.schedule import Batch
    from shoestring.measure.suite import Suite
    from shoestring.measure.writer import RunWriter

LOG = "engine.log"
DONE = "done"
"""Why a session ended that has sent all that it was to send."""
REASONS: tuple[tuple[type[ShoestringError], str], ...] = (
    (DiskFullError, "disk full"),
    (EngineLostError, "engine lost"),
    (BadValueError, "bad value"),
    (BadModelError, "model refused"),
)
OUT_OF_MEMORY = "engine out of memory"
KILLED = "(out of memory?"
"""Of the words of an engine that SIGKILL ended, which is how the kernel takes memory back."""


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
        context=subject.context or suite.max_context,
        parallel=suite.max_concurrency,
        log_path=writer.path / LOG if writer is not None else None,
    )


def run_parts(parts: Sequence[Part], suite: Suite, progress: RunProgress, lease: Lease) -> None:
    """Run all sessions, write the manifests and make the bundles, whatever ended them.

    Raises:
        ShoestringError: what ended it early; the rows so far are safe.
        InterruptedRunError: a signal ended it.
    """
    cancellation = Cancellation()
    stop = Stop(cancellation)
    stop.closing = True  # signals are noted, until a session begins
    keeper = Keeper(lease, progress.step)
    part = parts[0]
    with orderly_interrupts(stop, progress.step):
        with _errors_stop(stop):
            for each in parts:
                _begin_environment(each.writer)
        with _Deadline(stop, suite.deadlines.suite_s) as deadline, _ending(stop, lease, suite):
            for part, batches in _turns(parts, suite):
                if stop.asked:
                    break
                _run_session(part, batches, suite, progress, stop, cancellation, deadline, keeper)
                keeper.keep(part.writer.path)
        stop.closing = True
        try:
            complete = [_finish(each.writer, stop, its_own=each is part) for each in parts]
        finally:
            for each in parts:
                if bundle := keeper.keep(each.writer.path):
                    progress.step(f"bundle for another session: {bundle}")
    if stop.error is not None:
        raise stop.error
    if stop.reason == INTERRUPTED and not all(complete):
        counts = ", ".join(
            f"{len(part.writer.done)} of {len(part.writer.config['requests'])} rows are in "
            f"{part.writer.path}"
            for part in parts
        )
        raise InterruptedRunError(f"interrupted: {counts}; go on with --resume")


def _begin_environment(writer: RunWriter) -> None:
    """Have the file of the sessions there, also for a run whose turn may never come."""
    path = writer.path / records.ENVIRONMENT
    if not path.is_file():
        write_object(path, {"schema_version": records.SCHEMA_VERSION, "sessions": []})


def _run_session(
    part: Part,
    batches: Sequence[Batch],
    suite: Suite,
    progress: RunProgress,
    stop: Stop,
    cancellation: Cancellation,
    deadline: _Deadline,
    keeper: Keeper,
) -> None:
    """Run one session; what ends it early becomes the reason to stop, and is recorded in it."""

    def before_batch() -> None:
        deadline.begin()
        keeper.keep_when_due(part.writer.path)

    with _errors_stop(stop):
        stop.closing = False
        engine = engine_for(part.subject, suite, part.writer)
        session = Session(
            part.writer, suite, batches, engine, progress, stop, cancellation, before_batch
        )
        with _errors_stop(stop):
            session.run()
        if not isinstance(stop.error, DiskFullError):
            session.facts["end_reason"] = stop.reason if part.left(batches) else DONE
            part.writer.write_session(session.facts)


@contextmanager
def _errors_stop(stop: Stop) -> Iterator[None]:
    """Turn what ends a session early into the reason to stop; then signals are noted only."""
    try:
        yield
    except InterruptedRunError:
        stop.ask(INTERRUPTED)
    except ShoestringError as error:
        stop.ask(_reason(error), error)
    except OSError as error:
        said = f"cannot write or start what the run needs: {error}; go on with --resume"
        full = error.errno in NO_SPACE
        failure = DiskFullError(said) if full else ShoestringError(said)
        stop.ask(_reason(failure) if full else "operating system error", failure)
    finally:
        stop.closing = True


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


@contextmanager
def _ending(stop: Stop, lease: Lease, suite: Suite) -> Iterator[None]:
    """Ask to stop when a request that is sent then could outlive the lease."""
    left_s = lease.sending_left_s(suite)
    if left_s is None:
        yield
        return
    if left_s <= 0:
        stop.ask(SESSION_LIMIT)
    timer = threading.Timer(left_s, stop.ask, [SESSION_LIMIT])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _finish(writer: RunWriter, stop: Stop, *, its_own: bool) -> bool:
    """Write a manifest; return whether the run is complete.

    Signals, deadlines and a full disk end all runs of a comparison; any other error is that of
    the run whose turn it was.
    """
    if not (writer.path / records.ENVIRONMENT).is_file():
        return False  # not even begun: the error says why, and no manifest means cut
    reason = stop.reason
    if stop.error is not None and not isinstance(stop.error, DiskFullError) and not its_own:
        reason = f"another run of the comparison ended: {reason}"
    try:
        return writer.finish(reason) == "complete"
    except DiskFullError as full:
        raise stop.error or full from full


def _reason(error: ShoestringError) -> str:
    """Name an error for the manifest: short, and without the paths of this machine."""
    if isinstance(error, EngineLostError) and KILLED in str(error):
        return OUT_OF_MEMORY
    named = [reason for kind, reason in REASONS if isinstance(error, kind)]
    return named[0] if named else "a part was missing"
