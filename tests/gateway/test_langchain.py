"""LangChain's own client of OpenAI's API before a real gateway."""

import asyncio
import gc
from collections.abc import Iterator

import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from shoestring.testing.gateway import RunningGateway

WORDS = "".join(f"w{number} " for number in range(8))
TALK = [SystemMessage("Be short."), HumanMessage("hello")]


def chat(gateway: RunningGateway, model: str = "fast", *, key: str | None = None) -> ChatOpenAI:
    """LangChain's chat model; it must not try again by itself."""
    return ChatOpenAI(
        model=model, base_url=f"{gateway.url}/v1", api_key=SecretStr(key or gateway.key),
        max_retries=0,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """LangChain leaves its connections to the collector, which must not meet another test."""
    yield
    gc.collect()


def test_a_chain_is_answered(gateway: RunningGateway):
    """Text and counts, as LangChain names them."""
    said = chat(gateway).invoke(TALK)
    assert said.content == WORDS
    assert said.usage_metadata is not None
    assert said.usage_metadata["output_tokens"] == 8


def test_a_chain_is_streamed(gateway: RunningGateway):
    """Parts add up; the counts that it asks for come with the last ones."""
    parts = list(chat(gateway).stream(TALK, stream_usage=True))
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    assert len(parts) > 8
    assert whole.content == WORDS
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 8


def test_many_are_answered_at_once(gateway: RunningGateway):
    """Asynchronously, by one client."""

    async def ask() -> list[str]:
        """Six at once."""
        model = chat(gateway)
        said = await asyncio.gather(*(model.ainvoke(TALK) for _ in range(6)))
        return [str(one.content) for one in said]

    assert asyncio.run(ask()) == [WORDS] * 6


def test_a_stream_that_breaks_is_an_error_to_a_chain(gateway: RunningGateway):
    """Never a short answer in silence."""
    with pytest.raises(openai.APIError, match="engine"):
        list(chat(gateway, "cut").stream(TALK))


def test_a_wrong_key_is_an_error_to_a_chain(gateway: RunningGateway):
    """OpenAI's own class of it."""
    with pytest.raises(openai.AuthenticationError):
        chat(gateway, key="wrong").invoke(TALK)
