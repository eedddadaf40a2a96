"""The plan of writes, without sockets."""

import json

from hypothesis import given
from hypothesis import strategies as st

from shoestring.truth.answers import Halt, Write, plan_answer
from shoestring.truth.asks import Ask
from shoestring.truth.schedule import parse_schedule

SENT_NS = 123_456_789
behaviours = st.lists(
    st.sampled_from(["role", "empty2", "reasoning2", "pack3", "coalesce3", "keepalive", "badjson4",
                     "stall2:7", "stall5", "usageinfinish", "slowheaders9", "falsekeepalive"]),
    unique_by=lambda part: part[:5],
)  # fmt: skip
endings = st.sampled_from(["", "+error3", "+reset3", "+nofinal", "+utf8"])


@given(behaviours, endings, st.integers(1, 9), st.booleans())
def test_every_plan_is_well_formed(parts, ending, limit, stream) -> None:
    """Framing, JSON and stamps hold for every mixture, and no token is lost or sent twice."""
    if ending == "+utf8":
        parts = [part for part in parts if part != "coalesce3"]
    model = "+".join(["truth-ttft5-itl1-n8", *parts]) + ending
    schedule = parse_schedule(model)
    tokens = min(8, limit)
    ask = Ask(chat=True, model=model, schedule=schedule, tokens=tokens, prompt_tokens=1,
              stream=stream, include_usage=True, received_ns=1000, created_s=0)  # fmt: skip
    steps = list(plan_answer(ask))
    writes = [step for step in steps if isinstance(step, Write)]
    head, _, body = b"".join(step.fill(SENT_NS) for step in writes).partition(b"\r\n\r\n")
    stop, end = schedule.ending(tokens)
    halted = end in ("stall", "reset")
    assert [isinstance(step, Halt) for step in steps] == [False] * len(writes) + [True] * halted
    assert any(step.final for step in writes) == (end == "length" and _is_whole(ask))
    if stream:
        text, terminated = _unframe(body)
        assert terminated is not halted
        stamps = [stamp for stamp in map(_stamp, text.split(b"\n\n")) if stamp]
        indices = [
            i for s in stamps if s["tokens"] for i in range(s["index"], s["index"] + s["tokens"])
        ]
        assert indices == list(range(stop))
        assert sum(step.tokens for step in writes) == stop
        assert {stamp["sent_ns"] for stamp in stamps} <= {SENT_NS}
    elif not halted:
        assert f"Content-Length: {len(body)}".encode() in head


def _is_whole(ask: Ask) -> bool:
    bad = ask.schedule.badjson
    return ask.stream or bad is None or bad > ask.tokens


def _unframe(body: bytes) -> tuple[bytes, bool]:
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        assert body[length : length + 2] == b"\r\n"
        if length == 0:
            return text, body == b"\r\n"
        text, body = text + body[:length], body[length + 2 :]
    return text, False


def _stamp(event: bytes) -> dict | None:
    if not event.startswith(b'data: {"id"'):
        return None
    return json.loads(event[6:])["truth"]
