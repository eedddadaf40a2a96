"""An open loop sends when it is planned, drops nothing, and ends when it is told to."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from types import SimpleNamespace

import pytest

from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.protocol import Patience, Prompt
from shoestring.engines.transport import Cancellation
from shoestring.measure.loop import Ask, Stop
from shoestring.measure.openloop import open_loop
from shoestring.measure.prompting import PromptText
from shoestring.measure.schedule import Planned, plan_batches
from shoestring.measure.suite import load_suite

FAST = "truth-ttft5-itl1-n4"
ENDLESS = "truth-ttft5-itl1-n4+stall2"


@pytest.fixture
def stop() -> Stop:
    """Nothing asks it to stop yet."""
    return Stop(Cancellation())


@pytest.fixture
def engine(truth_url: str) -> Iterator[Callable[[str], OpenAIEngine]]:
    """Opens engines on the known-truth server."""
    opened: list[OpenAIEngine] = []

    def open_one(model: str) -> OpenAIEngine:
        opened.append(OpenAIEngine(truth_url, model))
        return opened[-1]

    yield open_one
    for one in opened:
        one.stop()


def asks(*arrivals_s: float) -> list[Ask]:
    """Requests that leave at these moments."""
    return [
        Ask(Planned(f"a{number}", 1, "c", 1, at), Prompt("now", 100), PromptText("now", None))
        for number, at in enumerate(arrivals_s)
    ]


def loop(engine, wanted, limit, stop, **hooks):
    """An open loop that closes."""
    return closing(open_loop(engine, wanted, limit, Patience(), stop, stop._cancellation, **hooks))


def test_poisson_arrivals_leave_in_order_at_their_moments(engine, stop):
    """Each is intended exactly when it was planned, and the server gets none before that."""
    suite = load_suite("open-loop")
    case = dataclasses.replace(
        suite.cases[0], arrival="poisson", rate_per_s=40.0, requests_per_block=30
    )
    planned = plan_batches(dataclasses.replace(suite, blocks=1, cases=(case,)))[0].requests
    wanted = [Ask(p, Prompt("now", 100), PromptText("now", None)) for p in planned]

    with loop(engine(FAST), wanted, 30, stop) as answers:
        got = {answer.ask.planned.id: answer.recording.read() for answer in answers}

    sent = [got[p.id] for p in planned]
    origin_ns = sent[0].intended_ns
    assert [None] * 30 == [generation.failure for generation in sent]
    assert [generation.intended_ns - origin_ns for generation in sent] == pytest.approx(
        [round((p.arrival_s - planned[0].arrival_s) * 1e9) for p in planned], abs=1
    )
    # By the server's own stamp no request arrived before its moment.
    assert all(g.truth[0]["received_ns"] > g.intended_ns for g in sent)


def test_a_full_server_delays_and_drops_nothing(engine, stop):
    """With one slot and three requests due at once, each waits for the last, and counts from 0."""
    with loop(engine("truth-ttft30-itl1-n2"), asks(0, 0, 0), 1, stop) as answers:
        got = [answer.recording.read() for answer in answers]

    assert 3 == len(got)
    assert 1 == len({generation.intended_ns for generation in got})
    assert all(later.sent_ns >= earlier.end_ns for earlier, later in pairwise(got))


def test_no_more_than_the_limit_are_in_flight(engine, stop):
    """Requests overlap up to the limit, and not beyond."""
    with loop(engine("truth-ttft40-itl1-n2"), asks(*[0] * 9), 3, stop) as answers:
        got = [answer.recording.read() for answer in answers]

    overlaps = [sum(o.sent_ns <= g.sent_ns < o.end_ns for o in got) for g in got]
    assert 9 == len(got)
    assert 3 >= max(overlaps) > 1


def test_a_resumed_batch_starts_with_the_first_that_is_missing(engine, stop):
    """What is left keeps its distances and does not wait for what was sent before."""
    with loop(engine(FAST), asks(3600.0, 3600.05), 2, stop) as answers:
        got = sorted(answer.recording.read().intended_ns for answer in answers)

    assert 50_000_000 == got[1] - got[0]


def test_a_stop_wakes_those_that_wait(engine, stop):
    """A request that is due in an hour is not sent when the loop is asked to stop."""
    with loop(engine(FAST), asks(0, 0.01, 3600, 3601), 4, stop) as answers:
        got = []
        for answer in answers:
            got.append(answer.ask.planned.id)
            if len(got) == 2:
                stop.ask("enough")

    assert ["a0", "a1"] == sorted(got)


def test_what_was_cut_is_not_an_answer(engine, stop):
    """A request that was broken off is not yielded: it will be sent again."""
    threading.Timer(0.2, lambda: (stop.ask("cut"), stop.cut())).start()

    with loop(engine(ENDLESS), asks(0, 0), 2, stop) as answers:
        assert [] == list(answers)


def test_closing_early_breaks_off_what_is_in_flight(engine, stop):
    """A caller that wants no more leaves no thread and no request behind."""
    wanted = asks(0, 0.2, 0.25)
    model = engine(FAST)
    answers = open_loop(model, wanted, 3, Patience(), stop, stop._cancellation)
    next(answers)
    answers.close()

    assert stop.was_cut
    assert not [t for t in threading.enumerate() if t.name.startswith("slot-")]


def test_an_error_in_a_slot_is_raised_in_the_caller(stop):
    """Nothing is swallowed in a thread."""

    def fail(*_arguments, **_options):
        raise ZeroDivisionError("in a slot")

    with (
        loop(SimpleNamespace(record=fail), asks(0, 0.01), 2, stop) as answers,
        pytest.raises(ZeroDivisionError, match="in a slot"),
    ):
        list(answers)


def test_hooks_stand_around_each_request(engine, stop):
    """``before`` is called when a request is due, ``after`` with what was taken down."""
    seen: list[str] = []
    with loop(
        engine(FAST), asks(0, 0.01), 1, stop,
        before=lambda: seen.append("before"),
        after=lambda recording: seen.append(recording.read().text),
    ) as answers:  # fmt: skip
        texts = [answer.recording.read().text for answer in answers]

    assert ["before", texts[0], "before", texts[1]] == seen


def test_a_gate_that_waits_makes_requests_late(engine, stop):
    """A request held back by ``before`` is intended when it was planned, and sent later."""
    with loop(engine(FAST), asks(0), 1, stop, before=lambda: stop.wait(0.05) or None) as answers:
        generation = next(answers).recording.read()

    assert generation.sent_ns - generation.intended_ns > 50_000_000


def test_no_asks_end_at_once(engine, stop):
    """A batch that has all its rows sends nothing."""
    with loop(engine(FAST), [], 4, stop) as answers:
        assert [] == list(answers)
