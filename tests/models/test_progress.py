import io

from shoestring.models.progress import ProgressBar


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def test_a_log_gets_a_line_for_each_tenth():
    """Without a terminal a thousand updates make eleven lines."""
    stream = io.StringIO()
    with ProgressBar("m", stream=stream) as bar:
        for done in range(1001):
            bar.update(done * 1_000_000, 1_000_000_000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0] == "m: 0 %, 0 of 1000 MB"
    assert lines[-1] == "m: 100 %, 1000 of 1000 MB"
    assert "\r" not in stream.getvalue()


def test_a_terminal_is_redrawn_at_most_ten_times_a_second():
    """Updates within a tenth of a second are dropped, the last one is always drawn."""
    stream, now_s = Terminal(), [0.0]
    with ProgressBar("m", stream=stream, clock=lambda: now_s[0]) as bar:
        for done in range(1, 101):
            now_s[0] = done / 1000
            bar.update(done, 100)
    assert stream.getvalue().count("\r") == 2
    assert "100 %" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_the_line_is_ended_when_the_download_fails():
    """An error message after a bar begins on a line of its own; nothing drawn, nothing ended."""
    stream = Terminal()
    bar = ProgressBar("m", stream=stream, clock=lambda: 0.0)
    bar.close()
    assert stream.getvalue() == ""
    bar.update(1, 2)
    bar.close()
    bar.close()
    assert stream.getvalue().count("\n") == 1


def test_more_bytes_than_expected_are_no_more_than_all():
    """A total that was too small, or zero, does not overflow the bar."""
    stream = io.StringIO()
    bar = ProgressBar("m", stream=stream)
    bar.update(5, 0)
    bar.update(20, 10)
    assert stream.getvalue().startswith("m: 100 %")
