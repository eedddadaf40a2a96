"""Ollama's API before an engine that knows only OpenAI's, asked by Ollama's own package."""

import json
from collections.abc import Iterator

import ollama
import pytest
import requests

from shoestring.testing.gateway import RunningGateway

WORDS = "".join(f"w{number} " for number in range(8))
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[ollama.Client]:
    """Ollama's own client with the key as a bearer."""
    made = ollama.Client(host=gateway.url, headers=gateway.headers, trust_env=False)
    yield made
    made._client.close()


def test_a_conversation_is_answered_whole(client: ollama.Client):
    """Text, counts and why it ended come in Ollama's fields."""
    answer = client.chat("fast", HELLO)
    assert answer.message.content == WORDS
    assert (answer.done, answer.eval_count) == (True, 8)


def test_a_conversation_is_streamed(client: ollama.Client):
    """Lines add up to the answer; only the last is done and has counts."""
    parts = list(client.chat("fast", HELLO, stream=True))
    assert "".join(part.message.content or "" for part in parts) == WORDS
    assert [part.done for part in parts[:-1]] == [False] * (len(parts) - 1)
    assert (parts[-1].done, parts[-1].eval_count) == (True, 8)


def test_reasoning_is_kept_apart(client: ollama.Client):
    """What the engine calls reasoning is Ollama's thinking."""
    parts = list(client.chat("reasoning", HELLO, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "w0 w1 w2 "
    assert "".join(part.message.content or "" for part in parts) == "w3 w4 w5 w6 w7 "


@pytest.mark.parametrize("raw", [False, True])
def test_a_prompt_is_answered(client: ollama.Client, raw: bool):  # noqa: FBT001
    """Raw or through a template, whole or in lines; num_predict bounds it."""
    whole = client.generate("fast", "hello", raw=raw, options={"num_predict": 3})
    parts = client.generate("fast", "hello", raw=raw, options={"num_predict": 3}, stream=True)
    assert whole.response == "".join(part.response or "" for part in parts) == "w0 w1 w2 "


def test_models_are_listed_and_shown(client: ollama.Client):
    """Facts that the engine does not tell are empty, and clients can live with it."""
    assert "fast" in {model.model for model in client.list().models}
    client.show("fast")


@pytest.mark.parametrize("model", ["cut", "error", "reset"])
def test_a_stream_that_breaks_says_so(client: ollama.Client, model: str):
    """Ollama's client raises, since the last line is an error."""
    with pytest.raises(ollama.ResponseError):
        list(client.chat(model, HELLO, stream=True))


def test_a_refusal_is_worded_as_ollamas(gateway: RunningGateway, web: requests.Session):
    """One field, a text."""
    refused = web.post(f"{gateway.url}/api/chat", json={"model": "none"}, headers=gateway.headers)
    assert refused.status_code == 404
    assert list(json.loads(refused.content)) == ["error"]


@pytest.mark.parametrize("path", ["/api/pull", "/api/delete", "/api/create", "/api/push"])
def test_what_changes_an_engine_is_not_offered(
    gateway: RunningGateway, web: requests.Session, path: str
):
    """A client of the gateway never administrates what is behind it."""
    body = {"model": "fast"}
    assert web.post(gateway.url + path, json=body, headers=gateway.headers).status_code == 404
