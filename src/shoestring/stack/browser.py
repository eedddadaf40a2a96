"""A real Chromium that sees one origin only, and counts what its pages ask of others.

Two walls, since the first has holes: requests and WebSockets to any other origin are refused
before they leave the page; and whatever Chromium itself sends (redirects, preconnects, its own
services) meets a proxy at an address where nobody listens. Loopback needs no proxy.
The profile is a fresh temporary folder, removed when the browser ends.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shoestring.engines.launch import NOBODYS_URL
from shoestring.errors import MissingError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from playwright.sync_api import Browser, Page, Request, Route, WebSocketRoute

VARIABLE = "SHOESTRING_CHROMIUM"
PROGRAMS = ("chromium", "google-chrome", "chromium-browser")
WIDTH, HEIGHT = 1280, 800
QUIET_FLAGS = (
    "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    f"--proxy-server={NOBODYS_URL}",
)  # fmt: skip
PACKAGE_MEND = "python -m pip install playwright"
BROWSER_MEND = "apt-get install chromium, or python -m playwright install --with-deps chromium"
NO_ORIGIN = frozenset({"about", "blob", "data"})
"""Schemes that reach nobody."""
TELLING = re.compile(r"shared librar|sandbox|FATAL", re.IGNORECASE)
SHOWN = 200  # characters of what a browser says


class SealedBrowser:
    """A running Chromium.

    Attributes:
        version: of Chromium.
        refused: how often its pages asked for another origin, by that origin.
    """

    def __init__(self, browser: Browser) -> None:
        self.version = browser.version
        self.refused: Counter[str] = Counter()
        self._browser = browser

    def open_page(self, origin: str | None, *, limit_s: float) -> Page:
        """Open a page in a session of its own: no cookie is shared with another.

        Args:
            origin: ``http://HOST:PORT``, the only one that it may ask; None: none at all.
            limit_s: how long an element or an answer of the server may be waited for.
        """
        context = self._browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT},
            locale="en-US", timezone_id="UTC", color_scheme="light", reduced_motion="reduce",
            service_workers="block",  # their requests would pass by the first wall
        )  # fmt: skip
        context.set_default_timeout(limit_s * 1000)

        def is_foreign(url: str) -> bool:
            return _origin(url) not in {origin, None}

        def count(request: Request) -> None:  # a redirected request, too, comes here again
            if is_foreign(request.url):
                self.refused[str(_origin(request.url))] += 1

        def pass_or_refuse(route: Route) -> None:
            if is_foreign(route.request.url):
                route.abort("blockedbyclient")
            else:
                route.continue_()

        def refuse(socket: WebSocketRoute) -> None:
            self.refused[str(_origin(socket.url))] += 1
            socket.close()

        context.on("request", count)
        context.route("**/*", pass_or_refuse)
        context.route_web_socket(is_foreign, refuse)
        return context.new_page()


@contextmanager
def opened_browser() -> Iterator[SealedBrowser]:
    """Start a headless Chromium and end it.

    Raises:
        MissingError: Playwright or Chromium is not here, or Chromium does not start.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise MissingError(f"screenshots need the package playwright: {PACKAGE_MEND}") from error
    with sync_playwright() as playwright:
        program = find_chromium(own=Path(playwright.chromium.executable_path))
        try:
            browser = playwright.chromium.launch(
                executable_path=program,
                args=list(QUIET_FLAGS),
                chromium_sandbox=os.geteuid() != 0,  # Chromium refuses it for root
            )
        except Error as error:
            raise MissingError(
                f"{program} does not start: {first_line(error, TELLING)}; "
                f"name another by {VARIABLE}, or: {BROWSER_MEND}"
            ) from error
        with browser:
            yield SealedBrowser(browser)


def find_chromium(
    *,
    own: Path,
    environ: Mapping[str, str] = os.environ,
    which: Callable[[str], str | None] = shutil.which,
) -> Path:
    """Return the browser to drive: the one named by the user, of the system, Playwright's own.

    Args:
        own: where Playwright's own would lie.
        environ: environment variables.
        which: finds a program on PATH.

    Raises:
        MissingError: there is none, or not the one that was named.
    """
    named = environ.get(VARIABLE)
    if named:
        found = which(named)
        if found is None:
            raise MissingError(f"{VARIABLE} is {named[:SHOWN]!a}: no program lies there")
        return Path(found)
    installed = next(filter(None, map(which, PROGRAMS)), None)
    if installed is not None:
        return Path(installed)
    if own.is_file():
        return own
    raise MissingError(f"screenshots need Chromium: {BROWSER_MEND}")


@contextmanager
def page_step(page: Page, doing: str) -> Iterator[None]:
    """Name what was being done where a page does not do it.

    Raises:
        ShoestringError: what the browser said of it, and where.
    """
    from playwright.sync_api import Error

    try:
        yield
    except Error as error:
        raise ShoestringError(f"{doing} failed at {page.url}: {first_line(error)}") from error


def first_line(error: Exception, telling: re.Pattern[str] | None = None) -> str:
    """Return the telling line of what Playwright says, which goes on for pages."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and "<launching>" not in line]  # every flag
    told = (line for line in lines if telling is not None and telling.search(line))
    return next(told, lines[0] if lines else type(error).__name__)[:SHOWN]


def _origin(url: str) -> str | None:
    """Return whom a URL asks, WebSockets like pages; None: nobody."""
    parts = urlsplit(url)
    if parts.scheme in NO_ORIGIN:
        return None
    return f"{parts.scheme.replace('ws', 'http', 1)}://{parts.netloc}"
