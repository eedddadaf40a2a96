"""OpenAI's API: chat and text completions, embeddings, models.

Sources: OpenAI's API reference; the READMEs of llama.cpp's server and of Ollama for what they take.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from shoestring.gateway.errors import Refusal, openai_error
from shoestring.gateway.gate import BODY, CALLER
from shoestring.gateway.questions import (
    BYTES_PER_TOKEN,
    ChatQuestion,
    CompletionQuestion,
    EmbeddingsQuestion,
    Generating,
    read_question,
    text_bytes,
)
from shoestring.gateway.relaying import Ask, Call
from shoestring.gateway.streams import EventStream, Used, parse_answer, used_of

if TYPE_CHECKING:
    from pydantic import BaseModel

    from shoestring.gateway.activity import Operation
    from shoestring.gateway.routing import Route
    from shoestring.gateway.service import Gateway


def openai_routes(gateway: Gateway) -> APIRouter:
    """Return the paths under ``/v1``."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.post("/chat/completions", openapi_extra=body_schema(ChatQuestion))
    async def chat(request: Request) -> Response:
        """Answer a conversation, in parts with ``stream``."""
        return gateway.answer(request, chat_ask(gateway, request.scope[BODY]))

    @router.post("/completions", openapi_extra=body_schema(CompletionQuestion))
    async def completion(request: Request) -> Response:
        """Go on with a text, in parts with ``stream``."""
        question, sent = read_question(request.scope[BODY], CompletionQuestion)
        ask = generating_ask(gateway, question, sent, "completion", question.prompt)
        return gateway.answer(request, ask)

    @router.post("/embeddings", openapi_extra=body_schema(EmbeddingsQuestion))
    async def embeddings(request: Request) -> Response:
        """Turn texts into vectors."""
        question, sent = read_question(request.scope[BODY], EmbeddingsQuestion)
        return gateway.answer(request, embeddings_ask(gateway, question, sent))

    @router.get("/models")
    async def models(request: Request) -> Response:
        """List what this key may ask for."""
        names = gateway.router.names_for(request.scope[CALLER].key)
        return JSONResponse({"object": "list", "data": [_model(name) for name in names]})

    @router.get("/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        """Show one model."""
        gateway.router.routes(name, request.scope[CALLER].key)
        return JSONResponse(_model(name))

    return router


def chat_ask(gateway: Gateway, body: bytes) -> Ask:
    """Return a conversation to go on with, its control tokens as the settings say.

    Raises:
        Refusal: it cannot be used.
    """
    question, sent = read_question(body, ChatQuestion)
    return generating_ask(gateway, question, sent, "chat", question.messages)


def generating_ask(
    gateway: Gateway, question: Generating, sent: dict[str, Any], operation: Operation, prompt: Any
) -> Ask:
    """Return what is asked of a generating model.

    Raises:
        Refusal: prompt or answer would be too long.
    """
    stream = bool(question.stream)
    prompt_tokens = count_prompt(gateway, prompt)
    said = (question.max_completion_tokens, question.max_tokens, question.n_predict)
    longest = max((tokens for tokens in said if tokens is not None), default=None)
    answer_tokens = check_answer(gateway, longest) * (question.n or 1) * _answers(prompt)
    wants_usage = bool((question.stream_options or {}).get("include_usage"))
    path = "/v1/chat/completions" if operation == "chat" else "/v1/completions"

    def call(route: Route) -> Call:
        body = {**sent, "model": route.model}
        for name in ("messages", "tools", "functions") if operation == "chat" else ():
            if isinstance(sent.get(name), list):  # templates write tools between the turns, too
                body[name] = gateway.plain_messages(route, sent[name])
        if operation == "chat" and isinstance(sent.get("chat_template_kwargs"), dict):
            kwargs = [sent["chat_template_kwargs"]]
            [body["chat_template_kwargs"]] = gateway.plain_messages(route, kwargs)
        if stream:
            # For our own counts; a client that did not ask for them does not get them.
            body["stream_options"] = {**(question.stream_options or {}), "include_usage": True}
        return Call(path, body, EventStream(keep_usage=wants_usage) if stream else None, as_it_is)

    return Ask(
        operation=operation,
        model=question.model,
        body=sent,
        stream=stream,
        tokens=prompt_tokens + answer_tokens,
        prompt_tokens=prompt_tokens,
        call=call,
        error=openai_error,
        error_part=error_event,
    )


def _answers(prompt: Any) -> int:
    """Return how many answers a prompt asks for: one for each text of a list."""
    many = isinstance(prompt, list) and any(isinstance(one, str | list) for one in prompt)
    return len(prompt) if many else 1


def embeddings_ask(gateway: Gateway, question: EmbeddingsQuestion, sent: dict[str, Any]) -> Ask:
    """Return texts to be turned into vectors.

    Raises:
        Refusal: they are too long.
    """
    prompt_tokens = count_prompt(gateway, question.input)

    def call(route: Route) -> Call:
        return Call("/v1/embeddings", {**sent, "model": route.model}, None, as_it_is)

    return Ask(
        operation="embeddings",
        model=question.model,
        body=sent,
        stream=False,
        tokens=prompt_tokens,
        prompt_tokens=prompt_tokens,
        call=call,
        error=openai_error,
        error_part=error_event,
    )


def as_it_is(data: bytes) -> tuple[bytes, Used]:
    """Pass a whole answer on, and tell its tokens."""
    return data, used_of(parse_answer(data).get("usage"))


def count_prompt(gateway: Gateway, prompt: Any) -> int:
    """Estimate the tokens of a prompt.

    Raises:
        Refusal: it is longer than the settings allow.
    """
    size_bytes, limit_bytes = text_bytes(prompt), gateway.settings.server.max_prompt_bytes
    if size_bytes > limit_bytes:
        raise Refusal(
            413, "prompt_too_long", f"the prompt has {size_bytes} bytes, at most {limit_bytes}"
        )
    return -(-size_bytes // BYTES_PER_TOKEN)


def check_answer(gateway: Gateway, longest: int | None) -> int:
    """Return the tokens that are set aside for an answer.

    Raises:
        Refusal: more are asked for than the settings allow.
    """
    limit = gateway.settings.server.max_answer_tokens
    if longest is None:
        return gateway.settings.limits.assumed_answer_tokens
    if longest > limit:
        raise Refusal(400, "bad_value", f"max_tokens: {longest} is over this gateway's {limit}")
    return longest


def error_event(refusal: Refusal) -> bytes:
    """Word a refusal inside a stream."""
    return b"data: " + json.dumps(openai_error(refusal)).encode() + b"\n\n"


def body_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that is read by :func:`read_question`."""
    schema = kind.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "shoestring"}
