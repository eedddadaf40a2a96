"""One request from the first check to the last byte.

The client's connection is watched all the while: whoever leaves ends the generation at once, or
as soon as nobody else waits for it; whoever does not read is cut off after ``stall_s``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from shoestring.gateway.cache import fingerprint, is_deterministic
from shoestring.gateway.client import ClientStalledError
from shoestring.gateway.errors import Refusal
from shoestring.gateway.flights import FlightLostError
from shoestring.gateway.relaying import Relay, Tally
from shoestring.gateway.sharing import Maker, follow, replay
from shoestring.gateway.streams import Used

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from shoestring.gateway.activity import CacheUse
    from shoestring.gateway.cache import Stored
    from shoestring.gateway.client import Client
    from shoestring.gateway.flights import Flight
    from shoestring.gateway.gate import Caller
    from shoestring.gateway.keys import Key
    from shoestring.gateway.limiting import Lease
    from shoestring.gateway.relaying import Ask
    from shoestring.gateway.routing import Route
    from shoestring.gateway.service import Gateway

LEFT = 499
"""What is noted for a client that left, as nginx does; it never sees it."""


class Answer(Response):
    """The answer to a question, made while it is sent.

    Args:
        gateway: all that is needed to answer.
        ask: the question.
        key: who asks.
        caller: from where, and when.
        path: that was asked.
        deadline: on the gateway's clock.
    """

    def __init__(
        self, gateway: Gateway, ask: Ask, *, key: Key, caller: Caller, path: str, deadline: float
    ) -> None:
        super().__init__()
        self._gateway = gateway
        self._ask = ask
        self._key = key
        self._caller = caller
        self._path = path
        self._deadline = deadline
        self._model = gateway.known(ask.model)
        self._tally = Tally(caller.began)
        self._making: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Answer, or stop as soon as the client has left."""
        self._gateway.metrics.began(self._model)
        client = self._gateway.client(scope, send)
        client.headers["x-request-id"] = self._caller.request_id
        try:
            with client.watched():
                await self._work(client)
        except asyncio.CancelledError:
            # Nobody is there any more, or the process ends: no error of the application.
            if not (client.left or self._gateway.draining):
                raise
        finally:
            client.leave()
            if not self._tally.waiting and (self._making is None or self._making.done()):
                self._tally.charge = self._tally.charged(self._ask.prompt_tokens)
            self._gateway.note(self._ask, self._model, self._tally, self._key, self._caller)

    async def _work(self, client: Client) -> None:
        tally = self._tally
        try:
            async with self._gateway.until(self._deadline):
                await self._admitted(client)
            tally.status = client.status
        except TimeoutError:
            await self._refuse(client, self._gateway.too_late())
        except Refusal as refusal:
            await self._refuse(client, refusal)
        except ClientStalledError:
            tally.status, tally.failure = LEFT, "client_stalled"
        except asyncio.CancelledError:
            # A connection that was dropped for its reader's sake looks as if the reader had left.
            why = "client_stalled" if client.stalled else "client_left"
            tally.status, tally.failure = LEFT, why
            raise
        except BaseException:
            tally.status, tally.failure = 500, "gateway_error"
            raise

    async def _admitted(self, client: Client) -> None:
        ask, gateway = self._ask, self._gateway
        routes = gateway.router.routes(ask.model, self._key)
        lease = await gateway.limiter.admit(self._key, self._caller.address, tokens=ask.tokens)
        client.headers.update(lease.headers)
        try:
            await self._answer(routes, client)
        finally:
            if self._making is not None and not self._making.done():
                gateway.run(self._settle_later(lease, self._making))  # others follow: it is ours
            else:
                await asyncio.shield(self._settle(lease))

    async def _settle(self, lease: Lease) -> None:
        used = self._tally.tokens(self._ask.prompt_tokens)
        await self._gateway.limiter.settle(lease, tokens=used)

    async def _settle_later(self, lease: Lease, making: asyncio.Task[None]) -> None:
        """Pay for an answer that was left to those who follow it, once it is made."""
        try:
            await asyncio.wait({making})
        finally:
            await asyncio.shield(self._settle(lease))

    async def _answer(self, routes: list[Route], client: Client) -> None:
        name = self._shared_name(routes[0])
        if name is not None and await self._shared(name, routes, client):
            return
        self._told(client, "bypass" if name is None else "miss")
        await self._relay(self._tally).run(routes, client)

    async def _shared(self, name: str, routes: list[Route], client: Client) -> bool:
        """Answer from memory, or with what is made for all; False: nothing was sent."""
        tally, gateway = self._tally, self._gateway
        stored = await gateway.cache.get(name)
        if stored is not None:
            self._told(client, "hit")
            tally.engine, tally.variant = stored.engine, stored.variant
            tally.used = Used(stored.input_tokens, stored.output_tokens)
            await replay(stored, client, stream=self._ask.stream)
            return True
        flight = gateway.flights.join(name)
        if flight.leader:
            return await self._made(name, flight, routes, client)
        self._told(client, "joined")
        return await self._followed(flight, client)

    async def _made(self, name: str, leading: Flight, routes: list[Route], client: Client) -> bool:
        """Start what asks the engine for all, and follow it."""
        self._told(client, "miss")
        gateway = self._gateway
        maker = Maker(leading, self._tally, gateway.settings.cache.max_entry_bytes)
        relay = self._relay(self._tally)
        flight = gateway.flights.join(name)  # before the maker runs, so that it is wanted
        making = self._making = gateway.run(
            maker.make(
                lambda sink: relay.run(routes, sink),
                lambda answer: self._keep(name, routes[0], answer),
            )
        )
        try:
            answered = await self._followed(flight, client)
        except Refusal as cut:
            raise maker.refusal or cut from cut
        if not answered:
            await making
            if maker.refusal is not None:
                raise maker.refusal
        return answered

    async def _keep(self, name: str, route: Route, answer: Stored) -> None:
        """Keep an answer, unless another target gave it than the name says."""
        if (answer.engine, self._tally.answered_by) == (route.engine.name, route.model):
            await self._gateway.cache.put(name, answer)

    async def _followed(self, flight: Flight, client: Client) -> bool:
        """Follow an answer; False: it was lost before anything was sent."""
        with flight:
            try:
                await follow(flight, client, stream=self._ask.stream)
            except FlightLostError as lost:
                if not client.started:
                    return False
                raise Refusal(502, "engine_cut", str(lost)) from lost
            if self._tally.cache == "joined" and flight.stored is not None:
                self._tally.engine, self._tally.variant = (
                    flight.stored.engine,
                    flight.stored.variant,
                )
                self._tally.used = Used(flight.stored.input_tokens, flight.stored.output_tokens)
        return True

    def _shared_name(self, route: Route) -> str | None:
        """Return under which name the answer is kept; None: it is not one to be kept."""
        settings = self._gateway.settings.cache
        if not settings.enabled or not route.digest:
            return None
        if not is_deterministic(self._path, self._ask.body):
            return None
        digest = f"{route.engine.name}/{route.model}/{route.digest}"
        owner = "" if settings.shared else self._key.id
        return fingerprint(self._path, self._ask.body, digest=digest, owner=owner)

    def _told(self, client: Client, use: CacheUse) -> None:
        self._tally.cache = use
        client.headers["x-cache"] = use

    def _relay(self, tally: Tally) -> Relay:
        return Relay(
            self._ask,
            self._key.id,
            self._deadline,
            tally,
            clock=self._gateway.clock,
            max_answer_bytes=self._gateway.settings.server.max_answer_bytes,
        )

    async def _refuse(self, client: Client, refusal: Refusal) -> None:
        self._tally.failure = refusal.reason
        self._tally.status = client.status or refusal.status
        self._gateway.metrics.rejected(refusal.reason)
        try:
            if client.started:
                await client.part(self._ask.error_part(refusal))
                await client.end()
            else:
                await client.refuse(refusal, self._ask.error(refusal))
        except ClientStalledError:
            return  # its connection is gone; the refusal is noted as it was
