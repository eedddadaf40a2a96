"""The keeper starts a service again, later each time, and says what happened."""

import threading

import pytest

from shoestring.engines.launch import Launched
from shoestring.errors import EngineLostError, MissingError
from shoestring.stack import keeper as keeper_module
from shoestring.stack.keeper import FIRST_PAUSE_S, Keeper
from shoestring.stack.node import Service

SLEEPER = ["sleep", "600"]


class Scripted:
    """A service whose lives are scripted; it has the keeper stop after the last one."""

    name = "scripted"
    start_limit_s = 30.0

    def __init__(self, commands, stop, *, answers=lambda: True):
        self.commands = list(commands)
        self.stop = stop
        self.answers = answers
        self.restored = 0

    def first_state(self):
        """Before its first start."""
        return Service(self.name, "http://127.0.0.1:9", adopted=False)

    def launch(self):
        """Start the next command; the last one also ends the keeping."""
        command = self.commands.pop(0)
        if not self.commands:
            self.stop.set()
        if isinstance(command, Exception):
            raise command
        return Launched("scripted", command, environment={}, log_path=None)

    def after_restart(self):
        """Count."""
        self.restored += 1


class Record:
    """Takes down states and events."""

    def __init__(self):
        self.states, self.events = [], []

    def state(self, service):
        """A new state."""
        self.states.append(service)

    def event(self, _name, event, **more):
        """Something happened."""
        self.events.append((event, more.get("why")))


@pytest.fixture
def quick(monkeypatch):
    """No pause between two lives worth waiting for."""
    monkeypatch.setattr(keeper_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(keeper_module, "LOOK_EVERY_S", 0.01)


def keep(commands, **more):
    """See all scripted lives through."""
    stop, record = threading.Event(), Record()
    service = Scripted(commands, stop, **more)
    Keeper(service, stop, record.state, record.event).run()
    return service, record


@pytest.mark.usefixtures("quick")
def test_what_dies_is_started_again_and_brought_back():
    """Each life but the last ends with a reason, and a restarted service is put in order."""
    service, record = keep([["sleep", "2"], ["sh", "-c", "sleep 2; exit 3"], SLEEPER])
    why = [reason for event, reason in record.events if event == "died"]

    assert len(why) == 2
    assert "with status 3" in why[1]
    assert service.restored == 1  # the last life ended before it was ready: nobody wanted it
    assert record.states[-1].state == "ended"
    assert record.states[-1].restarts == 2


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_started_is_tried_again():
    """A missing program is a failure with its reason, not the keeper's end."""
    _, record = keep([MissingError("it is gone"), EngineLostError("it died at once"), SLEEPER])

    assert [e for e in record.events if e[0] == "failed"] == [
        ("failed", "it is gone"),
        ("failed", "it died at once"),
    ]


@pytest.mark.usefixtures("quick")
def test_a_server_that_falls_silent_is_started_again(monkeypatch):
    """It lives and does not answer: after the limit it is ended."""
    monkeypatch.setattr(keeper_module, "ASK_EVERY_S", 0.02)
    monkeypatch.setattr(keeper_module, "SILENCE_LIMIT_S", 0.1)
    said = iter([True])

    service, record = keep([SLEEPER, SLEEPER], answers=lambda: next(said, False))

    assert ("silent", "scripted did not answer for 0.1 s") in record.events
    assert service.commands == []


def test_the_pause_doubles_up_to_a_limit():
    """A service that dies at once is not started more than once in half a minute."""
    pauses = []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return False

    stop, record = Stop(), Record()
    service = Scripted([MissingError("no")] * 12, stop)
    Keeper(service, stop, record.state, record.event).run()

    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert max(pauses) == keeper_module.LONGEST_PAUSE_S
