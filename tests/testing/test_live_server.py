"""A server that lives as long as a block."""

import sys

import pytest
import requests

from shoestring.engines.launch import is_free
from shoestring.errors import EngineLostError
from shoestring.testing.live_server import live_server

ECHO = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400 if b"wrong" in body else 200); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def echo(port):
    """Return the words of a server that answers what it is asked."""
    return [sys.executable, "-I", "-c", ECHO, str(port)]


def test_a_server_answers_within_the_block_and_is_gone_after_it():
    """Also where something went wrong in between: a refusal is raised, and it is ended."""
    with live_server(echo) as server:
        assert server.complete({"prompt": "one"}) == {"prompt": "one"}
    with pytest.raises(requests.HTTPError), live_server(echo) as other:
        other.complete({"prompt": "wrong"})

    ports = [int(one.address.rpartition(":")[2]) for one in (server, other)]
    assert all(map(is_free, ports))


def test_a_server_that_dies_is_lost_with_its_log(tmp_path):
    """One that does not take its model: the message names the log."""
    log = tmp_path / "log"
    words = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(EngineLostError, match=r"died with status 1.*log"),
        live_server(lambda _port: words, log_path=log),
    ):
        pass

    assert "no such model" in log.read_text()
