r"""What is logged: one JSON object a line on stderr, of the gateway and of its libraries alike.

Clients write into logs: names of models, headers, paths. So each line is JSON in ASCII, where a
newline, an escape sequence or a bidirectional mark is ``\n`` or ``\uXXXX`` and forges nothing;
texts and lists are cut; and what looks like a key, a header that holds one, or a password in an
address is replaced, wherever it stands, before it is written. Answers are never
logged, prompts only where the settings ask for them. ``docs/gateway-metrics.md`` shows a line.
"""

from __future__ import annotations

import json
import logging
import math
import re
import secrets
import sys
from collections.abc import Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from shoestring.gateway.activity import Outcome

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
TEXT_LIMIT = 4_000
"""Characters of a text; what is longer is cut and says so."""
LIMITS = {"exception": 20_000, "prompt": 200_000}
"""Fields that may be longer."""
ITEMS_LIMIT = 50
DEPTH_LIMIT = 4

HIDDEN = "[hidden]"
PROMPT_FIELD = "prompt"
SECRET_FIELDS = frozenset({
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key",
    "api_key", "password", "secret", "token", "presented",
})  # fmt: skip
SECRETS = (
    # Our own keys, whole or cut or with the underscore written for an address.
    (re.compile(r"shoe(?:_|%5f)[^\s_%]*(?:_|%5f)\S*", re.IGNORECASE), HIDDEN),
    (re.compile(r"\b((?:proxy-)?authorization|x-api-key|(?:set-)?cookie)(['\"]?\s*[:=]\s*)[^\r\n]+",
                re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), HIDDEN),  # what most other engines call theirs
    (re.compile(r"://[^/\s@]+@"), f"://{HIDDEN}@"),
)  # fmt: skip
HINT = re.compile(r"shoe[_%]|auth|cookie|key|bearer|basic|sk-|://", re.IGNORECASE)
"""In every text that one of the secrets is in; one look instead of five."""
SUSPECT = re.compile(r"shoe[_%]|auth|cookie|x-api|bearer|basic|sk-|://", re.IGNORECASE)
"""What each of these holds: most texts are looked at once."""
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")  # no underscore: no key fits

Parts = Mapping[Any, Any] | Collection[Any]

log: Any = structlog.get_logger()
"""The gateway's own logger: ``log.warning("redis lost", error=...)``."""


def configure(level: str = "info", stream: TextIO | None = None, *, prompts: bool = False) -> None:
    """Let the gateway and all libraries log to one stream in one form; may be called again.

    Start uvicorn with ``log_config=None, access_log=False``: the ``request`` lines say more.

    Args:
        level: the least that is written: ``debug``, ``info``, ``warning`` or ``error``.
        stream: stderr by default.
        prompts: keep the field ``prompt``.
    """
    stream = stream or sys.stderr
    cleaned = _Cleaned(prompts=prompts)
    stamped = structlog.processors.TimeStamper(fmt="iso", utc=True, key="t_utc")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _name,
        stamped,
        structlog.processors.format_exc_info,
        cleaned,
    ]
    # Two ways to one stream: ours is short, the libraries' goes through the standard library.
    structlog.configure(
        processors=[*shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.captureWarnings(capture=True)


def log_request(outcome: Outcome, *, prompt: object = None) -> None:
    """Write the one line of a request that has ended.

    Args:
        outcome: all of its fields are written.
        prompt: what was asked; written only where the settings ask for it.
    """
    fields = {name: getattr(outcome, name) for name in outcome.__slots__}
    fields["began_utc"] = fields.pop("t_utc")  # every line's t_utc is when it was written
    if prompt is not None:
        fields[PROMPT_FIELD] = prompt
    log.info("request", **fields)


def request_id(given: str | None) -> str:
    """Return a client's own id (``X-Request-ID``) where it is a plain word, else a new one."""
    if given is not None and REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(12)


def hide_secrets(text: str) -> str:
    """Return a text without what looks like a key or a password."""
    if HINT.search(text) is None:
        return text
    if SUSPECT.search(text):
        for pattern, instead in SECRETS:
            text = pattern.sub(instead, text)
    return text


class _Cleaned:
    """The step that lets no secret, no endless text and (unless asked) no prompt pass."""

    def __init__(self, *, prompts: bool) -> None:
        self._prompts = prompts

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for name, value in list(event.items()):
            if name in SECRET_FIELDS:
                event[name] = HIDDEN
            elif name == PROMPT_FIELD:
                del event[name]
                if self._prompts:
                    event[name] = _prompt_text(value)
            elif value is not None and name not in {"_record", "_from_structlog"}:
                event[name] = _clean(value, LIMITS.get(name, TEXT_LIMIT))
        return event


def _prompt_text(prompt: object) -> str:
    """Return a prompt as one text of JSON in ASCII: a line's length is bounded whatever it says.

    Whoever bills by the log reads these lines, and a client wrote this field's names and numbers.
    """
    limit = LIMITS[PROMPT_FIELD]
    text = json.dumps(_clean(prompt, limit))  # hidden in each part: in all at once it is no JSON
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more)"


def _clean(value: object, limit: int = TEXT_LIMIT, depth: int = 0) -> object:
    """Return a value that JSON can hold, without secrets, and not endless."""
    if isinstance(value, str):
        return _clean_text(value, limit)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, bytes | bytearray):
        return _clean_text(bytes(value).decode("utf-8", "backslashreplace"), limit)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _clean_parts(value, limit, depth)
    return _clean_text(str(value), limit)


def _clean_parts(value: Parts, limit: int, depth: int) -> object:
    if depth >= DEPTH_LIMIT:
        return f"... ({len(value)} parts)"
    if isinstance(value, Mapping):
        return {
            _clean_text(str(name)): HIDDEN if _is_secret(name) else _clean(part, limit, depth + 1)
            for name, part in islice(value.items(), ITEMS_LIMIT)
        }
    return [_clean(part, limit, depth + 1) for part in islice(value, ITEMS_LIMIT)]


def _clean_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Hide first, cut then: half of a secret would not be known for one."""
    left_out = len(text) - limit
    if left_out > 0:
        # A secret may begin before the cut, so a little more than the limit is looked at.
        text = hide_secrets(text[: limit + 200])[:limit] + f"... ({left_out} more)"
    else:
        text = hide_secrets(text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _is_secret(name: object) -> bool:
    if isinstance(name, bytes | bytearray):
        name = bytes(name).decode("latin-1")
    return isinstance(name, str) and name.lower() in SECRET_FIELDS


def _name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.setdefault("logger", "shoestring.gateway")  # a library's line has its name already
    return event


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return json.dumps(event, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
