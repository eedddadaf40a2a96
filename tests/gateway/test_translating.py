"""Ollama's questions put to OpenAI-compatible engines, and what they say told Ollama's way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.gateway.streams import BrokenStreamError, Used, dump_json
from shoestring.gateway.translating import (
    OPTIONS,
    OllamaAnswer,
    Way,
    answer_from_openai,
    question_for_openai,
)

MESSAGES = [{"role": "user", "content": "x"}]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["message", "delta", "content", "tool_calls", "function", "arguments",
                         "name", "text", "reasoning", "finish_reason", "prompt_ms"]), inner),
    max_leaves=10,
)  # fmt: skip


def told(payloads: list[Any], way: Way = "chat") -> list[dict[str, Any]]:
    """The lines that a stream of these parts becomes."""
    datas = [part if isinstance(part, str) else json.dumps(part) for part in payloads]
    out = OllamaAnswer(way, "mine").feed("".join(f"data: {data}\n\n" for data in datas).encode())
    return [json.loads(line) for line in out.splitlines()]


def delta(**said: Any) -> dict[str, Any]:
    """One part of an answer."""
    return {"choices": [{"delta": said, "finish_reason": None}]}


def test_options_are_called_as_the_engine_calls_them():
    """Those with a counterpart; others are left out."""
    options = dict.fromkeys(OPTIONS, 1) | {"num_ctx": 9}
    body = question_for_openai({"messages": MESSAGES, "options": options}, "chat", "theirs")
    assert {body[name] for name in OPTIONS.values()} == {1}
    assert "num_ctx" not in body
    assert body["model"] == "theirs"


@pytest.mark.parametrize("longest", [-2, -1, 0, None])
def test_no_limit_is_no_limit(longest: int | None):
    """Ollama's way to say so is not passed on as a number, nor as null."""
    asked = {"messages": MESSAGES, "options": {"num_predict": longest}}
    assert "max_tokens" not in question_for_openai(asked, "chat", "m")


@pytest.mark.parametrize("said", [{}, {"stream": None}, {"stream": True}, {"stream": False}])
def test_ollama_streams_unless_told_not_to(said: dict[str, Any]):
    """The engine has to be told; its counts are asked for with a stream."""
    body = question_for_openai({"messages": MESSAGES, **said}, "chat", "m")
    streams = said.get("stream") is not False
    assert (body["stream"], "stream_options" in body) == (streams, streams)


@pytest.mark.parametrize(
    ("asked", "way", "part"),
    [
        ({"prompt": "p", "system": "s"}, "generate",
         {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]}),
        ({"prompt": "p", "raw": True}, "generate", {"prompt": "p"}),
        ({"messages": MESSAGES, "tools": [1]}, "chat", {"messages": MESSAGES, "tools": [1]}),
        ({"messages": MESSAGES, "format": "json"}, "chat",
         {"response_format": {"type": "json_object"}}),
        ({"messages": [{"role": "user", "content": "c", "images": ["QQ=="]}]}, "chat",
         {"messages": [{"role": "user", "content": [
             {"type": "text", "text": "c"},
             {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]}]}),
    ],
)  # fmt: skip
def test_questions_say_the_same(asked: dict[str, Any], way: Way, part: dict[str, Any]):
    """System words, raw prompts, tools, formats and pictures have their counterparts."""
    assert question_for_openai(asked, way, "m").items() >= part.items()


@pytest.mark.parametrize(("way", "words"), [
    ("chat", lambda line: line["message"]["content"]),
    ("generate", lambda line: line["response"]),
])  # fmt: skip
def test_a_stream_is_told_in_lines(way: Way, words: Any):
    """Words as they come, then one line with the end, the counts and the durations."""
    timings = {"prompt_ms": 1.5, "predicted_ms": 2}
    ending = {"choices": [{"delta": {}, "finish_reason": "length"}], "timings": timings}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    lines = told([delta(role="assistant"), delta(content="a"), delta(content="b"), ending, usage,
                  "[DONE]"], way)  # fmt: skip
    assert [words(line) for line in lines] == ["a", "b", ""]
    assert [line["done"] for line in lines] == [False, False, True]
    assert {line["model"] for line in lines} == {"mine"}
    expected = {"done_reason": "length", "prompt_eval_count": 3, "eval_count": 2,
                "prompt_eval_duration": 1_500_000, "eval_duration": 2_000_000}  # fmt: skip
    assert lines[-1].items() >= expected.items()


def test_what_an_engine_does_not_tell_is_left_out():
    """No count and no duration is made up."""
    (last,) = told(["[DONE]"])
    assert not {"prompt_eval_count", "eval_count", "eval_duration"} & last.keys()


def test_a_thought_is_told_as_one():
    """Whatever the engine calls it."""
    lines = told([delta(reasoning_content="t"), delta(reasoning="u"), "[DONE]"])
    assert [line["message"].get("thinking") for line in lines] == ["t", "u", None]


def test_a_whole_answer_is_told():
    """Words, a tool's call with its arguments as an object, and counts."""
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    choice = {"message": {"content": "w", "tool_calls": [call]}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    answer, used = answer_from_openai({"choices": [choice], "usage": usage}, "chat", "mine")
    assert answer["message"]["content"] == "w"
    assert answer["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": {"a": 1}}}]
    assert (answer["done"], used) == (True, Used(3, 2))


@pytest.mark.parametrize("written", ["{", "5", "[]", '{"a":NaN}', "[" * 10**5])
def test_arguments_that_are_no_object_are_kept_as_written(written: str):
    """The model may write anything."""
    call = {"function": {"name": "f", "arguments": written}}
    answer, _ = answer_from_openai({"choices": [{"message": {"tool_calls": [call]}}]}, "chat", "m")
    function = answer["message"]["tool_calls"][0]["function"]
    assert function["arguments"] == {"arguments": written}


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": 5}, {"choices": ["x"]}])
def test_an_answer_without_words_is_no_empty_answer(answer: dict[str, Any]):
    """It would look as if the model had nothing to say."""
    with pytest.raises(BrokenStreamError):
        answer_from_openai(answer, "chat", "m")


@given(choice=anything, usage=anything, timings=anything, way=st.sampled_from(["chat", "generate"]))
def test_any_answer_is_told_or_refused(choice: Any, usage: Any, timings: Any, way: Way):
    """And what is told is JSON with a text in it."""
    try:
        answer, _ = answer_from_openai(
            {"choices": [choice], "usage": usage, "timings": timings}, way, "m"
        )
        line = json.loads(dump_json(answer))
    except BrokenStreamError:
        return
    words = line["message"]["content"] if way == "chat" else line["response"]
    assert isinstance(words, str)


@given(parts=st.lists(st.fixed_dictionaries({"choices": st.lists(anything, max_size=2),
                                             "timings": anything, "usage": anything})))  # fmt: skip
def test_any_stream_is_told_in_lines_of_json(parts: list[Any]):
    """Each with a text in it, whatever the engine's parts hold."""
    for line in told([*parts, "[DONE]"]):
        assert isinstance(line["message"]["content"], str)


def test_calls_of_tools_are_gathered_and_told_whole():
    """Pieces of one call become one line before the last."""
    answer, out = OllamaAnswer("chat", "m"), b""
    pieces = [
        {"name": "sail", "arguments": ""},
        {"arguments": '{"to": '},
        {"arguments": '"north"}'},
    ]
    for piece in pieces:
        delta = {"tool_calls": [{"index": 0, "function": piece}]}
        out += answer.feed(
            b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"
        )
    out += answer.feed(b"data: [DONE]\n\n")
    called, last = map(json.loads, out.splitlines())
    assert called["message"]["tool_calls"] == [
        {"function": {"name": "sail", "arguments": {"to": "north"}}}
    ]
    assert (called["done"], last["done"]) == (False, True)


def test_calls_of_tools_in_a_dialogue_are_handed_on():
    """OpenAI wants arguments as text, and an id that an answer of a tool names."""
    called = {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "sail", "arguments": {"to": "north"}}}]}  # fmt: skip
    answered = {"role": "tool", "content": "done", "tool_name": "sail"}
    body = question_for_openai({"messages": [called, answered]}, "chat", "m")
    first, second = body["messages"]
    assert first["tool_calls"][0]["function"] == {"name": "sail", "arguments": '{"to":"north"}'}
    assert first["tool_calls"][0]["id"] == second["tool_call_id"]
