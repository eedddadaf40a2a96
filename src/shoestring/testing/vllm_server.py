"""A contract server for vLLM: as much of its API as the OpenAI adapter meets.

What is kept, traps included, from ``vllm/entrypoints/openai`` (``chat_completion/serving.py``,
``completion/serving.py``, ``engine/protocol.py``) and ``vllm/entrypoints/serve/tokenize`` of
vllm-project/vllm, as of 2026:

- The first chunk of a chat has the role and empty content; the last word shares its chunk with
  the reason of the end. One token a chunk. Chunks come in HTTP chunks (HTTP/1.1).
- Usage comes last, in a chunk with ``choices: []``, and only where ``stream_options`` ask for it.
  ``prompt_tokens_details`` is there only with ``--enable-prompt-tokens-details``.
- The prefix cache holds whole blocks of 16 tokens.
- Reasoning is ``reasoning`` today and was ``reasoning_content``.
- Unknown fields are passed over; an unknown model is 404, a prompt that is too long is 400, with
  ``{"error": {"message", "type", "param", "code"}}``.
- ``/health`` and the server's own paths need no key, ``/v1`` does; ``/health`` has no body.
- ``/tokenize`` reads ``prompt`` and answers with ``count``, ``max_model_len`` and ``tokens``.
"""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from shoestring.testing.model_server import ModelHandler, ModelServer, serving, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_TOKENS = 16
THOUGHTS = 4
OBJECTS = {"/v1/chat/completions": "chat.completion.chunk", "/v1/completions": "text_completion"}


class VllmHandler(ModelHandler):
    """vLLM's paths."""

    protocol_version = "HTTP/1.1"
    server_version = "uvicorn"
    sys_version = ""
    state: VllmServer

    def tell(self, path: str, _body: bytes) -> None:
        """Answer a question."""
        state = self.state
        if path == "/health":
            self.say(200, None)
        elif path == "/version":
            self.say(200, {"version": state.version})
        elif path == "/v1/models" and self._lets_in():
            card = {"id": state.model_id, "object": "model", "owned_by": "vllm",
                    "max_model_len": state.max_model_len}  # fmt: skip
            self.say(200, {"object": "list", "data": [card]})
        elif path != "/v1/models":
            self.say(404, {"detail": "Not Found"})

    def answer(self, path: str, body: bytes) -> None:
        """Tokenise, or answer; requests are decoded side by side."""
        ask = json.loads(body)
        if path == "/tokenize":
            tokens = [1, *range(2, 2 + len(tokens_of(ask["prompt"])))]
            self.say(200, {"count": len(tokens), "max_model_len": self.state.max_model_len,
                           "tokens": tokens, "token_strs": None})  # fmt: skip
        elif path not in OBJECTS:
            self.say(404, {"detail": "Not Found"})
        elif self._lets_in():
            self.state.note(path, ask)
            self._answer(ask, OBJECTS[path], chat=path == "/v1/chat/completions")

    def _lets_in(self) -> bool:
        if not self.has_key():
            self.say(401, {"error": "Unauthorized"})
            return False
        return True

    def _answer(self, ask: dict[str, Any], kind: str, *, chat: bool) -> None:
        state = self.state
        prompt = self._prompt(ask, chat=chat)
        limit = ask.get("max_tokens") or 16
        if ask.get("model") not in (None, state.model_id):
            self._refuse(404, f"The model `{ask['model']}` does not exist.", "model")
        elif len(prompt) + limit > state.max_model_len:
            message = f"This model's maximum context length is {state.max_model_len} tokens."
            self._refuse(400, message, "input_tokens")
        else:
            self._stream(ask, kind, prompt, limit, chat=chat)

    def _prompt(self, ask: dict[str, Any], *, chat: bool) -> list[str]:
        if not chat:
            return ["<s>", *tokens_of(ask["prompt"])]
        spoken = (("<turn>", m["role"], *tokens_of(m["content"])) for m in ask["messages"])
        return ["<s>", *(token for turn in spoken for token in turn), "<turn>", "assistant"]

    def _stream(
        self, ask: dict[str, Any], kind: str, prompt: list[str], limit: int, *, chat: bool
    ) -> None:
        state, made = self.state, 0
        cached = state.cache(prompt)
        thinks = bool((ask.get("chat_template_kwargs") or {}).get("enable_thinking"))
        length = limit if ask.get("ignore_eos") else min(limit, state.eos_after)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if chat:
            self._send(ask, kind, delta={"role": "assistant", "content": ""})
        for text in state.words(prompt, length, endless=True):
            made += 1
            name = state.reasoning_field if thinks and made <= THOUGHTS else "content"
            reason = None if made < length else "length" if made == limit else "stop"
            carried: dict[str, Any] = {"delta": {name: text}} if chat else {"text": text}
            self._send(ask, kind, **carried, finish_reason=reason)
        if (ask.get("stream_options") or {}).get("include_usage"):
            usage: dict[str, Any] = {"prompt_tokens": len(prompt), "completion_tokens": made,
                                     "total_tokens": len(prompt) + made}  # fmt: skip
            if state.tells_cached:
                usage["prompt_tokens_details"] = {"cached_tokens": cached}
            self._write(json.dumps({"object": kind, "choices": [], "usage": usage}))
        self._write("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, ask: dict[str, Any], kind: str, **choice: Any) -> None:
        whole = {"index": 0, "logprobs": None, "finish_reason": None, **choice}
        chunk = {"id": "cmpl-1", "object": kind, "model": ask.get("model"), "choices": [whole]}
        self._write(json.dumps(chunk))

    def _write(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _refuse(self, status: int, message: str, param: str) -> None:
        kind = "NotFoundError" if status == HTTPStatus.NOT_FOUND else "BadRequestError"
        error = {"message": message, "type": kind, "param": param, "code": status}
        self.say(status, {"error": error})


@dataclass
class VllmServer(ModelServer):
    """The state of a vLLM.

    Attributes:
        version: what it calls itself.
        max_model_len: tokens of context.
        tells_cached: started with ``--enable-prompt-tokens-details``.
        reasoning_field: what reasoning is called in a chunk.
    """

    version: str = "0.11.0"
    max_model_len: int = 8192
    tells_cached: bool = True
    reasoning_field: str = "reasoning"
    _seen: list[list[str]] = field(default_factory=list)

    handler = VllmHandler

    def cache(self, prompt: list[str]) -> int:
        """Return how many tokens of a prompt are in the prefix cache, and put it there."""
        with self.changed:
            shared = max((_count_shared(prompt, old) for old in self._seen), default=0)
            self._seen.append(prompt)
        # The last token is always computed: something has to come out.
        return min(shared, len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS


def _count_shared(one: list[str], other: list[str]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


@contextmanager
def running_vllm(**settings: Any) -> Iterator[VllmServer]:
    """Run a contract server for vLLM on 127.0.0.1 until the block ends."""
    state = VllmServer(**settings)
    with serving(state):
        yield state
