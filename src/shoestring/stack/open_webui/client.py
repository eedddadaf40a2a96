"""Open WebUI as its users reach it: signed in, asked through its own API.

Sources: ``routers/auths.py`` and ``main.py`` of the pinned version.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from shoestring.stack.credentials import Credentials

TIMEOUT_S = 30.0
SILENCE_S = 300.0
"""Longest silence of an answer, a slow prefill on a CPU included."""
DATA = b"data: "
DONE = b"[DONE]"
REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class PageAnswer:
    """An answer through Open WebUI.

    Attributes:
        text: whole.
        first_s: from sending to the first text of it.
        whole_s: from sending to its end.
    """

    text: str
    first_s: float
    whole_s: float


class OpenWebUi:
    """A client of one Open WebUI; used as a context manager.

    Args:
        url: ``http://HOST:PORT``.
    """

    def __init__(self, url: str) -> None:
        import requests

        self.url = url
        self._session: requests.Session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def version(self) -> str:
        """Return what it says it is."""
        return str(self._get("/api/version").get("version"))

    def sign_in(self, credentials: Credentials) -> str:
        """Sign in; later calls are the user's.

        Returns:
            The token of the sign-in, with which another client may use the API.

        Raises:
            ShoestringError: it does not let us in.
        """
        said = self._send(
            "POST", "/api/v1/auths/signin",
            json={"email": credentials.user, "password": credentials.password},
        )  # fmt: skip
        if said.status_code != HTTPStatus.OK:
            raise ShoestringError(
                f"Open WebUI does not let {credentials.user} in (HTTP {said.status_code}): its "
                "database has another password; bring credentials.json back, or remove the "
                "folder open-webui beside it (its chats go too)"
            )
        token = str(said.json()["token"])
        self._session.headers["Authorization"] = f"Bearer {token}"
        return token

    def check_closed(self) -> None:
        """See that nobody can sign up, and that nobody unknown is answered.

        To be called before :meth:`sign_in`.

        Raises:
            ShoestringError: the door is open.
        """
        if self._get("/api/config").get("features", {}).get("enable_signup") is not False:
            raise ShoestringError(f"sign-up is open at {self.url}: it was not started by us")
        body = {"model": "any", "messages": [{"role": "user", "content": "?"}]}
        said = self._send("POST", "/api/chat/completions", json=body)
        if said.status_code not in REFUSED:
            raise ShoestringError(
                f"{self.url} answers people who are not signed in (HTTP {said.status_code}): "
                "it was not started by us"
            )

    def models(self) -> list[str]:
        """Return the models that the signed-in user can choose."""
        return [str(model["id"]) for model in self._get("/api/models").get("data", [])]

    def ask(self, model: str, text: str, *, max_tokens: int | None = None) -> PageAnswer:
        """Ask a model as the page does, and read the stream to its end.

        Raises:
            ShoestringError: it did not answer, or the stream broke off.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "stream": True,
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        sent_s = time.monotonic()
        first_s: float | None = None
        parts = []
        for part in self._stream("/api/chat/completions", body):
            first_s = time.monotonic() if first_s is None else first_s
            parts.append(part)
        if first_s is None:
            raise ShoestringError(f"{model} gave an empty answer through {self.url}")
        return PageAnswer("".join(parts), first_s - sent_s, time.monotonic() - sent_s)

    def _stream(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        with self._send("POST", path, json=body, stream=True, timeout=SILENCE_S) as said:
            if said.status_code != HTTPStatus.OK:
                raise ShoestringError(
                    f"{self.url}{path} answers HTTP {said.status_code}: {said.text[:200]!a}"
                )
            try:
                for line in said.iter_lines():
                    if line == DATA + DONE:
                        return
                    if line.startswith(DATA):
                        yield from _texts(json.loads(line.removeprefix(DATA)))
            except (OSError, ValueError) as error:
                raise ShoestringError(f"{self.url}{path} broke off: {error}") from error
        raise ShoestringError(f"{self.url}{path} broke off without its end")

    def _get(self, path: str) -> dict[str, Any]:
        said = self._send("GET", path)
        try:
            answer = said.json()
        except ValueError:
            answer = None
        if said.status_code != HTTPStatus.OK or not isinstance(answer, dict):
            raise ShoestringError(f"{self.url}{path} is not Open WebUI's: HTTP {said.status_code}")
        return answer

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return self._session.request(
                method, self.url + path, **{"timeout": TIMEOUT_S, **options}
            )
        except OSError as error:  # what requests raises is one, too
            raise ShoestringError(
                f"Open WebUI does not answer at {self.url} ({type(error).__name__}): "
                "shoestring status"
            ) from error


def _texts(event: dict[str, Any]) -> Iterator[str]:
    if "error" in event:
        raise ShoestringError(f"Open WebUI: {str(event['error'])[:200]}")
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or {}
        text = delta.get("content") or delta.get("reasoning_content")
        if text:
            yield text
