"""The sealed browser: which one is driven, what its pages reach, and what stays behind."""

import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shoestring.errors import MissingError, ShoestringError
from shoestring.stack.browser import VARIABLE, find_chromium, opened_browser, page_step

NOWHERE = Path("/nowhere/chrome")
needs_chromium = pytest.mark.usefixtures("chromium")


@contextmanager
def serving(pages):
    """Serve pages by path; yields the address and the list of the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, headers = pages.get(self.path, (404, {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def fetched(page, url):
    """Say whether a page could fetch a URL."""
    return page.evaluate(
        "url => fetch(url, {mode: 'no-cors'}).then(() => 'reached', () => 'refused')", url
    )


def test_the_users_browser_wins(tmp_path):
    """A named program goes before those on PATH, these before Playwright's own."""
    own = tmp_path / "own"
    own.touch()
    on_path = {"mine": "/opt/mine", "chromium-browser": "/usr/bin/chromium-browser"}.get

    assert find_chromium(own=own, environ={VARIABLE: "mine"}, which=on_path) == Path("/opt/mine")
    assert find_chromium(own=own, environ={}, which=on_path) == Path("/usr/bin/chromium-browser")
    assert find_chromium(own=own, environ={}, which={}.get) == own


def test_a_missing_browser_is_named_with_its_mend():
    """Where there is none, one line says what brings it."""
    with pytest.raises(MissingError, match=r"^[^\n]*apt-get install chromium[^\n]*playwright"):
        find_chromium(own=NOWHERE, environ={}, which={}.get)


def test_a_named_browser_that_is_not_there_is_no_other():
    """A wrong SHOESTRING_CHROMIUM is said, not passed over."""
    with pytest.raises(MissingError, match="SHOESTRING_CHROMIUM is '/nowhere/chrome'"):
        find_chromium(own=NOWHERE, environ={VARIABLE: str(NOWHERE)}, which={"chromium": "x"}.get)


def test_a_missing_package_is_named_with_its_mend(monkeypatch):
    """Without Playwright one line says which package."""
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)

    with (
        pytest.raises(MissingError, match="python -m pip install playwright"),
        opened_browser(),
    ):
        pass


def test_a_browser_that_does_not_start_is_named(monkeypatch, tmp_path):
    """A program that dies at once is one line, not pages of a browser's log."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libnss3.so' >&2\n")
    broken.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(broken))

    with (
        pytest.raises(MissingError, match=r"broken does not start: [^\n]*libnss3\.so[^\n]*$"),
        opened_browser(),
    ):
        pass


@needs_chromium
def test_a_page_reaches_its_own_origin_only():
    """Another origin is refused and counted, by fetch, redirect and WebSocket."""
    with (
        serving({}) as (foreign, foreign_asked),
        serving({"/": (200, {"Content-Type": "text/html"}),
                 "/away": (302, {"Location": "http://203.0.113.7/"})}) as (own, _),
        opened_browser() as browser,
    ):  # fmt: skip
        page = browser.open_page(own, limit_s=60.0)
        page.goto(own)
        reached = [fetched(page, url) for url in (own, foreign, f"{own}/away")]
        page.evaluate(
            "url => new Promise(done => { new WebSocket(url).onclose = done; })",
            foreign.replace("http", "ws"),
        )

    assert reached == ["reached", "refused", "refused"]
    assert dict(browser.refused) == {foreign: 2, "http://203.0.113.7": 1}
    assert foreign_asked == []


@needs_chromium
def test_a_page_without_an_origin_reaches_nobody():
    """What is only rendered asks nobody, not even the node."""
    with serving({}) as (server, asked), opened_browser() as browser:
        page = browser.open_page(None, limit_s=60.0)
        page.set_content(f'<img src="{server}/picture.png">')

    assert asked == []
    assert dict(browser.refused) == {server: 1}


@needs_chromium
def test_the_profile_is_removed(monkeypatch):
    """Nothing of the browser stays in the temporary folder."""
    with TemporaryDirectory() as short:  # Chromium's socket lies in it
        folder = Path(short)
        monkeypatch.setenv("TMPDIR", short)
        with opened_browser() as browser:
            browser.open_page(None, limit_s=60.0)
            while_open = list(folder.iterdir())
        left = list(folder.iterdir())

    assert while_open
    assert left == []


@needs_chromium
def test_what_a_page_does_not_do_is_one_line():
    """A failed step names what was done and where, without the browser's log."""
    with opened_browser() as browser:
        page = browser.open_page(None, limit_s=0.2)
        with (
            pytest.raises(ShoestringError, match=r"^looking failed at about:blank: [^\n]+$"),
            page_step(page, "looking"),
        ):
            page.locator("#nothing").click()
