"""Comparing, judging, the bound, and what is kept, without a worker."""

import math
import random
from hashlib import sha256

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.audit.comparing import (
    Difference,
    IncomparableError,
    Tolerance,
    distance_of,
    first_difference,
)
from shoestring.swarm.audit.evidence import Evidence, keep, read
from shoestring.swarm.audit.judging import Side, judge
from shoestring.swarm.audit.recorder import Recorder
from shoestring.swarm.audit.sampling import Chance, unseen, windows_until
from shoestring.swarm.audit.standing import Standing, Stood
from shoestring.swarm.audit.windows import Given, Question, Recording
from shoestring.swarm.cli_audit import audit
from shoestring.swarm.identity import load_identity
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.tensors import NUMBER_OF_TYPE
from shoestring.swarm.wire import TWO_U64, Command, Frame
from shoestring.testing.rpc_frames import tensor

F32 = NUMBER_OF_TYPE["F32"]
SHARES = st.floats(0, 1)
TOLERANCE = Tolerance()


def questions(count, kind=F32):
    """Return so many."""
    return [Question(None, f"l_out-{number}", kind, is_activation=True) for number in range(count)]


def answers(*arrays, data=True):
    """Return what a side gave, each an array or None."""
    raw = [None if one is None else np.asarray(one, "<f4").tobytes() for one in arrays]
    digests = tuple(None if one is None else sha256(one).digest() for one in raw)
    return Given(digests, tuple(raw) if data else (None,) * len(raw))


def side(name, *arrays, kind="one"):
    """Return a side."""
    return Side(name, None if name == "here" else name, kind, answers(*arrays))


ROWS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8)


@given(st.lists(ROWS, min_size=1, max_size=5), st.data())
def test_within_a_class_one_bit_is_a_difference(rows, data):
    """The first answer that has it is named; equal ones have none, in either mode."""
    asked = questions(len(rows))
    ours = answers(*rows)
    assert first_difference(asked, ours, answers(*rows), None) is None
    assert first_difference(asked, ours, answers(*rows), TOLERANCE) is None
    number = data.draw(st.integers(0, len(rows) - 1))
    wrong = [list(row) for row in rows]
    wrong[number][0] = float(np.nextafter(np.float32(wrong[number][0]), np.float32(np.inf)))
    found = first_difference(asked, ours, answers(*wrong), None)
    assert found == Difference(number, f"l_out-{number}")


@given(ROWS.filter(lambda row: np.linalg.norm(row) > 1e-3), st.floats(0, 0.5))
def test_between_classes_a_difference_is_one_of_numbers(row, change):
    """Scaled by little it passes, by more it does not."""
    other = [value * (1 + change) for value in row]
    found = first_difference(questions(1), answers(other), answers(row), TOLERANCE)
    measured = distance_of(np.asarray(other, "<f4"), np.asarray(row, "<f4"))
    assert (found is None) == (measured[0] <= TOLERANCE.relative)


@given(ROWS, ROWS)
def test_a_distance_is_what_numpy_says_and_is_of_an_answer_to_itself_none(one, other):
    """Whatever the numbers."""
    a = np.asarray(one, "<f4")
    assert distance_of(a, a)[0] == 0
    if len(one) == len(other):
        b = np.asarray(other, "<f4")
        relative, cosine = distance_of(a, b)
        assert relative >= 0
        assert -1.001 <= cosine <= 1.001
    else:
        assert distance_of(a, np.asarray(other, "<f4")) is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_never_within_a_tolerance(wrong):
    """Else a cheat would answer so."""
    found = first_difference(questions(1), answers([wrong, 1.0]), answers([2.0, 1.0]), TOLERANCE)
    assert found == Difference(0, "l_out-0")


def test_what_nobody_gave_is_not_compared():
    """Neither agreement nor difference follows from nothing."""
    with pytest.raises(IncomparableError):
        first_difference(questions(1), answers(None), answers([1.0]), None)
    with pytest.raises(IncomparableError, match="nothing was compared"):
        first_difference(questions(1), answers([1.0], data=False), answers([2.0]), TOLERANCE)


VALUES = st.sampled_from([[1.0, 2.0], [1.0, 3.0], [5.0, 5.0]])


@given(VALUES, VALUES, VALUES)
def test_the_odd_one_of_three_is_the_cheat_and_of_three_that_differ_nobody(one, two, three):
    """Whoever it is; this machine is none."""
    sides = [side("suspect", one), side("auditor", two), side("here", three)]
    found = judge(questions(1), *sides, TOLERANCE)
    if one == two:
        assert found.outcome == "same"
    elif two == three:
        assert (found.outcome, found.cheat.name) == ("cheat", "suspect")
    elif one == three:
        assert (found.outcome, found.cheat.name) == ("cheat", "auditor")
    else:
        assert (found.outcome, found.cheat) == ("undecided", None)


@given(st.integers(0, 50_000), SHARES, SHARES)
def test_the_bound_falls_and_is_a_probability(windows, share, wrong):
    """With every window, and with every share."""
    now = unseen(windows, share, wrong)
    assert 0 <= unseen(windows + 1, share, wrong) <= now <= 1
    assert now <= unseen(windows, share / 2, wrong)


@given(st.floats(0, 0.999), st.floats(1e-4, 1), st.floats(1e-3, 1))
def test_so_many_windows_are_enough_and_one_less_is_not(found, share, wrong):
    """Of the bound's own formula."""
    count = windows_until(found, share, wrong)
    left = 1 - share * wrong
    assert 1 - left**count >= found
    assert count == 0 or 1 - left ** (count - 1) < found


def test_a_share_of_nothing_finds_nothing():
    """And certainty is not to be had."""
    assert windows_until(0.95, 0.0, 1.0) is None
    assert windows_until(0.95, 0.05, 1.0) == 59
    assert windows_until(0.99, 0.05, 1.0) == 90
    for bad in (lambda: windows_until(1.0, 0.5, 1), lambda: unseen(3, 1.1, 0),
                lambda: Chance(-0.1)):  # fmt: skip
        with pytest.raises(BadValueError):
            bad()


def test_windows_are_drawn_at_the_share_and_counted():
    """By whatever draws."""
    chance = Chance(0.25, random.Random(7).random)
    drawn = sum(chance.take() for _ in range(4_000))
    assert (chance.windows, chance.drawn) == (4_000, drawn)
    assert 900 < drawn < 1_100


class Draws:
    """Draws windows as it is told."""

    def __init__(self, draws):
        """Begin."""
        self.draws, self.done, self.dropped = list(draws), [], []

    def record(self, stage, begin, members, *, is_first):
        """Of the recorder."""
        if not self.draws.pop(0):
            return None
        return Recording(stage, begin(), self.done.append, members=members, is_first=is_first)

    def drop(self, recording):
        """Of the recorder."""
        self.dropped.append(recording)


def read_of(name="l_out-3"):
    """Return an entry that reads an activation."""
    head = bytearray(tensor(8, buffer=1, name=name.encode()) + TWO_U64.pack(0, 32))
    frame = Frame(int(Command.GET_TENSOR), len(head), head)
    return Entry(frame, reply=Reply(frame, 0.0))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6),
       st.randoms(use_true_random=False))  # fmt: skip
def test_a_recording_holds_its_window_and_is_done_once_all_is_answered(windows, chance):
    """Also where answers come after the window; what never comes is given up at the end."""
    draws = Draws([drawn for drawn, _ in windows] + [False])
    recorder = Recorder(draws, 0, list, lambda: ["a seat"])
    owed, told = [], []
    for drawn, count in windows:
        recorder.turn()
        entries = [read_of() for _ in range(count)]
        for entry in entries:
            recorder.add(entry)
        owed += entries
        told += [entries] if drawn else []
        chance.shuffle(owed)
        while owed and chance.random() < 0.7:
            recorder.answered("a seat", owed.pop().reply, b"d")
    recorder.turn()
    recorder.end()
    assert len(draws.done) + len(draws.dropped) == len(told)
    open_replies = {id(entry.reply) for entry in owed}
    for recording in draws.done:
        assert recording.entries in told
        assert not open_replies & {id(entry.reply) for entry in recording.entries}


@pytest.fixture
def node(tmp_path):
    """A node's id."""
    return load_identity(tmp_path / "node.key").id


def test_who_is_excluded_is_not_paid_until_forgiven(tmp_path, node):
    """The count of cheats stays; the file is the owner's alone."""
    other = load_identity(tmp_path / "other.key").id
    standing = Standing(tmp_path / "audits.json", now=lambda: 5.0)
    standing.note(other, "ben", "same")
    standing.note(node, "ana", "undecided")
    assert standing.excluded() == frozenset()
    standing.exclude(node, "ana", "answer 3 is wrong", withheld=("s",))
    standing.exclude(node, "ana", "again", withheld=("s", "t"))
    for name in ("x.json", "y.json"):
        standing.add_evidence(node, name)
    standing.saw({node: 8})
    assert standing.all()[node].share == 3 / 8
    assert standing.excluded() == {node}
    assert standing.payable({node: 3, other: 4}) == {other: 4}
    assert standing.all()[node] == Stood(
        node, "ana", undecided=1, cheats=2, windows=8, excluded_s=5.0, why="again",
        evidence=("x.json", "y.json"), withheld=("s", "t"),
    )  # fmt: skip
    assert (tmp_path / "audits.json").stat().st_mode & 0o077 == 0
    assert standing.forgive("ana").cheats == 2
    assert standing.excluded() == frozenset()
    with pytest.raises(BadValueError, match="no excluded node"):
        standing.forgive("ana")


@pytest.mark.parametrize("field", ["same", "node", "excluded_s"])
def test_a_damaged_record_is_named(tmp_path, node, field):
    """Nothing is guessed."""
    path = tmp_path / "audits.json"
    Standing(path).note(node, "ana", "same")
    text = path.read_text()
    values = {"same": '"same": 1', "node": f'"node": "{node}"', "excluded_s": '"excluded_s": null'}
    assert values[field] in text
    path.write_text(text.replace(values[field], f'"{field}": "x"'))
    with pytest.raises(BadValueError, match=r"audits\.json is damaged"):
        Standing(path).all()


def test_evidence_is_read_as_it_was_written_or_not_at_all(tmp_path, node):
    """A changed byte is seen; without a receipt the node signed nothing."""
    digest = sha256(b"x").hexdigest()
    written = Evidence(node, (digest,), ("l_out-1",), (0,), (digest,),
                       {node: (digest,), "here": ("ab" * 32,)}, 0, 0.5, ())  # fmt: skip
    path = keep(tmp_path / "evidence", written, 1_795_000_000.0)
    assert read(path) == written
    assert not read(path).signed_by_node()
    path.write_bytes(path.read_bytes().replace(b'"first":0', b'"first": 0'))
    with pytest.raises(BadValueError, match="was changed"):
        read(path)


def test_the_commands_say_who_is_excluded_and_the_bound(tmp_path, node, monkeypatch):
    """As text and as JSON."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    runner = CliRunner()
    assert "no window was audited yet" in runner.invoke(audit, ["show"]).output
    standing = Standing(tmp_path / "swarm" / "audits.json")
    standing.exclude(node, "ana", "answer 3 is wrong")
    assert "answer 3 is wrong" in runner.invoke(audit, ["show"]).output
    assert node in runner.invoke(audit, ["show", "--json"]).output
    assert "after 59 windows" in runner.invoke(audit, ["bound"]).output
    assert runner.invoke(audit, ["forgive", "ana"]).exit_code == 0
    assert standing.excluded() == frozenset()
