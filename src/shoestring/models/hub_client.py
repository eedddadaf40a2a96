"""The hub's protocol: what a file is, its bytes, and what the hub's refusals mean.

::

    HEAD /OWNER/REPO/resolve/REVISION/FILE
        X-Repo-Commit                   the commit that REVISION is now
        X-Linked-Etag, X-Linked-Size    large files: "sha256" and bytes; with a 302 to a CDN
        ETag, Content-Length            small files: "git's sha1" and bytes; with the bytes, no CDN
        X-Error-Code                    RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo
    GET  the same                       302 to a signed address of the CDN, which takes Range
    GET  /api/models/OWNER/REPO/tree/REVISION?recursive=true

401 is also the answer for a repository that does not exist, when no token was sent.
The token comes from ``HF_TOKEN`` only and goes to the endpoint's own origin only: redirects are
followed here, by hand, and a request to anybody else carries none. A netrc file is not looked at.
Proxies and certificates are those of the environment, as ``requests`` reads them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote, urljoin, urlsplit

from shoestring.errors import BadValueError, MissingError, UserError
from shoestring.models.hub_refusals import (
    LONGEST_WAIT_S,
    UnreachableError,
    explain_busy,
    explain_refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest, Response

    from shoestring.models.hub_refusals import HubName

PUBLIC_ENDPOINT = "https://huggingface.co"
TIMEOUTS_S = (10.0, 60.0)  # to connect, and between two pieces of an answer
BODY_STATUSES = {200, 206, 416}  # whole, from where we asked, nothing beyond what we have
RETRIED = {408, 429, 500, 502, 503, 504}
MOST_TRIES = 5  # of one request, or of a download without any progress
MOST_REDIRECTS = 5
LISTED = 5  # files that an error names
LISTING_BYTES = 4 << 20
DIGEST = re.compile(r'(?:W/)?"?([0-9a-f]{64}|[0-9a-f]{40})"?')
RATE_LIMIT = re.compile(r";\s*t\s*=\s*(\d+)")


@dataclass(frozen=True)
class Remote:
    """What the hub says of a file.

    Attributes:
        digest: SHA-256 (64 digits) of a large file, git's SHA-1 (40 digits) of a small one.
        file_bytes: its size.
        commit: that the revision is now; the revision itself if the hub does not say.
    """

    digest: str
    file_bytes: int
    commit: str


class Hub:
    """A client of one endpoint, with the environment's token.

    Args:
        say: given a line for each wait.
        wait: sleeps so many seconds.
        environment: where ``HF_ENDPOINT`` and ``HF_TOKEN`` stand.

    Raises:
        BadValueError: one of them cannot be used.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        wait: Callable[[float], None] = time.sleep,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        import requests

        self._say, self._wait = say, wait
        self._endpoint = _read_endpoint(environment)
        self._token = _read_token(environment)
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": "shoestring", "Accept-Encoding": "identity"})
        self.origin = origin_of(self._endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    def describe(self, name: HubName, *, tries: int = MOST_TRIES) -> Remote:
        """Ask what a file is.

        Raises:
            UnreachableError: nobody answers, or the hub is out of order.
            UserError: the hub refuses; the message says what to mend.
        """
        with self._ask("HEAD", self._address(name, name.revision), tries=tries) as answer:
            if answer.status_code >= HTTPStatus.BAD_REQUEST:
                self._refuse(answer, name)
            headers = answer.headers
        linked = headers.get("X-Linked-Etag")
        found = DIGEST.fullmatch(linked or headers.get("ETag", ""))
        size = headers.get("X-Linked-Size" if linked else "Content-Length", "")
        if found is None or not size.isdecimal():
            raise MissingError(
                f"{self.origin} does not say the digest and size of {name.text}, so it cannot be "
                "checked: check HF_ENDPOINT, or fetch it otherwise and use file:PATH"
            )
        return Remote(found[1], int(size), headers.get("X-Repo-Commit") or name.revision)

    def open_body(
        self, name: HubName, remote: Remote, headers_for: Callable[[str], dict[str, str]]
    ) -> Response:
        """Ask for the bytes of the commit that was described; close the answer after use.

        Args:
            name: of the file.
            remote: what :meth:`describe` said.
            headers_for: the headers for each origin on the way.

        Raises:
            UnreachableError: it does not answer, or a storage behind the hub refuses; try again.
            UserError: the hub refuses.
        """
        url = self._address(name, remote.commit)
        answer = self._ask("GET", url, headers_for=headers_for)
        if answer.status_code in BODY_STATUSES:
            return answer
        with answer:
            server = origin_of(answer.url)
            if server == self.origin and answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                self._refuse(answer, name)
        raise UnreachableError(
            f"{server} answers {answer.status_code} instead of the bytes of {name.text}: "
            "try again later"
        )

    def _address(self, name: HubName, revision: str) -> str:
        return f"{self._endpoint}/{name.repo}/resolve/{revision}/{quote(name.file)}"

    def _ask(
        self,
        method: str,
        url: str,
        *,
        headers_for: Callable[[str], dict[str, str]] = lambda _origin: {},
        tries: int = MOST_TRIES,
    ) -> Response:
        """Send a request until it is not told to wait, at most ``tries`` times."""
        for attempt in range(1, tries + 1):
            answer = self._follow(method, url, headers_for)
            if answer.status_code not in RETRIED:
                return answer
            server, status = origin_of(answer.url), answer.status_code
            wait_s = read_wait_s(answer.headers, attempt)
            answer.close()
            if attempt == tries or wait_s > LONGEST_WAIT_S:
                break
            self._say(f"{server} answers {status}: trying again in {wait_s:.0f} s")
            self._wait(wait_s)
        raise explain_busy(server, status, attempt, wait_s)

    def _follow(
        self, method: str, url: str, headers_for: Callable[[str], dict[str, str]]
    ) -> Response:
        """Send a request, and again where it is redirected to."""
        import requests

        for _hop in range(MOST_REDIRECTS + 1):
            origin = origin_of(url)
            try:
                answer = self._session.request(
                    method,
                    url,
                    headers=headers_for(origin),
                    auth=self._sign if origin == self.origin else _leave_unsigned,
                    allow_redirects=False,
                    stream=True,
                    timeout=TIMEOUTS_S,
                )
            except requests.RequestException as error:
                raise UnreachableError(
                    f"no answer from {origin} ({type(error).__name__}): check the network, "
                    "the proxy and HF_ENDPOINT, or use file:PATH"
                ) from error
            known = all(field in answer.headers for field in ("X-Linked-Etag", "X-Linked-Size"))
            if not answer.is_redirect or (method == "HEAD" and known):
                return answer
            answer.close()
            url = urljoin(url, answer.headers["Location"])
            if urlsplit(url).scheme not in {"http", "https"}:
                break
        raise MissingError(
            f"{self.origin} redirects without end or to nowhere: check HF_ENDPOINT and proxies"
        )

    def _sign(self, request: PreparedRequest) -> PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _refuse(self, answer: Response, name: HubName) -> NoReturn:
        raise explain_refusal(
            answer, name, self._endpoint, self._token, offer=lambda: self._offer(name)
        )

    def _offer(self, name: HubName) -> str:
        """Say which GGUF files there are instead."""
        url = f"{self._endpoint}/api/models/{name.repo}/tree/{name.revision}?recursive=true"
        try:
            with self._ask("GET", url, tries=1) as answer:
                found = _read_listing(answer)
        except UserError as error:
            return f"check the spelling (its files cannot be listed: {error})"
        if not found:
            return "it has no GGUF file at all; take another repository"
        near = difflib.get_close_matches(name.file, found, n=LISTED, cutoff=0)
        left = len(found) - len(near)
        return f"it has {', '.join(near)}" + (f" and {left} more GGUF files" if left else "")


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address, without a user's name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def read_wait_s(headers: Mapping[str, str], attempt: int) -> float:
    """Return how long a server wants us to wait: its Retry-After, its RateLimit, or 1, 2, 4 ... s.

    A Retry-After that is a date is taken as none.
    """
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    limit = RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(limit[1]) if limit else float(2 ** (attempt - 1))


def _read_endpoint(environment: Mapping[str, str]) -> str:
    endpoint = environment.get("HF_ENDPOINT", "").strip().rstrip("/") or PUBLIC_ENDPOINT
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        usable = usable and parts.username is None  # whoever needs a password sets HF_TOKEN
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable:
        raise BadValueError(
            "HF_ENDPOINT is no address: give one like https://HOST, without user and password, or "
            "unset it"
        )
    return endpoint


def _read_token(environment: Mapping[str, str]) -> str | None:
    token = environment.get("HF_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise BadValueError(
            "HF_TOKEN holds characters that no token has: copy it again, or unset it"
        )
    return token or None


def _leave_unsigned(request: PreparedRequest) -> PreparedRequest:
    """Stand where requests would look into the user's netrc file otherwise."""
    return request


def _read_listing(answer: Response) -> list[str]:
    """Return the GGUF files of a repository's tree.

    Raises:
        MissingError: it is no list of files, or too long a one.
    """
    import requests

    try:
        text = bytearray()
        for chunk in answer.iter_content(1 << 16):
            text += chunk
            if len(text) > LISTING_BYTES:
                raise MissingError(f"more than {LISTING_BYTES} bytes")
        entries: Any = json.loads(text)
        return [e["path"] for e in entries if str(e["path"]).lower().endswith(".gguf")]
    except (requests.RequestException, ValueError, TypeError, KeyError) as error:
        raise MissingError(f"{answer.status_code}, {type(error).__name__}") from error
