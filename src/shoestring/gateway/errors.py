"""What a client is told when it gets no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
