"""The front: answers outlive their engine, and nothing ends in silence."""

import asyncio
import json
import signal

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError, EngineLostError, ShoestringError
from shoestring.swarm import exchange, front, http11, standing
from shoestring.swarm.continuing import Answer, LostAnswerError
from shoestring.swarm.exchange import Watched
from shoestring.swarm.http11 import BadHttpError, Body, CutError, Request, asking
from shoestring.swarm.questions import shape_of
from shoestring.swarm.standing import Pace, Place, Trying
from tests.swarm.fronts import CHAT, COUNTING, NATIVE, TEXT, Canned, Engines, post, raw, read

SURE = {"temperature": 0, "cache_prompt": False}
ASKED = {
    CHAT: {"messages": [{"role": "user", "content": "Tell me about the sea."}],
           "max_tokens": 32, "stream_options": {"include_usage": True}},
    TEXT: {"prompt": COUNTING, "max_tokens": 32},
    NATIVE: {"prompt": COUNTING, "n_predict": 32},
}  # fmt: skip


def said(body):
    """Return what an answer in one piece says, without what differs each time."""
    if "choices" not in body:
        used = (body["tokens_evaluated"], body["tokens_predicted"])
        return body["content"], body["stop_type"], used, sorted(body)
    (choice,) = body["choices"]
    used = (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
    names = sorted(set(body) - {"timings"})
    return choice.get("message") or choice["text"], choice["finish_reason"], used, names


@pytest.mark.engine
@pytest.mark.parametrize("path", [CHAT, TEXT, NATIVE])
def test_killed_at_any_token_an_answer_is_as_undisturbed(small_model, path):
    """The same text, reason, count and end; in parts and in one piece; two engines lost in one."""
    asked = {**ASKED[path], **SURE}

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, kept):
            _, parts = await post(front, path, {**asked, "stream": True})
            _, whole = await post(front, path, asked)
            left = engines.aim(kept, 1, 9, 30, 4, 20)  # of the tokens that each engine says
            for _ in range(2):
                _, again = await post(front, path, {**asked, "stream": True})
                assert read(again) == read(parts)
            while left:
                _, again = await post(front, path, asked)
                assert said(again) == said(whole)
        assert len(engines.made) > 4
        return read(parts)

    undisturbed = asyncio.run(run())
    assert undisturbed["done"] == (path != NATIVE)
    assert undisturbed["used"][1] == 32
    assert len(undisturbed["text"]) > 30


@pytest.mark.engine
def test_a_stop_string_across_the_join_stops(small_model):
    """Whatever of it was there when the engine was lost."""
    asked = {**ASKED[TEXT], **SURE, "stop": ["16, 17"], "stream": True}

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, kept):
            for token in (13, 14, 15, 16):
                engines.aim(kept, token)
                _, events = await post(front, TEXT, asked)
                told = read(events)
                assert (told["text"], told["why"]) == (" 13, 14, 15, ", "stop")

    asyncio.run(run())


@pytest.mark.engine
def test_what_is_more_than_its_text_is_asked_again_and_said_once(small_model):
    """A schema binds the whole answer: it cannot begin in the middle."""
    schema = {"type": "object", "properties": {"sea": {"type": "string", "maxLength": 16}},
              "required": ["sea"]}  # fmt: skip
    shape = {"type": "json_schema", "json_schema": {"schema": schema}}
    asked = {**ASKED[CHAT], **SURE, "stream": True, "response_format": shape}

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, kept):
            _, undisturbed = await post(front, CHAT, asked)
            engines.aim(kept, 7)
            _, again = await post(front, CHAT, asked)
        assert len(engines.made) == 2
        return read(undisturbed), read(again)

    undisturbed, again = asyncio.run(run())
    assert undisturbed == again
    assert json.loads(again["text"])["sea"]


@pytest.mark.engine
def test_a_silent_engine_is_replaced(small_model, monkeypatch):
    """Stopped, it keeps its connections and would keep its clients for ever."""
    monkeypatch.setattr(standing, "GAP_S", 6.0)
    asked = {**ASKED[TEXT], **SURE, "stream": True}

    async def run():
        engines = Engines(small_model, signal.SIGSTOP)
        async with engines.front() as (front, kept):
            _, undisturbed = await post(front, TEXT, asked)
            engines.aim(kept, 12)
            _, again = await post(front, TEXT, asked)
        return read(undisturbed), read(again), engines.told

    undisturbed, again, told = asyncio.run(run())
    assert undisturbed == again
    assert told == ["the engine is lost: no token came for far longer than usual"]


@pytest.mark.engine
def test_while_no_engine_stands_requests_wait(small_model, monkeypatch):
    """Who takes a stream hears so; all are answered by the next engine."""
    monkeypatch.setattr(exchange, "COMMENT_S", 0.05)

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, kept):
            stood = await kept.place()
            engines.may_open.clear()
            engines.hit()
            kept.lose(stood, "a test")
            heard = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                models = group.create_task(post(front, "/v1/models", None))
                streamed = group.create_task(
                    post(front, TEXT, {**ASKED[TEXT], **SURE, "stream": True},
                         heard=lambda _: heard.set())
                )  # fmt: skip
                await heard.wait()
                assert not models.done()
                engines.may_open.set()
            return models.result(), streamed.result()

    (status, models), (_, events) = asyncio.run(run())
    assert (status, models["data"][0]["owned_by"]) == (200, "llamacpp")
    assert events[0] == b": another engine is being started"
    assert read(events)["used"][1] == 32


@pytest.mark.engine
def test_when_no_plan_works_every_open_answer_says_so(small_model):
    """As an error in its stream, or a status; and whoever keeps the front learns it, too."""

    async def run():
        engines = Engines(small_model)
        async with engines.front(Trying(plans=2, wait_s=0.01)) as (front, kept):
            engines.aim(kept, 5)
            engines.fails = BadValueError("it fits nowhere")
            asked = {**ASKED[TEXT], **SURE}
            streamed = asyncio.create_task(post(front, TEXT, {**asked, "stream": True}))
            whole = asyncio.create_task(post(front, TEXT, asked))
            told = await streamed, await whole
            with pytest.raises(EngineLostError, match=r"after 2 plans .* fits nowhere"):
                await kept.over()
        return told

    streamed, (status, body) = asyncio.run(run())
    if streamed[0] == 200:
        assert b"[DONE]" not in b"".join(streamed[1])
        told = json.loads(streamed[1][-1].removeprefix(b"data: "))
    else:  # the other was answered first, and this one had not begun
        told = streamed[1]
    assert "fits nowhere" in told["error"]["message"]
    assert (status, "fits nowhere" in body["error"]["message"]) == (503, True)


@pytest.mark.engine
def test_the_front_asks_for_its_key_and_passes_on_what_it_does_not_know(small_model):
    """As llama-server would."""

    async def run():
        async with Engines(small_model).front() as (front, _):
            assert (await post(front, "/health", None, key="wrong"))[0] == 200
            status, body = await post(front, "/v1/models", None, key="wrong")
            assert (status, body["error"]["type"]) == (401, "authentication_error")
            assert (await post(front, CHAT, {}, key="wrong"))[0] == 401
            assert (await post(front, "/nothing", None))[0] == 404
            assert (await post(front, CHAT, {"stream": True}))[0] == 400
            _, told = await post(front, "/tokenize", {"content": "a b"})
            assert len(told["tokens"]) == 2

    asyncio.run(run())


@pytest.mark.engine
def test_who_leaves_ends_the_work(small_model):
    """An answer without end would keep the only place of the engine."""
    endless = {**SURE, "prompt": COUNTING, "ignore_eos": True, "stream": True}

    async def run():
        async with Engines(small_model).front() as (front, _):
            begun = asyncio.Event()
            leaving = asyncio.create_task(post(front, TEXT, endless, heard=lambda _: begun.set()))
            await begun.wait()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            return await post(front, TEXT, {**ASKED[TEXT], **SURE, "max_tokens": 1})

    assert asyncio.run(run())[0] == 200


@pytest.mark.engine
def test_openais_own_client_notices_nothing(small_model):
    """In parts and in one piece, over a lost engine."""

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, kept):
            client = openai.AsyncOpenAI(base_url=f"{front.url}/v1", api_key=front.key)
            asked = {"model": "any", **ASKED[CHAT], "temperature": 0}
            asked.pop("stream_options")
            async with client:
                engines.aim(kept, 6, 8)
                stream = await client.chat.completions.create(**asked, stream=True)
                parts = "".join([c.choices[0].delta.content or "" async for c in stream])
                whole = await client.chat.completions.create(**asked)
            assert len(engines.made) == 3
            return parts, whole.choices[0].message.content

    parts, whole = asyncio.run(run())
    assert parts == whole
    assert len(whole) > 60


def event(chunk):
    """Return it as llama-server sends it."""
    return b"data: " + json.dumps(chunk).encode()


def stream_of(path, texts, why="stop"):
    """Return the events of a whole answer."""
    events = []
    for text in texts:
        piece = {"delta": {"content": text}} if path == CHAT else {"text": text}
        events.append(event({"id": "x", "choices": [{"index": 0, "finish_reason": None, **piece}]}))
    end = {"delta": {}} if path == CHAT else {"text": ""}
    events.append(event({"id": "x", "choices": [{"index": 0, "finish_reason": why, **end}]}))
    return [*events, b"data: [DONE]"]


@given(st.data())
def test_however_an_answer_is_cut_its_text_is_whole(data):
    """The next engine's parts have other borders, and for chat begin with what was said."""
    path = data.draw(st.sampled_from([CHAT, TEXT]))
    text = data.draw(st.text(min_size=1, max_size=30))
    body = {**ASKED[path], "stream": True}
    answer, out = Answer(shape_of(path, body), body), []
    while not answer.complete:
        asked = answer.question()
        before = asked["messages"][1:] if path == CHAT else asked["prompt"].removeprefix(COUNTING)
        known = before[0]["content"] if path == CHAT and before else before or ""
        assert text.startswith(known)
        coming, parts = text if path == CHAT else text[len(known) :], []
        while coming:
            size = data.draw(st.integers(1, len(coming)))
            parts.append(coming[:size])
            coming = coming[size:]
        events = stream_of(path, parts)
        cut = data.draw(st.integers(1, len(events)))
        for one in events[:cut]:
            out += answer.hear(one)
        if not answer.complete:
            try:
                answer.break_off("a test")
            except LostAnswerError:
                return  # three engines that said nothing new
    assert read(out)["text"] == text
    assert answer.text == text
    reasons = [json.loads(one[6:])["choices"][0]["finish_reason"] for one in out[:-1]]
    assert (set(reasons[:-1]) <= {None}, reasons[-1], out[-1]) == (True, "stop", b"data: [DONE]")


def test_several_answers_at_once_pass_as_they_are():
    """One that ends before another is told where it ended."""
    body = {**ASKED[CHAT], "n": 2, "stream": True}
    answer = Answer(shape_of(CHAT, body), body)
    events = [
        event({"choices": [{"index": index, "finish_reason": why, "delta": {"content": text}}]})
        for index, why, text in [(0, None, "a"), (0, "stop", ""), (1, None, "b"), (1, "stop", "")]
    ]
    events.append(b"data: [DONE]")
    assert [out for one in events for out in answer.hear(one)] == events
    assert answer.complete


@pytest.mark.parametrize(
    ("more", "events", "why"),
    [
        ({"n": 2}, [{"choices": [{"index": 0, "delta": {"content": "a"}}]}], "several answers"),
        ({}, [], "without a new word"),
    ],
)
def test_what_cannot_be_continued_says_why(more, events, why):
    """Rather than ending short."""
    body = {**ASKED[CHAT], **more, "stream": True}
    answer = Answer(shape_of(CHAT, body), body)

    def go_on():
        for _ in range(3):
            for chunk in events:
                answer.hear(event(chunk))
            answer.break_off("a test")

    with pytest.raises(LostAnswerError, match=why):
        go_on()


def test_another_text_than_before_is_an_error():
    """Of an answer that is asked again; nobody could join the two."""
    body = {**ASKED[CHAT], "tools": [{}], "stream": True}
    answer = Answer(shape_of(CHAT, body), body)
    answer.hear(stream_of(CHAT, ["one"])[0])
    answer.break_off("a test")
    with pytest.raises(LostAnswerError, match="otherwise"):
        answer.hear(stream_of(CHAT, ["other"])[0])


def test_a_call_of_a_tool_is_named_once():
    """And its arguments go on where they were."""
    body = {**ASKED[CHAT], "tools": [{}], "stream": True}
    answer = Answer(shape_of(CHAT, body), body)

    def call(number, **function):
        calls = [{"index": 0, "id": f"call{number}", "type": "function", "function": function}]
        return event({"id": number, "choices": [{"index": 0, "delta": {"tool_calls": calls}}]})

    answer.hear(call(1, name="f", arguments='{"a"'))
    answer.break_off("a test")
    assert answer.question()["messages"] == body["messages"]
    (out,) = answer.hear(call(2, name="f", arguments='{"a": 1}'))
    told = json.loads(out.removeprefix(b"data: "))
    assert told["id"] == 1
    assert told["choices"][0]["delta"]["tool_calls"] == [
        {"index": 0, "function": {"arguments": ": 1}"}}
    ]


def test_the_watchdog_knows_how_slow_an_engine_is():
    """Twenty times its longest gap, never less than a minute; the first token has ten."""
    now_s = 0.0
    pace = Pace(lambda: now_s)
    assert pace.left_s(0.0, begun=False) == standing.FIRST_S
    now_s = 10.0
    pace.mark(9.0, begun=True)
    assert pace.left_s(10.0, begun=True) == standing.GAP_S
    pace.mark(5.0, begun=True)
    assert pace.left_s(2.0, begun=True) == 100.0
    now_s = 50.0
    assert pace.left_s(10.0, begun=True) == 60.0


@pytest.mark.parametrize(
    ("told_at_s", "token_at_s", "is_lost"),
    [((0,), None, False), ((0, 12), None, True), ((0, 12), 11, False), ((0, 30), None, False),
     ((0, 2, 4, 9), None, False), ((0, 2, 4, 9, 10), None, True)],
)  # fmt: skip
def test_who_is_doubted_twice_without_a_token_between_is_lost(told_at_s, token_at_s, is_lost):
    """One missed beat of a busy machine is not enough, and yesterday's does not count."""
    now_s = 0.0
    pace = Pace(lambda: now_s)
    for now_s in sorted({*told_at_s, token_at_s} - {None}):
        if now_s == token_at_s:
            pace.mark(now_s, begun=True)
        else:
            pace.doubt()
    assert (pace.left_s(now_s, begun=True) <= 0) == is_lost


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.data())
def test_chunks_are_read_wherever_they_are_cut(parts, data):
    """Every byte on its own at worst; and what follows the body is not of it."""
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    body, got = Body({"transfer-encoding": "chunked"}), b""
    while wire:
        assert not body.over or wire == b"\r\n"[-len(wire) :]
        size = data.draw(st.integers(1, len(wire)))
        got += body.feed(wire[:size])
        wire = wire[size:]
    assert (got, body.over) == (b"".join(parts), True)


@pytest.mark.parametrize("headers", [{"transfer-encoding": "chunked"}, {"content-length": "5"}])
def test_a_body_that_breaks_off_is_not_taken_for_a_short_one(headers):
    """However its length was told."""
    body = Body(headers)
    body.feed(b"1\r\na")
    with pytest.raises(CutError):
        body.end()


@pytest.mark.parametrize("line", [b"\r\n", b"x\r\n", b"-1\r\n", b"fffffffff\r\n", b"8000000\r\n"])
def test_a_chunk_without_a_size_that_can_be_is_refused(line):
    """Before anything is waited for."""
    with pytest.raises(BadHttpError):
        Body({"transfer-encoding": "chunked"}).feed(line)


def test_thoughts_go_on_as_thoughts_and_are_not_said_twice():
    """Also where their border is worded otherwise once the answer itself has begun."""
    body = {**ASKED[CHAT], "stream": True}
    answer = Answer(shape_of(CHAT, body), body)

    def hears(**delta):
        """Return what goes out of a part."""
        chunk = {"choices": [{"index": 0, "finish_reason": None, "delta": delta}]}
        out = answer.hear(event(chunk))
        return [json.loads(one[6:])["choices"][0]["delta"] for one in out]

    hears(reasoning_content="Let me ")
    answer.break_off("a test")
    assert answer.question()["messages"][-1]["reasoning_content"] == "Let me "
    assert hears(reasoning_content="Let me think") == [{"reasoning_content": "think"}]
    hears(content="So it ")
    answer.break_off("a test")
    assert hears(reasoning_content="Let me think\n") == []
    assert hears(content="So it is") == [{"content": "is"}]
    assert answer.text == "Let me thinkSo it is"


@pytest.mark.engine
def test_the_head_of_an_answer_alone_may_be_asked_for(small_model):
    """It tells a length and has no body: the engine stays. Without a key only GET is open."""

    async def head(front, key):
        host, port = front.url.removeprefix("http://").split(":")
        request = Request("HEAD", "/health", {"Authorization": f"Bearer {key}"}, b"")
        async with asking(host, int(port), request) as reply:
            return reply.status, reply.headers["content-length"], await reply.whole()

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, _):
            assert (await head(front, front.key))[::2] == (200, b"")
            assert (await head(front, "wrong"))[0] == 401
            assert (await post(front, "/health", {}, key="wrong"))[0] == 401
            assert (await post(front, "/health", None, key="wrong"))[0] == 200
        return engines.told

    assert asyncio.run(run()) == []


def test_a_client_that_does_not_read_is_not_the_engines_silence():
    """However long it takes; nor does it teach the pace that such silence is usual."""
    now_s = 0.0
    pace = Pace(lambda: now_s)

    class Given:
        """An answer of which everything has come."""

        def __init__(self):
            self.left = [b"data: 1\n\n", b"data: 2\n\n"]

        async def part(self):
            """Return what comes."""
            return self.left.pop(0) if self.left else b""

    async def run():
        nonlocal now_s
        got = []
        async for one in Watched(Place("", 0, None, pace)).events(Given()):
            got.append((one, pace.left_s(now_s, begun=True)))
            for wait_s in (1000.0, standing.DOUBTED_S):
                now_s += wait_s
                pace.doubt()
        return got

    gap_s = standing.GAP_S
    assert asyncio.run(run()) == [(b"data: 1", gap_s), (b"data: 2", gap_s)]


def test_an_error_in_the_middle_of_an_answer_in_one_piece_is_told():
    """Its engine has ended it, and stays."""
    said = stream_of(TEXT, ["a"])[0] + b"\n\n"
    said += event({"error": {"message": "Context size has been exceeded."}}) + b"\n\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + said

    async def run():
        async with Canned(answer).front() as (front, told):
            return await post(front, TEXT, ASKED[TEXT]), told

    (status, body), told = asyncio.run(run())
    assert (status, body["error"]["message"]) == (500, "Context size has been exceeded.")
    assert told == []


@pytest.mark.engine
@pytest.mark.parametrize("odd", [{"prompt": "\ud800"}, {"n": [1]}, {"n_cmpl": {}}])
def test_an_odd_question_is_answered_by_the_engine(small_model, odd):
    """Also one that cannot be said again; never with an empty connection."""

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, _):
            status, _ = await post(front, TEXT, {**ASKED[TEXT], "max_tokens": 1, **odd})
            return status, engines.told

    status, told = asyncio.run(run())
    assert status >= 200
    assert told == []


def test_engines_that_are_lost_one_after_another_end_it():
    """Each of them stood, so that no plan ever failed."""

    async def lose_all(kept):
        for _ in range(4):
            kept.lose(await kept.place(), "a test")

    async def run():
        engine, told = Canned(b""), []
        trying = Trying(losses=3, wait_s=0.01)
        async with standing.Standing(engine.plan_again, tell=told.append, trying=trying) as kept:
            with pytest.raises(EngineLostError, match="3 engines one after another"):
                await lose_all(kept)
            with pytest.raises(EngineLostError):
                await kept.over()
        return told

    assert asyncio.run(run()) == ["the engine is lost: a test"] * 3


def test_who_is_told_to_finish_ends_the_engine_and_says_why_to_all():
    """No other engine follows, and no line calls it lost."""

    async def run():
        engine, told = Canned(b""), []
        async with standing.Standing(engine.plan_again, tell=told.append) as kept:
            kept.finish(ShoestringError("enough"))
            for waiting in (kept.place(), kept.over()):
                with pytest.raises(ShoestringError, match="enough"):
                    await waiting
        return told

    assert asyncio.run(run()) == []


def test_who_shows_no_key_is_refused_before_the_body():
    """And told so while it still sends."""
    asked = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n"

    async def run():
        engine = Canned(b"")
        async with engine.front() as (front, _):
            answers = [await raw(front, asked + b" " * size) for size in (0, 5_000_000)]
        assert engine.asked == []
        return answers

    for answer in asyncio.run(run()):
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"Invalid API Key" in answer


@pytest.mark.parametrize("line", ["GET /\x01a HTTP/1.1", "GET /a HTTP/1.1\r\nAccept: a\nHost: b",
                                  "GET /\x80 HTTP/1.1", "GET /a\nb HTTP/1.1"])  # fmt: skip
def test_control_characters_in_a_head_are_refused(line):
    """They would end a line of what the engine gets."""

    async def run():
        engine = Canned(b"")
        async with engine.front() as (front, _):
            return await raw(front, line.encode("latin-1") + b"\r\n\r\n"), engine.asked

    answer, asked = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert asked == []


def test_more_connections_than_are_served_are_hung_up_on(monkeypatch):
    """Those that were there before stay."""
    monkeypatch.setattr(front, "MOST_OPEN", 1)

    async def run():
        async with Canned(OTHER).front() as (front, _):
            host, port = front.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            with pytest.raises(CutError):
                await post(front, "/health", None)
            writer.write(b"GET /health HTTP/1.1\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(run()).endswith(b"{}")


OTHER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_an_engine_that_stands_still_is_lost_to_whatever_is_asked(monkeypatch):
    """Also where no tokens are to come; the next one answers."""
    monkeypatch.setattr(standing, "FIRST_S", 2.0)

    async def run():
        async with Canned(b"", OTHER).front() as (front, told):
            return await post(front, "/props", None), told

    answer, told = asyncio.run(run())
    assert answer == (200, {})
    assert told == ["the engine is lost: no token came for far longer than usual"]


def test_an_answer_that_is_too_long_is_not_the_loss_of_its_engine(monkeypatch):
    """Asked again it would be as long."""
    monkeypatch.setattr(http11, "BODY_BYTES", 1)
    engine = Canned(OTHER)

    async def run():
        async with engine.front() as (front, told):
            ask = f"GET /props HTTP/1.1\r\nX-Api-Key: {front.key}\r\n\r\n"
            return await raw(front, ask.encode()), told

    answer, told = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"more than 1 bytes" in answer
    assert (len(engine.asked), told) == (1, [])


def test_what_loses_every_engine_is_given_up():
    """Before it has ended the service for everybody."""
    engine = Canned(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}")

    async def run():
        async with engine.front() as (front, _):
            return await post(front, "/props", None)

    assert asyncio.run(run())[0] == 500
    assert len(engine.asked) == 3


def test_who_ends_its_side_before_the_answer_is_told():
    """Whether it still reads cannot be known before something is sent."""

    async def run():
        async with Canned(b"").front() as (front, _):
            ask = f"GET /props HTTP/1.1\r\nX-Api-Key: {front.key}\r\n\r\n"
            return await raw(front, ask.encode(), ends=True)

    answer = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"half closed" in answer
