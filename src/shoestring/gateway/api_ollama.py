"""Ollama's API: an Ollama gets its own words, any other engine has them translated.

Source: ``docs/api.md`` of Ollama. What changes a server (pull, create, delete) is not offered.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from shoestring.gateway.api_openai import body_schema, check_answer, count_prompt
from shoestring.gateway.errors import Refusal, ollama_error
from shoestring.gateway.gate import BODY, CALLER
from shoestring.gateway.questions import (
    OllamaChat,
    OllamaEmbed,
    OllamaGenerate,
    OllamaQuestion,
    OllamaShow,
    read_question,
)
from shoestring.gateway.relaying import Ask, Call
from shoestring.gateway.streams import (
    BrokenStreamError,
    LineStream,
    Used,
    dict_of,
    dump_json,
    list_of,
    parse_answer,
    used_of,
)
from shoestring.gateway.translating import OllamaAnswer, answer_from_openai, question_for_openai

if TYPE_CHECKING:
    from shoestring.gateway.routing import Route
    from shoestring.gateway.service import Gateway
    from shoestring.gateway.translating import Way


def ollama_routes(gateway: Gateway) -> APIRouter:
    """Return the paths under ``/api``."""
    router = APIRouter(prefix="/api", tags=["Ollama"])

    @router.post("/chat", openapi_extra=body_schema(OllamaChat))
    async def chat(request: Request) -> Response:
        """Answer a conversation, in lines of JSON unless ``stream`` is false."""
        question, sent = read_question(request.scope[BODY], OllamaChat)
        sent.setdefault("messages", [])
        return gateway.answer(request, _ask(gateway, question, sent, "chat"))

    @router.post("/generate", openapi_extra=body_schema(OllamaGenerate))
    async def generate(request: Request) -> Response:
        """Answer a prompt, in lines of JSON unless ``stream`` is false."""
        question, sent = read_question(request.scope[BODY], OllamaGenerate)
        return gateway.answer(request, _ask(gateway, question, sent, "generate"))

    @router.post("/embed", openapi_extra=body_schema(OllamaEmbed))
    async def embed(request: Request) -> Response:
        """Turn texts into vectors."""
        question, sent = read_question(request.scope[BODY], OllamaEmbed)
        return gateway.answer(request, _embed_ask(gateway, question, sent))

    @router.get("/tags")
    async def tags(request: Request) -> Response:
        """List what this key may ask for."""
        names = gateway.router.names_for(request.scope[CALLER].key)
        return JSONResponse({"models": [_tag(gateway, name) for name in names]})

    @router.get("/ps")
    async def loaded(request: Request) -> Response:
        """List what is loaded: what engines that are up have."""
        names = gateway.router.names_for(request.scope[CALLER].key)
        return JSONResponse({"models": [_tag(gateway, name) for name in names]})

    @router.post("/show", openapi_extra=body_schema(OllamaShow))
    async def show(request: Request) -> Response:
        """Show one model, as far as its engine tells."""
        question, _ = read_question(request.scope[BODY], OllamaShow)
        name = question.model or question.name
        if name is None:
            raise Refusal(400, "bad_value", "model: give a name")
        gateway.router.routes(name, request.scope[CALLER].key)
        return JSONResponse(
            {"model_info": {}, "capabilities": ["completion"], **_tag(gateway, name)}
        )

    @router.get("/version")
    async def server_version() -> Response:
        """Say what answers."""
        return JSONResponse({"version": version("shoestring")})

    return router


def error_line(refusal: Refusal) -> bytes:
    """Word a refusal inside a stream."""
    return json.dumps(ollama_error(refusal)).encode() + b"\n"


def _ask(gateway: Gateway, question: OllamaQuestion, sent: dict[str, Any], way: Way) -> Ask:
    stream = question.stream is not False
    prompt = [sent.get(name) for name in ("messages", "prompt", "system", "suffix")]
    prompt_tokens = count_prompt(gateway, prompt)
    longest = (question.options or {}).get("num_predict")
    bounded = longest if isinstance(longest, int) and longest > 0 else None
    marked = way == "chat" or not sent.get("raw")

    def call(route: Route) -> Call:
        body = _plain(gateway, route, sent) if marked else sent
        if route.engine.kind == "ollama":
            own = {**body, "model": route.model}
            return Call(f"/api/{way}", own, LineStream() if stream else None, _own_answer)
        path = "/v1/completions" if way == "generate" and sent.get("raw") else _CHAT
        asked = question_for_openai(body, way, route.model)
        answer = OllamaAnswer(way, question.model) if stream else None
        return Call(path, asked, answer, lambda data: _translated(data, way, question.model))

    return Ask(
        operation="chat" if way == "chat" else "generate",
        model=question.model,
        body=sent,
        stream=stream,
        tokens=prompt_tokens + check_answer(gateway, bounded),
        prompt_tokens=prompt_tokens,
        call=call,
        error=ollama_error,
        error_part=error_line,
    )


_CHAT = "/v1/chat/completions"


def _embed_ask(gateway: Gateway, question: OllamaEmbed, sent: dict[str, Any]) -> Ask:
    prompt_tokens = count_prompt(gateway, question.input)

    def call(route: Route) -> Call:
        body = {**sent, "model": route.model}
        if route.engine.kind == "ollama":
            return Call("/api/embed", body, None, _own_answer)
        return Call("/v1/embeddings", body, None, lambda data: _vectors(data, question.model))

    return Ask(
        operation="embeddings",
        model=question.model,
        body=sent,
        stream=False,
        tokens=prompt_tokens,
        prompt_tokens=prompt_tokens,
        call=call,
        error=ollama_error,
        error_part=error_line,
    )


def _plain(gateway: Gateway, route: Route, sent: dict[str, Any]) -> dict[str, Any]:
    """Return a question whose texts hold no control tokens."""
    texts = [{name: sent[name]} for name in ("prompt", "system", "suffix") if name in sent]
    plain = {**sent}
    for changed in gateway.plain_messages(route, texts):
        plain |= changed
    for name in ("messages", "tools"):
        if isinstance(sent.get(name), list):  # templates write tools between the turns, too
            plain[name] = gateway.plain_messages(route, sent[name])
    return plain


def _own_answer(data: bytes) -> tuple[bytes, Used]:
    return data, used_of(parse_answer(data))


def _translated(data: bytes, way: Way, model: str) -> tuple[bytes, Used]:
    answer, used = answer_from_openai(parse_answer(data), way, model)
    return dump_json(answer), used


def _vectors(data: bytes, model: str) -> tuple[bytes, Used]:
    answer = parse_answer(data)
    used = used_of(answer.get("usage"))
    vectors = [dict_of(one).get("embedding") for one in list_of(answer.get("data"))]
    if not vectors or not all(isinstance(vector, list) for vector in vectors):
        raise BrokenStreamError("it has no vectors")
    told = {"model": model, "embeddings": vectors, "prompt_eval_count": used.input_tokens}
    return dump_json(told), used


def _tag(gateway: Gateway, name: str) -> dict[str, Any]:
    """Return a model as Ollama lists it; facts only where an Ollama tells them."""
    told = gateway.router.details(name)
    known = ("modified_at", "size", "digest", "details", "capabilities")
    kept = {key: told[key] for key in known if key in told}
    unknown = {"modified_at": "1970-01-01T00:00:00Z", "size": 0, "digest": "", "details": {}}
    return {"name": name, "model": name, **unknown, **kept}
