"""A conversation at the terminal: questions in, answers as they are made, and how fast they came.

Answers go to standard output, all else to standard error, so that either can be redirected.
Ctrl-C ends an answer; a second one, or one between answers, ends the program.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shoestring.engines.transport import parse_base_url
from shoestring.errors import EngineLostError
from shoestring.swarm.continuing import DONE
from shoestring.swarm.http11 import CutError, Request, TooLongError, asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PATH: Final = "/v1/chat/completions"
LINE_BYTES: Final = 1 << 16
OK: Final = 200
CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal obeys instead of showing it; a model may say anything."""


@dataclass
class Told:
    """What came of one question.

    Attributes:
        text: of the answer; thoughts are not in it.
        tokens: of all that was made, as the engine counts them; None: it did not say.
        first_s: from the question to the first word; None: there was none.
        rest_s: from the first word to the last.
    """

    text: str = ""
    tokens: int | None = None
    first_s: float | None = None
    rest_s: float = 0.0

    def figures(self, layers: str) -> str:
        """Return a line of them.

        Args:
            layers: who computes which.
        """
        said = ["no word" if self.first_s is None else f"first word after {self.first_s:.2f} s"]
        if self.tokens is not None:
            said.append(f"{self.tokens} tokens")
            if self.tokens > 1 and self.rest_s > 0:
                said.append(f"{(self.tokens - 1) / self.rest_s:.1f} tokens/s")
        return f"[{', '.join(said)}; {layers}]"


@dataclass
class Conversation:
    """Questions and answers so far.

    Args:
        url: of the server, without a path.
        key: that it takes.
        system: what the model is told first; None: nothing.
        temperature: None leaves it to the server.
        max_tokens: of an answer; None: until the model ends it, or its context is full.
    """

    url: str
    key: str
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    _turns: list[dict[str, str]] = field(default_factory=list)

    async def ask(self, question: str, write: Callable[[str], None]) -> Told:
        """Ask, and write the answer as it comes; what came of one that is cancelled is kept.

        Raises:
            EngineLostError: there is no answer, or no more of it.
        """
        told = Told()
        asked = {"role": "user", "content": question}
        begun_s = time.monotonic()
        try:
            async for chunk in self._chunks([*self._turns, asked]):
                _add(told, chunk, time.monotonic() - begun_s, write)
        finally:
            if told.text:
                self._turns += [asked, {"role": "assistant", "content": told.text}]
        return told

    async def _chunks(self, turns: list[dict[str, str]]) -> AsyncIterator[dict[str, Any]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {
            "messages": [*system, *turns],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in ("temperature", "max_tokens"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = Request("POST", PATH, headers, json.dumps(body).encode())
        at, rest = parse_base_url(self.url), b""
        try:
            async with asking(at.host, at.port, request) as reply:
                if reply.status != OK:
                    raise EngineLostError(_error_of(await reply.whole()))
                while part := await reply.part():
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        if line.startswith(b"data:") and (said := line[5:].strip()) != DONE:
                            yield _chunk(said)
        except (CutError, TooLongError) as error:
            raise EngineLostError(f"the answer broke off: {error}") from error


class Terminal:
    """Standard input by lines, and Ctrl-C, while its ``with`` lasts.

    Args:
        descriptor: to read from.

    Attributes:
        told_to_end: Ctrl-C was pressed where it ends the program.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self.told_to_end = asyncio.Event()
        self._descriptor = descriptor
        self._answering: asyncio.Task[Told] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        loop.add_signal_handler(signal.SIGTERM, self.told_to_end.set)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)

    def interrupt(self) -> None:
        """End the answer; without one, or again, the program."""
        if self._answering is None or self._answering.cancelling():
            self.told_to_end.set()
        else:
            self._answering.cancel()

    async def until_ended(self, answering: asyncio.Task[Told]) -> Told | None:
        """Return what came of an answer; None: the user ended it."""
        self._answering = answering
        try:
            await asyncio.wait({answering})
            return None if answering.cancelled() else answering.result()
        finally:
            answering.cancel()
            self._answering = None

    async def lines(self) -> AsyncIterator[str]:
        """Yield each line that is not empty."""
        rest = b""
        while data := await self._read():
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                if line.strip():
                    yield line.decode("utf-8", "replace").strip()
        if rest.strip():
            yield rest.decode("utf-8", "replace").strip()

    async def _read(self) -> bytes:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        with suppress(PermissionError):  # a file, which is always ready
            loop.add_reader(self._descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(self._descriptor)
        return os.read(self._descriptor, LINE_BYTES)


async def converse(
    conversation: Conversation,
    *,
    message: str | None,
    layers: Callable[[], str],
    say: Callable[[str], None],
) -> None:
    """Ask one question, or all that come on standard input.

    Args:
        conversation: in which.
        message: the one; None: standard input.
        layers: tells who computes which now.
        say: given a line for what is no answer.

    Raises:
        EngineLostError: there was no answer to a question that was not typed.
    """
    terminal = Terminal()
    typed = message is None and sys.stdin.isatty()
    with terminal.listening():
        asking_all = asyncio.create_task(_ask_all(conversation, terminal, message, layers, say))
        ending = asyncio.create_task(terminal.told_to_end.wait())
        try:
            if typed:
                say("Ask; Ctrl-C ends an answer, Ctrl-D the conversation.")
            await asyncio.wait({asking_all, ending}, return_when=asyncio.FIRST_COMPLETED)
            if asking_all.done():
                await asking_all
        finally:
            asking_all.cancel()
            ending.cancel()
            await asyncio.gather(asking_all, ending, return_exceptions=True)


async def _ask_all(
    conversation: Conversation,
    terminal: Terminal,
    message: str | None,
    layers: Callable[[], str],
    say: Callable[[str], None],
) -> None:
    typed = message is None and sys.stdin.isatty()
    _invite(typed=typed)
    async for question in terminal.lines() if message is None else _one(message):
        try:
            answering = asyncio.create_task(conversation.ask(question, _write))
            told = await terminal.until_ended(answering)
        except EngineLostError as error:
            if not typed:
                raise
            say(f"\n{error}")
        else:
            _write("\n")
            say("[ended]" if told is None else told.figures(layers()))
        _invite(typed=typed)


async def _one(message: str) -> AsyncIterator[str]:
    yield message


def _invite(*, typed: bool) -> None:
    if typed:
        sys.stderr.write("> ")
        sys.stderr.flush()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _add(told: Told, chunk: dict[str, Any], at_s: float, write: Callable[[str], None]) -> None:
    """Add a part of an answer to what was told."""
    if chunk.get("error"):
        raise EngineLostError(_message_of(chunk["error"]))
    if isinstance(chunk.get("usage"), dict):
        told.tokens = chunk["usage"].get("completion_tokens")
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        if text or delta.get("reasoning_content"):
            told.first_s = at_s if told.first_s is None else told.first_s
            told.rest_s = at_s - told.first_s
        if text:
            told.text += text
            write(CONTROL.sub("", text))


def _chunk(said: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(said)
    except ValueError as error:
        raise EngineLostError(f"what came is no answer: {said[:80]!r}") from error
    return chunk if isinstance(chunk, dict) else {}


def _error_of(body: bytes) -> str:
    with suppress(ValueError, AttributeError):
        return _message_of(json.loads(body).get("error"))
    return f"what came is no answer: {body[:80]!r}"


def _message_of(error: Any) -> str:
    message = error.get("message", error) if isinstance(error, dict) else error
    return CONTROL.sub("", " ".join(str(message).split()))[:500]
