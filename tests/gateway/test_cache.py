"""Only what is sure to be the same answer is given twice, and what is kept stays within bounds."""

import asyncio
import json
import random
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.gateway.cache import (
    CacheStats,
    MemoryCache,
    NoCache,
    Stored,
    fingerprint,
    is_deterministic,
)
from shoestring.gateway.errors import Refusal

CHAT = "/v1/chat/completions"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
OLLAMA = {"model": "m", "prompt": "hello", "options": {"temperature": 0}}
ANSWER = Stored(
    status=200,
    content_type="text/event-stream",
    chunks=(b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"),
    variant="q4",
    engine="one",
    input_tokens=3,
    output_tokens=None,
)
KEYS = st.sampled_from(["a", "b", "1"])
LEAVES = st.sampled_from(
    [None, False, True, 0, 1, -1, 0.0, -0.0, 1.0, 1e16, 10**16, "", "0", "1", "null", "a", "\ud83d",
     "\ud83d\ude00", "😀", "é", "e\u0301", '","a":1', [], {}]
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2)
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=3)


def name(body, *, path=CHAT, digest="d", owner="k") -> str:
    """The fingerprint of a body."""
    return fingerprint(path, body, digest=digest, owner=owner)


def exactly(value):
    """A value that equals another's only if both are the same JSON, number types included."""
    if isinstance(value, dict):
        return {key: exactly(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [exactly(inner) for inner in value]
    return type(value).__name__, repr(value)


@given(BODIES, BODIES)
@example({"a": 1}, {"a": 1.0})
@example({"a": 1}, {"a": True})
@example({"a": "\ud83d\ude00"}, {"a": "😀"})
@example({"a": [[], "b"]}, {"a": [["b"]]})
def test_two_requests_share_a_name_only_if_they_are_the_same(one, other):
    """Same JSON, same name; anything else, another name."""
    assert (name(one) == name(other)) == (exactly(one) == exactly(other))


@given(
    st.tuples(*[st.text("ab,\"[]'{}", min_size=1, max_size=3)] * 3),
    st.tuples(*[st.text("ab,\"[]'{}", min_size=1, max_size=3)] * 3),
)
def test_path_model_and_owner_cannot_run_into_each_other(one, other):
    """No path, digest and owner can be spelled so that they look like others."""
    names = [
        name(HELLO, path=path, digest=digest, owner=owner) for path, digest, owner in (one, other)
    ]
    assert (names[0] == names[1]) == (one == other)


@given(BODIES, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_count(body, rng: random.Random):
    """A body that is written in another order and parsed again has the same name."""

    def shuffled(value):
        if isinstance(value, dict):
            items = list(value.items())
            rng.shuffle(items)
            return {key: shuffled(inner) for key, inner in items}
        return [shuffled(inner) for inner in value] if isinstance(value, list) else value

    assert name(json.loads(json.dumps(shuffled(body)))) == name(json.loads(json.dumps(body)))


def test_of_a_key_given_twice_the_last_counts():
    """As the parser reads it; it is also what the engine is sent."""
    assert name(json.loads('{"a": 1, "a": 2}')) == name({"a": 2})


@pytest.mark.parametrize("field", ["stream", "stream_options", "user", "metadata", "unheard_of"])
def test_every_field_counts(field):
    """What seems not to change the answer still makes another request, and null is a value."""
    assert len({name(HELLO), name({**HELLO, field: None}), name({**HELLO, field: True})}) == 3


@pytest.mark.parametrize("text", ['{"a": 1e999}', '{"a": NaN}', '{"a": [-Infinity]}'])
def test_what_no_json_can_hold_is_refused(text):
    """Python's parser takes these; an engine would not."""
    with pytest.raises(Refusal, match="not JSON") as refused:
        name(json.loads(text))
    assert refused.value.status == 400


def test_endless_nesting_is_refused():
    """No traceback for a body that is deeper than the encoder goes."""
    body = {}
    for _ in range(100_000):
        body = {"a": body}
    with pytest.raises(Refusal, match="not JSON"):
        name(body)
    while body:  # no recursion when it is let go
        body = body.pop("a")


def test_an_unknown_model_is_never_kept():
    """Without a digest nobody would notice that the model changed."""
    with pytest.raises(ValueError, match="no digest"):
        name(HELLO, digest="")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, HELLO),
        (CHAT, {**HELLO, "temperature": 0.0, "n": 1, "seed": 7, "stream": True}),
        (CHAT, {**HELLO, "tools": [], "logprobs": None, "n": None}),
        (CHAT, {**HELLO, "messages": [{"content": [{"type": "text", "text": "a"}]}]}),
        ("/v1/completions", {"model": "m", "prompt": "a", "temperature": 0}),
        ("/generate", {"prompt": "a", "temperature": 0}),
        ("/api/generate", OLLAMA),
        ("/api/generate", {**OLLAMA, "options": {"top_k": 1}}),
        ("/api/chat", {**HELLO, "temperature": None, "tools": [], "options": {"temperature": 0.0}}),
        ("/v1/embeddings", {"model": "m", "input": "a"}),
        ("/api/embed", {"model": "m", "input": ["a"], "keep_alive": "5m"}),
    ],
)  # fmt: skip
def test_one_most_probable_answer(path, body):
    """These ask for it."""
    assert is_deterministic(path, body)


def with_part(part):
    """A chat whose message has this part."""
    return {**HELLO, "messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {key: value for key, value in HELLO.items() if key != "temperature"}),
        (CHAT, {**HELLO, "temperature": None}),
        (CHAT, {**HELLO, "temperature": False}),
        (CHAT, {**HELLO, "temperature": "0"}),
        (CHAT, {**HELLO, "temperature": 1e-9}),
        (CHAT, {**HELLO, "temperature": 0.7, "seed": 7}),
        (CHAT, {**HELLO, "temperature": 1, "top_k": 1}),
        (CHAT, {**HELLO, "n": 2}),
        (CHAT, {**HELLO, "n": True}),
        (CHAT, {**HELLO, "tools": [{"type": "function"}]}),
        (CHAT, {**HELLO, "functions": [{"name": "f"}]}),
        (CHAT, {**HELLO, "logprobs": True}),
        (CHAT, {**HELLO, "xtc_probability": 0.5}),
        (CHAT, {**HELLO, "TEMPERATURE": 1}),
        (CHAT, {**HELLO, "messages": []}),
        (CHAT, {**HELLO, "messages": 7}),
        (CHAT, with_part({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}})),
        (CHAT, with_part({"type": "image_url", "image_url": 7})),
        (CHAT, with_part("text")),
        ("/api/generate", {**OLLAMA, "options": None}),
        ("/api/generate", {**OLLAMA, "options": {"top_k": True}}),
        ("/api/generate", {**OLLAMA, "options": {"temperature": 0, "mirostat": 2}}),
        ("/api/generate", {**OLLAMA, "keep_alive": 0}),
        ("/api/generate", {**OLLAMA, "prompt": ""}),
        ("/api/generate", {"model": "m", "prompt": "a", "temperature": 0}),
        ("/v1/embeddings", {"model": "m"}),
        ("chat", HELLO),
    ],
)  # fmt: skip
def test_an_answer_with_chance_in_it(path, body):
    """These do not, or it is not known that they do."""
    assert not is_deterministic(path, body)


def test_a_picture_in_the_request_is_part_of_it():
    """A data URL cannot change behind the request's back."""
    url = "data:image/png;base64,AAAA"
    assert is_deterministic(CHAT, with_part({"type": "image_url", "image_url": {"url": url}}))


@given(
    st.sampled_from([CHAT, "/v1/embeddings", "/api/chat", "/api/generate", "/generate"]),
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "options", "temperature", "n", "input", "a"]),
        VALUES | st.lists(st.fixed_dictionaries({"content": VALUES | st.lists(VALUES)})),
    ),
)
def test_no_body_is_too_odd(path, body):
    """Whatever JSON a client sends, the question has an answer."""
    assert is_deterministic(path, body) in {True, False}


LINES = "application/x-ndjson"
OBJECT = "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("content_type", "chunks", "whole"),
    [
        ("text/event-stream", [b"data: {}\n\ndata: [DO", b"NE]\n\n"], True),
        ("text/event-stream; charset=utf-8", [b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n"], True),
        ("text/event-stream", [b"data: {}\n\n"], False),
        ("text/event-stream", [b"data: [DONE]\n"], False),
        ("text/event-stream", [b'data: {"a":"data: [DONE]"}\n\n'], False),
        ("text/event-stream", [b"data: [DONE]\n\ndata: {}\n\n"], False),
        ("text/event-stream", [b'data: {"error":{}}\n\n', b"data: [DONE]\n\n"], False),
        ("text/event-stream", [b"error: lost\n\n", b"data: [DONE]\n\n"], False),
        (LINES, [b'{"done":false}\n', b'{"done": true}\n'], True),
        (LINES, [b'{"done":false}\n'], False),
        (LINES, [b'{"done":true}\n{"done":'], False),
        (LINES, [b'{"error":"lost"}\n', b'{"done":true}\n'], False),
        (LINES, [b'{"done":true, "error":"lost"}\n'], False),
        (OBJECT, [b'{"choices"', b":[]}"], True),
        (OBJECT, [b'{"choices":[{}'], False),
        (OBJECT, [b'{"id":1,"error":{"message":"lost"}}'], False),
        (OBJECT, [b"[1]"], False),
        (OBJECT, [b"[" * 100_000], False),
        (OBJECT, [], False),
        ("text/html", [b"<p>"], False),
    ],
)
def test_only_an_answer_that_came_to_its_end_is_whole(content_type, chunks, whole):
    """Each form has its own end, and an error in it is none."""
    answer = replace(ANSWER, content_type=content_type, chunks=tuple(chunks))
    assert answer.is_whole() is whole
    assert not replace(answer, status=500).is_whole()


class Clock:
    """Stands still until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def cache_of(entries: float, clock: Clock | None = None) -> MemoryCache:
    """A cache with room for so many answers like ANSWER."""
    size = ANSWER.size_bytes
    return MemoryCache(
        max_bytes=int(entries * size), max_entry_bytes=size, ttl_s=10.0, clock=clock or Clock()
    )


def test_a_kept_answer_is_given_again():
    """The same object, and the figures say so."""
    cache = cache_of(2)
    assert asyncio.run(cache.get("a")) is None
    asyncio.run(cache.put("a", ANSWER))
    assert asyncio.run(cache.get("a")) is ANSWER
    assert cache.stats() == CacheStats(1, 1, 1, ANSWER.size_bytes, "on")


def test_an_old_answer_is_forgotten():
    """At its age, though it was asked for in between."""
    clock = Clock()
    cache = cache_of(2, clock)
    asyncio.run(cache.put("a", ANSWER))
    clock.now = 9.9
    assert asyncio.run(cache.get("a")) is ANSWER
    clock.now = 10.0
    assert asyncio.run(cache.get("a")) is None
    assert cache.stats() == CacheStats(1, 1, 0, 0, "on")


def test_who_was_not_asked_for_the_longest_makes_room():
    """Least recently used goes first."""
    cache = cache_of(2.5)

    async def scenario():
        await cache.put("a", ANSWER)
        await cache.put("b", ANSWER)
        await cache.get("a")
        await cache.put("c", ANSWER)
        return [await cache.get(key) is not None for key in "abc"]

    assert asyncio.run(scenario()) == [True, False, True]


@pytest.mark.parametrize(
    "answer",
    [
        replace(ANSWER, status=500),
        replace(ANSWER, chunks=ANSWER.chunks[:1]),
        replace(ANSWER, chunks=(b": " + b"a" * 500 + b"\n\n", *ANSWER.chunks)),
    ],
    ids=["failure", "broken off", "too large"],
)
def test_what_may_not_be_kept_is_not(answer):
    """Even if the caller asks for it; and what was there stays."""
    cache = cache_of(2)
    asyncio.run(cache.put("a", ANSWER))
    asyncio.run(cache.put("a", answer))
    assert asyncio.run(cache.get("a")) is ANSWER


def test_a_cache_that_is_smaller_than_an_entry_keeps_nothing():
    """It does not empty itself for an answer that will never fit."""
    cache = cache_of(0.5)
    asyncio.run(cache.put("a", ANSWER))
    assert cache.stats().entries == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from("pg"), st.sampled_from("abcdef"), st.integers(0, 300), st.integers(0, 4)
        )
    )
)
def test_memory_stays_within_its_bound(operations):
    """Whatever is put and got whenever, the bytes are counted right and never too many."""
    clock = Clock()
    cache = cache_of(3, clock)
    put = {}
    for kind, key, length, wait_s in operations:
        clock.now += wait_s
        answer = replace(ANSWER, chunks=(b"data: [DONE]\n\n",), variant="v" * length)
        if kind == "p":
            asyncio.run(cache.put(key, answer))
            put[key] = answer
        else:
            assert asyncio.run(cache.get(key)) in {None, put.get(key)}
        stats = cache.stats()
        assert stats.bytes == sum(size for _, size, _ in cache._kept.values())
        assert stats.bytes <= 3 * ANSWER.size_bytes


def test_a_cache_that_is_off_keeps_nothing():
    """And says so."""
    cache = NoCache()
    asyncio.run(cache.put("a", ANSWER))
    assert asyncio.run(cache.get("a")) is None
    assert cache.stats().state == "off"
