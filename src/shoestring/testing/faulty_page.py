"""A page with the elements of Open WebUI's that we use, and the faults that it shows on demand.

The real one cannot be asked to store another answer than it showed, or to show a password.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGN_IN, CHAT = "/api/v1/auths/signin", "/api/v1/chats/c1"
FORM = """<form onsubmit="signIn(); return false"><input type="email"><input type="password">
<button type="submit">Sign in</button></form>
<script>
async function signIn() {
  const said = await fetch('/api/v1/auths/signin', {method: 'POST'});
  if (said.ok) { localStorage.token = (await said.json()).token; location = '/'; }
}
</script>"""
COMPOSER = """<div id="chat-input" role="textbox" contenteditable="true"
  style="min-height: 20px"></div>
<button id="send-message-button" onclick="send()">Send</button>
<button aria-label="Selected model: small:latest">small:latest</button>
<div id="chat"></div>
<script>
function send() {
  fetch('/typed', {method: 'POST', body: document.querySelector('#chat-input').innerText})
    .then(() => { history.pushState({}, '', '/c/c1'); show(FIRST); });
}
function show(text) {
  document.querySelector('#chat').innerHTML = '<div id="message-1"><div class="chat-user">?</div>'
    + '</div><div id="message-2"><div class="chat-assistant"></div>'
    + (ENDS ? '<button aria-label="Regenerate">again</button>' : '') + '</div>';
  document.querySelector('.chat-assistant').innerText = text;
}
if (location.pathname.startsWith('/c/')) show(LATER);
</script>"""
DIALOG = """<div role="dialog" aria-modal="true"><button
onclick="this.parentNode.remove()">Okay, Let's Go!</button></div>"""


@dataclass(frozen=True)
class Faults:
    """What the page does otherwise than Open WebUI.

    Attributes:
        refuses: the sign-in.
        shown: added to every page after the sign-in.
        first: the answer as it is shown when it comes.
        later: and when the chat is loaded again.
        ends: the answer ends.
        stored: changes of the stored answer.
    """

    refuses: bool = False
    shown: str = ""
    first: str = "a **bold** answer"
    later: str = "a **bold** answer"
    ends: bool = True
    stored: dict[str, Any] = field(default_factory=dict)


class FaultyPage(ThreadingHTTPServer):
    """The server of the page.

    Attributes:
        faults: what it does otherwise, from the next request on.
        typed: the prompt that came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults = Faults()
        self.typed = ""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def show(self, **faults: Any) -> None:
        """Do something otherwise."""
        self.faults = replace(self.faults, **faults)


class _Handler(BaseHTTPRequestHandler):
    server: FaultyPage

    def do_GET(self) -> None:
        faults, path = self.server.faults, urlsplit(self.path).path
        if path == CHAT:
            answer = {"content": faults.first, "done": True, "parentId": "1", **faults.stored}
            messages = {"1": {"content": self.server.typed}, "2": answer}
            self._answer({"chat": {"history": {"currentId": "2", "messages": messages}}})
        elif path == "/auth":
            self._answer(FORM)
        else:
            settings = {"FIRST": faults.first, "LATER": faults.later, "ENDS": faults.ends}
            script = "".join(f"const {name} = {json.dumps(v)};" for name, v in settings.items())
            self._answer(f"<script>{script}</script>{COMPOSER}{faults.shown}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == SIGN_IN and self.server.faults.refuses:
            self._answer({"detail": "no"}, 400)
        elif self.path == SIGN_IN:
            self._answer({"token": "a-token"})
        else:
            self.server.typed = body
            self._answer({})

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def _answer(self, body: str | dict[str, Any], status: int = 200) -> None:
        is_page = isinstance(body, str)
        content = (f"<!doctype html>{body}" if is_page else json.dumps(body)).encode()
        self.send_response(status)
        kind = "text/html; charset=utf-8" if is_page else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def running_faulty_page() -> Iterator[FaultyPage]:
    """Serve the page for a while."""
    with FaultyPage() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
