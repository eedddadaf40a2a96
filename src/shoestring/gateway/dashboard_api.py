"""What the dashboard shows and does. Only who is signed in gets here (:mod:`gate`)."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from shoestring.errors import BadValueError
from shoestring.gateway.api_openai import body_schema, chat_ask
from shoestring.gateway.errors import Refusal
from shoestring.gateway.gate import BODY, CALLER
from shoestring.gateway.keys import KeyLimits, Scope
from shoestring.gateway.keys_file import create_key, revoke_key
from shoestring.gateway.questions import ChatQuestion, read_question
from shoestring.gateway.sessions import COOKIE, LASTS_S
from shoestring.gateway.settings import variant_of

if TYPE_CHECKING:
    from shoestring.gateway.engines import EngineLink
    from shoestring.gateway.keys import Key
    from shoestring.gateway.service import Gateway

MOST_REQUESTS = 500
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class SignIn(BaseModel):
    """The key that is shown."""

    model_config = ConfigDict(strict=True, extra="forbid")

    key: Annotated[str, Field(max_length=200)]


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)] = ["inference"]
    models: Annotated[list[str], Field(max_length=64)] = []
    limits: dict[str, Any] = {}
    expires_days: int | None = None


def dashboard_routes(gateway: Gateway) -> APIRouter:
    """Return the paths under ``/dashboard/api``."""
    router = APIRouter(prefix="/dashboard/api", include_in_schema=False)

    _add_session(router, gateway)
    _add_keys(router, gateway)

    @router.get("/overview")
    async def overview(request: Request) -> Response:
        return JSONResponse(_overview(gateway, _key(request)))

    @router.get("/requests")
    async def requests(limit: int = 100) -> Response:
        gateway.count()
        latest = gateway.activity.recent(min(max(limit, 1), MOST_REQUESTS))
        return JSONResponse({"requests": [asdict(one) for one in latest]})

    @router.post("/chat/completions", openapi_extra=body_schema(ChatQuestion))
    async def chat(request: Request) -> Response:
        if not _key(request).allows("inference"):
            raise Refusal(403, "scope", "this key may not ask models: it lacks inference")
        return gateway.answer(request, chat_ask(gateway, request.scope[BODY]))

    return router


def _add_session(router: APIRouter, gateway: Gateway) -> None:
    @router.get("/session")
    async def who(request: Request) -> Response:
        key = _key(request)
        shown = {"id": key.id, "name": key.name, "scopes": sorted(key.scopes)}
        return JSONResponse({"key": shown})

    @router.post("/session")
    async def sign_in(request: Request) -> Response:
        question, _ = read_question(request.scope[BODY], SignIn)
        key = gateway.keys.find(question.key)
        if key is None or not key.allows("dashboard"):
            await gateway.limiter.count_address(request.scope[CALLER].address)
            raise Refusal(401, "wrong_key", "this key does not open the dashboard")
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            gateway.sessions.cookie_for(key),
            max_age=LASTS_S,
            path="/dashboard",
            httponly=True,
            samesite="strict",
            # TLS ends before us; on loopback there may be none.
            secure=request.url.hostname not in LOOPBACK,
        )
        return response

    @router.delete("/session")
    async def sign_out() -> Response:
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/dashboard", httponly=True, samesite="strict")
        return response


def _add_keys(router: APIRouter, gateway: Gateway) -> None:
    @router.get("/keys")
    async def keys(request: Request) -> Response:
        _administrator(request)
        gateway.count()
        return JSONResponse({"keys": [await _key_row(gateway, key) for key in gateway.keys.keys()]})  # noqa: SIM118

    @router.post("/keys")
    async def make_key(request: Request) -> Response:
        _administrator(request)
        wanted, _ = read_question(request.scope[BODY], NewKey)
        try:
            key, presented = await asyncio.to_thread(
                create_key,
                gateway.settings.keys.file,
                wanted.name,
                scopes=wanted.scopes,
                models=wanted.models,
                limits=_limits(wanted.limits),
                expires_days=wanted.expires_days,
            )
        except BadValueError as error:
            raise Refusal(400, "bad_value", str(error)) from error
        gateway.keys.reload()
        return JSONResponse({"key": await _key_row(gateway, key), "secret": presented}, 201)

    @router.post("/keys/{key_id}/revoke")
    async def revoke(request: Request, key_id: str) -> Response:
        _administrator(request)
        try:
            await asyncio.to_thread(revoke_key, gateway.settings.keys.file, key_id)
        except BadValueError as error:
            raise Refusal(404, "unknown_key", str(error)) from error
        gateway.keys.reload()
        return Response(status_code=204)


def _overview(gateway: Gateway, key: Key) -> dict[str, Any]:
    router, stats = gateway.router, gateway.cache.stats()
    return {
        "version": version("shoestring"),
        "uptime_s": gateway.clock() - gateway.began,
        "draining": gateway.draining,
        "redis": gateway.limiter.state(),
        "figures": gateway.figures(),
        "series": asdict(gateway.activity.series()),
        "engines": [_engine(engine) for engine in router.engines.values()],
        "aliases": [
            {"name": name, "targets": [
                target.model_dump() | {"variant": variant_of(target)} for target in alias.targets
            ]}
            for name, alias in router.aliases.items()
        ],
        "cache": {"state": stats.state, "hits": stats.hits, "misses": stats.misses,
                  "entries": stats.entries, "bytes": stats.bytes},
        "models": router.names_for(key),
    }  # fmt: skip


def _engine(engine: EngineLink) -> dict[str, Any]:
    return {
        "name": engine.name,
        "kind": engine.kind,
        "state": engine.state,
        "since_utc": engine.since_utc,
        "models": sorted(engine.models),
        "active": engine.slots.active,
        "waiting": engine.slots.waiting,
        "slots": engine.settings.slots,
        "memory_bytes": engine.memory_bytes,
        "last_error": engine.last_error,
    }


async def _key_row(gateway: Gateway, key: Key) -> dict[str, Any]:
    use = asdict(gateway.activity.use_of(key.id))
    use["budget_used_tokens"] = await gateway.limiter.budget_used(key)
    return {**key.to_public(), "use": use}


def _limits(given: dict[str, Any]) -> KeyLimits:
    try:
        return KeyLimits(**given)
    except TypeError as error:
        raise Refusal(400, "bad_value", f"limits: {error}") from error


def _key(request: Request) -> Key:
    key = request.scope[CALLER].key
    assert key is not None, "the gate lets nobody in without signing in"
    return key  # type: ignore[no-any-return]


def _administrator(request: Request) -> None:
    if "admin" not in _key(request).scopes:
        raise Refusal(403, "scope", "only a key with the scope admin makes and revokes keys")
