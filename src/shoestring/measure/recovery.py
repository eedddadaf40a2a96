"""Between requests: see that the engine is there, bring ours back, wait for one that is not ours.

A request that failed is final, whatever failed it. But the next one shall not run into a server
that is known to be away: an engine of ours that died is started again, and for any other we wait,
up to a minute, until it is healthy. Each such time is noted and goes into the session's record.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import EngineLostError, MissingError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.engines.protocol import Engine, Recording
    from shoestring.measure.loop import Stop

HEALTH_WAIT_S = 60.0
POLL_S = 0.1
RESTARTS_IN_A_ROW = 3
"""An engine that dies again before it has answered once, so often, will not live."""


@dataclass(frozen=True)
class Interruption:
    """One time in which the engine was away.

    Attributes:
        t_ns: when it was noticed, since the session's origin.
        reason: what happened, in one line without the paths of this machine.
        down_s: from there until it could answer again, or until we gave up.
        recovered: whether it came back.
        restarted: whether we started it.
    """

    t_ns: int
    reason: str
    down_s: float
    recovered: bool
    restarted: bool


class Recovery:
    """Stands at every slot's side: called before each request and after each recording.

    Args:
        engine: which may die, or be away.
        stop: asked to end the session where the engine does not come back.
        say: given lines for the user.
        origin_ns: of the session.
        wait_s: longest wait for an engine that is not ours.
    """

    def __init__(
        self,
        engine: Engine,
        stop: Stop,
        say: Callable[[str], None],
        *,
        origin_ns: int,
        wait_s: float = HEALTH_WAIT_S,
    ) -> None:
        self._engine = engine
        self._stop = stop
        self._say = say
        self._origin_ns = origin_ns
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._restarts = 0
        self._interruptions: list[Interruption] = []

    @property
    def interruptions(self) -> list[dict[str, Any]]:
        """What happened so far, as ``environment.json`` holds it."""
        return [asdict(interruption) for interruption in self._interruptions]

    def before(self) -> None:
        """Return when no other slot is bringing the engine back."""
        with self._lock:
            return

    def after(self, recording: Recording) -> None:
        """Return when the engine can answer, or when the session was asked to stop."""
        if recording.broken:
            self._see_to_it()
        else:
            self._restarts = 0

    def count_tokens(self, text: str) -> int | None:
        """Count by the engine, and bring it back first where it went away between two batches.

        Raises:
            ShoestringError: it did not come back, or is there and does not count.
        """
        try:
            return self._engine.count_tokens(text)
        except (MissingError, EngineLostError):
            self._see_to_it()
            if self._stop.error is not None:
                raise self._stop.error  # noqa: B904 - it says more than that nobody answers
            return self._engine.count_tokens(text)

    def _see_to_it(self) -> None:
        with self._lock:  # the first slot does it; the others wait, and find it done
            if self._stop.asked:
                return
            reason = self._engine.lost()
            if reason is None and self._engine.healthy():
                return
            self._bring_back(reason)

    def _bring_back(self, reason: str | None) -> None:
        began_ns = time.monotonic_ns()
        restart = reason is not None
        said = "the engine died" if restart else "the engine does not answer"
        self._say(f"{reason or said}: " + ("starting it again" if restart else "waiting for it"))
        before = self._restarts
        recovered = self._restart() if restart else self._wait()
        restart = self._restarts > before
        said = "the engine died" if restart else said
        self._interruptions.append(
            Interruption(
                t_ns=began_ns - self._origin_ns,
                reason=said,
                down_s=(time.monotonic_ns() - began_ns) / 1e9,
                recovered=recovered,
                restarted=restart,
            )
        )

    def _restart(self) -> bool:
        """Start it again; where it dies in doing so, once more, until it has had its chances."""
        said = ""
        while self._restarts < RESTARTS_IN_A_ROW:
            self._restarts += 1
            try:
                self._engine.stop()
                self._engine.start()
                self._engine.load()
            except EngineLostError as error:
                said = f" ({error})"
                if self._stop.asked:
                    return False
            except ShoestringError as error:
                return self._give_up(f"{error}; go on with --resume")
            else:
                return True
        return self._give_up(
            f"the engine was started {self._restarts} times in a row and gave no answer{said}: "
            "take a smaller model, then go on with --resume"
        )

    def _wait(self) -> bool:
        """Wait until it answers, which it may do as a stop is asked for."""
        deadline_s = time.monotonic() + self._wait_s
        while not self._engine.healthy():
            if self._engine.lost() is not None:  # its end is seen a moment after its silence
                return self._restart()
            if self._stop.wait(POLL_S):
                return False
            if time.monotonic() > deadline_s:
                return self._give_up(
                    f"the engine did not come back within {self._wait_s:g} s: start it, then go "
                    "on with --resume"
                )
        return True

    def _give_up(self, why: str) -> bool:
        self._stop.ask("engine lost", EngineLostError(why))
        return False
