"""Each misbehaviour of a server gives the right event, or the right failure."""

import socket
import threading
from itertools import pairwise

import pytest

from shoestring.engines.events import read_stream
from shoestring.engines.http_engine import HttpRecording
from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.protocol import Generation, Patience, Prompt
from shoestring.engines.transport import Cancellation, Exchange
from shoestring.errors import BadValueError, MissingError

BASE = "truth-ttft10-itl1-n8"


def ask(url: str, faults: str, *, stall_s: float = 5.0, request_s: float = 20.0) -> Generation:
    """Ask the known-truth server once."""
    engine = OpenAIEngine(url, BASE + faults)
    return engine.generate(Prompt("now", 100), patience=Patience(stall_s, request_s))


def kinds(generation: Generation) -> list[str]:
    """The kinds of the events, in order."""
    return [event.kind for event in generation.events]


def test_whole_stream(truth_url):
    """A plain stream is eight answers, a finish, the usage and the end."""
    whole = ask(truth_url, "")

    assert whole.failure is None
    assert [*["answer"] * 8, "finish", "usage", "done"] == kinds(whole)
    assert whole.usage is not None
    assert (8, "length") == (whole.usage.completion_tokens, whole.finish_reason)


def test_stamps_follow_the_server(truth_url):
    """Every arrival is stamped after the server's own stamp of the same write, and in order."""
    stamps = [(t["sent_ns"], t["arrived_ns"]) for t in ask(truth_url, "").truth]

    assert all(sent < arrived for sent, arrived in stamps)
    assert sorted(stamps) == stamps


@pytest.mark.parametrize(
    ("faults", "kind", "count"),
    [
        ("+role", "role", 1),
        ("+empty3", "empty", 3),
        ("+reasoning5", "reasoning", 5),
        ("+keepalive", "comment", 7),
        ("+nousage", "usage", 0),
        ("+usageinfinish", "finish", 1),
    ],
)
def test_chunks_without_answers_are_not_answers(truth_url, faults, kind, count):
    """Role, empty, reasoning, comment and usage chunks are told apart from the answer."""
    generation = ask(truth_url, faults)

    assert generation.failure is None
    assert count == kinds(generation).count(kind)
    assert 8 == kinds(generation).count("answer") + kinds(generation).count("reasoning")


def test_reasoning_and_answer_are_kept_apart(truth_url):
    """Thoughts do not stand in the answer."""
    generation = ask(truth_url, "+reasoning5")

    assert (5, 3) == (len(generation.reasoning.split()), len(generation.text.split()))


def test_several_tokens_in_a_chunk(truth_url):
    """Tokens are counted by the server, not by chunks."""
    generation = ask(truth_url, "+pack4")

    assert 2 == kinds(generation).count("answer")
    assert generation.usage is not None
    assert 8 == generation.usage.completion_tokens


def test_usage_in_the_finish_chunk(truth_url):
    """Usage is found where llama-server's completions put it."""
    generation = ask(truth_url, "+usageinfinish")

    assert generation.usage is not None
    assert 8 == generation.usage.completion_tokens


def test_events_that_share_a_write(truth_url):
    """Events that arrive together get one stamp and stay apart."""
    generation = ask(truth_url, "+coalesce4")

    assert generation.failure is None
    assert 8 == kinds(generation).count("answer")
    assert len({event.t_ns for event in generation.events}) < len(generation.events)


def test_split_characters_arrive_whole(truth_url):
    """A character whose bytes come in two writes is one character."""
    generation = ask(truth_url, "+utf8")

    assert generation.failure is None
    assert "\ufffd" not in generation.text
    assert not generation.text.isascii()


def test_promised_keep_alive_that_is_not_kept(truth_url):
    """A server that promises keep-alive and closes does not spoil the next request."""
    assert [None, None] == [ask(truth_url, "+falsekeepalive").failure for _ in range(2)]


@pytest.mark.parametrize(
    ("faults", "reason", "answers"),
    [
        ("+nofinal", "no_final_event", 8),
        ("+error3", "stream_error", 3),
        ("+badjson3", "malformed", 3),
        ("+reset3", "reset", 3),
        ("+stall3", "stall", 3),
        ("+http503", "http_error", 0),
        ("+slowheaders60000", "headers_timeout", 0),
    ],
)
def test_failures_have_their_reason(truth_url, faults, reason, answers):
    """A broken answer is a failure with its own reason, and keeps what had arrived."""
    generation = ask(truth_url, faults, stall_s=3.0)

    assert generation.failure is not None
    assert reason == generation.failure.reason
    assert answers == kinds(generation).count("answer")


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("text/event-stream", b'data: {"choices":[{"finish_reason":"stop"}]}\n\n', "no_tokens"),
        ("application/json", b'{"choices":[{"text":"whole"}]}', "malformed"),
    ],
)
def test_answers_that_are_none(content_type, body, reason):
    """A whole stream without text, and an answer that is no stream, are failures."""
    raw = Exchange(1, 2, 4, 0.1, 200, content_type, [(3, body)], None)

    failure = HttpRecording(raw, 0, read_stream, "text/event-stream").read().failure

    assert failure is not None
    assert reason == failure.reason


def test_deadline_ends_a_stream_that_goes_on(truth_url):
    """A request that keeps talking past its deadline is cut there."""
    engine = OpenAIEngine(truth_url, "truth-ttft1-itl50-n1000")

    failure = engine.generate(Prompt("now", 5000), patience=Patience(5.0, 0.3)).failure

    assert failure is not None
    assert "deadline" == failure.reason


def test_a_pause_shorter_than_the_limit_is_a_gap(truth_url):
    """A stall that ends is no failure: it stands in the gaps, where a mean would hide it."""
    generation = ask(truth_url, "+stall4:3000", stall_s=20.0)

    times = [event.t_ns for event in generation.events if event.kind == "answer"]
    gaps_s = [(b - a) / 1e9 for a, b in pairwise(times)]
    assert generation.failure is None
    assert 3 == gaps_s.index(max(gaps_s))
    assert max(gaps_s) >= 2.99


def test_nobody_listens():
    """A refused connection is a failure of the request, and an error of the start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        generation = ask(url, "")

        assert generation.failure is not None
        assert "connect" == generation.failure.reason
        assert generation.connect_s is None
        with pytest.raises(MissingError, match="no server answers"):
            OpenAIEngine(url, BASE).start()


def test_cancellation_ends_a_stream_in_flight(truth_url):
    """A cut from another thread ends an endless stall."""
    cancellation = Cancellation()
    engine = OpenAIEngine(truth_url, BASE + "+stall0")
    threading.Timer(0.2, cancellation.cancel).start()

    generation = engine.generate(Prompt("now", 5), cancellation=cancellation)

    assert generation.failure is not None
    assert generation.failure.reason in ("reset", "no_final_event")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80",
        "ftp://host",
        "http://",
        "http://user:secret@host",
        "http://h:99999",
        "ftp://user:secret@host",
        "http://h:0",
        "http://h/a b",
        "http://h/\u00fc",
        "",
    ],
)
def test_bad_base_urls_are_refused(url):
    """A base URL that cannot be used is named, and a password in it is not repeated."""
    with pytest.raises(BadValueError, match="base URL") as caught:
        OpenAIEngine(url, "m")

    assert "secret" not in str(caught.value)


def test_the_key_is_sent_and_never_shown(truth_url, monkeypatch):
    """The key comes from the environment and stands in no representation."""
    monkeypatch.setenv("SHOESTRING_API_KEY", "sk-very-secret")
    engine = OpenAIEngine(truth_url, BASE)

    assert "Bearer sk-very-secret" == engine._headers()["Authorization"]
    assert "secret" not in repr(engine) + repr(engine.options)
