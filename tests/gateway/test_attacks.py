"""What an attacker tries, against a real gateway."""

import json
import socket
import time
from typing import Any

import pytest
import requests

from shoestring.gateway.keys_file import create_key, revoke_key
from shoestring.testing.gateway import RunningGateway

CHAT = "/v1/chat/completions"
MUST_END_S = 60.0


def question(content: Any = "hello", model: str = "fast", **more: Any) -> dict[str, Any]:
    """A conversation of one message."""
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def raw(gateway: RunningGateway, data: bytes, *, end: bool = False) -> bytes:
    """Send bytes and return all that comes until the gateway closes."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=MUST_END_S) as line:
        line.sendall(data)
        if end:
            line.shutdown(socket.SHUT_WR)
        parts = []
        try:
            while part := line.recv(65_536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


def head(gateway: RunningGateway, *lines: str, path: str = CHAT) -> bytes:
    """The head of a request with the key."""
    words = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {gateway.key}", *lines]
    return "\r\n".join(words).encode("latin-1") + b"\r\n\r\n"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer sk-1", "Bearer shoe_aaaaaaaaaa_x",
     "Bearer " + "x" * 5000, "bearer shoe_\xff"],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/api/chat", "/metrics", "/stats",
                                  "/openapi.json", "/nothing"])  # fmt: skip
def test_without_a_good_key_nothing_opens(
    gateway: RunningGateway, web: requests.Session, path: str, authorization: str | None
):
    """401 for all that is not public, whether it exists or not."""
    headers = {} if authorization is None else {"Authorization": authorization}
    assert web.get(gateway.url + path, headers=headers).status_code == 401


def test_a_refusal_is_logged_with_whose_it_was(gateway: RunningGateway, web: requests.Session):
    """So that whoever guesses keys can be shut out by address."""
    web.get(f"{gateway.url}/v1/models", headers={"X-Request-ID": "guess-1"})
    told = [line for line in gateway.lines() if line.get("request_id") == "guess-1"]
    assert [(line["event"], line["reason"], line["address"]) for line in told] == [
        ("refused", "no_key", "127.0.0.1")
    ]


def test_a_revoked_key_is_refused_while_the_gateway_runs(
    gateway: RunningGateway, web: requests.Session
):
    """The file is read again; nobody has to restart anything."""
    key, presented = create_key(gateway.keys_file, "short-lived")
    headers = {"Authorization": f"Bearer {presented}"}
    await_status(web, f"{gateway.url}/v1/models", headers, 200)
    revoke_key(gateway.keys_file, key.id)
    await_status(web, f"{gateway.url}/v1/models", headers, 401)


def await_status(web: requests.Session, url: str, headers: dict[str, str], status: int) -> None:
    """Ask until the answer has this status."""
    end = time.monotonic() + MUST_END_S
    while (found := web.get(url, headers=headers).status_code) != status:
        assert time.monotonic() < end, found


@pytest.mark.parametrize(("scope", "path"), [("metrics", "/v1/models"), ("inference", "/metrics"),
                                             ("inference", "/stats")])  # fmt: skip
def test_a_key_opens_only_its_scope(
    gateway: RunningGateway, web: requests.Session, scope: Any, path: str
):
    """A scraper cannot ask models, a user cannot scrape."""
    _, presented = create_key(gateway.keys_file, "narrow", scopes=(scope,))
    headers = {"Authorization": f"Bearer {presented}"}
    await_status(web, gateway.url + path, headers, 403)


def test_a_key_of_some_models_sees_no_others(gateway: RunningGateway, web: requests.Session):
    """Neither in the list nor by asking: both look as if they were not there."""
    _, presented = create_key(gateway.keys_file, "some", models=("sl*",))
    headers = {"Authorization": f"Bearer {presented}"}
    await_status(web, f"{gateway.url}/v1/models", headers, 200)
    listed = web.get(f"{gateway.url}/v1/models", headers=headers).json()["data"]
    assert [model["id"] for model in listed] == ["slow"]
    hidden = web.post(gateway.url + CHAT, json=question(), headers=headers)
    absent = web.post(gateway.url + CHAT, json=question(model="none"), headers=headers)
    assert (hidden.status_code, absent.status_code) == (404, 404)
    assert hidden.json()["error"]["code"] == absent.json()["error"]["code"]


@pytest.mark.parametrize(
    "model",
    ["http://127.0.0.1:22/", "//evil.example/x", "../../etc/passwd", "fast@../x", "truth/../fast",
     "file:///etc/passwd", "fast\r\nX-Evil: 1", "truth@127.0.0.1", "%2e%2e/fast", "\x00", "fast "],
)  # fmt: skip
def test_a_models_name_is_never_an_address(
    gateway: RunningGateway, web: requests.Session, model: str
):
    """It is looked up, and is not there; no header or path comes of it."""
    refused = web.post(gateway.url + CHAT, json=question(model=model), headers=gateway.headers)
    assert refused.status_code == 404
    assert "x-evil" not in refused.headers


@pytest.mark.parametrize("path", ["/dashboard/../keys.json", "/dashboard/%2e%2e/app.py",
                                  "/dashboard/..%2f..%2fkeys.py", "/dashboard//etc/passwd",
                                  "/dashboard/%00", "/dashboard/.git"])  # fmt: skip
def test_no_path_leaves_the_dashboards_folder(gateway: RunningGateway, path: str):
    """Paths as an attacker writes them, not as a client mends them."""
    answer = raw(gateway, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] in {b"404", b"401", b"400"}
    assert b"root:" not in answer
    assert b"import" not in answer


def test_a_body_that_says_it_is_too_large_is_not_read(gateway: RunningGateway):
    """413 before a byte of it."""
    answer = raw(gateway, head(gateway, "Content-Length: 99999999999"))
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_without_an_end_is_not_kept(gateway: RunningGateway):
    """Chunks are counted as they come."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = raw(gateway, head(gateway, "Transfer-Encoding: chunked") + chunk * 48)
    assert answer.startswith(b"HTTP/1.1 413") or answer == b""


def test_a_head_without_an_end_is_dropped(gateway: RunningGateway):
    """Neither endless nor slow heads hold a connection."""
    endless = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000))
    assert raw(gateway, endless) == b""
    assert raw(gateway, b"GET / HTTP/1.1\r\nHost: x\r\n") == b""
    assert raw(gateway, b"") == b""


def test_trailers_without_an_end_are_dropped(gateway: RunningGateway):
    """They belong to a head, and nobody reads them."""
    begun = b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    answer = raw(gateway, begun + b"a:b\r\n" * 20_000)
    assert b"a:b" not in answer


def test_a_queue_of_requests_on_one_connection_is_refused(gateway: RunningGateway):
    """A few may wait for the first one's answer, thousands not."""
    answer = raw(gateway, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
    assert answer.count(b"HTTP/1.1 200") < 20


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "file:///etc/passwd", "//x/y"])
def test_a_link_is_not_fetched(gateway: RunningGateway, web: requests.Session, url: str):
    """An engine would, from where it stands."""
    for link in (url, {"url": url}):
        content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": link}]
        refused = web.post(gateway.url + CHAT, json=question(content), headers=gateway.headers)
        assert refused.status_code == 400
        assert "image_url" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/metrics%0a", "/stats%0A", "/dashboard/api/keys%0a"])
def test_a_lines_end_in_a_path_opens_nothing(gateway: RunningGateway, path: str):
    """Routes match before it; scopes must not be told by another name."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
    answer = raw(gateway, request.encode() + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")


def test_the_longest_answer_is_bounded_under_each_of_its_names(
    gateway: RunningGateway, web: requests.Session
):
    """The largest counts, whichever an engine goes by."""
    for name in ("max_tokens", "n_predict"):
        body = question(max_completion_tokens=1, **{name: 10**6})
        assert web.post(gateway.url + CHAT, json=body, headers=gateway.headers).status_code == 400


def test_a_slow_body_is_refused(gateway: RunningGateway):
    """408 after the time that a body may take."""
    answer = raw(gateway, head(gateway, "Content-Length: 100") + b'{"model":')
    assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b'{"model":"fast","messages":NaN}',
     b"\xff\xfe", b"null", b"[]", b'"x"', b"{", b'{"model":"fast","messages":[{"role":"\\ud800"}]}',
     b'{"model":"fast","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
     b'{"model":"fast","messages":' + b"[" * 40 + b"]" * 40 + b"}"],
)  # fmt: skip
def test_a_body_that_is_no_question_is_refused(
    gateway: RunningGateway, web: requests.Session, body: bytes
):
    """400, and no traceback."""
    refused = web.post(gateway.url + CHAT, data=body, headers=gateway.headers)
    assert refused.status_code == 400
    assert "Traceback" not in refused.text


@pytest.mark.parametrize(
    "evil", [{"MODEL": "slow"}, {"Stream": True}, {"me\u017f\u017fages": []}, {"MAX_TOKENS": 9}]
)
def test_a_field_in_other_letters_is_refused(
    gateway: RunningGateway, web: requests.Session, evil: dict[str, Any]
):
    """Some engines read it as the known field, past what was checked."""
    refused = web.post(gateway.url + CHAT, json=question(**evil), headers=gateway.headers)
    assert refused.status_code == 400
    options = {"model": "fast", "options": {"Num_Predict": 10**9}}
    refused = web.post(f"{gateway.url}/api/chat", json=options, headers=gateway.headers)
    assert refused.status_code == 400


def test_two_lengths_are_not_taken(gateway: RunningGateway):
    """What smuggles a second request past a proxy is no request."""
    body = b'{"model":"fast"}'
    both = head(gateway, f"Content-Length: {len(body)}", "Transfer-Encoding: chunked")
    answer = raw(gateway, both + body + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_forged_address_is_not_believed(gateway: RunningGateway, web: requests.Session):
    """Nobody is a trusted proxy here."""
    headers = {**gateway.headers, "X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9",
               "Forwarded": "for=203.0.113.9", "X-Request-ID": "forged-address"}  # fmt: skip
    web.post(gateway.url + CHAT, json=question(), headers=headers)
    assert gateway.noted("forged-address")["address"] == "127.0.0.1"


def test_no_line_of_the_log_is_forged_and_no_key_is_in_it(
    gateway: RunningGateway, web: requests.Session
):
    """Every line is one JSON object, whatever clients write; keys are never among the words."""
    evil = 'x"}\n{"event":"forged"}\u2028\x1b[31m'
    web.post(gateway.url + CHAT, json=question(model=evil), headers=gateway.headers)
    web.get(f"{gateway.url}/{gateway.key}", headers={"X-Request-ID": "a\tb", **gateway.headers})
    assert all(line["event"] != "forged" for line in gateway.lines())
    text = gateway.log.read_text(encoding="utf-8")
    assert gateway.key not in text
    assert text.isascii()


def test_prompts_and_answers_are_not_logged(gateway: RunningGateway, web: requests.Session):
    """Unless the settings ask for them."""
    web.post(gateway.url + CHAT, json=question("a secret of mine"), headers=gateway.headers)
    assert "a secret of mine" not in gateway.log.read_text(encoding="utf-8")


def test_one_keys_answers_are_not_anothers(gateway: RunningGateway, web: requests.Session):
    """The cache is asked for each key apart."""
    _, presented = create_key(gateway.keys_file, "other")
    other = {"Authorization": f"Bearer {presented}"}
    await_status(web, f"{gateway.url}/v1/models", other, 200)
    body = question("only for me", temperature=0)
    uses = [
        web.post(gateway.url + CHAT, json=body, headers=headers).headers["x-cache"]
        for headers in (gateway.headers, gateway.headers, other, other)
    ]
    assert uses == ["miss", "hit", "miss", "hit"]


def test_an_answer_that_broke_off_is_not_kept(gateway: RunningGateway, web: requests.Session):
    """Who asks again is not given half an answer from memory."""
    body = question("once", model="cut", temperature=0, stream=True)
    uses = [
        web.post(gateway.url + CHAT, json=body, headers=gateway.headers).headers["x-cache"]
        for _ in range(2)
    ]
    assert uses == ["miss", "miss"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_the_dashboard_needs_a_session_and_its_own_header(
    gateway: RunningGateway, web: requests.Session, method: str
):
    """A bearer key is no session, and another site cannot send the header."""
    url = f"{gateway.url}/dashboard/api/keys"
    foreign = web.request(method, url, headers=gateway.headers)
    own = web.request(method, url, headers={**gateway.headers, "X-Requested-With": "shoestring"})
    assert foreign.status_code in {401, 403}
    assert own.status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "aaaaaaaaaa.9999999999.00", "é.1.2"])
def test_a_forged_session_is_none(gateway: RunningGateway, web: requests.Session, cookie: str):
    """The cookie is signed."""
    refused = web.get(
        f"{gateway.url}/dashboard/api/overview",
        headers={"Cookie": f"shoestring_session={cookie}".encode()},
    )
    assert refused.status_code == 401


def test_the_page_lets_nothing_foreign_in(gateway: RunningGateway, web: requests.Session):
    """Content policy, no framing, no sniffing, no referrer."""
    page = web.get(f"{gateway.url}/dashboard/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"


def test_health_says_nothing_but_health(gateway: RunningGateway, web: requests.Session):
    """It is the one thing that anybody may ask."""
    assert web.get(f"{gateway.url}/health").json() == {"status": "ok"}


def test_errors_do_not_name_the_server(gateway: RunningGateway, web: requests.Session):
    """No version, no path of the machine, no traceback."""
    answers = [web.get(gateway.url + "/x", headers=gateway.headers), web.get(gateway.url)]
    for answer in answers:
        assert "server" not in answer.headers
        json.loads(answer.content)
        assert "/" not in answer.json()["error"]["message"]
