"""What the record says of an engine that was away; more is in ``test_faults.py``."""

from shoestring.engines.transport import Cancellation
from shoestring.measure.loop import Stop
from shoestring.measure.recovery import Recovery


class Broken:
    """A recording of an exchange that went wrong."""

    broken = True


class LateEngine:
    """An engine that died, and comes back just as the session is asked to end."""

    def __init__(self, stop: Stop) -> None:
        self._deadline = stop

    def lost(self) -> str:
        """Say how it died."""
        return "the engine died by signal 9"

    def start(self) -> None:
        """Begin to come back."""

    def load(self) -> None:
        """Be back, too late."""
        self._deadline.ask("deadline of 1 s")

    def stop(self) -> None:
        """Be gone."""


def test_an_engine_that_is_back_at_the_deadline_is_back():
    """That the session ends in that moment does not make its engine a lost one."""
    stop = Stop(Cancellation())
    recovery = Recovery(LateEngine(stop), stop, lambda _: None, origin_ns=0)

    recovery.after(Broken())

    (interruption,) = recovery.interruptions
    assert (True, True) == (interruption["recovered"], interruption["restarted"])
    assert "deadline of 1 s" == stop.reason
