"""A contract server for KoboldCpp: as much of its API as an engine's adapter meets.

What is kept, traps included, from ``koboldcpp.py`` and ``gpttype_adapter.cpp`` of
LostRuins/koboldcpp (a state of 2026; :attr:`KoboldServer.old` brings 1.76 back):

- HTTP/1.0: a stream ends with the connection, which is closed after the model is free again.
- One request is decoded at a time; so many wait, and one more is refused with 503. The refusal
  has ``detail``, not ``error``.
- A chunk has what came since the last look, often several tokens; each has the role again.
- ``/api/extra/perf`` is about the last generation, whoever asked for it. ``last_process`` is
  milliseconds for each token that was not in the cache, ``last_input_count`` counts all tokens.
- Every name of a model is answered to. Unknown fields are passed over.
- The old one ends its stream with a ``[DONE]`` without a blank line, has no usage, and calls the
  reason of an end that has not come ``"null"``.

Left out: the native stream, which no adapter here reads; pictures, sound, and the rest.
"""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoestring.testing.model_server import ModelHandler, ModelServer, serving, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DECODE_MS = 4.0
PREFILL_MS = 2.0
TOKENS_A_LOOK = 2
ANSWERS = {"/v1/chat/completions": True, "/v1/completions": False}


class KoboldHandler(ModelHandler):
    """KoboldCpp's paths."""

    server_version = "ConcedoLlamaForKoboldServer"
    sys_version = ""
    state: KoboldServer

    def tell(self, path: str, _body: bytes) -> None:
        """Answer a question; none of them needs the key."""
        state = self.state
        if path == "/api/extra/version":
            said: Any = {"result": "KoboldCpp", "version": state.version,
                         "protected": state.key is not None}  # fmt: skip
        elif path == "/api/extra/perf":
            said = state.perf()
        elif path == "/v1/models":
            said = {"object": "list", "data": [{"id": state.model_id, "owned_by": "koboldcpp"}]}
        else:
            self.say(404, None)
            return
        self.say(200, said)

    def answer(self, path: str, body: bytes) -> None:
        """Count tokens, or wait for the model and let it write."""
        if path == "/api/extra/tokencount":
            if self._lets_in():
                ids = [1, *range(2, 2 + len(tokens_of(json.loads(body)["prompt"])))]
                self.say(200, {"value": len(ids), "ids": ids})
            return
        if path not in ANSWERS:
            self.say(404, None)
            return
        self.state.note(path, json.loads(body))
        if not self.state.take_model():
            detail = {"msg": "Server is busy; please try again later.",
                      "type": "service_unavailable"}  # fmt: skip
            self.say(503, {"detail": detail})
            return
        try:
            if self._lets_in():
                self._stream(json.loads(body), chat=ANSWERS[path])
        finally:
            self.state.model.release()

    def _lets_in(self) -> bool:
        if not self.has_key():
            detail = {"error": "Unauthorized", "msg": "Authentication key is missing or invalid.",
                      "type": "unauthorized"}  # fmt: skip
            self.say(401, {"detail": detail})
            return False
        return True

    def _stream(self, ask: dict[str, Any], *, chat: bool) -> None:
        texts = [m["content"] for m in ask["messages"]] if chat else [ask["prompt"]]
        # The template puts a word before and after each message; one token begins all.
        prompt = tokens_of(" ".join(f"### {text} ###" for text in texts) if chat else texts[0])
        limit, endless = ask.get("max_tokens", 180), bool(ask.get("ban_eos_token"))
        self.send_response(200)
        self.send_header("cache-control", "no-cache")
        self.send_header("connection", "keep-alive")  # promised, and not kept
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        state, made = self.state, 0
        state.begin()
        try:
            words = state.words(prompt, limit, endless=endless)
            while look := list(itertools.islice(words, TOKENS_A_LOOK)):
                made += len(look)
                self._send(chat, "".join(look), "null" if state.old else None)
        finally:
            state.end(1 + len(prompt), made)
        self._send(chat, "", "length" if made == limit else "stop")
        if not state.old and (ask.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 1 + len(prompt), "completion_tokens": made}
            self._write(json.dumps({"choices": [], "usage": usage}))
        self.wfile.write(b"data: [DONE]" + (b"" if state.old else b"\n\n"))

    def _send(self, chat: bool, text: str, reason: str | None) -> None:  # noqa: FBT001
        carried = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": 0, "finish_reason": reason, **carried}
        self._write(json.dumps({"model": self.state.model_id, "choices": [choice]}))

    def _write(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())


@dataclass
class KoboldServer(ModelServer):
    """The state of a KoboldCpp.

    Attributes:
        version: what it calls itself.
        old: behave as 1.76 did.
        waiting: how many requests may wait for the model; 0: none (``--multiuser 0``).
        model: held by whoever decodes.
    """

    version: str = "1.122.1"
    old: bool = False
    waiting: int = 6
    model: threading.Lock = field(default_factory=threading.Lock)
    _queue: int = 0
    _generations: int = 0
    _last: dict[str, Any] = field(default_factory=dict)

    handler = KoboldHandler

    def take_model(self) -> bool:
        """Wait for the model; return False at once where too many wait already."""
        with self.changed:
            waits = self._queue < self.waiting
            self._queue += waits
        taken = self.model.acquire(blocking=waits)
        with self.changed:
            self._queue -= waits
        return taken

    def begin(self) -> None:
        """Count a generation; the newer versions do so when it begins."""
        with self.changed:
            self._generations += 1

    def end(self, prompt_tokens: int, made: int) -> None:
        """Note what ``/api/extra/perf`` tells of a generation that has ended, whole or cut."""
        with self.changed:
            # No two real clocks read the same, and neither do these.
            self._last = {
                "last_process": PREFILL_MS + self._generations / 1024,
                "last_eval": DECODE_MS + self._generations / 1024,
                "last_token_count": made,
                "last_input_count": prompt_tokens,
            }

    def perf(self) -> dict[str, Any]:
        """Return what is known of the last generation, and whether the model is free."""
        with self.changed:
            idle = 0 if self.model.locked() else 1
            return {**self._last, "total_gens": self._generations, "queue": self._queue,
                    "idle": idle}  # fmt: skip


@contextmanager
def running_koboldcpp(**settings: Any) -> Iterator[KoboldServer]:
    """Run a contract server for KoboldCpp on 127.0.0.1 until the block ends."""
    state = KoboldServer(**settings)
    with serving(state):
        yield state
