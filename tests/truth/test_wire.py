"""Each behaviour produces exactly the wire that ``docs/truth.md`` says."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

WHOLE = ["a0", "a1", "a2", "finish", "usage", "done", "end"]
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 3,
    "total_tokens": 6,
    "prompt_tokens_details": {"cached_tokens": 0},
}


def name_event(event: bytes) -> str:
    """Return a short name for one SSE event."""
    if event == b"":
        return "end"
    if event == b": keep-alive":
        return "comment"
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        return "done"
    try:
        value = json.loads(data)
    except ValueError:
        return "notjson"
    return name_chunk(value)


def name_chunk(value: dict[str, Any]) -> str:
    """Return a short name for the JSON of one event."""
    if "error" in value:
        return "error"
    if not value["choices"]:
        return "usage" if "usage" in value else "nothing"
    choice = value["choices"][0]
    if choice["finish_reason"]:
        return "finish+usage" if "usage" in value else "finish"
    delta = choice.get("delta", {"content": choice.get("text")})
    if "role" in delta:
        return "role"
    ((key, text),) = delta.items()
    if not text:
        return "empty"
    kind = {"content": "a", "reasoning_content": "r"}[key]
    return "".join(word.replace("w", kind) for word in text.split())


def names(chunks: list[bytes]) -> list[str]:
    """Name the events of each HTTP chunk; those that share one are joined by a comma."""
    named = []
    for chunk in chunks:
        assert not chunk or chunk.endswith(b"\n\n")
        named.append(",".join(name_event(event) for event in chunk[:-2].split(b"\n\n")))
    return named


def stamps(chunks: list[bytes]) -> list[dict[str, Any]]:
    """Return the truth of every chunk that has one."""
    lines = b"".join(chunks).split(b"\n\n")
    values = [json.loads(line[6:]) for line in lines if line.startswith(b'data: {"id"')]
    return [value["truth"] for value in values]


@pytest.mark.parametrize(
    ("behaviours", "expected"),
    [
        ("", WHOLE),
        ("+role", ["role", *WHOLE]),
        ("+empty2", ["empty", "empty", *WHOLE]),
        ("+reasoning2", ["r0", "r1", *WHOLE[2:]]),
        ("+pack2", ["a0a1", "a2", *WHOLE[3:]]),
        ("+pack9", ["a0a1a2", *WHOLE[3:]]),
        ("+pack3+reasoning1", ["r0", "a1a2", *WHOLE[3:]]),
        ("+coalesce2", ["a0,a1", "a2,finish", "usage,done", "end"]),
        ("+coalesce4", ["a0,a1,a2,finish", "usage,done", "end"]),
        ("+coalesce2+error2", ["a0,a1", "error", "end"]),
        ("+keepalive", ["a0", "comment", "a1", "comment", *WHOLE[2:]]),
        ("+nousage", [*WHOLE[:4], *WHOLE[5:]]),
        ("+usageinfinish", [*WHOLE[:3], "finish+usage", "done", "end"]),
        ("+nofinal", [*WHOLE[:3], "end"]),
        ("+error0", ["error", "end"]),
        ("+error2", ["a0", "a1", "error", "end"]),
        ("+error3", ["a0", "a1", "a2", "error", "end"]),
        ("+error2+pack9", ["a0a1", "error", "end"]),
        ("+badjson0", ["notjson", *WHOLE]),
        ("+badjson2", ["a0", "a1", "notjson", *WHOLE[2:]]),
        ("+badjson3", ["a0", "a1", "a2", "notjson", *WHOLE[3:]]),
        ("+stall1:2", WHOLE),
        ("+slowheaders2", WHOLE),
        ("+falsekeepalive", WHOLE),
        ("+role+empty1+reasoning1", ["role", "empty", "r0", *WHOLE[1:]]),
        ("+keepalive+reasoning1", ["r0", "comment", "a1", "comment", *WHOLE[2:]]),
    ],
)  # fmt: skip
def test_a_behaviour_gives_these_chunks(truth, behaviours, expected) -> None:
    """The HTTP chunks, in order, and nothing else; the connection ends cleanly."""
    model = f"truth-ttft0-itl0-n3{behaviours}"
    reply = truth.ask(model, stream_options={"include_usage": True})
    assert reply.status == 200
    assert not reply.reset
    assert names(reply.chunks) == expected


def test_text_completions_carry_text(truth) -> None:
    """The other endpoint gives ``text`` where chat gives a delta, and no usage unless asked."""
    reply = truth.ask("truth-ttft0-itl0-n3", chat=False)
    assert names(reply.chunks) == [*WHOLE[:4], *WHOLE[5:]]
    value = json.loads(reply.chunks[0][6:])
    assert value["object"] == "text_completion"
    assert value["choices"] == [{"index": 0, "text": "w0 ", "finish_reason": None}]


@pytest.mark.parametrize("behaviour", ["", "+usageinfinish"])
def test_usage_counts_words_and_tokens(truth, behaviour) -> None:
    """Usage holds the words of the prompt and the tokens sent."""
    reply = truth.ask(f"truth-ttft0-itl0-n3{behaviour}", stream_options={"include_usage": True})
    found = [json.loads(chunk[6:]) for chunk in reply.chunks if b'"usage"' in chunk]
    assert [value["usage"] for value in found] == [USAGE]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_the_limit_of_the_client_holds(truth, limit) -> None:
    """Fewer tokens come where the client wants fewer; a fault beyond them does not happen."""
    reply = truth.ask("truth-ttft0-itl0-n9+error5", **{limit: 2})
    assert names(reply.chunks) == ["a0", "a1", "finish", "done", "end"]


def test_nothing_leaves_before_it_is_due(truth) -> None:
    """Each stamp lies at or behind its due time, and due times follow the schedule."""
    reply = truth.ask("truth-ttft4-itl1.5-n3+role+stall2:3")
    found = stamps(reply.chunks)
    offsets = [stamp["due_ns"] - stamp["received_ns"] for stamp in found]
    assert offsets == [0, 4_000_000, 5_500_000, 10_000_000, 10_000_000]
    assert [stamp["index"] for stamp in found] == [None, 0, 1, 2, None]
    assert all(stamp["sent_ns"] >= stamp["due_ns"] for stamp in found)
    assert [stamp["sent_ns"] for stamp in found] == sorted(stamp["sent_ns"] for stamp in found)


def test_empty_chunks_fill_the_wait(truth) -> None:
    """They are due at even distances between the request and the first token."""
    found = stamps(truth.ask("truth-ttft3-itl0-n1+empty2+nofinal").chunks)
    assert [s["due_ns"] - s["received_ns"] for s in found] == [1_000_000, 2_000_000, 3_000_000]


def test_a_pack_is_due_with_its_first_token(truth) -> None:
    """Packed chunks keep the rate of the tokens."""
    found = stamps(truth.ask("truth-ttft2-itl1-n4+pack2+nofinal").chunks)
    assert [(s["index"], s["tokens"]) for s in found] == [(0, 2), (2, 2)]
    assert [s["due_ns"] - s["received_ns"] for s in found] == [2_000_000, 4_000_000]


def test_coalesced_events_share_a_stamp(truth) -> None:
    """Events in one write have their own due times, and one time of sending."""
    first, second = stamps(truth.ask("truth-ttft2-itl1-n2+coalesce2+nofinal").chunks)
    assert first["sent_ns"] == second["sent_ns"] >= second["due_ns"] > first["due_ns"]


def test_a_slow_head_holds_everything_back(truth) -> None:
    """No token leaves before a head that is late."""
    found = stamps(truth.ask("truth-ttft0-itl0-n2+slowheaders20").chunks)
    assert found[0]["sent_ns"] - found[0]["received_ns"] >= 20_000_000


def test_characters_are_cut_between_two_chunks(truth) -> None:
    """Neither half of a cut event is UTF-8 by itself; together they are the event."""
    chunks = truth.ask("truth-ttft0-itl0-n2+utf8+nofinal").chunks
    assert len(chunks) == 2 * 2 + 1
    for first, second in (chunks[0:2], chunks[2:4]):
        with pytest.raises(UnicodeDecodeError):
            first.decode()
        with pytest.raises(UnicodeDecodeError):
            second.decode()
        text = json.loads((first + second)[6:])["choices"][0]["delta"]["content"]
        assert text.endswith("😀 ")


def test_a_reset_is_a_reset(truth) -> None:
    """After K tokens the client's read fails, with no end of the body before it."""
    reply = truth.ask("truth-ttft0-itl0-n3+reset2")
    assert reply.reset
    assert names(reply.chunks) == ["a0", "a1"]
    assert truth.last_logged()["finished"] is False


@pytest.mark.parametrize("stream", [True, False])
def test_an_endless_stall_lasts_until_the_client_leaves(
    truth, read: Callable[[socket.socket], Any], stream
) -> None:
    """The server gives nothing more, and lets go when the client closes its side."""
    body = {"model": "truth-ttft0-itl0-n3+stall1", "prompt": "a", "stream": stream}
    with truth.send("POST", "/v1/completions", json.dumps(body).encode()) as connection:
        if stream:
            head = b""
            while b'"w0 "' not in head:
                head += connection.recv(65536)
        connection.shutdown(socket.SHUT_WR)
        rest = read(connection)
    assert b"[DONE]" not in rest.body
    assert b"0\r\n\r\n" not in rest.head + rest.body
    logged = truth.last_logged()
    assert logged["finished"] is False
    assert len(logged["token_sent_ns"]) == int(stream)


def test_a_false_promise_is_made_and_broken(truth) -> None:
    """The head says keep-alive, and the connection is closed behind the answer."""
    promised = truth.ask("truth-ttft0-itl0-n1+falsekeepalive").head
    assert b"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100" in promised
    assert b"Connection: close" in truth.ask("truth-ttft0-itl0-n1").head


@pytest.mark.parametrize("stream", [True, False])
def test_a_status_is_given_with_an_error_object(truth, stream) -> None:
    """The status of the name comes instead of an answer."""
    reply = truth.ask("truth-ttft0-itl0-n1+http503", stream=stream)
    assert reply.head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert json.loads(reply.body)["error"]["code"] == 503


def test_a_whole_answer_is_one_object(truth) -> None:
    """Without streaming the text, usage and stamp come as one JSON object."""
    reply = truth.ask("truth-ttft1-itl1-n3+reasoning1", stream=False)
    assert f"Content-Length: {len(reply.body)}\r\n".encode() in reply.head + b"\r\n"
    value = json.loads(reply.body)
    message = {"role": "assistant", "content": "w1 w2 ", "reasoning_content": "w0 "}
    assert value["choices"] == [{"index": 0, "message": message, "finish_reason": "length"}]
    assert value["usage"] == USAGE
    assert value["truth"]["due_ns"] - value["truth"]["received_ns"] == 3_000_000
    assert value["truth"]["sent_ns"] >= value["truth"]["due_ns"]


def test_faults_exist_without_streaming_too(truth) -> None:
    """Error, bad JSON, reset, missing usage and missing reason act on a whole answer."""
    model = "truth-ttft0-itl0-n3"
    assert "error" in json.loads(truth.ask(f"{model}+error1", stream=False).body)
    with pytest.raises(ValueError, match="Invalid control"):
        json.loads(truth.ask(f"{model}+badjson1", stream=False).body)
    reset = truth.ask(f"{model}+reset1", stream=False)
    assert (reset.reset, reset.head) == (True, b"")
    assert "usage" not in json.loads(truth.ask(f"{model}+nousage", stream=False).body)
    cut = json.loads(truth.ask(f"{model}+nofinal", chat=False, stream=False).body)
    assert cut["choices"] == [{"index": 0, "text": "w0 w1 w2 ", "finish_reason": None}]


@pytest.mark.parametrize(("behaviour", "finished"), [("", True), ("+nofinal", False)])
def test_the_log_repeats_the_stamps(truth, behaviour, finished) -> None:
    """What the log says was sent when is what the chunks said."""
    model = f"truth-ttft1-itl1-n3{behaviour}"
    tokens = [s for s in stamps(truth.ask(model).chunks) if s["tokens"]]
    assert truth.last_logged() == {
        "model": model,
        "received_ns": tokens[0]["received_ns"],
        "first_token_sent_ns": tokens[0]["sent_ns"],
        "token_sent_ns": [stamp["sent_ns"] for stamp in tokens],
        "finished": finished,
    }
