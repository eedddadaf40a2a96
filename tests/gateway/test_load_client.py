"""The clients that users and benchmarks send to a gateway: what they say of a known server."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
MODEL = "truth-ttft20-itl5-n8"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_the_path():
    """Benchmarks are scripts that import each other by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def ask(truth_url, model=MODEL, **options):
    """Ask the known-truth server by the benchmarks' client."""
    from gateway_servers import question
    from load import CHAT, Line, Site, run

    site = Site(truth_url)

    async def once():
        line = Line(site)
        try:
            return await line.ask(site.post(CHAT, question(model, "hi", stream=True)), **options)
        finally:
            line.close()

    return run(once())


def script(name, *words):
    """Run one of the scripts."""
    command = [sys.executable, ROOT / "scripts" / name, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_stream_is_read_as_the_harness_reads_it(truth_url):
    """Text, usage and the server's own stamps come through, each part stamped after its sending."""
    made = ask(truth_url).read()
    assert made.failure is None
    assert (made.text, made.usage.completion_tokens) == ("w0 w1 w2 w3 w4 w5 w6 w7 ", 8)
    assert all(part["arrived_ns"] >= part["sent_ns"] for part in made.truth)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("+reset3", "reset"), ("+nofinal", "no_final_event"), ("+error3", "stream_error"),
     ("+http503", "http_error")],
)  # fmt: skip
def test_a_stream_without_its_end_is_a_failure(truth_url, behaviour, reason):
    """Whatever ends a stream early has its name."""
    assert ask(truth_url, MODEL + behaviour).read().failure.reason == reason


def test_an_endless_answer_ends_at_the_limit(truth_url):
    """The client hangs up and says why."""
    assert ask(truth_url, f"{MODEL}+stall2", limit_s=0.3).exchange.failure.reason == "deadline"


def test_nobody_there_is_an_answer_too():
    """A client of a dead server goes on."""
    from shoestring.engines.launch import free_port

    assert ask(f"http://127.0.0.1:{free_port()}").exchange.failure.reason == "connect"


def test_a_client_can_leave(truth_url):
    """After so many pieces it hangs up, which is no failure."""
    answer = ask(truth_url, f"{MODEL}+stall5", leave_after=2)
    assert answer.exchange.failure is None
    assert len(answer.exchange.arrivals) == 2


def test_a_closed_loop_asks_each_number_once_and_never_more_at_a_time(truth_url):
    """No request waits in the client, and none is lost where the server closes its connections."""
    from gateway_servers import question
    from load import CHAT, Site, closed_loop, run

    site, asked = Site(truth_url), []

    def request_of(number):
        asked.append(number)
        return site.post(CHAT, question(MODEL, str(number), stream=True))

    answers = run(closed_loop(site, request_of, range(9), 3))
    spans = [(a.exchange.sent_ns, a.exchange.end_ns) for a in answers]
    assert sorted(asked) == list(range(9))
    assert [a.exchange.failure for a in answers] == [None] * 9
    assert max(sum(s <= at < e for s, e in spans) for at, _ in spans) <= 3


def judged(asked, *, status=200, body=b"", failure=None):
    """Judge a made-up answer."""
    from gateway_asks import judge_answer
    from load import Answer

    from shoestring.engines.protocol import Failure
    from shoestring.engines.transport import Exchange

    stopped = None if failure is None else Failure(failure, "made up")
    exchange = Exchange(1, 2, 9, None, status, "text/event-stream", [(3, body)], stopped)
    return judge_answer(asked, Answer(exchange, {})).outcome


def stream_of(text, *, end=b"data: [DONE]\n\n", tokens=None):
    """Return an answer as OpenAI's servers stream it."""
    parts = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}]
    parts += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}] if end else []
    if tokens is not None:
        parts.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
    return b"".join(b"data: %s\n\n" % json.dumps(part).encode() for part in parts) + end


def test_only_the_right_words_or_a_clear_error_pass():
    """The campaign's judge lets nothing else through."""
    from gateway_asks import Asked, words_of

    asked = Asked("stream", "free", "/v1/chat/completions", {"stream": True}, words_of(3))
    bad = Asked("bad", "free", "/v1/chat/completions", b"{", None)
    clear = b'{"error": {"message": "m", "type": "t", "code": "c"}}'
    error = b"data: " + clear + b"\n\n"
    right = stream_of("w0 w1 w2 ", tokens=3)
    assert {
        "right": judged(asked, body=right),
        "other words": judged(asked, body=stream_of("w0 w1 w9 ", tokens=3)),
        "too short": judged(asked, body=stream_of("w0 w1 ", tokens=3)),
        "miscounted": judged(asked, body=stream_of("w0 w1 w2 ", tokens=2)),
        "cut in silence": judged(asked, body=stream_of("w0 ", end=b"")),
        "cut": judged(asked, body=stream_of("w0 ", end=b""), failure="reset"),
        "told": judged(asked, body=stream_of("w0 ", end=error)),
        "told after wrong words": judged(asked, body=stream_of("w7 ", end=error)),
        "refused": judged(asked, status=429, body=clear, failure="http_error"),
        "unclear": judged(asked, status=502, body=b"Bad Gateway", failure="http_error"),
        "nothing": judged(asked, status=None, failure="reset"),
        "hang": judged(asked, failure="deadline"),
        "bad, refused": judged(bad, status=400, body=clear, failure="http_error"),
        "bad, broken": judged(bad, status=500, body=clear, failure="http_error"),
        "bad, answered": judged(bad, body=right),
    } == {
        "right": "answered", "other words": "wrong", "too short": "wrong", "miscounted": "wrong",
        "cut in silence": "cut", "cut": "cut", "told": "stream error",
        "told after wrong words": "wrong", "refused": "refused", "unclear": "wrong",
        "nothing": "no answer", "hang": "hang", "bad, refused": "refused", "bad, broken": "wrong",
        "bad, answered": "wrong",
    }  # fmt: skip


def test_the_campaign_asks_everything():
    """In a few hundred draws every kind comes."""
    from gateway_asks import KINDS, draw_ask

    draw = random.Random(1)
    assert {draw_ask(draw).kind for _ in range(400)} == set(KINDS)


@pytest.mark.parametrize(("extra", "kept"), [(0, True), (1, True), (2, False)])
def test_one_request_above_a_limit_is_allowed_and_not_two(extra, kept):
    """Windows move: what was let through in any minute counts."""
    from gateway_counts import REQUESTS_A_MINUTE, Sighting, describe_limits

    second = 1_000_000_000
    late = range(30 * second, 30 * second + REQUESTS_A_MINUTE + extra - 1)
    seen = {"requests": [Sighting(at, at + 1, 5) for at in (1, *late, 95 * second)],
            "tokens": [], "concurrent": []}  # fmt: skip
    found = describe_limits(seen, [], 0)["requests a minute"]
    # The first one lies in the same minute as the late ones, the last does not.
    assert found["most"] == REQUESTS_A_MINUTE + extra
    assert found["kept"] is kept


def test_answers_at_once_are_counted_while_they_last():
    """Those that ended before another began are not at once with it."""
    from gateway_counts import Sighting, describe_limits

    spans = [(0, 10), (5, 20), (6, 8), (12, 30)]
    seen = {"requests": [], "tokens": [], "concurrent": [Sighting(a, b, 5) for a, b in spans]}
    assert describe_limits(seen, [], 0)["at once"]["most"] == 3


def test_windows_that_touch_an_outage_of_redis_are_told_apart():
    """The most of all windows counts; that of the undisturbed ones stands beside it."""
    from gateway_counts import Sighting, describe_limits

    second = 1_000_000_000
    seen = {"requests": [Sighting(at * second, at * second, 5) for at in (10, 11, 12, 300)],
            "tokens": [], "concurrent": []}  # fmt: skip
    found = describe_limits(seen, [(20 * second, 25 * second)], 0)["requests a minute"]
    assert (found["most"], found["most_redis_up"]) == (3, 1)


def test_the_load_client_gives_the_figures_of_a_run(truth_url, tmp_path):
    """One JSON object: the report of a run that stays."""
    done = script("load_client.py", "--base-url", truth_url, "--model", MODEL, "--requests", 10,
                  "--concurrency", 2, "--max-tokens", 8, "--out", tmp_path, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["requests"]["ok"] == 10
    assert figures["metrics"]["ttft_s"]["median"] > 0.02
    assert Path(figures["path"]).parent == tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--requests", "0"], "--requests 0: give 1 to 100000"),
        (["--concurrency", "4096"], "--concurrency 4096: give 1 to 1024"),
        (["--key-file", "no-such-file"], "cannot read --key-file no-such-file"),
    ],
)
def test_what_the_load_client_cannot_use_is_one_line(words, message):
    """It says which word, and what it takes."""
    done = script("load_client.py", "--base-url", "http://127.0.0.1:9", "--model", "m", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_the_functional_client_fails_before_a_server_that_is_no_gateway(truth_url, tmp_path):
    """Each check that does not hold is a line, and the status is 1."""
    key = tmp_path / "key"
    key.write_text("shoe_abcdefghij_" + "x" * 43)
    done = script("test_client.py", "--base-url", truth_url, "--key-file", key, "--json",
                  "--model", MODEL)  # fmt: skip
    assert done.returncode == 1, done.stderr
    results = {one["check"]: one["result"] for one in json.loads(done.stdout)["checks"]}
    assert (results["chat, streamed"], results["no key is refused"]) == ("pass", "FAIL")


def test_the_functional_client_passes_before_a_gateway(truth_url, tmp_path):
    """All of it works; what the engine lacks is skipped."""
    from gateway_servers import engine_section, our_gateway

    with our_gateway(tmp_path, "gateway", engine_section(truth_url, {MODEL: MODEL})) as server:
        key = tmp_path / "key"
        key.write_text(server.site.key)
        done = script("test_client.py", "--base-url", server.site.base_url, "--key-file", key,
                      "--model", MODEL, "--json")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = {one["check"]: one["result"] for one in json.loads(done.stdout)["checks"]}
    skipped = {name for name, result in results.items() if result == "skip"}
    assert skipped == {"embeddings", "headers of limits"}
