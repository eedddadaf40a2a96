"""OpenAI's API through a real gateway, asked by OpenAI's own package and by hand."""

import json
from typing import Any

import openai
import pytest
import requests

from shoestring.testing.gateway import RunningGateway

WORDS = "".join(f"w{number} " for number in range(8))


def question(model: str, **more: Any) -> dict[str, Any]:
    """A short conversation."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


@pytest.fixture
def client(gateway: RunningGateway):
    """OpenAI's own client, which must not try again by itself."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as made:
        yield made


def events(response: requests.Response) -> list[Any]:
    """The parts of a stream, as they were sent."""
    lines = response.content.decode().split("\n\n")
    datas = [line.removeprefix("data: ") for line in lines if line]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


def test_a_conversation_is_answered_whole(client: openai.OpenAI):
    """The text, why it ended and its tokens come as the engine said them."""
    answer = client.chat.completions.create(**question("fast"))
    assert answer.choices[0].message.content == WORDS
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_a_conversation_is_streamed(client: openai.OpenAI):
    """Parts add up to the answer; counts come because they were asked for."""
    stream = client.chat.completions.create(
        **question("fast", stream=True, stream_options={"include_usage": True})
    )
    parts = list(stream)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == WORDS
    assert parts[-1].usage is not None
    assert parts[-1].usage.completion_tokens == 8


@pytest.mark.parametrize("model", ["fast", "utf8", "reasoning", "coalesced"])
def test_counts_that_were_not_asked_for_are_not_sent(
    gateway: RunningGateway, web: requests.Session, model: str
):
    """The gateway asks the engine for them, and keeps them to itself."""
    response = web.post(
        f"{gateway.url}/v1/chat/completions",
        json=question(model, stream=True),
        headers={**gateway.headers, "X-Request-ID": f"counts-{model}"},
    )
    parts = events(response)
    assert parts[-1] == "[DONE]"
    assert all("usage" not in part for part in parts[:-1])
    noted = gateway.noted(f"counts-{model}")
    assert (noted["output_tokens"], noted["failure"], noted["status"]) == (8, None, 200)


def test_a_text_is_completed(client: openai.OpenAI):
    """Completions go the same way."""
    answer = client.completions.create(model="fast", prompt="hello", max_tokens=3)
    assert answer.choices[0].text == "w0 w1 w2 "


def test_models_are_listed(client: openai.OpenAI):
    """All aliases, and what the engine itself names."""
    assert {"fast", "slow"} < {model.id for model in client.models.list()}
    assert client.models.retrieve("fast").id == "fast"


def test_an_answer_names_what_gave_it(gateway: RunningGateway, web: requests.Session):
    """Engine, variant and the client's own request id stand in the head."""
    response = web.post(
        f"{gateway.url}/v1/chat/completions",
        json=question("fast"),
        headers={**gateway.headers, "X-Request-ID": "mine-1"},
    )
    said = {name: response.headers[name] for name in ("x-request-id", "x-shoestring-engine",
            "x-shoestring-variant")}  # fmt: skip
    assert said == {"x-request-id": "mine-1", "x-shoestring-engine": "truth",
                    "x-shoestring-variant": "only"}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"model": "fast"}, "messages"),
        ({"model": "fast", "messages": []}, "messages"),
        ({"model": "fast", "messages": "hello"}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        (question("fast", max_tokens=0), "max_tokens"),
        (question("fast", max_tokens=10**6), "max_tokens"),
        (question("fast", temperature="hot"), "temperature"),
        (question("fast", stream="yes"), "stream"),
    ],
)
def test_a_wrong_field_is_named(client: openai.OpenAI, body: dict[str, Any], names: str):
    """400, OpenAI's shape, one line with the field."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert names in str(refused.value.body["message"])  # type: ignore[index]


def test_an_unknown_model_is_not_found(client: openai.OpenAI):
    """404, and how to see what there is."""
    with pytest.raises(openai.NotFoundError, match="GET /v1/models"):
        client.chat.completions.create(**question("nothing"))


def test_an_engines_own_refusal_is_passed_on(client: openai.OpenAI):
    """What it would not take is the client's to mend."""
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**question("http-400"))


def test_an_engines_failure_is_no_failure_of_the_gateway(client: openai.OpenAI):
    """500 from an engine is 502 with a word."""
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(**question("http-500"))
    assert (failed.value.status_code, failed.value.code) == (502, "engine_error")


@pytest.mark.parametrize(
    ("model", "code"),
    [("cut", "engine_cut"), ("error", "engine_error"), ("bad-json", "engine_cut"),
     ("reset", "engine_cut")],
)  # fmt: skip
def test_a_stream_that_breaks_says_so(
    gateway: RunningGateway, web: requests.Session, model: str, code: str
):
    """Its last event is an error, never a silent end; and no [DONE] follows."""
    response = web.post(
        f"{gateway.url}/v1/chat/completions",
        json=question(model, stream=True),
        headers=gateway.headers,
    )
    parts = events(response)
    assert parts[-1]["error"]["code"] == code
    assert "[DONE]" not in parts


def test_a_break_before_the_first_byte_is_a_status(client: openai.OpenAI):
    """Nothing went out, so it need not be told inside a stream."""
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(**question("reset-at-once", stream=True))
    assert failed.value.status_code == 503


def test_the_same_question_is_answered_from_memory(gateway: RunningGateway, web: requests.Session):
    """A deterministic one: the second answer is the first, byte for byte, streamed or not."""
    for stream in (True, False):
        body = question("fast", temperature=0, stream=stream, seed=42)
        first, second = (
            web.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers)
            for _ in range(2)
        )
        assert [first.headers["x-cache"], second.headers["x-cache"]] == ["miss", "hit"]
        assert first.content == second.content


def test_a_question_with_chance_is_asked_anew(gateway: RunningGateway, web: requests.Session):
    """Without temperature 0 nothing is kept."""
    body = question("fast", temperature=0.5)
    uses = [
        web.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers).headers[
            "x-cache"
        ]
        for _ in range(2)
    ]
    assert uses == ["bypass", "bypass"]
