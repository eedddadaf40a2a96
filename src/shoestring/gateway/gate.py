"""Before a request is looked at: who sends it, from where, and how much of it is read.

Nobody without a key makes the gateway parse anything. Bodies are read whole, within bounds of
size and time each and of size together, and only then handed on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from structlog.contextvars import bind_contextvars

from shoestring.gateway.addresses import client_address, limit_address
from shoestring.gateway.client import ClientStalledError
from shoestring.gateway.errors import Refusal, error_for
from shoestring.gateway.logs import request_id as new_request_id
from shoestring.gateway.sessions import cookie_in

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from shoestring.gateway.keys import Key
    from shoestring.gateway.keys import Scope as Right
    from shoestring.gateway.service import Gateway

CALLER = "shoestring.caller"
BODY = "shoestring.body"
BODIES_BYTES = 64 * 2**20
"""How much of requests that are still being read is held at once."""
_RIGHTS: dict[str, Right | None] = {"/health": None, "/metrics": "metrics", "/stats": "dashboard"}
_PAGE = "/dashboard"
_PAGE_API = "/dashboard/api/"
_SIGN_IN = ("POST", "/dashboard/api/session")
_SIGN_IN_BYTES = 4096
OWN_WORD = (b"x-requested-with", b"shoestring")
"""The page's own header: no other site's form or link can send it."""


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        key: it came with; None where none is asked for.
        address: the client's, as far as trusted proxies say.
        request_id: the client's own if it is a plain word, else a new one.
        began: on the gateway's clock.
    """

    key: Key | None
    address: str
    request_id: str
    began: float


class Gate:
    """ASGI middleware: knows the caller, reads the body, else refuses.

    Args:
        app: gets what comes through.
        gateway: knows keys, limits and settings.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        given = _first(headers, b"x-request-id")
        request_id = new_request_id(given.decode("latin-1") or None)
        client = self._gateway.client(scope, send)
        client.headers["x-request-id"] = request_id
        bind_contextvars(request_id=request_id)  # a request is a task, and so a context, of its own
        try:
            address = self._address(scope)
            bind_contextvars(address=address)
            key = await self._key(scope, address)
            scope[CALLER] = Caller(key, address, request_id, self._gateway.clock())
            limit_bytes = self._limit_bytes(key)
            _check_announced(headers, limit_bytes)
            scope[BODY] = await self._body(receive, limit_bytes)
        except Refusal as refusal:
            self._gateway.refused(refusal)
            client.headers["connection"] = "close"
            with suppress(ClientStalledError):  # its connection is gone
                await client.refuse(refusal, error_for(scope["path"], refusal))
            client.leave()
            return
        await self._app(scope, receive, send)

    def _address(self, scope: Scope) -> str:
        peer = scope["client"][0] if scope.get("client") else "127.0.0.1"
        lines = [
            value.decode("latin-1")
            for name, value in scope["headers"]
            if name == b"x-forwarded-for"
        ]
        return limit_address(
            client_address(peer, lines, self._gateway.settings.server.trusted_proxies)
        )

    async def _key(self, scope: Scope, address: str) -> Key | None:
        path = scope["path"]
        if not path.isprintable():  # routes match before a line's end, names here do not
            raise Refusal(404, "unknown_path", "there is no such path")
        if path.startswith(_PAGE_API):
            return self._signed_in(scope)
        if path == _PAGE or path.startswith(_PAGE + "/"):
            return None
        right = _RIGHTS.get(path, "inference")
        if right is None:
            return None
        presented = presented_key(scope["headers"])
        key = self._gateway.keys.find(presented) if presented else None
        if key is None:
            await self._gateway.limiter.count_address(address)
            raise _unknown(presented)
        if not key.allows(right):
            raise Refusal(403, "scope", f"this key may not do that: it lacks the scope {right}")
        return key

    def _signed_in(self, scope: Scope) -> Key | None:
        """Return the key of who is signed in to the dashboard; None: about to sign in."""
        if scope["method"] != "GET" and OWN_WORD not in scope["headers"]:
            raise Refusal(403, "foreign_site", "only the dashboard's own page may do that")
        if (scope["method"], scope["path"]) == _SIGN_IN:
            return None
        key = self._gateway.sessions.find(cookie_in(scope["headers"]))
        if key is None or not key.allows("dashboard"):
            raise Refusal(401, "not_signed_in", "sign in first")
        return key

    def _limit_bytes(self, key: Key | None) -> int:
        """Return how much may be sent: whoever has shown no key has little to say."""
        return _SIGN_IN_BYTES if key is None else self._gateway.settings.server.max_body_bytes

    async def _body(self, receive: Receive, limit_bytes: int) -> bytes:
        """Read the body, or refuse; what is being read is counted together."""
        parts: list[bytes] = []
        read_bytes = 0
        try:
            async with asyncio.timeout(self._gateway.settings.server.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refusal(400, "client_left", "the request broke off")
                    part = message.get("body", b"")
                    read_bytes += len(part)
                    self._held_bytes += len(part)
                    if read_bytes > limit_bytes:
                        raise _too_large(limit_bytes)
                    if self._held_bytes > BODIES_BYTES:
                        raise Refusal(503, "bodies", "too much is being read: ask again later", 1.0)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Refusal(408, "slow_body", "the request did not arrive in time") from error
        finally:
            self._held_bytes -= read_bytes


def presented_key(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the key that a request brings; empty: none."""
    given = _first(headers, b"authorization")
    if given[:7].lower() == b"bearer ":
        return given[7:].strip().decode("latin-1")
    return _first(headers, b"x-api-key").strip().decode("latin-1")


def _unknown(presented: str) -> Refusal:
    word, why = ("no_key", "give a key: Authorization: Bearer shoe_...")
    if presented:
        word, why = ("wrong_key", "this key is not known, or is no longer good")
    return Refusal(401, word, why, headers={"www-authenticate": "Bearer"})


def _check_announced(headers: list[tuple[bytes, bytes]], limit_bytes: int) -> None:
    """Refuse a body that says itself that it is too large."""
    given = _first(headers, b"content-length") or b"0"
    if not given.isdigit() or len(given) > len(str(limit_bytes)) or int(given) > limit_bytes:
        raise _too_large(limit_bytes)


def _first(headers: list[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")


def _too_large(limit_bytes: int) -> Refusal:
    return Refusal(413, "too_large", f"the request is over {limit_bytes} bytes")
