"""Progress is throttled: in place on a terminal, a line now and then elsewhere."""

import io

from shoestring.measure.progress import RunProgress


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time that was set."""
        return self.now_s


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def show(stream: io.StringIO, seconds: int, total: int) -> str:
    """Report one request a tenth of a second for so many seconds."""
    clock = Clock()
    progress = RunProgress(stream, clock=clock)
    progress.begin(0)
    for done in range(1, seconds * 10 + 1):
        clock.now_s = done / 10
        progress.update(done, total, 0, "chat")
    return stream.getvalue()


def test_a_notebook_is_not_flooded():
    """Elsewhere than on a terminal there is a line every ten seconds, and no carriage return."""
    said = show(io.StringIO(), 60, 10_000)

    assert 5 <= said.count("\n") <= 7
    assert "\r" not in said
    assert "about" in said


def test_a_terminal_is_written_in_place():
    """On a terminal the line is rewritten a few times a second, with no new lines."""
    said = show(Terminal(), 10, 10_000)

    assert 0 == said.count("\n")
    assert 20 <= said.count("\r") <= 60


def test_the_end_is_always_shown():
    """The last request is shown whenever it comes, and failures are counted."""
    stream = io.StringIO()
    progress = RunProgress(stream, clock=Clock())
    progress.update(1, 2, 0, "chat")
    progress.update(2, 2, 1, "chat")

    assert stream.getvalue().splitlines()[-1] == "2/2 requests, 1 failed"


def test_quiet_is_quiet():
    """A quiet progress writes nothing."""
    stream = io.StringIO()
    progress = RunProgress(stream, quiet=True)
    progress.step("something")
    progress.update(1, 1, 0, "chat")

    assert not stream.getvalue()
