"""What a client is told when it gets no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
         404: "not_found_error", 408: "timeout_error", 413: "invalid_request_error",
         422: "invalid_request_error", 429: "rate_limit_error"}  # fmt: skip
"""OpenAI's words for kinds of errors; any other is a ``server_error``."""


class Refusal(Exception):  # noqa: N818 - no failure of ours: the client gets it as an answer
    """The request gets no answer from an engine; the client gets this instead.

    Args:
        status: of HTTP.
        reason: a short word that is counted, for example ``rate_limit`` or ``queue_full``.
        message: one line for people: what, and what to do.
        retry_after_s: when to ask again; None: asking again does not help, or nobody knows.
        headers: more of the answer's headers.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


def openai_error(refusal: Refusal) -> dict[str, Any]:
    """Word a refusal as OpenAI does."""
    kind = TYPES.get(refusal.status, "server_error")
    return {"error": {"message": refusal.message, "type": kind, "code": refusal.reason}}


def ollama_error(refusal: Refusal) -> dict[str, Any]:
    """Word a refusal as Ollama does."""
    return {"error": refusal.message}


def error_for(path: str, refusal: Refusal) -> dict[str, Any]:
    """Word a refusal as the API does that the path belongs to."""
    return ollama_error(refusal) if path.startswith("/api/") else openai_error(refusal)
