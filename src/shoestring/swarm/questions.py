"""What kind of answer is asked for, as far as it matters once its engine is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["chat", "text", "native"]
Json = dict[str, Any]

KINDS: Final[dict[str, Kind]] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "text",
    "/completion": "native",
    "/completions": "native",
}
LIMITS: Final = ("n_predict", "max_tokens", "max_completion_tokens")
"""How many tokens may come; the first that is given holds, as in llama-server."""
BEGUN_ANEW: Final = (
    "tools", "functions", "response_format", "json_schema", "grammar", "logprobs", "n_probs",
    "return_tokens", "continue_final_message", "add_generation_prompt",
)  # fmt: skip
"""With these the state of an answer is more than its text: it is asked again from its start."""


@dataclass(frozen=True)
class Shape:
    """What is asked, as far as going on depends on it.

    Attributes:
        kind: of which endpoint.
        streamed: the client takes it in parts.
        single: one answer, not several at once.
        plain: its state is its text.
    """

    kind: Kind
    streamed: bool
    single: bool
    plain: bool


def shape_of(path: str, body: Any) -> Shape | None:
    """Return what kind of answer is asked for; None: none that is known here."""
    kind = KINDS.get(path)
    if kind is None or not isinstance(body, dict):
        return None
    prompt = body.get("prompt")
    several = kind != "chat" and isinstance(prompt, list) and not _is_one_prompt(prompt)
    odd = kind == "chat" and messages_before(body) is None
    return Shape(
        kind=kind,
        streamed=body.get("stream") is True,
        single=not several and body.get("n") in (None, 1) and body.get("n_cmpl") in (None, 1),
        plain=not odd and not any(body.get(name) for name in BEGUN_ANEW),
    )


def _is_one_prompt(prompt: list[Any]) -> bool:
    """Whether a list is one prompt: tokens, and texts between them; texts alone are several."""
    return any(isinstance(part, int) for part in prompt) and not any(
        isinstance(part, list | dict) for part in prompt
    )


def messages_before(body: Json) -> list[Any] | None:
    """Return the messages before the answer's own; None: its beginning is no plain text.

    What a client puts last as the assistant's, llama-server says again as the answer's beginning.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    last = messages[-1]
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return messages
    return messages[:-1] if isinstance(last.get("content"), str) else None


def token_limit(body: Json) -> int | None:
    """Return how many tokens may come; None: as many as there is room for."""
    given = next((body[name] for name in LIMITS if body.get(name) is not None), None)
    return given if isinstance(given, int) and given >= 0 else None
