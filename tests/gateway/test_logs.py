"""What is logged: one object a line whatever clients write, no secret, no prompt unless asked."""

import io
import json
import logging
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shoestring.gateway import logs
from shoestring.gateway.activity import Outcome
from shoestring.gateway.logs import HIDDEN, configure, hide_secrets, log, log_request, request_id

KEY = "shoe_ABCDEFGHIJ_" + "s3cret-_" * 5 + "abc"
OUTCOME = Outcome(
    request_id="r1", t_utc="2026-11-22T00:00:00Z", key_id="k1", key_name="ana",
    address="127.0.0.1", operation="chat", model="qwen3:8b", variant="q4", engine="local",
    provider="ollama", status=200, failure=None, stream=True, cache="miss", queue_s=0.5,
    ttft_s=1.0, duration_s=2.0, input_tokens=10, output_tokens=20, answered_by="qwen3:8b",
)  # fmt: skip
UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


@pytest.fixture(autouse=True)
def restored():
    """Leave logging as it was: it belongs to the whole process."""
    loggers = [logging.getLogger(name) for name in ("", *UVICORN)]
    before = [(lg, lg.handlers[:], lg.level, lg.propagate) for lg in loggers]
    yield
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def written():
    """Return what configures the logs and gives the lines that were written since."""
    stream = io.StringIO()

    def lines(level="info", **more):
        configure(level, stream, **more)
        stream.truncate(stream.seek(0))
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    lines.stream = stream
    return lines


def test_a_request_is_one_line_with_all_that_came_of_it(written):
    """Time, level and logger beside the fields of the outcome."""
    lines = written()
    log_request(OUTCOME)
    (line,) = lines()
    assert line["event"] == "request"
    assert (line["level"], line["logger"]) == ("info", "shoestring.gateway")
    assert line["t_utc"].endswith("Z")
    assert line["began_utc"] == "2026-11-22T00:00:00Z"
    expected = {name: getattr(OUTCOME, name) for name in Outcome.__slots__ if name != "t_utc"}
    assert expected.items() <= line.items()


def test_prompts_are_left_out_unless_asked_for(written):
    """Whoever logs them, and wherever."""
    lines = written()
    log_request(OUTCOME, prompt="my diary")
    log.info("other", prompt="my diary")
    assert "diary" not in written.stream.getvalue()
    assert len(lines()) == 2
    lines = written(prompts=True)
    log_request(OUTCOME, prompt=[{"role": "user", "content": "my diary"}])
    assert json.loads(lines()[0]["prompt"]) == [{"role": "user", "content": "my diary"}]


def test_a_secret_in_a_prompt_is_hidden_to_its_own_end(written):
    """What a message says after it, and the next message, stay; and the field stays JSON."""
    lines = written(prompts=True)
    log_request(OUTCOME, prompt=[{"content": "cookie: a\nb"}, {"content": f"my diary, {KEY}"}])
    assert json.loads(lines()[0]["prompt"]) == [
        {"content": f"cookie: {HIDDEN}\nb"}, {"content": f"my diary, {HIDDEN}"}
    ]  # fmt: skip
    log_request(OUTCOME, prompt=[{"content": "é" * 100_000}])
    assert len(lines()[1]["prompt"]) == logs.LIMITS["prompt"] + len("... (400017 more)")
    assert lines()[1]["prompt"].endswith("\\u00e9... (400017 more)")


@given(st.text(), st.text())
def test_a_client_forges_no_line(text, name):
    """Whatever it writes: one line, ASCII, one object, and the event stays ours."""
    stream = io.StringIO()
    configure("info", stream)
    log.info("model unknown", model=text, headers={name: text}, parts=[text])
    printed = stream.getvalue()
    assert printed.count("\n") == 1
    assert printed.isascii()
    assert printed.rstrip("\n").isprintable()
    assert json.loads(printed)["event"] == "model unknown"


def test_an_attackers_line_stays_one_value(written):
    """Newlines, terminal escapes, other line ends, marks that turn the text."""
    lines = written()
    evil = 'x\n{"event":"request","status":200}\r\x1b[2J\u2028\u202e\x85\x7f\ud800'
    log.warning("refused", model=evil)
    (line,) = lines()
    assert line["model"] == evil.replace("\ud800", "?")
    assert "\x1b" not in written.stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Bearer {KEY}",
        f"key={KEY}&model=x",
        KEY.replace("_", "%5F"),
        KEY.lower(),
        KEY[:20],  # cut in its secret
        f"({KEY})",
        "Authorization: Basic dXNlcjpzM2NyZXQtcGFzc3dvcmQ=",
        "authorization: Bearer s3cret",
        "{'authorization': 's3cret'}",
        "{'Cookie': 'session=s3cret; a=b'}",
        "bearer s3cret-s3cret",
        "sk-s3cret-s3cret",
        "redis://:s3cret@redis:6379/0 refused",
        "redis://user:s3cret@redis:6379/0 refused",
    ],
)
def test_no_secret_is_written(written, text):
    """In a message, a value, a nested value, bytes, an exception."""
    lines = written()
    log.info(f"said {text}", value=text, nested={"a": [text]}, raw=text.encode())
    log.error("failed", exc_info=ValueError(text))
    logging.getLogger("uvicorn.error").warning("odd request %s", text)
    printed = written.stream.getvalue().lower()
    assert "s3cr" not in printed
    assert "dxnlcj" not in printed
    assert printed.count(HIDDEN) >= 6
    assert len(lines()) == 3


@pytest.mark.parametrize(
    "name", ["Authorization", "cookie", "X-API-Key", "password", b"authorization"]
)
def test_a_secret_header_is_hidden_by_its_name(written, name):
    """Even where its value looks like nothing."""
    lines = written()
    log.info("headers", headers={name: "plain"})
    (hidden,) = lines()[0]["headers"].values()
    assert hidden == HIDDEN


@pytest.mark.parametrize(
    "text", ["qwen3:8b", "horseshoe_crab", "http://ollama:11434/api", "basic rate", "input_tokens"]
)
def test_plain_words_stay(text):
    """What only resembles a secret is not hidden."""
    assert hide_secrets(text) == text


@given(st.text(alphabet="shoe_%5fFABC \n:/@", max_size=300))
def test_hiding_ends_and_is_done_once(text):
    """What was hidden is not found again."""
    hidden = hide_secrets(text)
    assert hide_secrets(hidden) == hidden


def test_long_texts_and_lists_are_cut(written):
    """A log cannot be filled by one request; and a cut leaves no half of a key."""
    lines = written()
    filler = "x" * (logs.TEXT_LIMIT - 30)
    log.info("long", text="y" * 100_000, items=list(range(1_000)), keyed=filler + " " + KEY * 3)
    (line,) = lines()
    assert len(line["text"]) < logs.TEXT_LIMIT + 50
    assert line["text"].endswith(f"({100_000 - logs.TEXT_LIMIT} more)")
    assert len(line["items"]) == logs.ITEMS_LIMIT
    assert "s3cr" not in json.dumps(line)


def test_deep_values_end(written):
    """However deep a client nests."""
    deep: list = []
    for _ in range(1_000):
        deep = [deep]
    lines = written()
    log.info("deep", deep=deep)
    assert "parts" in json.dumps(lines()[0])


def test_a_number_that_json_cannot_hold_is_null(written):
    """Missing is null."""
    lines = written()
    log.info("odd", nan=float("nan"), inf=float("inf"), plain=0.5)
    assert (lines()[0]["nan"], lines()[0]["inf"], lines()[0]["plain"]) == (None, None, 0.5)


def test_libraries_write_the_same_form(written):
    """Uvicorn's own handlers are gone, whatever it had set up before; Python's warnings too."""
    for name in UVICORN:
        logging.getLogger(name).addHandler(logging.StreamHandler(written.stream))
        logging.getLogger(name).propagate = False
    lines = written()
    logging.getLogger("uvicorn.error").info("started on %s", "x")
    logging.getLogger("uvicorn.access").info('%s - "%s"', "1.2.3.4", "GET /\nforged")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=False)
        configure("info", written.stream)
        warnings.warn("odd", stacklevel=1)
        logging.captureWarnings(capture=False)
    first, second, third = lines()
    assert (first["event"], first["logger"], first["level"]) == (
        "started on x",
        "uvicorn.error",
        "info",
    )
    assert second["event"] == '1.2.3.4 - "GET /\nforged"'
    assert (third["logger"], third["level"]) == ("py.warnings", "warning")


def test_a_traceback_is_a_field_of_one_line(written):
    """Of ours and of a library's."""
    lines = written()
    for logger in (log, logging.getLogger("asyncio")):
        logger.error("failed", exc_info=ZeroDivisionError("oh"))
    ours, theirs = lines()
    assert ours["exception"].endswith("ZeroDivisionError: oh")
    assert theirs["exception"].endswith("ZeroDivisionError: oh")


def test_below_the_level_nothing_is_written(written):
    """Neither ours nor a library's."""
    lines = written("warning")
    log_request(OUTCOME)
    logging.getLogger("uvicorn.error").info("started")
    log.warning("lost")
    assert [line["event"] for line in lines()] == ["lost"]


def test_a_second_configuration_takes_over(written):
    """One handler, not two."""
    written()
    lines = written()
    logging.getLogger("asyncio").warning("slow")
    assert len(lines()) == 1


def test_what_is_bound_to_a_request_is_on_its_lines(written):
    """The id, on every line in between, also a library's."""
    lines = written()
    with structlog.contextvars.bound_contextvars(request_id="r7"):
        log.info("asked")
        logging.getLogger("aiohttp").warning("retried")
    log.info("idle")
    assert [line.get("request_id") for line in lines()] == ["r7", "r7", None]


@pytest.mark.parametrize("given_id", ["abc", "0-9.z", "a" * 64, "550e8400-e29b-41d4-a716"])
def test_a_plain_request_id_is_kept(given_id):
    """So that a proxy's lines and ours can be joined."""
    assert request_id(given_id) == given_id


@pytest.mark.parametrize("given_id", [None, "", "a" * 65, "a b", "a\n", "\u0661", "-a", KEY, "a_b"])
def test_any_other_request_id_is_replaced(given_id):
    """By a random one, which is a plain word itself."""
    made = request_id(given_id)
    assert made != given_id
    assert request_id(made) == made
    assert request_id(None) != made
