"""The second note's own paths: ``/generate``, ``/health``, ``/metrics`` and ``/stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from shoestring.gateway.api_openai import (
    body_schema,
    check_answer,
    count_prompt,
    error_event,
)
from shoestring.gateway.errors import Refusal, openai_error
from shoestring.gateway.gate import BODY, CALLER
from shoestring.gateway.metrics import CONTENT_TYPE
from shoestring.gateway.questions import NoteQuestion, read_question
from shoestring.gateway.relaying import Ask, Call
from shoestring.gateway.streams import (
    BrokenStreamError,
    Used,
    dump_json,
    first_choice,
    parse_answer,
    text_of,
    used_of,
)

if TYPE_CHECKING:
    from shoestring.gateway.routing import Route
    from shoestring.gateway.service import Gateway


def note_routes(gateway: Gateway) -> APIRouter:
    """Return the note's paths."""
    router = APIRouter(tags=["note"])

    @router.post("/generate", openapi_extra=body_schema(NoteQuestion))
    async def generate(request: Request) -> Response:
        """Go on with a text, in one piece."""
        question, _ = read_question(request.scope[BODY], NoteQuestion)
        names = gateway.router.names_for(request.scope[CALLER].key)
        model = question.model or next(iter(names), None)
        if model is None:
            raise Refusal(503, "no_engine", "no engine answers yet: ask again later", 5.0)
        return gateway.answer(request, _ask(gateway, question, model))

    @router.get("/health")
    async def health() -> Response:
        """Say whether requests are taken; nothing else, since anybody may ask."""
        ready = gateway.ready()
        word = "draining" if gateway.draining else "ok" if ready else "no engine"
        return JSONResponse({"status": word}, 200 if ready else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Give all metrics as Prometheus reads them."""
        gateway.count()
        return Response(gateway.metrics.render(), media_type=CONTENT_TYPE)

    @router.get("/stats")
    async def stats() -> Response:
        """Give the note's figures."""
        return JSONResponse(gateway.figures())

    return router


def _ask(gateway: Gateway, question: NoteQuestion, model: str) -> Ask:
    prompt_tokens = count_prompt(gateway, question.prompt)
    body = {
        "prompt": question.prompt,
        "max_tokens": question.max_new_tokens,
        "temperature": question.temperature,
        "top_p": question.top_p,
        "stream": False,
    }
    began = gateway.clock()

    def told(data: bytes) -> tuple[bytes, Used]:
        answer = parse_answer(data)
        used = used_of(answer.get("usage"))
        choice = first_choice(answer)
        if not choice:
            raise BrokenStreamError("it has no choices")
        return dump_json(
            {
                "generated_text": text_of(choice.get("text")),
                "model": model,
                "input_tokens": used.input_tokens,
                "output_tokens": used.output_tokens,
                "inference_time_s": gateway.clock() - began,
            }
        ), used

    def call(route: Route) -> Call:
        return Call("/v1/completions", {**body, "model": route.model}, None, told)

    return Ask(
        operation="completion",
        model=model,
        body={**body, "model": model},
        stream=False,
        tokens=prompt_tokens + check_answer(gateway, question.max_new_tokens),
        prompt_tokens=prompt_tokens,
        call=call,
        error=openai_error,
        error_part=error_event,
    )
