"""Server-sent events come out the same however their bytes were cut."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.events import read_stream, split_messages


def chunk(text: str) -> dict:
    """One OpenAI chunk with text."""
    return {"choices": [{"delta": {"content": text}, "index": 0}]}


def cut(data: bytes, places: list[int]) -> list[tuple[int, bytes]]:
    """Cut bytes at places, stamped 0, 1, 2 and so on."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [(i, data[a:b]) for i, (a, b) in enumerate(pairwise(edges))]


@given(
    st.lists(st.text(min_size=1, max_size=12), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_cuts_do_not_matter(texts, places, end, ascii_only):
    """Text, order and end are the same wherever the stream was cut, in the middle of bytes too."""
    lines = [f"data: {json.dumps(chunk(t), ensure_ascii=ascii_only)}{end}{end}" for t in texts]
    data = ("".join(lines) + f": ping{end}{end}data: [DONE]{end}{end}").encode(
        "utf-8", "surrogatepass"
    )

    reading = read_stream(cut(data, places))

    if reading.failure is None:
        assert "".join(texts) == reading.text
        assert [*["answer"] * len(texts), "comment", "done"] == [e.kind for e in reading.events]
        times = [event.t_ns for event in reading.events]
        assert sorted(times) == times


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=5))
def test_no_bytes_raise(data, places):
    """Whatever a server sends, reading ends with events or a named failure."""
    reading = read_stream(cut(data, places))

    assert reading.failure is None or reading.failure.reason in ("malformed", "stream_error")


def test_an_event_has_the_stamp_of_its_last_byte():
    """An event that came in two pieces is stamped when it could first be read."""
    pieces = [(10, b"data: a"), (20, b"b\n"), (30, b"\ndata: c\n\n")]

    assert [(30, "ab"), (30, "c")] == [(m.t_ns, m.data) for m in split_messages(pieces)]


def test_several_data_lines_are_one_event():
    """Data lines of one event are joined by a newline, as the standard asks."""
    assert ["a\nb"] == [m.data for m in split_messages([(1, b"data: a\ndata:b\nid: 7\n\n")])]


def test_llama_timings_are_read():
    """llama.cpp's own timings come out in seconds."""
    timings = {"prompt_n": 4, "prompt_ms": 20, "predicted_n": 5, "predicted_ms": 77.5, "cache_n": 1}
    last = {"choices": [{"text": "", "finish_reason": "length"}], "timings": timings}

    native = read_stream([(1, f"data: {json.dumps(last)}\n\n".encode())]).native

    assert native is not None
    assert (4, 0.02, 5, 0.0775, 1) == (
        native.prompt_tokens, native.prompt_s, native.decode_tokens, native.decode_s,
        native.cached_tokens,
    )  # fmt: skip
