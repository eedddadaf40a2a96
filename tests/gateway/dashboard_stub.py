"""The built dashboard with made-up figures behind it, for tests of the page only.

It keeps the JSON contract of the gateway's dashboard API; nothing in it is measured.
By hand: ``python -m tests.gateway.dashboard_stub`` prints the address and the key.
"""

from __future__ import annotations

import json
import math
import select
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoestring.gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

STATIC = Path(shoestring.gateway.__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
KEY = "shoe_abcdefghij_" + "s" * 43
SECRET = "shoe_klmnopqrst_" + "n" * 43
BINS, BIN_S = 180, 5
MIB = 1024**2


@dataclass
class Stub:
    """What the made-up gateway answers; a test changes it as it goes.

    Attributes:
        scopes: of the key that signs in.
        overview, keys, requests: the answers.
        pieces: of the model's answer.
        held: while set, a streamed answer stops after its first piece and waits.
        failing: every API request is answered like by a proxy without a gateway.
        sessions: good cookies.
        asked: how often each ``METHOD path`` of the API was asked.
        left: set when a client went away from an answer that was held.
        questions, made: bodies of what was asked and of the keys that were made.
    """

    scopes: list[str]
    overview: dict[str, Any]
    keys: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    pieces: list[str]
    held: bool = False
    failing: bool = False
    sessions: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    left: threading.Event = field(default_factory=threading.Event)
    questions: list[dict[str, Any]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)


def made_up() -> Stub:
    """Return a gateway with some traffic, two engines and three keys."""
    return Stub(
        scopes=["admin", "dashboard", "inference"],
        overview=_overview(),
        keys=[
            _key("abcdefghij", "operations", ["admin", "dashboard", "inference"]),
            _key("bcdefghijk", "chat team", ["inference"], models=["qwen2.5:*"],
                 limits={"requests_per_minute": 120, "tokens_per_minute": 40000, "concurrent": 4,
                         "budget_tokens": 2_000_000},
                 use={"requests": 4210, "input_tokens": 1_204_331, "output_tokens": 655_120,
                      "rejected": 37, "budget_used_tokens": 1_859_451}),
            _key("cdefghijkl", "intern 2025", ["inference"], revoked_utc=ago(86400 * 9)),
        ],
        requests=[_request(number) for number in range(40)],
        pieces=["A GPU is useful ", "because it multiplies ", "many numbers ", "at once."],
    )  # fmt: skip


def ago(seconds: float) -> str:
    """Return a time in the past as the gateway writes it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _overview() -> dict[str, Any]:
    waves = [math.sin(index / 11) + 0.4 * math.sin(index / 2.3) for index in range(BINS)]
    quiet = range(58, 66)  # nobody asked
    ttft = [None if i in quiet else 0.21 + 0.05 * wave for i, wave in enumerate(waves)]
    end_s = int(time.time()) // BIN_S * BIN_S
    return {
        "version": "0.1.0",
        "uptime_s": 273_845.2,
        "draining": False,
        "redis": "ok",
        "figures": {
            "requests_total": 18_342, "errors_total": 61, "mean_inference_s": 2.8431,
            "model_memory_bytes": 1912 * MIB, "active_requests": 5,
        },
        "series": {
            "t_utc_s": [end_s - BIN_S * (BINS - 1 - index) for index in range(BINS)],
            "requests_per_s": [0.0 if i in quiet else max(0.2, 2.1 + w)
                               for i, w in enumerate(waves)],
            "errors_per_s": [0.4 if i in {90, 91, 140} else 0.0 for i in range(BINS)],
            "ttft_p50_s": ttft,
            "ttft_p90_s": [value and value * 1.9 for value in ttft],
            "output_tokens_per_s": [0.0 if i in quiet else 64 + 20 * w
                                    for i, w in enumerate(waves)],
            "queue_waiting": [max(0, round(3 * w)) for w in waves],
            "active_requests": [0 if i in quiet else max(1, round(4 + 2 * w))
                                for i, w in enumerate(waves)],
            "model_memory_bytes": [(1880 + index // 6) * MIB for index in range(BINS)],
            "gateway_memory_bytes": [(96 + index // 40) * MIB for index in range(BINS)],
        },
        "engines": [
            {"name": "ollama-a", "kind": "ollama", "state": "healthy", "since_utc": ago(273_800),
             "models": ["qwen2.5:1.5b", "gemma3:270m"], "active": 3, "waiting": 1, "slots": 4,
             "memory_bytes": 1640 * MIB, "last_error": None},
            {"name": "llama-b", "kind": "llama-server", "state": "down", "since_utc": ago(95),
             "models": ["qwen2.5-q4"], "active": 0, "waiting": 0, "slots": 2,
             "memory_bytes": None, "last_error": "connection refused"},
        ],
        "aliases": [
            {"name": "small", "targets": [
                {"engine": "ollama-a", "model": "qwen2.5:1.5b", "variant": "q8_0", "weight": 3},
                {"engine": "llama-b", "model": "qwen2.5-q4", "variant": "q4_k_m", "weight": 1},
            ]},
        ],
        "cache": {"state": "on", "hits": 1204, "misses": 3811, "entries": 640,
                  "bytes": 11 * MIB},
        "models": ["small", "qwen2.5:1.5b", "gemma3:270m"],
    }  # fmt: skip


def _key(identity: str, name: str, scopes: list[str], **changes: Any) -> dict[str, Any]:
    limits = {
        "requests_per_minute": None, "tokens_per_minute": None, "concurrent": None,
        "budget_tokens": None, "budget_period": "month",
    }  # fmt: skip
    use = {
        "requests": 0, "input_tokens": 0, "output_tokens": 0, "rejected": 0,
        "last_used_utc": ago(40) if "use" in changes else None, "budget_used_tokens": None,
    }  # fmt: skip
    return {
        "id": identity,
        "name": name,
        "scopes": scopes,
        "models": changes.get("models", []),
        "limits": limits | changes.get("limits", {}),
        "created_utc": ago(86400 * 60),
        "expires_utc": changes.get("expires_utc"),
        "revoked_utc": changes.get("revoked_utc"),
        "use": use | changes.get("use", {}),
    }


def _request(number: int) -> dict[str, Any]:
    refused = number % 9 == 4
    return {
        "request_id": f"req-{1_000_000 + number:x}",
        "t_utc": ago(3 + 7 * number),
        "key_id": "bcdefghijk",
        "key_name": "chat team",
        "address": f"192.0.2.{number % 5 + 1}",
        "operation": ("chat", "embeddings", "generate")[number % 3],
        "model": "small",
        "variant": ("q8_0", "q4_k_m")[number % 2],
        "engine": "" if refused else ("ollama-a", "llama-b")[number % 2],
        "provider": "ollama",
        "status": 429 if refused else 200,
        "failure": "rate_limit" if refused else None,
        "stream": number % 3 != 1,
        "cache": ("miss", "hit", "bypass", "joined")[number % 4],
        "queue_s": 0.0 if refused else 0.004 * (number % 7),
        "ttft_s": None if refused else 0.18 + 0.01 * (number % 12),
        "duration_s": 0.002 if refused else 1.3 + 0.2 * (number % 8),
        "input_tokens": None if refused else 240 + number,
        "output_tokens": None if refused else 96 + number,
    }


class Handler(BaseHTTPRequestHandler):
    """Serves the page, its API and one streamed answer."""

    stub: Stub

    def do_GET(self) -> None:
        """Files, and what the page polls."""
        path = self.path.partition("?")[0]
        if not path.startswith("/dashboard/api/"):
            self._file(path)
        elif self._is_in("GET"):
            stub = self.stub
            self._say(200, {
                "session": {"key": {"id": "abcdefghij", "name": "operations",
                                    "scopes": stub.scopes}},
                "overview": stub.overview,
                "keys": {"keys": stub.keys},
                "requests": {"requests": stub.requests},
            }[path.rpartition("/")[2]])  # fmt: skip

    def do_POST(self) -> None:
        """Signing in, a new key, a revoked one, a question."""
        length = int(self.headers["Content-Length"] or 0)
        body = json.loads(self.rfile.read(length) or "null")
        assert self.headers["X-Requested-With"] == "shoestring"
        if self.path.endswith("/session"):
            self._sign_in(body)
        elif not self._is_in("POST"):
            return
        elif self.path.endswith("/revoke"):
            identity = self.path.split("/")[-2]
            next(key for key in self.stub.keys if key["id"] == identity)["revoked_utc"] = ago(0)
            self._say(204)
        elif self.path.endswith("/keys"):
            self.stub.made.append(body)
            made = _key("klmnopqrst", body["name"], body["scopes"], models=body["models"],
                        limits=body["limits"])  # fmt: skip
            self.stub.keys.append(made)
            self._say(201, {"key": made, "secret": SECRET})
        else:
            self.stub.questions.append(body)
            self._answer()

    def do_DELETE(self) -> None:
        """Signing out."""
        self.stub.sessions.clear()
        self._say(204)

    def _sign_in(self, body: dict[str, str]) -> None:
        if body["key"] != KEY:
            self._say(401, _error("This key is not known"))
            return
        self.stub.sessions.add("cookie")
        self._say(204, headers={
            "Set-Cookie": "shoestring_session=cookie; HttpOnly; SameSite=Strict; Path=/dashboard"
        })  # fmt: skip

    def _is_in(self, method: str) -> bool:
        self.stub.asked[f"{method} {self.path.partition('?')[0].rpartition('/')[2]}"] += 1
        if self.stub.failing:
            self._say(502)
            return False
        cookie = (self.headers["Cookie"] or "").partition("=")[2]
        if cookie in self.stub.sessions:
            return True
        self._say(401, _error("Sign in with a key"))
        return False

    def _file(self, path: str) -> None:
        name = path.removeprefix("/dashboard/") or "index.html"
        file = STATIC / name
        if "/" in name or not file.is_file():
            self._say(404)
            return
        self._say(200, file.read_bytes(), {"Content-Type": TYPES[file.suffix]})

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("X-Cache", "MISS")
        self.end_headers()
        for index, piece in enumerate(self.stub.pieces):
            if index and self.stub.held:
                self._wait_for_leaving()
                return
            self._event(json.dumps({"choices": [{"delta": {"content": piece}}]}))
        self._event(json.dumps({"choices": [], "usage": {"completion_tokens": 12}}))
        self._event("[DONE]")

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def _wait_for_leaving(self) -> None:
        ready, _, _ = select.select([self.connection], [], [], 60.0)
        if ready and self.connection.recv(1) == b"":
            self.stub.left.set()

    def _say(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else _json(body)
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves early is no news."""


@contextmanager
def serving(stub: Stub, port: int = 0) -> Iterator[str]:
    """Serve until the block ends; yields the origin."""
    handler = type("StubHandler", (Handler,), {"stub": stub})
    with _Server(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with serving(made_up()) as origin:
        print(f"{origin}/dashboard/ with {KEY}")
        threading.Event().wait()
