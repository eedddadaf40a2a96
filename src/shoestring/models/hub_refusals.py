"""What a refusal of the hub means, as one line that says what to mend."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from shoestring.errors import BadModelError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response

    from shoestring.errors import UserError

LONGEST_WAIT_S = 300.0  # the hub counts requests in windows of five minutes
SHOWN = 200  # characters of what a server said


class UnreachableError(MissingError):
    """Nobody answers at the endpoint, or not now: a cached file may do instead."""


class BusyError(UnreachableError):
    """The endpoint asked us to wait, as often as we were ready to, or for too long."""


@dataclass(frozen=True)
class HubName:
    """A file of the hub.

    Attributes:
        repo: ``OWNER/REPO``.
        revision: a branch, a tag or a commit, percent-encoded (``refs%2Fpr%2F1``).
        file: its path in the repository.
        text: the name as it was given, with its scheme.
    """

    repo: str
    revision: str
    file: str
    text: str


def explain_refusal(
    answer: Response, name: HubName, endpoint: str, token: str | None, offer: Callable[[], str]
) -> UserError:
    """Return the error that a refusal stands for.

    Args:
        answer: its status, ``X-Error-Code`` and ``X-Error-Message`` are read.
        name: what was asked for.
        endpoint: of the hub.
        token: that was sent, if any; it never stands in the error.
        offer: says which files there are instead; asked only when the file is missing.
    """
    status, code = answer.status_code, answer.headers.get("X-Error-Code", "")
    page = f"{endpoint}/{name.repo}"
    if code == "GatedRepo":
        return MissingError(
            f"{name.text} is gated: accept the terms on {page} and set HF_TOKEN to a token of "
            "the same account"
        )
    if status == HTTPStatus.UNAUTHORIZED and token and code != "RepoNotFound":
        return MissingError(
            f"{endpoint} does not take the token in HF_TOKEN: make a new one there, or unset "
            "HF_TOKEN for a public model"
        )
    if code == "RevisionNotFound":
        return BadModelError(f"{name.repo} has no revision {name.revision}: check {name.text}")
    if code == "EntryNotFound":
        return BadModelError(f"{name.repo} has no file {name.file} in {name.revision}: {offer()}")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND}:
        return BadModelError(
            f"the hub has no repository {name.repo}, or it is private: check the spelling, or "
            f"set HF_TOKEN to a token that may read it{'' if token else ' (none is set)'}"
        )
    said = _quote(answer.headers.get("X-Error-Message", ""), token) or "it does not say why"
    return MissingError(
        f"{endpoint} refuses {name.text} with {status} ({said}): look at {page} and at what "
        "HF_TOKEN may read"
    )


def explain_busy(server: str, status: int, tries: int, wait_s: float) -> BusyError:
    """Return the error for a server that was asked so often and wants to be left alone."""
    if wait_s > LONGEST_WAIT_S:
        return BusyError(
            f"{server} answers {status} and wants {wait_s:.0f} s of rest: try again after that"
        )
    times = "once" if tries == 1 else f"{tries} times"
    return BusyError(
        f"{server} answered {status} {times}: try again later, or set HF_TOKEN for a higher limit"
    )


def _quote(text: str, token: str | None) -> str:
    text = text.replace(token, "(token)") if token else text
    return ascii(text[:SHOWN])[1:-1]
