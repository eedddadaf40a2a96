"""Answers in parts: however the network cuts them, the same goes on and the same is counted."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.gateway.errors import Refusal
from shoestring.gateway.streams import (
    MAX_COUNT,
    MAX_PART_BYTES,
    BrokenStreamError,
    EventStream,
    LineStream,
    Stream,
    Used,
    dump_json,
    error_text,
    first_choice,
    has_words,
    parse_answer,
    parse_json,
    parse_part,
    payload_of,
    used_of,
)
from shoestring.gateway.translating import OllamaAnswer
from shoestring.testing.fuzz_engine import make_reply

WORD = b'{"choices":[{"delta":{"content":"w"}}]}'
USAGE = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
LINE = b'{"message":{"content":"w"},"done":false}'
LAST = b'{"message":{"content":""},"done":true,"prompt_eval_count":3,"eval_count":2}'
ODD = [b"nonsense", b'{"error":{"message":"broke"}}', b'{"choices":5}', b'{"usage":[]}', b"[]",
       b'{"usage":{"prompt_tokens":1e400,"completion_tokens":-1}}', b'{"choices":["x",5,null]}',
       b'{"message":"x","done":1}', b"\xff", b'{"a":NaN}',
       b'{"timings":{"prompt_ms":1e308}}']  # fmt: skip


def event(payload: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + payload + b"\n\n"


def all_parts(stream: Stream, pieces: list[bytes]) -> bytes:
    """What goes on, up to the end, as the relay asks for it."""
    told = []
    for piece in pieces:
        told.append(stream.feed(piece))
        if stream.ended:
            break
    return b"".join(told)


def tallies(stream: Stream) -> tuple[Any, ...]:
    """All that is known of a stream."""
    return stream.answered, stream.complete, stream.used, stream.failure, stream.broken


def seen(told: bytes) -> list[bytes]:
    """The parts that a client reads: blank lines are none."""
    return [line for line in told.split(b"\n") if line.strip()]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes, cut at some places."""
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def streams() -> list[Stream]:
    """One of each kind."""
    return [
        EventStream(keep_usage=True),
        EventStream(keep_usage=False),
        LineStream(),
        OllamaAnswer("chat", "m"),
    ]


class StillAnswer(OllamaAnswer):
    """Without the time of each line, which no two answers share."""

    def feed(self, data: bytes) -> bytes:
        """Take what arrived."""
        lines = [json.loads(line) for line in super().feed(data).splitlines()]
        return b"".join(json.dumps(line | {"created_at": ""}).encode() + b"\n" for line in lines)


comments = st.sampled_from([b"", b": hi\n\n", b"\n\n", b"event: message\n", b"id: 1\n", b"\n"])


@given(
    parts=st.lists(st.tuples(comments, st.sampled_from([WORD, WORD, USAGE, b"[DONE]", *ODD]))),
    places=st.lists(st.integers(0, 2000)),
    returns=st.booleans(),
    keep_usage=st.booleans(),
)
@example(parts=[(b"", WORD), (b"", b"[DONE]"), (b"", b"nonsense")], places=[], returns=False,
         keep_usage=False)  # fmt: skip
def test_events_may_be_cut_anywhere(
    *, parts: list[tuple[bytes, bytes]], places: list[int], returns: bool, keep_usage: bool
):
    """Whole, cut at any places or at every byte: the same events go on, the same is known."""
    data = b"".join(before + event(payload) for before, payload in parts)
    if returns:
        data = data.replace(b"\n", b"\r\n")
    found = []
    for pieces in ([data], cut(data, places), [data[at : at + 1] for at in range(len(data))]):
        passed, told = EventStream(keep_usage=keep_usage), StillAnswer("chat", "m")
        out = seen(all_parts(passed, pieces)), seen(all_parts(told, pieces))
        found.append((out, tallies(passed), tallies(told)))
    assert found[0] == found[1] == found[2]


@given(
    parts=st.lists(st.sampled_from([LINE, LINE, LAST, b"", *ODD])),
    places=st.lists(st.integers(0, 2000)),
    ends=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
)
def test_lines_may_be_cut_anywhere(parts: list[bytes], places: list[int], ends: bytes):
    """Likewise for Ollama's lines."""
    data = b"".join(part + ends for part in parts)
    found = []
    for pieces in ([data], cut(data, places), [data[at : at + 1] for at in range(len(data))]):
        stream = LineStream()
        found.append((seen(all_parts(stream, pieces)), tallies(stream)))
    assert found[0] == found[1] == found[2]


@given(pieces=st.lists(st.binary(max_size=60) | st.sampled_from([*map(event, ODD), *ODD, b"\n"])))
def test_no_bytes_raise(pieces: list[bytes]):
    """An engine may send what it likes."""
    for stream in streams():
        all_parts(stream, pieces)


@given(seed=st.integers(0, 10**9 - 1), path=st.sampled_from(["/v1/chat/completions", "/api/chat"]))
def test_no_answer_of_the_odd_engine_raises(seed: int, path: str):
    """What it sends goes through all readers."""
    reply = make_reply(path, b'{"stream":true,"x":"fuzz-%d"}' % seed)
    for stream in streams():
        all_parts(stream, [piece[:10_000] for piece in reply.pieces[:50]])


def test_an_answer_goes_on_by_the_byte():
    """What need not be seen is not touched, however it is written."""
    strange = b'data:  {"choices" : [ {"delta":{"content":"\\u00fc"} } ]}\n\n'
    stream = EventStream(keep_usage=True)
    stream.feed(event(WORD))
    assert stream.feed(strange) == strange


def test_the_end_is_the_end():
    """Nothing behind it goes on, in the same packet or later."""
    for stream, data in (
        (EventStream(keep_usage=True), event(WORD) + event(b"[DONE]") + event(WORD)),
        (LineStream(), LINE + b"\n" + LAST + b"\n" + LINE + b"\n"),
    ):
        told = stream.feed(data)
        assert stream.complete
        assert told.count(b'"w"') == 1


@pytest.mark.parametrize("error", [{"message": "broke"}, "broke"])
def test_an_error_ends_an_answer(error: Any):
    """It is kept for our own words; not even [DONE] goes on after it, as some engines send it."""
    stream = EventStream(keep_usage=True)
    told = stream.feed(
        event(WORD) + event(json.dumps({"error": error}).encode()) + event(b"[DONE]")
    )
    assert (told, stream.failure, stream.complete) == (event(WORD), "broke", False)


def test_what_came_before_nonsense_goes_on():
    """An answer is told as far as it was good."""
    stream = EventStream(keep_usage=True)
    assert stream.feed(event(WORD) + event(b'{"usage"') + event(WORD)) == event(WORD)
    assert stream.broken is not None
    assert not stream.complete


def test_counts_are_kept_back():
    """Who did not ask for them does not see the event that has nothing else."""
    stream = EventStream(keep_usage=False)
    told = stream.feed(event(WORD) + event(USAGE) + event(b"[DONE]"))
    assert (told, stream.used) == (event(WORD) + event(b"[DONE]"), Used(3, 2))


def test_a_part_without_an_end_is_not_kept():
    """A megabyte without a border is no part."""
    for stream in streams():
        stream.feed(b"data: " + b"x" * MAX_PART_BYTES)
        assert stream.broken is not None


@pytest.mark.parametrize("count", [-1, True, 1.5, "3", None, MAX_COUNT + 1, 10**4000])
def test_what_is_no_count_is_not_known(count: Any):
    """None, never 0, and nothing that a counter could not hold."""
    assert used_of({"prompt_tokens": count, "completion_tokens": 2}) == Used(None, 2)


@pytest.mark.parametrize("usage", [None, 5, "x", [], [{}], {}])
def test_a_usage_that_is_none_counts_nothing(usage: Any):
    """Engines say it in many ways."""
    assert used_of(usage) == Used()


@pytest.mark.parametrize("text", [b"", b"[]", b"5", b"nul", b"\xff", b'{"a":NaN}', b"[" * 10**5])
def test_what_is_no_object_is_no_part(text: bytes):
    """One error for all of it."""
    with pytest.raises(BrokenStreamError):
        parse_part(text)


def test_an_error_with_a_good_status_is_an_error():
    """What an engine says counts, not only its status."""
    with pytest.raises(Refusal, match="broke") as found:
        parse_answer(b'{"error":{"message":"broke"}}')
    assert (found.value.status, found.value.reason) == (502, "engine_error")


def test_what_is_made_is_json():
    """Halves of characters become question marks; a number that JSON has not is refused."""
    assert dump_json({"a": "x\ud800"}) == b'{"a":"x?"}'
    with pytest.raises(BrokenStreamError):
        dump_json({"a": parse_json("1e999")})


@given(error=st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_an_errors_text_can_be_sent(error: Any):
    """Whatever an engine calls an error."""
    assert len(error_text(error).encode()) <= 2000


@given(choice=st.sampled_from([None, 5, "x", [], {}, {"delta": 5}, {"delta": {}}, {"text": ""}]))
def test_what_holds_no_words_is_no_answer(choice: Any):
    """A role alone does not count as the first token."""
    assert not has_words(choice)
    assert isinstance(first_choice({"choices": [choice]}), dict)


@pytest.mark.parametrize(
    ("text", "payload"),
    [(b"data: x", b"x"), (b"data:x", b"x"), (b"event: m\ndata: x", b"x"), (b": hi", b""),
     (b"data: x\ndata: y", b"x\ny"), (b"", b""), (b"error: x", b"")],
)  # fmt: skip
def test_the_data_of_an_event(text: bytes, payload: bytes):
    """As the standard of server-sent events puts it together."""
    assert payload_of(text) == payload
